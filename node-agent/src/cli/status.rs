//! `tramline status`.

use std::fmt::Write as _;
use std::path::Path;

use super::client;
use super::exit::{Exit, Failure};
use super::output::{self, Colours, OutputArgs};
use crate::observe::admin::api::Status;

pub(super) fn run(socket: &Path, args: &OutputArgs) -> Result<(), Failure> {
    let status: Status = client::get(socket, "/status")?;
    output::show(args.output, &status, |view| text(&status, view.colours))?;
    if status.ready {
        Ok(())
    } else {
        Err(Failure::new(Exit::Unhealthy, "the agent is not ready"))
    }
}

fn configuration(status: &Status) -> String {
    let agent = &status.agent;
    let from = match agent.config_from.as_str() {
        "last_good" => " (the last good one, from the state directory)",
        _ => "",
    };
    match agent.config_errors {
        0 => format!("generation {}{from}", agent.generation),
        errors => format!(
            "generation {}{from}; the directory is refused, errors: {errors}",
            agent.generation
        ),
    }
}

pub(super) fn text(status: &Status, colours: Colours) -> String {
    let agent = &status.agent;
    let mut facts = vec![
        (
            "ready",
            if status.ready {
                colours.green("yes")
            } else {
                colours.red("no")
            },
        ),
        ("node", agent.node.clone()),
        ("instance", agent.instance.clone()),
        ("version", format!("{} ({})", status.version, status.commit)),
        ("pid", status.pid.to_string()),
        ("up", output::age(status.uptime_seconds)),
        ("trust domain", agent.trust_domain.clone()),
        ("configuration", configuration(status)),
        ("enrolled pods", agent.enrolled.to_string()),
        ("connections", status.connections.to_string()),
        ("log level", status.log_level.clone()),
    ];
    facts.extend(
        agent
            .details
            .iter()
            .map(|(name, value)| (name.as_str(), value.clone())),
    );
    let mut text = String::new();
    for (name, value) in facts {
        // The value of `ready` carries its own colour codes; every other one is made printable.
        let value = if name == "ready" {
            value
        } else {
            output::printable(&value)
        };
        let _ = writeln!(text, "{name:14} {value}");
    }
    for problem in &agent.config_problems {
        let _ = writeln!(text, "{:14} {}", "refused", output::printable(problem));
    }
    for check in &status.checks {
        let mark = if check.ok {
            colours.green("ok")
        } else {
            colours.red("failed")
        };
        let detail = match check.detail.as_str() {
            "" => String::new(),
            detail => format!(": {}", output::printable(detail)),
        };
        let _ = writeln!(text, "check {:8} {mark}{detail}", output::printable(&check.name));
    }
    text
}
