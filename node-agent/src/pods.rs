//! The enrolled pods of this node: from manifest to captured, and back.

mod accepting;
mod addresses;
mod old_sockets;
mod passed_plaintext;
mod plaintext_ports;
mod seeded_ports;
mod slots;

pub(crate) use plaintext_ports::PlaintextPorts;
pub(crate) use seeded_ports::make_room;
pub(crate) use slots::Slots;

use crate::{
    broker::{BrokerError, Enrolled, OpenSocket, PodRows},
    context::Context,
    verdicts::Verdicts,
};
use arc_swap::ArcSwap;
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    net::IpAddr,
    path::{Path, PathBuf},
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
};
use tokio::sync::{Notify, Semaphore};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tramline_common::PodId;
use tramline_core::{
    mesh::{Basis, Mesh},
    workload::{Workload, WorkloadUid},
};

/// Connections (and tunnels' TCP connections) of one pod at once.
const MAX_CONNECTIONS_PER_POD: usize = 16_384;

/// One enrolled pod.
pub(crate) struct LocalPod {
    pub(crate) uid: WorkloadUid,
    pub(crate) id: PodId,
    /// Connections of this pod that the agent carries at once: one pod cannot take every slot of the node.
    slots: Arc<Semaphore>,
    /// Cancelled when the pod leaves: its connections end with it.
    pub(crate) gone: CancellationToken,
    /// Client ports of plaintext connections that end at the agent.
    pub(crate) plaintext_ports: PlaintextPorts,
    /// Sockets that were open when the pod was enrolled: never captured.
    pub(crate) already_open: AtomicUsize,
    /// Those of them that may go on for now, by the kernel's name.
    grace: Mutex<HashSet<[u8; 8]>>,
    netns: PathBuf,
    tasks: TaskTracker,
    /// What the verdicts about this pod rest on.
    pub(crate) basis: Mutex<Option<Basis>>,
    /// What the kernel has; unknown after a failure.
    rows: Mutex<Option<PodRows>>,
}

impl LocalPod {
    /// Whether a connection is older than the enrolment and may go on for now.
    fn has_grace(&self, socket: &OpenSocket) -> bool {
        let grace = self.grace.lock().unwrap_or_else(PoisonError::into_inner);
        grace.contains(&socket.cookie)
    }

    fn end_grace(&self) {
        let mut grace = self.grace.lock().unwrap_or_else(PoisonError::into_inner);
        *grace = HashSet::new();
    }

    /// Runs a task that ends with the pod.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let gone = self.gone.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = task => {}
                () = gone.cancelled() => {}
            }
        });
    }
}

/// The pods; read at each connection between two pods of this node, by whoever carries it.
#[derive(Default)]
pub(crate) struct LocalPods {
    pods: ArcSwap<Known>,
    /// Why a pod of this node is not enrolled though it should be.
    failures: Mutex<BTreeMap<WorkloadUid, String>>,
    /// For the metrics.
    pub(crate) counts: EnrolmentCounts,
    entered: Notify,
}

/// The same pods by both of their names.
#[derive(Clone, Default)]
struct Known {
    by_uid: HashMap<WorkloadUid, Arc<LocalPod>>,
    by_id: HashMap<PodId, Arc<LocalPod>>,
}

/// What happened at enrolments since start.
#[derive(Default)]
pub(crate) struct EnrolmentCounts {
    /// Attempts that failed.
    pub(crate) failed: AtomicU64,
    /// Pods that had connections open already.
    pub(crate) late: AtomicU64,
}

impl LocalPods {
    /// The pod, if it is enrolled.
    pub(crate) fn get(&self, uid: &WorkloadUid) -> Option<Arc<LocalPod>> {
        self.pods.load().by_uid.get(uid).cloned()
    }

    /// The pod with this namespace.
    pub(crate) fn by_id(&self, id: PodId) -> Option<Arc<LocalPod>> {
        self.pods.load().by_id.get(&id).cloned()
    }

