//! Numbers that other stages keep, as metrics.

use super::configuration::{Origin, Report};
use crate::{
    context::Context,
    observe::{
        checks::Checks,
        metrics::{
            Sample,
            families::{self, Family},
        },
    },
    tunnel::{Attempts, TunnelStats},
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

/// Identities with a time series of their own: those whose certificates expire first.
const MAX_EXPIRIES: usize = 1_000;

/// Registers all of them; each is read at a scrape.
pub(super) fn register(context: &Arc<Context>, report: &Arc<Report>, checks: &Checks) {
    let from = Registrar { context };
    kernel(&from);
    tunnels(&from);
    balancer(&from);
    certificates(&from);
    pods(&from);
    from.samples(&families::CONFIG_GENERATION, |context| {
        one(context.mesh.acknowledged())
    });
    configuration(context, report);
    let checks = checks.clone();
    context.observer.metrics().register(&families::READY, move || {
        checks
            .results()
            .iter()
            .map(|check| Sample::count([check.name.as_str()], u64::from(check.ok)))
            .collect()
    });
}

/// Registers what is read from the context, which may be gone at the last scrape.
struct Registrar<'a> {
    context: &'a Arc<Context>,
}

impl Registrar<'_> {
    fn samples(&self, family: &'static Family, read: fn(&Context) -> Vec<Sample>) {
        let context = Arc::downgrade(self.context);
        self.context.observer.metrics().register(family, move || {
            context
                .upgrade()
                .map(|context| read(&context))
                .unwrap_or_default()
        });
    }

    fn tunnels(&self, family: &'static Family, read: fn(&TunnelStats) -> Vec<Sample>) {
        let stats = self.context.tunnel_stats.clone();
        self.context
            .observer
            .metrics()
            .register(family, move || read(&stats));
    }
}

fn kernel(from: &Registrar<'_>) {
    from.samples(&families::EBPF_EVENTS, |context| {
        context
            .broker
            .counters()
            .into_iter()
            .map(|(event, count)| Sample::count([event], count))
            .collect()
    });
    from.samples(&families::KERNEL_VERDICTS_REFUSED, |context| {
        let refused = &context.verdicts.refused;
        vec![
            Sample::count(["not_proven"], read(&refused.not_proven)),
            Sample::count(["failed"], read(&refused.failed)),
        ]
    });
    from.samples(&families::EBPF_MAP_ENTRIES, |context| {
        context
            .broker
            .fill()
            .iter()
            .map(|fill| Sample::count([fill.map], fill.entries as u64))
            .collect()
    });
    from.samples(&families::EBPF_MAP_CAPACITY, |context| {
        context
            .broker
            .capacities()
            .iter()
            .map(|(map, capacity)| Sample::count([*map], *capacity as u64))
            .collect()
    });
}

fn balancer(from: &Registrar<'_>) {
    from.samples(&families::SERVICE_RETRIES, |context| {
        let retries = context.balancer.retries();
        retries
            .into_iter()
            .map(|(result, count)| Sample::count([result], count))
            .collect()
    });
    from.samples(&families::BALANCER_ENTRIES, |context| {
        let entries = context.balancer.entries();
        entries
            .into_iter()
            .map(|(table, count)| Sample::count([table], count as u64))
            .collect()
    });
}

fn tunnels(from: &Registrar<'_>) {
    from.tunnels(&families::TUNNEL_CONNECTS, |stats| {
        stats
            .connects
            .ends()
            .into_iter()
            .map(|(reason, count)| Sample::count([reason.as_str()], count))
            .collect()
    });
    from.tunnels(&families::TUNNEL_CONNECT_SECONDS, |stats| {
        vec![Sample::histogram([], stats.connects.took())]
    });
    from.tunnels(&families::TUNNEL_HANDSHAKES, |stats| {
        let mut samples = Vec::new();
        for (role, handshakes) in by_role(stats) {
            let ends = handshakes.ends().into_iter();
            samples.extend(ends.map(|(reason, count)| Sample::count([role, reason.as_str()], count)));
        }
        samples
    });
    from.tunnels(&families::TUNNEL_HANDSHAKE_SECONDS, |stats| {
        by_role(stats)
            .map(|(role, handshakes)| Sample::histogram([role], handshakes.took()))
            .into()
    });
    from.tunnels(&families::TUNNEL_CONNECTIONS, |stats| {
        vec![
            Sample::count(["client"], read(&stats.connections_open_client)),
            Sample::count(["server"], read(&stats.connections_open_server)),
        ]
    });
    from.tunnels(&families::TUNNEL_STREAMS, |stats| one(read(&stats.streams_open)));
    from.tunnels(&families::TUNNEL_RELEASED, |stats| one(read(&stats.released)));
    from.tunnels(&families::TUNNEL_EVICTED, |stats| one(read(&stats.evicted)));
    from.tunnels(&families::TUNNEL_SUSPECTED, |stats| {
        one(read(&stats.connections_suspected))
    });
    from.tunnels(&families::TUNNEL_LOST, |stats| one(read(&stats.connections_lost)));
    from.tunnels(&families::TUNNEL_BUFFERED, |stats| one(stats.buffers.held()));
    from.tunnels(&families::TUNNEL_BUFFER_LIMIT, |stats| one(stats.buffers.limit()));
    from.tunnels(&families::TUNNEL_BUFFER_CUT, |stats| one(stats.buffers.cut()));
    from.samples(&families::TUNNEL_UNPROVEN, |context| {
        one(context.handshakes.in_flight_count() as u64)
    });
    from.samples(&families::TUNNEL_UNPROVEN_REFUSED, |context| {
        one(context.handshakes.refused())
    });
}

