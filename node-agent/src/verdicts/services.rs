//! Services that the agent lets the kernel resolve: made, swept and taken back like verdicts.

use super::{
    Verdicts,
    books::NewService,
    leaves_node,
    left_services::{LeftEndpoint, LeftService},
};
use crate::{
    broker::{KernelVerdict, ServiceEndpoint, Versions},
    context::Context,
    pods::LocalPod,
};
use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
};
use tramline_common::{PodId, service::MAX_ENDPOINTS_OF_ROW};
use tramline_core::{
    mesh::Mesh,
    verdict::{self, ServiceVerdict, kernel_verdict, service_verdict},
    workload::{Workload, WorkloadUid},
};

/// What is to be left, with the versions that were read before the snapshot it is decided by.
struct Decided {
    choice: ServiceVerdict,
    versions: Versions,
    endpoints: Vec<(SocketAddr, Option<(KernelVerdict, Versions)>)>,
}

impl Decided {
    fn is(&self, other: &Self) -> bool {
        self.versions == other.versions
            && self.endpoints == other.endpoints
            && Arc::ptr_eq(&self.choice.service, &other.choice.service)
    }
}

impl Verdicts {
    /// The endpoint that the kernel chose for a connection of `pod` that it handed over.
    pub(crate) fn picked(&self, pod: PodId, dialled: SocketAddr, index: u32) -> Option<SocketAddr> {
        self.left().picked(pod, dialled, index)
    }

    /// Takes Services back that may lead `pod` to an endpoint which it just failed to reach, or reached again: what the kernel
    /// may do by itself is to be decided anew.
    pub(crate) fn reconsider(context: &Context, pod: PodId, endpoint: SocketAddr) {
        // One that stepped aside still fails to reach endpoints; what the kernel has is its successor's.
        if !context.duty.is_on() {
            return;
        }
        // Under one lock: a Service that is left meanwhile would be noted, and its row be gone.
        let mut left = context.verdicts.left();
        let gone = left.with_endpoint(pod, endpoint).into_iter();
        let gone: Vec<_> = gone.map(|dialled| (pod, dialled)).collect();
        left.take_back_services(&*context.broker, &gone);
    }
}

/// Whether a Service that was left is what `mesh` says. What its verdicts on pods of this node rest on are those pods'
/// versions; the rest is looked at here.
pub(super) fn is_still(mesh: &Mesh, source: &Workload, dialled: SocketAddr, left: &LeftService) -> bool {
    let is_same_choice = mesh
        .service_by_vip(dialled.ip().to_canonical())
        .is_some_and(|service| Arc::ptr_eq(service, &left.choice.service))
        && mesh.zone_of(&source.node) == left.choice.zone.as_ref();
    is_same_choice
        && left
            .endpoints
            .iter()
            .filter(|endpoint| endpoint.verdict == Some(KernelVerdict::Outside))
            .all(|endpoint| {
                kernel_verdict(mesh, source, endpoint.address) == Some(verdict::KernelVerdict::Outside)
            })
}