    /// The pod that `find` finds, as soon as it does.
    pub(crate) async fn once_there(&self, find: impl Fn(&Self) -> Option<Arc<LocalPod>>) -> Arc<LocalPod> {
        loop {
            let mut entered = pin!(self.entered.notified());
            // Before the look, so that none enters between the two unnoticed.
            entered.as_mut().enable();
            if let Some(pod) = find(self) {
                return pod;
            }
            entered.await;
        }
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<Arc<LocalPod>> {
        self.pods.load().by_uid.values().cloned().collect()
    }

    /// Why the pod is not enrolled.
    pub(crate) fn failure(&self, uid: &WorkloadUid) -> Option<String> {
        self.failures().get(uid).cloned()
    }

    /// How many pods could not be enrolled.
    pub(crate) fn failed(&self) -> usize {
        self.failures().len()
    }

    fn fail(&self, workload: &Workload, error: &BrokerError) {
        let why = error.to_string();
        let before = self.failures().insert(workload.uid.clone(), why.clone());
        if before != Some(why) {
            tracing::warn!(pod = %workload.name, namespace = %workload.namespace, %error, "cannot enrol a pod");
        }
    }

    fn failures(&self) -> std::sync::MutexGuard<'_, BTreeMap<WorkloadUid, String>> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn insert(&self, pod: Arc<LocalPod>) {
        self.pods.rcu(|pods| {
            let mut pods = Known::clone(pods);
            if let Some(before) = pods.by_uid.insert(pod.uid.clone(), pod.clone()) {
                pods.by_id.remove(&before.id);
            }
            pods.by_id.insert(pod.id, pod.clone());
            pods
        });
        self.entered.notify_waiters();
    }

    fn remove(&self, uid: &WorkloadUid) {
        self.pods.rcu(|pods| {
            let mut pods = Known::clone(pods);
            if let Some(gone) = pods.by_uid.remove(uid) {
                pods.by_id.remove(&gone.id);
            }
            pods
        });
    }
}

/// Makes the enrolled pods those that the snapshot in force names.
///
/// Connections decide by the snapshot from the moment it is stored in the context; the kernel's rows follow here. Answers with whether
/// the kernel decides by them: not while the programs of another agent are attached that ask other maps, nor while what that one
/// left may hold.
pub(crate) async fn reconcile(context: &Arc<Context>) -> bool {
    let (_writing, mesh) = context.mesh.to_follow(&context.duty).await;
    let mesh = &*mesh;
    let wanted: HashMap<&WorkloadUid, &Arc<Workload>> = mesh
        .local_workloads()
        .filter(|workload| workload.enrolled && workload.netns.is_some())
        .map(|workload| (&workload.uid, workload))
        .collect();
    for pod in context.pods.all() {
        let stays = wanted
            .get(&pod.uid)
            .and_then(|workload| workload.netns.as_deref())
            .is_some_and(|netns| pod.netns == std::path::Path::new(netns));
        if !stays || context.broker.is_replaced(pod.id, &pod.netns) {
            release(context, &pod);
        }
    }
    let identities = wanted.values().map(|workload| workload.identity.clone());
    context.certificates.retain(&identities.collect());
    if !context.duty.is_on() {
        return true;
    }
    let attached = attach(context, mesh, &wanted).await;
    let changed = Verdicts::sweep(context, mesh);
    context.pods.failures().retain(|uid, _| wanted.contains_key(uid));
    // Pods that are there first: a policy that tightens does not wait for a new pod.
    for workload in wanted.values() {
        if let Some(pod) = context.pods.get(&workload.uid) {
            update(context, mesh, workload, &pod);
        }
    }
    passed_plaintext::cut_forbidden(context, mesh, changed, passed_plaintext::Of::Own);
    let mut some_entered = false;
    for workload in wanted.values() {
        if context.pods.get(&workload.uid).is_none() {
            match &attached {
                Ok(()) => some_entered |= enroll(context, mesh, workload).await,
                Err(error) => context.pods.fail(workload, error),
            }
        }
    }
    if attached.is_err() {
        // The pods are the agent's before this one, and the configuration is not.
        Verdicts::void_earlier(context);
        return false;
    }
    // Those that are enrolled are not left over, and need not be findable by their path any more.
    let missing = wanted
        .values()
        .filter(|workload| context.pods.get(&workload.uid).is_none());
    release_left_over(context, missing.filter_map(|workload| workload.netns.as_deref()));
    let settled = context.broker.settle();
    if let Err(error) = &settled {
        tracing::error!(%error, "what an earlier agent left may hold still");
    }
    Verdicts::settled(context, mesh, some_entered);
    settled.is_ok()
}

