//! Verdicts that this agent leaves in the kernel after it has decided a first connection, and takes back when the
//! configuration changes.
//!
//! A verdict is made from versions of the pods that were read before the snapshot it is decided by. A new snapshot is stored
//! first, then the versions of the pods that it concerns are renewed: whichever of the two comes between the reading and
//! the writing of a verdict, the verdict is void. What leaves the mesh has no second pod whose version could tell: those
//! verdicts are made and swept under one lock.

mod books;
mod cut;
mod left;
mod left_services;
mod services;
mod ways;

pub(crate) use cut::Cut;

use self::{left::Left, ways::leaves_node};
use crate::{
    broker::{KernelVerdict, Versions},
    context::Context,
    pods::LocalPod,
};
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};
use tokio::sync::watch;
use tramline_common::PodId;
use tramline_core::{
    mesh::Mesh,
    verdict::{self, kernel_verdict},
    workload::Workload,
};

/// What this agent has left in the kernel.
pub(crate) struct Verdicts {
    left: Mutex<Left>,
    /// Connections that are being cut, for their lines in the log.
    pub(crate) cut: Cut,
    settled: watch::Sender<bool>,
    /// Whether changes of links and routes are followed: else no way is proven for longer than a moment.
    watched: AtomicBool,
    /// What the kernel has may be another agent's.
    others: AtomicBool,
    /// Verdicts that could not be left, by reason.
    pub(crate) refused: Refused,
}

/// Why verdicts were not left.
#[derive(Default)]
pub(crate) struct Refused {
    /// The way to the destination is not known to stay on this node.
    pub(crate) not_proven: AtomicU64,
    /// The kernel had no room.
    pub(crate) failed: AtomicU64,
}

impl Default for Verdicts {
    fn default() -> Self {
        Self {
            left: Mutex::default(),
            cut: Cut::default(),
            settled: watch::Sender::default(),
            watched: AtomicBool::new(false),
            others: AtomicBool::new(true),
            refused: Refused::default(),
        }
    }
}

impl Verdicts {
    fn left(&self) -> MutexGuard<'_, Left> {
        self.left.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves what the kernel may do with connections of `pod` to `dialled`, if it may do anything. In a task of its own: no
    /// connection waits for it. `reached` is where a connection to it came up just now.
    pub(crate) fn consider(
        context: &Arc<Context>,
        mesh: &Mesh,
        pod: &Arc<LocalPod>,
        source: &Workload,
        dialled: SocketAddr,
        reached: Option<SocketAddr>,
    ) {
        let is_service = mesh.service_by_vip(dialled.ip()).is_some();
        let begun = if is_service {
            let mut left = context.verdicts.left();
            if let Some(endpoint) = reached
                && context.duty.is_on()
            {
                left.reached(&*context.broker, pod.id, dialled, endpoint);
            }
            left.begin_service(pod.id, dialled)
        } else {
            kernel_verdict(mesh, source, dialled).is_some() && context.verdicts.left().begin(pod.id, dialled)
        };
        if !begun {
            return;
        }
        let (context, owner) = (context.clone(), pod.clone());
        pod.spawn(async move {
            if is_service {
                services::leave(&context, &owner, dialled).await;
            } else {
                leave(&context, &owner, dialled).await;
            }
            context.verdicts.left().done(owner.id, dialled);
        });
    }

    /// Takes back what `mesh` no longer says, and cuts what it forbids. Called when it is stored in the context and before it
    /// is acknowledged, by the agent on duty. Answers with the pods about which it says something new.
    pub(crate) fn sweep(context: &Arc<Context>, mesh: &Mesh) -> Vec<Arc<LocalPod>> {
        let mut changed = Vec::new();
        for pod in context.pods.all() {
            let basis = mesh.basis(&pod.uid);
            let mut known = pod.basis.lock().unwrap_or_else(PoisonError::into_inner);
            if *known == basis {
                continue;
            }
            *known = basis;
            context.verdicts.renew(context, pod.id);
            drop(known);
            changed.push(pod);
        }
        let mut left = context.verdicts.left();
        let outside = left.sweep_outside(|pod, dialled| {
            let source = context.pods.by_id(pod).and_then(|pod| mesh.workload(&pod.uid));
            source.and_then(|source| kernel_verdict(mesh, source, dialled))
                == Some(verdict::KernelVerdict::Outside)
        });
        left.take_back(&*context.broker, &outside);
        let services = left.sweep_services(|pod, dialled, left| {
            let source = context.pods.by_id(pod).and_then(|pod| mesh.workload(&pod.uid));
            source.is_some_and(|source| services::is_still(mesh, source, dialled, left))
        });
        left.take_back_services(&*context.broker, &services);
        drop(left);
        cut::forbidden(context, mesh);
        // What led out of the mesh for a pod that changed went with its version, and is not among those that were swept.
        if !(changed.is_empty() && outside.is_empty() && services.is_empty()) {
            cut::once_more(context);
        }
        changed
    }

