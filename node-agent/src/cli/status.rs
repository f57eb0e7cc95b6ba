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
        (
            "configuration",
            format!("generation {}, {} refused", agent.generation, agent.config_errors),
        ),
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
    for check in &status.checks {
        let (mark, detail) = match check.ok {
            true => (colours.green("ok"), String::new()),
            false => (
                colours.red("failed"),
                format!(": {}", output::printable(&check.detail)),
            ),
        };
        let _ = writeln!(text, "check {:8} {mark}{detail}", output::printable(&check.name));
    }
    text
}