/// Where the node's programs ask maps of another layout: writes what this agent's will ask, then replaces them.
async fn attach(
    context: &Context,
    mesh: &Mesh,
    wanted: &HashMap<&WorkloadUid, &Arc<Workload>>,
) -> Result<(), BrokerError> {
    if !context.broker.waits_for_pods() {
        return Ok(());
    }
    for workload in wanted.values() {
        let Some(netns) = workload.netns.as_deref() else {
            continue;
        };
        let rows = PodRows::of(mesh, workload);
        if let Err(error) = context.broker.prepare(Path::new(netns), &rows).await {
            tracing::warn!(pod = %workload.uid, %error, "cannot describe a pod to the new programs");
        }
    }
    match context.broker.attach() {
        Ok(()) => tracing::info!("took over from an agent with another layout of maps"),
        Err(error) => {
            tracing::error!(%error, "cannot take over from an agent with another layout of maps");
            return Err(error);
        }
    }
    Ok(())
}

/// What the present configuration says about the pods that this agent has enrolled.
pub(crate) fn present_rows(context: &Context) -> BTreeMap<PodId, PodRows> {
    let mesh = context.mesh.load();
    let pods = context.pods.all().into_iter();
    pods.filter_map(|pod| Some((pod.id, PodRows::of(&mesh, mesh.workload(&pod.uid)?))))
        .collect()
}

