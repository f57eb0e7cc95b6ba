//! An explanation for people.

use std::fmt::Write as _;

use crate::cli::output::{Colours, View, printable};
use crate::observe::admin::api::{
    CaptureReport, Conclusion, ExplainEndpoint, ExplainReport, FieldStep, MtlsStep, PolicyExplanation,
    PolicyStep, Scope,
};

/// Width of the first column.
const MARGIN: usize = 10;

/// Lines that end where the terminal does.
struct Page {
    text: String,
    columns: usize,
    colours: Colours,
}

impl Page {
    fn new(view: View) -> Self {
        Self {
            text: String::new(),
            columns: if view.wide { usize::MAX } else { view.columns },
            colours: view.colours,
        }
    }

    /// A paragraph under a label in the margin, further lines indented by `indent` more.
    fn line(&mut self, label: &str, indent: usize, text: &str) {
        let at = MARGIN + indent;
        let mut first = format!("{label:MARGIN$}{:indent$}", "");
        for line in wrap(&printable(text), self.columns.saturating_sub(at), 2) {
            let _ = writeln!(self.text, "{}", format!("{first}{line}").trim_end());
            first = " ".repeat(at);
        }
    }

    fn gap(&mut self) {
        self.text.push('\n');
    }
}

/// Whether a pod is captured.
pub(super) fn capture(report: &CaptureReport, view: View) -> String {
    let mut page = Page::new(view);
    let capture = &report.capture;
    let pod = report.source.pod.as_deref().unwrap_or("-");
    page.line("pod", 0, pod);
    page.line(
        "captured",
        0,
        &yes_because(capture.captured, &capture.code, &capture.text),
    );
    if let Some(fix) = &capture.fix {
        page.line("remedy", 0, fix);
    }
    let list = |items: Vec<String>| items.join(", ");
    let excluded = &report.exclusions;
    for (what, items) in [
        (
            "what it dials by port",
            excluded.outbound_ports.iter().map(ToString::to_string).collect(),
        ),
        ("what it dials by address", excluded.outbound_cidrs.clone()),
        (
            "its own ports",
            excluded
                .inbound_ports
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>(),
        ),
    ] {
        if !items.is_empty() {
            page.line("excluded", 0, &format!("{what}: {}", list(items)));
        }
    }
    view_of(&mut page, &report.agent_node, report.generation);
    page.text
}

/// What would happen to a connection.
pub(super) fn connection(report: &ExplainReport, from: &str, to: &str, view: View) -> String {
    let mut page = Page::new(view);
    let said = &report.explanation;
    let name = said.source.pod.as_deref().unwrap_or(from);
    page.line(
        "from",
        0,
        &match &said.source.node {
            Some(node) => format!("{name} on node {node}"),
            None => name.to_owned(),
        },
    );
    let dialled: Vec<_> = said
        .destination
        .addresses
        .iter()
        .map(ToString::to_string)
        .collect();
    let dialled = dialled.join(", ");
    page.line(
        "to",
        0,
        &match &said.destination.service {
            Some(service) => format!("{to}: Service {service}, dialled as {dialled}"),
            None if dialled == to => dialled,
            None => format!("{to}: dialled as {dialled}"),
        },
    );
    let capture = &said.capture;
    page.line(
        "captured",
        0,
        &yes_because(capture.captured, &capture.code, &capture.text),
    );
    page.line(
        "identity",
        0,
        said.source
            .identity
            .as_deref()
            .unwrap_or("none: it comes in plaintext"),
    );
    let mut shown: Vec<&ExplainEndpoint> = Vec::new();
    for endpoint in said
        .endpoints
        .iter()
        .filter(|endpoint| endpoint.left_out.is_none())
    {
        page.gap();
        page.line("endpoint", 0, &endpoint_head(endpoint));
        let same = |other: &&&ExplainEndpoint| {
            other.policy == endpoint.policy && other.conclusion == endpoint.conclusion
        };
        match (&endpoint.policy, shown.iter().find(same)) {
            (Some(_), Some(first)) => {
                page.line(
                    "",
                    0,
                    &format!("the same policies and answer as {}", first.address),
                );
            }
            (policy, _) => {
                if let Some(policy) = policy {
                    policies(&mut page, policy);
                }
                if let Some(conclusion) = &endpoint.conclusion {
                    page.line("", 0, &format!("=> {}", conclusion.text));
                }
            }
        }
        shown.push(endpoint);
    }
    let left_out: Vec<_> = said
        .endpoints
        .iter()
        .filter_map(|endpoint| Some((endpoint, endpoint.left_out.as_ref()?)))
        .collect();
    if !left_out.is_empty() {
        page.gap();
    }
    for (endpoint, why) in left_out {
        let pod = endpoint
            .pod
            .as_ref()
            .map_or_else(String::new, |pod| format!(" {pod}"));
        page.line("left out", 0, &format!("{}{pod}: {why}", endpoint.address));
    }
    if said.endpoints_omitted > 0 {
        page.line("", 0, &format!("and {} more endpoints", said.endpoints_omitted));
    }
    page.gap();
    verdict(&mut page, &said.conclusion);
    view_of(&mut page, &report.agent_node, report.generation);
    page.text
}

fn yes_because(yes: bool, code: &str, text: &str) -> String {
    if yes {
        format!("yes: {text}")
    } else {
        format!("no ({code}): {text}")
    }
}