/// Lets the kernel resolve what `pod` dials, if it can do anything of it by itself.
pub(super) async fn leave(context: &Arc<Context>, pod: &LocalPod, dialled: SocketAddr) {
    let Some(mut decided) = decide(context, pod, dialled) else {
        return;
    };
    let unproven = unproven(context, pod.id, &decided).await;
    let _writing = context.duty.writing().await;
    if !context.duty.is_on() {
        return;
    }
    // Once more, under the lock under which Services are swept.
    let mut left = context.verdicts.left();
    if !decide(context, pod, dialled).is_some_and(|again| again.is(&decided)) {
        return;
    }
    for (address, verdict) in &mut decided.endpoints {
        if unproven.contains(address) {
            left.not_proven(pod.id, *address);
            *verdict = None;
        }
    }
    // The kernel cannot take another endpoint where the one it chose is not reached.
    let mut left_out = Vec::new();
    for (address, verdict) in &mut decided.endpoints {
        if verdict.is_some() && context.balancer.doubts(&pod.uid, *address) {
            *verdict = None;
            left_out.push(*address);
        }
    }
    let useful = decided.endpoints.iter().any(|(_, verdict)| verdict.is_some());
    let mut endpoints = Vec::new();
    if useful && decided.endpoints.len() <= MAX_ENDPOINTS_OF_ROW {
        for (address, verdict) in &decided.endpoints {
            let Some(load) = context.balancer.row(*address, || left.loads()) else {
                context.verdicts.refused.failed.fetch_add(1, Ordering::Relaxed);
                return;
            };
            endpoints.push(ServiceEndpoint {
                address: *address,
                verdict: *verdict,
                load,
            });
        }
    }
    let service = NewService {
        noted: LeftService {
            choice: decided.choice,
            endpoints: endpoints.iter().map(noted).collect(),
            left_out,
        },
        versions: decided.versions,
        endpoints: &endpoints,
    };
    if let Err(error) = left.put_service(&*context.broker, pod.id, dialled, service) {
        context.verdicts.refused.failed.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%error, "no room for a Service");
    }
}

fn noted(endpoint: &ServiceEndpoint) -> LeftEndpoint {
    LeftEndpoint {
        address: endpoint.address,
        verdict: endpoint.verdict.map(|(verdict, _)| verdict),
        load: endpoint.load,
    }
}

/// The endpoints of this node to which no way is known to stay on it.
async fn unproven(context: &Context, pod: PodId, decided: &Decided) -> Vec<SocketAddr> {
    let mut unproven = Vec::new();
    for (address, verdict) in &decided.endpoints {
        if let Some((KernelVerdict::Direct(to), _)) = verdict
            && let Some(why) = leaves_node(context, pod, *to, *address).await
        {
            context
                .verdicts
                .refused
                .not_proven
                .fetch_add(1, Ordering::Relaxed);
            tracing::debug!(%pod, endpoint = %address, why, "connections to an endpoint stay with the agent");
            unproven.push(*address);
        }
    }
    unproven
}

/// What the present snapshot says, with versions that were read before it.
fn decide(context: &Context, pod: &LocalPod, dialled: SocketAddr) -> Option<Decided> {
    let versions = context.broker.versions(pod.id, None)?;
    let known = versions_of_endpoints(context, pod, dialled);
    let mesh = context.mesh.load();
    let choice = service_verdict(&mesh, mesh.workload(&pod.uid)?, dialled)?;
    let of = |verdict: &verdict::KernelVerdict| {
        let to_pod = |workload: &Workload, kind: fn(PodId) -> KernelVerdict| {
            let (id, versions) = known.get(&workload.uid)?;
            Some((kind(*id), *versions))
        };
        match verdict {
            verdict::KernelVerdict::Outside => Some((KernelVerdict::Outside, versions)),
            verdict::KernelVerdict::Direct(workload) => to_pod(workload, KernelVerdict::Direct),
            verdict::KernelVerdict::Deny(workload) => to_pod(workload, KernelVerdict::Deny),
        }
    };
    let endpoints = choice
        .endpoints
        .iter()
        .map(|(address, verdict)| (*address, verdict.as_ref().and_then(of)))
        .collect();
    Some(Decided {
        choice,
        versions,
        endpoints,
    })
}

/// The pods of this node behind the Service, with versions.
fn versions_of_endpoints(
    context: &Context,
    pod: &LocalPod,
    dialled: SocketAddr,
) -> HashMap<WorkloadUid, (PodId, Versions)> {
    let mesh = context.mesh.load();
    let Some(service) = mesh.service_by_vip(dialled.ip().to_canonical()) else {
        return HashMap::new();
    };
    let local = service.endpoints.iter().filter_map(|endpoint| {
        let uid = endpoint.workload.as_ref()?;
        let to = context.pods.get(uid)?;
        let versions = context.broker.versions(pod.id, Some(to.id))?;
        Some((uid.clone(), (to.id, versions)))
    });
    local.collect()
}
