//! `tramline policies`.

use std::path::Path;

use super::client;
use super::exit::Failure;
use super::output::{self, OutputArgs, Table, View};
use crate::observe::admin::api::PolicyOverview;

pub(super) fn run(socket: &Path, args: &OutputArgs) -> Result<(), Failure> {
    let policies: Vec<PolicyOverview> = client::get(socket, "/policies")?;
    output::show_list(args.output, &policies, "policies", |view| table(&policies, view))?;
    let refused = policies.iter().filter(|policy| !policy.accepted).count();
    if refused > 0 && args.output == output::Output::Table {
        output::talk(&format!(
            "{refused} of {} are not enforced as written; -o wide says why",
            policies.len()
        ));
    }
    Ok(())
}

pub(super) fn table(policies: &[PolicyOverview], view: View) -> Table {
    let mut header = vec!["KIND", "NAMESPACE", "NAME", "ACTION", "SCOPE", "PODS", "ACCEPTED"];
    if view.wide {
        header.extend(["SELECTS", "RULES", "CONDITIONS", "APPLIES-TO", "ORIGIN"]);
    }
    let mut table = Table::new(&header);
    for policy in policies {
        let action = if policy.dry_run {
            format!("{} (dry run)", policy.action)
        } else {
            policy.action.clone()
        };
        let kind = match policy.kind.as_str() {
            "AuthorizationPolicy" if !view.wide => "authz",
            "PeerAuthentication" if !view.wide => "peer",
            kind => kind,
        };
        let mut row = vec![
            kind.to_owned(),
            policy.namespace.clone(),
            policy.name.clone(),
            action,
            policy.scope.clone(),
            policy.workloads_total.to_string(),
            accepted(policy),
        ];
        if view.wide {
            row.extend(details(policy));
        }
        table.row(row);
    }
    table
}

fn accepted(policy: &PolicyOverview) -> String {
    match policy.conditions.first() {
        _ if policy.accepted => "yes".to_owned(),
        Some(condition) => format!("no: {}", condition.reason),
        None => "no".to_owned(),
    }
}

fn details(policy: &PolicyOverview) -> [String; 5] {
    let or_none = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let rules: Vec<_> = policy
        .rules
        .iter()
        .enumerate()
        .map(|(index, rule)| format!("[{index}] {rule}"))
        .collect();
    let conditions: Vec<_> = policy
        .conditions
        .iter()
        .map(|condition| format!("{}: {}: {}", condition.reason, condition.field, condition.message))
        .collect();
    let mut workloads = policy.workloads.join(",");
    if policy.workloads_total > policy.workloads.len() {
        workloads.push_str(&format!(
            " and {} more",
            policy.workloads_total - policy.workloads.len()
        ));
    }
    [
        or_none(policy.selects.clone().unwrap_or_default()),
        or_none(rules.join(" ")),
        or_none(conditions.join(" ")),
        or_none(workloads),
        or_none(policy.origin.clone().unwrap_or_default()),
    ]
}
