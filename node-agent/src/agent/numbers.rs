//! Numbers that other stages keep, as metrics.

use super::configuration::Report;
use crate::{
    context::Context,
    observe::{
        checks::Checks,
        metrics::{Sample, families},
    },
};
use std::{
    sync::{Arc, atomic::Ordering},
    time::UNIX_EPOCH,
};

/// Registers all of them; each is read at a scrape.
pub(super) fn register(context: &Arc<Context>, report: &Arc<Report>, checks: &Checks) {
    let metrics = context.observer.metrics();
    let with = |read: fn(&Context) -> Vec<Sample>| {
        let context = Arc::downgrade(context);
        move || {
            context
                .upgrade()
                .map(|context| read(&context))
                .unwrap_or_default()
        }
    };
    metrics.register(
        &families::EBPF_EVENTS,
        with(|context| {
            context
                .broker
                .counters()
                .into_iter()
                .map(|(event, count)| Sample::count([event], count))
                .collect()
        }),
    );
    metrics.register(
        &families::EBPF_MAP_ENTRIES,
        with(|context| {
            context
                .broker
                .fill()
                .iter()
                .map(|fill| Sample::count([fill.map], fill.entries as u64))
                .collect()
        }),
    );
    metrics.register(
        &families::EBPF_MAP_CAPACITY,
        with(|context| {
            context
                .broker
                .capacities()
                .iter()
                .map(|(map, capacity)| Sample::count([*map], *capacity as u64))
                .collect()
        }),
    );
    metrics.register(
        &families::TUNNEL_HANDSHAKES,
        with(|context| {
            let stats = &context.tunnel_stats;
            vec![
                Sample::count(["ok"], stats.handshakes_ok.load(Ordering::Relaxed)),
                Sample::count(["failed"], stats.handshakes_failed.load(Ordering::Relaxed)),
            ]
        }),
    );
    metrics.register(
        &families::TUNNEL_CONNECTIONS,
        with(|context| {
            let stats = &context.tunnel_stats;
            vec![
                Sample::count(["client"], stats.connections_open_client.load(Ordering::Relaxed)),
                Sample::count(["server"], stats.connections_open_server.load(Ordering::Relaxed)),
            ]
        }),
    );
    metrics.register(
        &families::TUNNEL_STREAMS,
        with(|context| {
            vec![Sample::count(
                [],
                context.tunnel_stats.streams_open.load(Ordering::Relaxed),
            )]
        }),
    );
    metrics.register(
        &families::CERTIFICATE_EXPIRY,
        with(|context| {
            let seconds =
                |at: std::time::SystemTime| at.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
            context
                .certificates
                .snapshot()
                .into_iter()
                .map(|(identity, expires)| Sample::count([identity.to_string().as_str()], seconds(expires)))
                .collect()
        }),
    );
    let in_force = report.clone();
    metrics.register(&families::CONFIG_GENERATION, move || {
        vec![Sample::count([], in_force.generation())]
    });
    metrics.register(
        &families::ENROLLED_PODS,
        with(|context| vec![Sample::count([], context.pods.all().len() as u64)]),
    );
    let report = report.clone();
    metrics.register(&families::CONFIG_ERRORS, move || {
        vec![Sample::count([], report.errors().len() as u64)]
    });
    let checks = checks.clone();
    metrics.register(&families::READY, move || {
        checks
            .results()
            .iter()
            .map(|check| Sample::count([check.name.as_str()], u64::from(check.ok)))
            .collect()
    });
}