fn by_role(stats: &TunnelStats) -> [(&'static str, &Attempts); 2] {
    [
        ("client", &stats.client_handshakes),
        ("server", &stats.server_handshakes),
    ]
}

fn certificates(from: &Registrar<'_>) {
    from.samples(&families::CERTIFICATES, |context| {
        one(context.certificates.snapshot().len() as u64)
    });
    from.samples(&families::CERTIFICATES_ISSUED, |context| {
        let counts = context.certificates.counts();
        vec![
            Sample::count(["made"], counts.issued),
            Sample::count(["failed"], counts.failed),
        ]
    });
    from.samples(&families::AUTHORITY_EXPIRY, |context| {
        one(seconds(context.certificates.authority().not_after()))
    });
    from.samples(&families::TRUST_READS, |context| {
        let reads = context.certificates.authority().reloads();
        vec![
            Sample::count(["taken"], reads.ok),
            Sample::count(["refused"], reads.failed),
        ]
    });
    from.samples(&families::TRUST_ERRORS, |context| {
        let errors = context.certificates.authority().reloads().errors;
        one(errors.len() as u64)
    });
    from.samples(&families::CERTIFICATE_EARLIEST_EXPIRY, |context| {
        let expiries = context.certificates.snapshot();
        let earliest = expiries.iter().map(|(_, expires)| seconds(*expires)).min();
        earliest.map(one).unwrap_or_default()
    });
    from.samples(&families::CERTIFICATE_EXPIRY, |context| {
        let mut expiries = context.certificates.snapshot();
        expiries.sort_by_key(|(_, expires)| *expires);
        expiries
            .iter()
            .take(MAX_EXPIRIES)
            .map(|(identity, expires)| Sample::count([identity.to_string().as_str()], seconds(*expires)))
            .collect()
    });
}

fn pods(from: &Registrar<'_>) {
    from.samples(&families::ENROLLED_PODS, |context| {
        one(context.pods.all().len() as u64)
    });
    from.samples(&families::PODS_NOT_ENROLLED, |context| {
        one(context.pods.failed() as u64)
    });
    from.samples(&families::ENROLMENT_FAILURES, |context| {
        one(read(&context.pods.counts.failed))
    });
    from.samples(&families::LATE_ENROLMENTS, |context| {
        one(read(&context.pods.counts.late))
    });
    from.samples(&families::UNCAPTURED, |context| {
        let pods = context.pods.all();
        let open: usize = pods
            .iter()
            .map(|pod| pod.already_open.load(Ordering::Relaxed))
            .sum();
        one(open as u64)
    });
    from.samples(&families::SHED, |context| one(read(&context.shed)));
}

fn configuration(context: &Arc<Context>, report: &Arc<Report>) {
    let register = |family, read: fn(&Report) -> Vec<Sample>| {
        let report = report.clone();
        context.observer.metrics().register(family, move || read(&report));
    };
    register(&families::CONFIG_ERRORS, |report| {
        one(report.errors().len() as u64)
    });
    register(&families::CONFIG_FROM_LAST_GOOD, |report| {
        one(u64::from(report.in_force().from == Origin::LastGood))
    });
    register(&families::CONFIG_LAST_SUCCESS, |report| {
        match read(&report.counts.last_applied) {
            0 => Vec::new(),
            at => one(at),
        }
    });
    register(&families::CONFIG_UPDATES, |report| {
        vec![
            Sample::count(["applied"], read(&report.counts.applied)),
            Sample::count(["refused"], read(&report.counts.refused)),
        ]
    });
}

fn one(value: u64) -> Vec<Sample> {
    vec![Sample::count([], value)]
}

fn read(counter: &AtomicU64) -> u64 {
    counter.load(Ordering::Relaxed)
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