/// What the kernel has of the pods is no longer what this agent wrote.
pub(crate) fn forget_rows(context: &Context) {
    for pod in context.pods.all() {
        *pod.rows.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

/// Lets go of pods that could not be taken back from a successor: the next [`reconcile`] enrols them anew. To be called before
/// this agent is on duty, so that they stay captured meanwhile.
pub(crate) fn give_up(context: &Context, lost: &[PodId]) {
    for pod in lost.iter().filter_map(|id| context.pods.by_id(*id)) {
        release(context, &pod);
    }
}

/// Whether a pod's path leads to another namespace than the one that was enrolled.
pub(crate) fn any_replaced(context: &Context) -> bool {
    let pods = context.pods.all();
    pods.iter()
        .any(|pod| context.broker.is_replaced(pod.id, &pod.netns))
}

/// Lets go of namespaces that an agent captured and the configuration no longer names: an earlier agent's, or those
/// whose release failed before.
///
/// A pod that the configuration names and that could not be enrolled stays captured, with nobody to answer: closed.
fn release_left_over<'a>(context: &Context, wanted: impl Iterator<Item = &'a str>) {
    let left_over = match context.broker.left_over() {
        Ok(pods) if pods.is_empty() => return,
        Ok(pods) => pods,
        Err(error) => return tracing::warn!(%error, "cannot list the pods of an earlier agent"),
    };
    let named: Result<HashSet<_>, _> = wanted
        .map(|path| context.broker.id_at(std::path::Path::new(path)))
        .collect();
    let named = match named {
        Ok(named) => named,
        // Any of them may be the one that cannot be looked at.
        Err(error) => return tracing::debug!(%error, "pods of an earlier agent stay captured for now"),
    };
    for pod in left_over.into_iter().filter(|pod| !named.contains(pod)) {
        match context.broker.withdraw(pod) {
            Ok(()) => tracing::info!(pod = format!("{pod:#x}"), "released a pod of an earlier agent"),
            Err(error) => tracing::warn!(%error, "cannot release a pod of an earlier agent"),
        }
    }
}

/// Whether it is enrolled by that.
async fn enroll(context: &Arc<Context>, mesh: &Mesh, workload: &Arc<Workload>) -> bool {
    let Some(netns) = workload.netns.as_deref().map(PathBuf::from) else {
        return false;
    };
    let rows = PodRows::of(mesh, workload);
    match context.broker.enroll(&netns, &rows).await {
        Ok(enrolled) => {
            warn_of_unknown_addresses(workload, &enrolled.addresses);
            context.pods.failures().remove(&workload.uid);
            let captured_before = enrolled.captured_before;
            let pod = start(context, mesh, workload, netns, rows, enrolled);
            context.pods.insert(pod.clone());
            // A change may have come while nobody followed it.
            if captured_before {
                passed_plaintext::cut_forbidden(context, mesh, vec![pod], passed_plaintext::Of::Another);
            }
            true
        }
        Err(error) => {
            context.pods.counts.failed.fetch_add(1, Ordering::Relaxed);
            context.pods.fail(workload, &error);
            false
        }
    }
}

fn start(
    context: &Arc<Context>,
    mesh: &Mesh,
    workload: &Arc<Workload>,
    netns: PathBuf,
    rows: PodRows,
    enrolled: Enrolled,
) -> Arc<LocalPod> {
    let already_open = enrolled.already_open.len();
    let pod = Arc::new(LocalPod {
        uid: workload.uid.clone(),
        id: enrolled.id,
        slots: Arc::new(Semaphore::new(MAX_CONNECTIONS_PER_POD)),
        gone: CancellationToken::new(),
        plaintext_ports: PlaintextPorts::default(),
        already_open: AtomicUsize::new(already_open),
        grace: Mutex::new(enrolled.already_open.iter().map(|open| open.cookie).collect()),
        netns,
        tasks: TaskTracker::new(),
        basis: Mutex::new(mesh.basis(&workload.uid)),
        rows: Mutex::new(Some(rows)),
    });
    accepting::start(context, &pod, enrolled.listeners);
    if already_open > 0 {
        context.pods.counts.late.fetch_add(1, Ordering::Relaxed);
        pod.spawn(old_sockets::close_refused(context.clone(), pod.clone()));
    }
    pod.spawn(seeded_ports::follow(context.clone(), pod.clone()));
    let known = enrolled.addresses.into_iter().collect();
    pod.spawn(addresses::follow(
        context.clone(),
        pod.clone(),
        known,
        enrolled.address_changes,
    ));
    tracing::info!(
        pod = %workload.name,
        namespace = %workload.namespace,
        identity = %workload.identity,
        already_open,
        "enrolled"
    );
    pod
}

fn update(context: &Context, mesh: &Mesh, workload: &Workload, pod: &LocalPod) {
    let rows = PodRows::of(mesh, workload);
    let mut current = pod.rows.lock().unwrap_or_else(PoisonError::into_inner);
    if current.as_ref() == Some(&rows) {
        return;
    }
    let written = match &*current {
        Some(before) => context.broker.change(pod.id, before, &rows),
        None => context.broker.update(pod.id, &rows),
    };
    match written {
        Ok(()) => {
            *current = Some(rows);
            context.pods.failures().remove(&workload.uid);
        }
        Err(error) => {
            // The kernel must not go on with rows that may be wider than the policy: let nothing in meanwhile.
            *current = None;
            let why = format!("its rows cannot be updated, so its plaintext is refused: {error}");
            tracing::error!(pod = %pod.uid, "{why}");
            context.pods.failures().insert(workload.uid.clone(), why);
            if let Err(error) = context.broker.refuse_plaintext(pod.id) {
                tracing::error!(pod = %pod.uid, %error, "cannot close a pod's plaintext");
            }
        }
    }
}

fn release(context: &Context, pod: &LocalPod) {
    context.pods.remove(&pod.uid);
    pod.gone.cancel();
    pod.tasks.close();
    context.pool.evict_source(&pod.uid);
    if context.duty.is_on() {
        context.verdicts.renew(context, pod.id);
    }
    if !context.duty.is_on() {
        return context.broker.forget(pod.id);
    }
    match context.broker.withdraw(pod.id) {
        Ok(()) => tracing::info!(pod = %pod.uid, "released"),
        Err(BrokerError::NotEnrolled(_)) => {}
        Err(error) => tracing::warn!(pod = %pod.uid, %error, "cannot release a pod"),
    }
}

/// Policies see addresses of the manifest, the kernel those of the namespace: a difference surprises.
fn warn_of_unknown_addresses(workload: &Workload, found: &[IpAddr]) {
    let known: HashSet<_> = workload.addresses.iter().collect();
    for address in found {
        let link_local = matches!(address, IpAddr::V6(v6) if v6.is_unicast_link_local());
        if !link_local && !known.contains(address) {
            tracing::info!(pod = %workload.name, %address, "the namespace has an address that the manifest has not");
        }
    }
}
