//! The ways between pods of this node: proven before a connection takes one from socket to socket, and again whenever the node's
//! links or routes change, for as long as a verdict or a live connection rests on it.

use super::{cut, left::Ways};
use crate::context::Context;
use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tramline_common::PodId;

/// Before the watch is begun again that has ended.
const AGAIN: Duration = Duration::from_secs(5);

/// The ways of one pod: to which pod, by which of its addresses.
type OfPod = BTreeSet<(PodId, IpAddr)>;

/// Follows the node's links and routes: what was proven of a way may hold no longer. For the life of the agent.
pub(super) async fn follow(context: Arc<Context>) {
    loop {
        match context.broker.topology_changes() {
            Ok(mut changes) => {
                context.verdicts.watched.store(true, Ordering::Relaxed);
                // Until now nobody watched.
                look(&context).await;
                while changes.recv().await.is_some() {
                    look(&context).await;
                }
                context.verdicts.watched.store(false, Ordering::Relaxed);
                tracing::error!("the watch of the node's links and routes has ended");
            }
            Err(error) => tracing::error!(%error, "cannot watch the node's links and routes"),
        }
        tracing::error!(
            "connections between pods of this node are the agent's while nobody watches their ways"
        );
        unwatched(&context).await;
        tokio::time::sleep(AGAIN).await;
    }
}

/// Proves every way again, and takes back and ends what rests on one that is lost.
pub(super) async fn look(context: &Context) {
    let ways = {
        let _writing = context.duty.writing().await;
        if !context.duty.is_on() {
            return;
        }
        let (ways, unsure) = all(context);
        // What was not proven may be so now; what is being proven may have been so before.
        for pod in unsure {
            context.verdicts.renew(context, pod);
        }
        ways
    };
    for (source, ways) in ways {
        // Pod by pod: a proof takes its time, and changes of the configuration wait meanwhile.
        let _writing = context.duty.writing().await;
        if !context.duty.is_on() {
            return;
        }
        let lost = lost(context, source, &ways).await;
        if !lost.is_empty() {
            context.verdicts.renew(context, source);
            cut::strayed(context, source, &lost);
        }
    }
}

/// Takes back and ends all that rests on a way.
async fn unwatched(context: &Context) {
    let _writing = context.duty.writing().await;
    if !context.duty.is_on() {
        return;
    }
    let (ways, _) = all(context);
    for (source, ways) in ways {
        context.verdicts.renew(context, source);
        cut::strayed(context, source, &ways);
    }
}

/// The ways that verdicts rest on and those of live connections, which outlive their verdicts; and the pods of which some are not
/// proven, or being proven.
fn all(context: &Context) -> (BTreeMap<PodId, OfPod>, Vec<PodId>) {
    let noted: Vec<Ways> = context.verdicts.left().ways();
    let unsure = noted.iter().filter(|ways| ways.is_unsure).map(|ways| ways.source);
    let unsure = unsure.collect();
    let mut all: BTreeMap<PodId, OfPod> = BTreeMap::new();
    for ways in noted {
        all.entry(ways.source).or_default().extend(ways.proven);
    }
    for connection in context.broker.passed() {
        // One of a pod that has left the mesh is plaintext like any other, and judged as that.
        if let Some(to) = connection.destination
            && context.pods.by_id(to).is_some()
            && context.pods.by_id(connection.source).is_some()
        {
            let of_pod = all.entry(connection.source).or_default();
            of_pod.insert((to, connection.server.ip()));
        }
    }
    (all, unsure)
}

/// Those that are not known to stay on this node any more.
async fn lost(context: &Context, source: PodId, ways: &OfPod) -> OfPod {
    let mut lost = BTreeSet::new();
    for (destination, address) in ways {
        let proof = context.broker.stays_on_node(source, *destination, *address);
        if !matches!(proof.await, Ok(Ok(()))) {
            lost.insert((*destination, *address));
        }
    }
    lost
}

/// Why it is not known that the way stays on this node; `None` if it is.
pub(super) async fn leaves_node(
    context: &Context,
    source: PodId,
    destination: PodId,
    dialled: SocketAddr,
) -> Option<String> {
    if !context.verdicts.watched.load(Ordering::Relaxed) {
        return Some("nobody watches the node's routes".into());
    }
    let proof = context.broker.stays_on_node(source, destination, dialled.ip());
    match proof.await {
        Ok(Ok(())) => None,
        Ok(Err(why)) => Some(why.to_string()),
        Err(error) => Some(error.to_string()),
    }
}
