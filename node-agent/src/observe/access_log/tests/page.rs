//! `docs/ACCESS_LOG.md`, made from what is written.

use std::fmt::Write as _;

use super::super::fields::FIELDS;
use super::hostile::read_text;
use super::*;
use crate::observe::KernelCarried;
use crate::observe::test_support::denied_by;

fn full() -> Entry {
    let outcome = Outcome::new(Reason::PolicyDenied)
        .with_policy("default/no-sleep")
        .with_detail("rule 1 of a DENY policy");
    let mut entry = entry(Reporter::Destination, outcome);
    entry.info.kernel = Some(KernelCarried {
        srtt_us: 40,
        retransmits: 1,
    });
    entry.info.dry_run = Some(Arc::new(denied_by("no-sleep-v2")));
    entry
}

#[test]
fn a_line_has_the_documented_fields_in_the_documented_order() {
    let names = |line: &str| -> Vec<String> { read_text(line).into_iter().map(|(name, _)| name).collect() };
    let documented = || FIELDS.iter().filter(|field| field.name != "dropped");
    let all: Vec<_> = documented().map(|field| field.name).collect();
    assert_eq!(names(&line_of(&full(), Format::Text)), all);
    let mut bare = full();
    bare.connect = None;
    bare.outcome = Outcome::new(Reason::Ok);
    let info = &mut bare.info;
    (info.source, info.destination, info.service, info.trace) = (None, None, None, None);
    (info.dry_run, info.kernel) = (None, None);
    (
        info.source_identity,
        info.destination_identity,
        info.hbone_address,
    ) = (None, None, None);
    let always: Vec<_> = documented()
        .filter(|field| field.always)
        .map(|field| field.name)
        .collect();
    assert_eq!(names(&line_of(&bare, Format::Text)), always);
    let mut losses = String::new();
    format::losses(&mut losses, UNIX_EPOCH, 3, Format::Text);
    assert_eq!(losses, "time=1970-01-01T00:00:00.000Z dropped=3\n");
}

#[test]
fn docs_access_log_md_is_current() {
    let mut page = String::from(
        "# Access log\n\n\
         One line for each connection when it ends, also for those refused by the agent or by its programs in the kernel. \
         `--access-log` says where: `stdout`,\n`off`, or a file; `--access-log-format` whether as `json` or as `text`, \
         `name=value` with values that are not one plain word as JSON strings.\nField names are ztunnel's where it has \
         the field. This page is made from `node-agent/src/observe/access_log/fields.rs`; `TRAMLINE_BLESS=1 cargo test \
         -p tramline-node-agent docs_`\nwrites it anew.\n\n\
         | field | present | meaning |\n|---|---|---|\n",
    );
    for field in &FIELDS {
        let present = if field.always { "always" } else { "if known" };
        let _ = writeln!(page, "| `{}` | {present} | {} |", field.name, field.meaning);
    }
    let (json, text) = (line_of(&full(), Format::Json), line_of(&full(), Format::Text));
    let _ = write!(
        page,
        "\nThe same line as JSON and as text:\n\n```\n{json}```\n\n```\n{text}```\n\n"
    );
    page.push_str(
        "## What can be relied on\n\n\
         - **One line, whatever bytes a peer sends**: control characters, line separators and direction marks are escaped, \
           invalid UTF-8 is\n  replaced, a value ends after 1,024 bytes with `...`.\n\
         - **A reader cannot slow a connection**: lines wait in a queue of 65,536 for the one thread that writes. What \
           finds it full is dropped,\n  counted (`tramline_access_log_dropped_total`), and told by a line with `dropped` \
           as soon as lines are written again.\n\
         - **Rotation**: move or remove the file; the agent makes it anew, with mode 0640, at once on SIGHUP, \
           else with\n  the first line more than a second later; until then lines go into the moved file. Copying and truncating works too. \
           A file that cannot be opened leaves the one in use, with a\n  warning. A FIFO must have a reader when the \
           agent starts.\n\
         - **A full disk** drops lines and counts them. The line it broke off in is closed by a line end: that one line is \
           not valid, the next one is.\n\
         - At SIGTERM the connections that are still open get their lines (`cancelled`), and all lines that wait two seconds to \
           be written. Connections\n  that the agent carries when it is killed have no line.\n",
    );
    crate::observe::test_support::assert_document("ACCESS_LOG.md", &page);
}
