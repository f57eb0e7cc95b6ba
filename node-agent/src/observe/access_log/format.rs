//! One record as one line; both formats write the same fields in the same order.

use std::fmt::{Display, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use time::OffsetDateTime;
use tramline_core::workload::Workload;

use super::super::record::{Reporter, Verdict};
use super::{Entry, Format, escape};

/// Appends `entry` and a line end to `out`.
pub(super) fn line(out: &mut String, entry: &Entry, format: Format) {
    let mut line = Line {
        out,
        format,
        first: true,
        value: String::new(),
    };
    line.begin();
    fields(&mut line, entry);
    line.end();
}

/// Appends a line that says how many lines are missing before it.
pub(super) fn losses(out: &mut String, time: SystemTime, lost: u64, format: Format) {
    let mut line = Line {
        out,
        format,
        first: true,
        value: String::new(),
    };
    line.begin();
    line.time("time", time);
    line.number("dropped", lost);
    line.end();
}

/// Names follow ztunnel's access log where it has the field.
fn fields(line: &mut Line<'_>, entry: &Entry) {
    let info = &entry.info;
    line.time("time", entry.time);
    line.time("start", start(entry));
    line.text("direction", info.reporter.direction());
    line.optional("trace_id", info.trace.as_ref());
    line.address("src.addr", info.source_address);
    workload(line, ["src.workload", "src.namespace"], info.source.as_deref());
    let [source, destination] = info.clusters(&entry.cluster);
    line.optional("src.cluster", source);
    line.optional("src.identity", info.source_identity.as_ref());
    line.address("dst.addr", info.destination_address);
    line.address("dst.original", info.original_destination);
    line.optional("dst.hbone_addr", info.hbone_address.as_ref());
    line.optional(
        "dst.service",
        info.service.as_ref().map(|service| &service.hostname),
    );
    workload(
        line,
        ["dst.workload", "dst.namespace"],
        info.destination.as_deref(),
    );
    line.optional("dst.cluster", destination);
    line.optional("dst.identity", info.destination_identity.as_ref());
    let (sent, received) = match info.reporter {
        Reporter::Source => (entry.to_destination, entry.to_source),
        Reporter::Destination => (entry.to_source, entry.to_destination),
    };
    // As in ztunnel: what the workload at this side sent and received.
    line.number("bytes_sent", sent);
    line.number("bytes_recv", received);
    line.number(
        "duration_ms",
        u64::try_from(entry.duration.as_millis()).unwrap_or(u64::MAX),
    );
    if let Some(connect) = entry.connect {
        line.milliseconds("connect_ms", connect);
    }
    line.text("path", info.path.as_str());
    if let Some(kernel) = &info.kernel {
        line.text("carried_by", "kernel");
        line.number("srtt_us", kernel.srtt_us.into());
        line.number("retransmits", kernel.retransmits.into());
    }
    line.text("security", info.security_policy.as_str());
    line.text("verdict", entry.outcome.verdict().as_str());
    line.text("reason", entry.outcome.reason.as_str());
    line.text("response_flags", entry.outcome.reason.response_flags());
    line.optional("policy", entry.outcome.policy.as_ref());
    line.optional("detail", entry.outcome.detail.as_ref());
    if let Some(decision) = &info.dry_run {
        line.text("dry_run", Verdict::of_decision(decision).as_str());
        line.optional("dry_run_policy", decision.policy());
        line.shown("dry_run_detail", decision);
    }
}

fn workload(line: &mut Line<'_>, [name, namespace]: [&str; 2], workload: Option<&Workload>) {
    line.optional(name, workload.map(|workload| &workload.name));
    line.optional(namespace, workload.map(|workload| &workload.namespace));
}

/// By the clock that tells the end: `time` minus `duration_ms`, whatever was done to the clock meanwhile.
fn start(entry: &Entry) -> SystemTime {
    entry.time.checked_sub(entry.duration).unwrap_or(entry.time)
}

/// A line being written.
struct Line<'a> {
    out: &'a mut String,
    format: Format,
    first: bool,
    /// The value being written, before its escapes: one allocation for all of a line.
    value: String,
}

impl Line<'_> {
    fn begin(&mut self) {
        if self.format == Format::Json {
            self.out.push('{');
        }
    }

    fn end(&mut self) {
        if self.format == Format::Json {
            self.out.push('}');
        }
        self.out.push('\n');
    }

    /// `name` is one of ours and needs no escape.
    fn name(&mut self, name: &str) {
        let separator = match self.format {
            Format::Json => ",",
            Format::Text => " ",
        };
        if !std::mem::take(&mut self.first) {
            self.out.push_str(separator);
        }
        match self.format {
            Format::Json => {
                self.out.push('"');
                self.out.push_str(name);
                self.out.push_str("\":");
            }
            Format::Text => {
                self.out.push_str(name);
                self.out.push('=');
            }
        }
    }

    fn text(&mut self, name: &str, value: &str) {
        self.name(name);
        match self.format {
            Format::Json => escape::json(self.out, value),
            Format::Text => escape::text(self.out, value),
        }
    }

    /// UTC with three digits of milliseconds, always: lines of two nodes sort together, as text too (RFC 3339).
    fn time(&mut self, name: &str, time: SystemTime) {
        self.name(name);
        let time = OffsetDateTime::from(time);
        let (date, clock) = (time.date(), time.time());
        // Of characters that need no escape in either format.
        let quote = match self.format {
            Format::Json => "\"",
            Format::Text => "",
        };
        let _ = write!(
            self.out,
            "{quote}{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z{quote}",
            date.year(),
            u8::from(date.month()),
            date.day(),
            clock.hour(),
            clock.minute(),
            clock.second(),
            clock.millisecond()
        );
    }

    fn shown(&mut self, name: &str, value: impl Display) {
        let mut text = std::mem::take(&mut self.value);
        text.clear();
        let _ = write!(text, "{value}");
        self.text(name, &text);
        self.value = text;
    }

    fn address(&mut self, name: &str, value: SocketAddr) {
        self.shown(name, value);
    }

    fn number(&mut self, name: &str, value: u64) {
        self.name(name);
        let _ = write!(self.out, "{value}");
    }

    /// Three digits behind the point: what goes on inside one node takes less than one.
    fn milliseconds(&mut self, name: &str, value: Duration) {
        self.name(name);
        let _ = write!(self.out, "{}.{:03}", value.as_millis(), value.as_micros() % 1000);
    }

    /// An unknown value leaves its field out.
    fn optional(&mut self, name: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.shown(name, value);
        }
    }
}