    /// Follows the node's links and routes: what was proven of a way may hold no longer.
    pub(crate) async fn follow_ways(context: Arc<Context>) {
        ways::follow(context).await;
    }

    /// Resolves when pods have been enrolled for the first time: before, nobody could say whose a connection is.
    pub(crate) async fn wait_settled(&self) {
        let _ = self.settled.subscribe().wait_for(|settled| *settled).await;
    }

    /// Makes every verdict void that any agent has left: there is no configuration to say whether it holds.
    pub(crate) async fn void_all(context: &Context) {
        let _writing = context.duty.writing().await;
        if context.duty.is_on() {
            Self::void_earlier(context);
        }
    }

    /// Makes every verdict void that earlier agents have left about pods which this one has not enrolled.
    pub(crate) fn void_earlier(context: &Context) {
        if let Err(error) = context.broker.void_others() {
            tracing::error!(%error, "verdicts of an agent with another layout may hold still");
        }
        if let Err(error) = context.broker.void_left_over() {
            tracing::error!(%error, "cannot take a pod's version away");
        }
    }

    /// Makes all verdicts about a pod void. To be called by who holds [`crate::duty::Duty::writing`]: what is left meanwhile
    /// could be removed.
    pub(crate) fn renew(&self, context: &Context, pod: PodId) {
        books::renew(&*context.broker, pod, |pod| self.left().forget(pod));
    }

    /// Called by an agent that takes the kernel back, before it is on duty: the agent in between has made void what this one
    /// left, and what is noted as left is not left again.
    pub(crate) fn forget_all(&self) {
        self.left().forget_all();
        self.others.store(true, Ordering::Relaxed);
    }

    /// Called when the pods are enrolled, with whether any was just now: nobody could say before whose its connections are, and
    /// what `mesh` forbids of them ends. The first time after another agent it makes room: what that one left is void since.
    pub(crate) fn settled(context: &Arc<Context>, mesh: &Mesh, some_entered: bool) {
        context.verdicts.settled.send_replace(true);
        let is_first = context.verdicts.others.swap(false, Ordering::Relaxed);
        if !(is_first || some_entered) {
            return;
        }
        cut::forbidden(context, mesh);
        cut::once_more(context);
        if !is_first {
            return;
        }
        if let Err(error) = context.broker.remove_void_verdicts() {
            tracing::warn!(%error, "void verdicts of an earlier agent stay");
        }
        // Ways may have been lost while no agent watched.
        let context = context.clone();
        tokio::spawn(async move { ways::look(&context).await });
    }
}

async fn leave(context: &Arc<Context>, pod: &LocalPod, dialled: SocketAddr) {
    let Some((verdict, versions)) = decided(context, pod, dialled) else {
        return;
    };
    if let KernelVerdict::Direct(to) = verdict
        && let Some(why) = leaves_node(context, pod.id, to, dialled).await
    {
        context
            .verdicts
            .refused
            .not_proven
            .fetch_add(1, Ordering::Relaxed);
        context.verdicts.left().not_proven(pod.id, dialled);
        return tracing::debug!(pod = %pod.uid, %dialled, why, "connections stay with the agent");
    }
    let _writing = context.duty.writing().await;
    if !context.duty.is_on() {
        return;
    }
    // Once more, under the lock under which what leaves the mesh is swept. Other versions than before the proof: something
    // has changed, and the proof may be one of what was before.
    let mut left = context.verdicts.left();
    if decided(context, pod, dialled) != Some((verdict, versions)) {
        return;
    }
    if let Err(error) = left.put(&*context.broker, pod.id, dialled, verdict, versions) {
        context.verdicts.refused.failed.fetch_add(1, Ordering::Relaxed);
        tracing::debug!(%error, "no room for a verdict");
    }
}

/// What the present snapshot says, with versions that were read before it.
fn decided(context: &Context, pod: &LocalPod, dialled: SocketAddr) -> Option<(KernelVerdict, Versions)> {
    let at = dialled.ip().to_canonical();
    let candidate = context
        .mesh
        .load()
        .workload_by_address(at)
        .and_then(|workload| context.local(workload));
    let versions = context
        .broker
        .versions(pod.id, candidate.as_ref().map(|candidate| candidate.id))?;
    let mesh = context.mesh.load();
    let source = mesh.workload(&pod.uid)?;
    let is_candidate = |workload: &Workload| {
        candidate
            .as_ref()
            .filter(|candidate| candidate.uid == workload.uid)
            .map(|candidate| candidate.id)
    };
    let verdict = match kernel_verdict(&mesh, source, dialled)? {
        verdict::KernelVerdict::Outside => KernelVerdict::Outside,
        verdict::KernelVerdict::Direct(workload) => KernelVerdict::Direct(is_candidate(&workload)?),
        verdict::KernelVerdict::Deny(workload) => KernelVerdict::Deny(is_candidate(&workload)?),
    };
    Some((verdict, versions))
}