fn endpoint_head(endpoint: &ExplainEndpoint) -> String {
    let mut head = endpoint.address.to_string();
    if let Some(pod) = &endpoint.pod {
        let _ = write!(head, " {pod}");
    }
    if let Some(node) = &endpoint.node {
        let _ = write!(head, " on node {node}");
    }
    let _ = write!(
        head,
        ", {}",
        match endpoint.path.as_deref() {
            Some("same_node") => "within the node, both identities known",
            Some("hbone") => "by a tunnel with mutual TLS",
            Some("passthrough") => "passed through as it is",
            Some("plaintext") => "in plaintext",
            Some(other) => other,
            None => "not tried",
        }
    );
    if endpoint.avoided {
        head.push_str("; others come first: it could not be reached just now");
    }
    head
}

fn policies(page: &mut Page, policy: &PolicyExplanation) {
    if let Some(mtls) = &policy.mtls {
        page.line("", 0, &mtls_text(mtls));
    }
    if policy.policies.is_empty() {
        page.line("", 0, "no AuthorizationPolicy applies");
    }
    for step in &policy.policies {
        policy_step(page, step);
    }
    if let Some(dry_run) = &policy.dry_run {
        let text = format!("with the dry-run policies enforced it would be {}", dry_run.text);
        page.line("", 0, &text);
    }
}

fn mtls_text(mtls: &MtlsStep) -> String {
    let asks = if mtls.strict {
        "requires mutual TLS"
    } else {
        "takes plaintext too"
    };
    let passes = if mtls.passed { "passes" } else { "refused" };
    match &mtls.policy {
        Some(policy) => format!("PeerAuthentication {policy}: port {} {asks}: {passes}", mtls.port),
        None => format!("no PeerAuthentication: port {} {asks}: {passes}", mtls.port),
    }
}

fn policy_step(page: &mut Page, step: &PolicyStep) {
    let scope = match &step.scope {
        Scope::Mesh => "the whole mesh".to_owned(),
        Scope::Namespace => "its namespace".to_owned(),
        Scope::Selector(labels) => labels.clone(),
        Scope::Target(targets) => format!("{targets}, which it closes"),
    };
    let asked = match (step.enforced, step.dry_run, step.asked) {
        (false, true, _) => " (dry run: decides nothing)",
        (false, false, _) => " (only marks)",
        (true, _, false) => " (not asked: decided before)",
        (true, _, true) => "",
    };
    page.line(
        "",
        0,
        &format!("{} {} for {scope}{asked}", step.action, step.policy),
    );
    if step.rules.is_empty() {
        page.line("", 2, "no rules: matches nothing");
    }
    for rule in &step.rules {
        let decides = step.decides && step.matched == Some(rule.rule);
        let matches = match (rule.matched, decides) {
            (true, true) => "matches, and decides",
            (true, false) => "matches",
            (false, _) => "does not match",
        };
        page.line("", 2, &format!("rule {}: {matches}", rule.rule));
        for field in &rule.fields {
            page.line("", 4, &field_text(field));
        }
        if let Some(note) = &rule.note {
            page.line("", 4, note);
        }
    }
}

fn field_text(field: &FieldStep) -> String {
    let sign = if field.matched { "yes" } else { "no " };
    let FieldStep {
        clause,
        entry,
        field: name,
        wanted,
        actual,
        ..
    } = field;
    if name == "*" {
        return format!("{sign} {clause}[{entry}]: {wanted}");
    }
    let actual = actual.as_deref().unwrap_or("no identity");
    format!("{sign} {clause}[{entry}].{name}: wants {wanted}; is {actual}")
}

fn verdict(page: &mut Page, conclusion: &Conclusion) {
    let colours = page.colours;
    let word = match conclusion.verdict.as_str() {
        "allow" => colours.green("ALLOWED   "),
        "deny" => colours.red("DENIED    "),
        "mixed" => colours.yellow("MIXED     "),
        _ => colours.red("NO WAY    "),
    };
    let text = match conclusion.reason.as_str() {
        "ok" => conclusion.text.clone(),
        reason => format!("{reason}: {}", conclusion.text),
    };
    // Without its colour codes the word is as wide as the margin.
    let before = page.text.len();
    page.line("", 0, &text);
    page.text.replace_range(before..before + MARGIN, &word);
    for (index, change) in conclusion.changes.iter().enumerate() {
        page.line(if index == 0 { "remedy" } else { "or" }, 0, change);
    }
}

fn view_of(page: &mut Page, node: &str, generation: u64) {
    let text = format!("the agent of node {node}, configuration {generation}");
    page.line("says", 0, &text);
}

/// Breaks at blanks, and within words that are longer than a line. Lines after the first are indented by `hang`.
fn wrap(text: &str, width: usize, hang: usize) -> Vec<String> {
    let width = width.max(hang + 8);
    let mut lines = Vec::new();
    let mut line = String::new();
    let mut used = 0;
    for word in text.split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        let gap = usize::from(used > 0 && !line.trim().is_empty());
        if used + gap + word.len() > width && !line.trim().is_empty() {
            lines.push(std::mem::take(&mut line));
            line = " ".repeat(hang);
            used = hang;
        } else if gap == 1 {
            line.push(' ');
            used += 1;
        }
        while used + word.len() > width {
            let rest = word.split_off(width - used);
            line.extend(word);
            lines.push(std::mem::take(&mut line));
            line = " ".repeat(hang);
            used = hang;
            word = rest;
        }
        used += word.len();
        line.extend(word);
    }
    lines.push(line);
    lines
}
