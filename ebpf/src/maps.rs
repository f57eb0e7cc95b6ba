//! Every map, behind functions that cannot be misused: who writes it, who reads it.

use aya_ebpf::{
    bindings::{
        BPF_F_MMAPABLE, BPF_F_NO_PREALLOC, BPF_NOEXIST, BPF_SK_LOOKUP_F_NO_REUSEPORT,
        BPF_SK_STORAGE_GET_F_CREATE, bpf_sock,
    },
    btf_maps::{Array, HashMap, LpmTrie, PerCpuArray, RingBuf, SkStorage, SockHash, lpm_trie::Key},
    helpers::generated::bpf_sk_storage_get,
    macros::btf_map,
    programs::SkLookupContext,
};
use tramline_common::{
    Address, PodId,
    counter::{COUNTERS as COUNTER_ROWS, Counter},
    event::Event,
    map::{
        EVENT_RING_BYTES, Flow, FlowKey, ListenerKey, MAX_LISTENERS, MAX_POD_ROWS, MAX_PODS, MAX_REGISTRY,
        Owned, Pod, PodAddress, PodPort, RangeData, direction,
    },
    service::{Endpoint, EndpointKey, Load, MAX_ENDPOINTS, MAX_LOADS, MAX_SERVICES, ServiceRow},
    verdict::{
        MAX_PASSED, MAX_VERDICTS, NOT_DIALLED, PASSAGE_RING_BYTES, Passage, Passed, Picked, ServiceAt,
        Verdict, VerdictKey, kind,
    },
};

const LAZY: usize = BPF_F_NO_PREALLOC as usize;

/// Written by the agent; read by `connect` and `sockops`.
#[btf_map]
static PODS: HashMap<PodId, Pod, MAX_PODS> = HashMap::new();
/// Written by the agent from the namespace's own addresses; read by `connect` and `steer`.
#[btf_map]
static POD_ADDRESSES: HashMap<PodAddress, u32, MAX_POD_ROWS, LAZY> = HashMap::new();
/// Written by the agent from the namespaces' own addresses; read by `probe`.
#[btf_map]
static LOCAL_PODS: HashMap<Address, PodId, MAX_POD_ROWS, LAZY> = HashMap::new();
/// Written by the agent from annotations; read by `connect` and `steer`.
#[btf_map]
static EXCLUDED_PORTS: HashMap<PodPort, u32, MAX_POD_ROWS, LAZY> = HashMap::new();
/// Written by the agent from annotations; read by `connect`.
#[btf_map]
static EXCLUDED_RANGES: LpmTrie<RangeData, u64, MAX_POD_ROWS> = LpmTrie::new();
/// Written by the agent; an entry goes when its socket closes. Read by `steer`.
#[btf_map]
static LISTENERS: SockHash<ListenerKey, MAX_LISTENERS> = SockHash::new();
/// Written by the agent from the policy core; read by `steer`.
#[btf_map]
static PLAINTEXT: HashMap<PodPort, u32, MAX_POD_ROWS, LAZY> = HashMap::new();
/// Written by `sockops`, and by the agent under a direction of its own; read by `connect` and `steer`.
#[btf_map]
static LISTENING: HashMap<PodPort, u64, MAX_POD_ROWS, LAZY> = HashMap::new();
/// Written by `sockops`; read by `steer`.
#[btf_map]
static REGISTRY: HashMap<FlowKey, Flow, MAX_REGISTRY, LAZY> = HashMap::new();
/// Written by the agent through a descriptor, and by `probe`; read by `connect` and `sockops`.
#[btf_map]
static OWNED: SkStorage<Owned> = SkStorage::new();
/// Written by all programs; read by the agent.
#[btf_map]
static EVENTS: RingBuf<Event, EVENT_RING_BYTES> = RingBuf::new();
/// Written by all programs; read by the agent.
#[btf_map]
static COUNTERS: PerCpuArray<u64, COUNTER_ROWS> = PerCpuArray::new();
/// Written by the agent; read by `connect`, `sockops` and `steer`.
#[btf_map]
static VERSIONS: HashMap<PodId, u64, MAX_PODS, LAZY> = HashMap::new();
/// Written by the agent from the policy core; read by `connect`.
#[btf_map]
static VERDICTS: HashMap<VerdictKey, Verdict, MAX_VERDICTS, LAZY> = HashMap::new();
/// Written by `sockops`; read by `steer`, and by the agent after a change.
#[btf_map]
static DIRECT: HashMap<FlowKey, Passed, MAX_PASSED, LAZY> = HashMap::new();
/// Written by `sockops`; read by the agent after a change.
#[btf_map]
static OUTSIDE: HashMap<FlowKey, Passed, MAX_PASSED, LAZY> = HashMap::new();
/// Written by `connect`; read by `sockops`.
#[btf_map]
static PICKED: SkStorage<Picked> = SkStorage::new();
/// Written by `connect` and `sockops`; read by the agent.
#[btf_map]
static PASSAGES: RingBuf<Passage, PASSAGE_RING_BYTES> = RingBuf::new();

/// Written by the agent from the policy core; read by `connect`.
#[btf_map]
static SERVICES: HashMap<VerdictKey, ServiceRow, MAX_SERVICES, LAZY> = HashMap::new();
/// Written by the agent from the policy core; read by `connect`.
#[btf_map]
static ENDPOINTS: HashMap<EndpointKey, Endpoint, MAX_ENDPOINTS, LAZY> = HashMap::new();
/// Written by the agent and by `sockops`, each in fields of its own; read by both and by `connect`.
#[btf_map]
static LOADS: Array<Load, MAX_LOADS, { BPF_F_MMAPABLE as usize }> = Array::new();

/// Whether the namespace is an enrolled pod's.
#[inline(always)]
pub(crate) fn is_enrolled(pod: PodId) -> bool {
    PODS.get_ptr(pod).is_some()
}

/// Whether the address is one of the pod's.
#[inline(always)]
pub(crate) fn is_pod_address(pod: PodId, address: &Address) -> bool {
    POD_ADDRESSES.get_ptr(PodAddress::new(pod, *address)).is_some()
}

/// The pod of this node that has the address.
#[inline(always)]
pub(crate) fn local_pod(address: &Address) -> Option<PodId> {
    // SAFETY: a live map value; an eight-byte aligned load is whole.
    LOCAL_PODS.get_ptr(*address).map(|pod| unsafe { *pod })
}

/// Whether the port is kept out of the mesh.
#[inline(always)]
pub(crate) fn is_port_excluded(pod: PodId, port: u16, direction: u16) -> bool {
    EXCLUDED_PORTS
        .get_ptr(PodPort::new(pod, port, direction))
        .is_some()
}

/// Whether the destination is in a range kept out of the mesh.
#[inline(always)]
pub(crate) fn is_range_excluded(pod: PodId, address: &Address) -> bool {
    EXCLUDED_RANGES
        .get(&Key::new(
            RangeData::prefix_len(128),
            RangeData::new(pod, *address),
        ))
        .is_some()
}

/// Hands the SYN to a listener of the agent; false if there is none.
#[inline(always)]
pub(crate) fn assign_listener(ctx: &SkLookupContext, pod: PodId, role: u32, family: u32) -> bool {
    let key = ListenerKey { pod, role, family };
    let context = SkLookupContext::new(ctx.lookup);
    // The listeners of an agent and of those before it share a port: this one, not any of them.
    let this_one = u64::from(BPF_SK_LOOKUP_F_NO_REUSEPORT);
    LISTENERS.redirect_sk_lookup(context, key, this_one).is_ok()
}

/// The pod's row for the port, or its default row.
#[inline(always)]
#[expect(
    clippy::needless_borrows_for_generic_args,
    reason = "by value the key would be copied, and the copies take room on the stack"
)]
pub(crate) fn plaintext(pod: PodId, port: u16) -> Option<u32> {
    // One key for both questions: on Linux 6.1 every frame of `steer` counts in steps of 32 bytes, and 512 are all there are.
    let mut key = PodPort::new(pod, port, direction::INBOUND);
    let row = PLAINTEXT.get_ptr(&key).or_else(|| {
        key.port = 0;
        PLAINTEXT.get_ptr(&key)
    })?;
    // SAFETY: a live map value; a four-byte aligned load is whole even while the agent replaces it.
    Some(unsafe { *row })
}

#[inline(always)]
fn listening_key(pod: PodId, port: u16) -> PodPort {
    PodPort::new(pod, port, direction::INBOUND)
}

/// Whether a socket of the pod listens on the port: one that `sockops` saw begin, or one that was there before.
#[inline(always)]
#[expect(
    clippy::needless_borrows_for_generic_args,
    reason = "by value the key would be copied, and the copies take room on the stack"
)]
pub(crate) fn is_listening(pod: PodId, port: u16) -> bool {
    // One key for both questions, as above.
    let mut key = listening_key(pod, port);
    // SAFETY: a live map value; an aligned load is whole.
    let counted = LISTENING
        .get_ptr(&key)
        .is_some_and(|count| unsafe { *count as i64 } > 0);
    counted || {
        key.direction = direction::SEEDED;
        LISTENING.get_ptr(&key).is_some()
    }
}

/// One more listening socket; false if the table is full.
#[inline(always)]
pub(crate) fn listen_begins(pod: PodId, port: u16) -> bool {
    let key = listening_key(pod, port);
    if add(key, 1) {
        return true;
    }
    // Another socket may have inserted the row in between: then there is a row to raise.
    LISTENING.insert(key, 1, BPF_NOEXIST.into()).is_ok() || add(key, 1)
}

/// One listening socket less. The row stays at zero until the agent makes room: removing it here would race an insert.
#[inline(always)]
pub(crate) fn listen_ends(pod: PodId, port: u16) {
    add(listening_key(pod, port), u64::MAX);
}

#[inline(always)]
fn add(key: PodPort, value: u64) -> bool {
    let Some(count) = LISTENING.get_ptr_mut(key) else {
        return false;
    };
    // SAFETY: a live, aligned map value; all writers in the kernel add atomically.
    unsafe { atomic_add(count, value) };
    true
}

/// `lock *count += value`. The BPF target has no `AtomicU64::fetch_add` (no compare-and-swap before v3).
///
/// # Safety
/// `count` is a live, aligned map value.
#[cfg(target_arch = "bpf")]
#[inline(always)]
unsafe fn atomic_add(count: *mut u64, value: u64) {
    // SAFETY: one atomic add to the address the caller vouches for.
    unsafe {
        core::arch::asm!("lock *(u64 *)({count} + 0) += {value}", count = in(reg) count, value = in(reg) value);
    }
}

#[cfg(not(target_arch = "bpf"))]
unsafe fn atomic_add(count: *mut u64, value: u64) {
    // SAFETY: as above; only the host's type check comes here.
    unsafe { core::sync::atomic::AtomicU64::from_ptr(count) }
        .fetch_add(value, core::sync::atomic::Ordering::Relaxed);
}

/// Whether the registry holds the flow.
#[inline(always)]
pub(crate) fn is_registered(key: &FlowKey) -> bool {
    REGISTRY.get_ptr(*key).is_some()
}

/// Registers a flow; false if the registry is full.
#[inline(always)]
pub(crate) fn register(key: &FlowKey, flow: &Flow) -> bool {
    REGISTRY.insert(*key, *flow, 0).is_ok()
}

/// Removes a flow if `socket` registered it.
#[inline(always)]
pub(crate) fn unregister(key: &FlowKey, socket: u64) {
    let Some(flow) = REGISTRY.get_ptr(*key) else {
        return;
    };
    // SAFETY: a live map value; an eight-byte aligned load is whole.
    if unsafe { (*flow).socket } == socket {
        let _ = REGISTRY.remove(*key);
    }
}

/// What the agent wrote on a socket of its own; `None` for everybody else's.
#[inline(always)]
pub(crate) fn owned(socket: *mut bpf_sock) -> Option<Owned> {
    if socket.is_null() {
        return None;
    }
    // SAFETY: a socket the kernel gave to this program, checked for null; no value is created.
    let value = unsafe {
        bpf_sk_storage_get(
            (&raw const OWNED).cast_mut().cast(),
            socket.cast(),
            core::ptr::null_mut(),
            0,
        )
    };
    // SAFETY: null or a live storage value, which only the agent writes, once, before the socket is used.
    unsafe { value.cast::<Owned>().as_ref() }.copied()
}

/// Writes on a socket whose it is; false without memory for it.
#[inline(always)]
pub(crate) fn own(socket: *mut bpf_sock, mut owned: Owned) -> bool {
    let map = (&raw const OWNED).cast_mut().cast();
    let create = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
    // SAFETY: a socket the kernel gave to this program; `owned` is copied by the helper.
    let value = unsafe { bpf_sk_storage_get(map, socket.cast(), (&raw mut owned).cast(), create) };
    // SAFETY: null or a live storage value; a socket that is dialled again has one from before.
    match unsafe { value.cast::<Owned>().as_mut() } {
        Some(value) => {
            *value = owned;
            true
        }
        None => false,
    }
}

/// Raises a counter of this CPU.
#[inline(always)]
pub(crate) fn count(counter: Counter) {
    if let Some(row) = COUNTERS.get_ptr_mut(counter.row()) {
        // SAFETY: this CPU's own row; a program may be interrupted by another, then one count is lost at worst.
        unsafe { *row += 1 };
    }
}

/// Sends an event to the agent.
#[inline(always)]
pub(crate) fn send(event: Event) {
    match EVENTS.reserve(0) {
        Some(mut slot) => {
            slot.write(event);
            slot.submit(0);
        }
        None => count(Counter::EventLost),
    }
}

/// The version of a pod; `None` for one that is not enrolled.
#[inline(always)]
pub(crate) fn version(pod: PodId) -> Option<u64> {
    // SAFETY: a live map value; an eight-byte aligned load is whole.
    VERSIONS.get_ptr(pod).map(|version| unsafe { *version })
}

/// The agent's verdict on a connect.
#[inline(always)]
pub(crate) fn verdict(key: &VerdictKey) -> Option<Verdict> {
    // SAFETY: a live map value; the agent replaces entries as a whole, never in place.
    VERDICTS.get_ptr(*key).map(|verdict| unsafe { *verdict })
}

/// Writes on a socket by which verdict it passes; false without memory for it.
#[inline(always)]
pub(crate) fn pick(socket: *mut bpf_sock, verdict: Verdict, service: ServiceAt, now_ns: u64) -> bool {
    let mut picked = Picked {
        verdict,
        service,
        began_ns: now_ns,
        received: NOT_DIALLED,
    };
    let map = (&raw const PICKED).cast_mut().cast();
    let create = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
    // SAFETY: a socket the kernel gave to this program; `picked` is copied by the helper.
    let value = unsafe { bpf_sk_storage_get(map, socket.cast(), (&raw mut picked).cast(), create) };
    // SAFETY: null or a live storage value; a socket that is dialled again has one from before.
    match unsafe { value.cast::<Picked>().as_mut() } {
        Some(value) => {
            *value = picked;
            true
        }
        None => false,
    }
}

/// Notes on a socket that it dials, and passes by no verdict. One that was accepted has no such storage: by that the agent
/// tells what a pod dialled from what came in.
#[inline(always)]
pub(crate) fn unpick(socket: *mut bpf_sock) {
    let map = (&raw const PICKED).cast_mut().cast();
    let create = u64::from(BPF_SK_STORAGE_GET_F_CREATE);
    // SAFETY: a socket the kernel gave to this program; without a value a new storage is all zeros.
    let value = unsafe { bpf_sk_storage_get(map, socket.cast(), core::ptr::null_mut(), create) };
    // SAFETY: null or a live storage value; a socket that is dialled again has one from before.
    if let Some(value) = unsafe { value.cast::<Picked>().as_mut() } {
        value.verdict.kind = kind::NONE;
        value.service = ServiceAt::NONE;
    }
}

/// The socket does not pass by its verdict after all; the Service that was dialled is what it was.
#[inline(always)]
pub(crate) fn void_pick(socket: *mut bpf_sock) {
    if let Some(value) = picked_mut(socket) {
        value.verdict.kind = kind::NONE;
    }
}

/// Notes on a socket that passed how many bytes had come at some moment.
#[inline(always)]
pub(crate) fn note_received(socket: *mut bpf_sock, received: u64) {
    if let Some(value) = picked_mut(socket) {
        value.received = received;
    }
}

/// By which verdict the socket passed.
#[inline(always)]
pub(crate) fn picked(socket: *mut bpf_sock) -> Option<Picked> {
    picked_mut(socket).copied()
}

#[inline(always)]
fn picked_mut<'a>(socket: *mut bpf_sock) -> Option<&'a mut Picked> {
    if socket.is_null() {
        return None;
    }
    let map = (&raw const PICKED).cast_mut().cast();
    // SAFETY: a socket the kernel gave to this program, checked for null; no value is created.
    let value = unsafe { bpf_sk_storage_get(map, socket.cast(), core::ptr::null_mut(), 0) };
    // SAFETY: null or a live storage value of a socket that is locked by its own system call or event.
    unsafe { value.cast::<Picked>().as_mut() }
}

/// What is known of a connection between two pods of this node.
#[inline(always)]
pub(crate) fn direct(key: &FlowKey) -> Option<Passed> {
    // SAFETY: a live map value; entries are replaced as a whole.
    DIRECT.get_ptr(*key).map(|passed| unsafe { *passed })
}

/// What is known of a connection out of the mesh.
#[inline(always)]
pub(crate) fn outside(key: &FlowKey) -> Option<Passed> {
    // SAFETY: a live map value; entries are replaced as a whole.
    OUTSIDE.get_ptr(*key).map(|passed| unsafe { *passed })
}

/// The row of a Service for a pod that dials it.
#[inline(always)]
pub(crate) fn service(key: &VerdictKey) -> Option<ServiceRow> {
    // SAFETY: a live map value; the agent replaces entries as a whole, never in place.
    SERVICES.get_ptr(*key).map(|row| unsafe { *row })
}

/// An endpoint of a row.
#[inline(always)]
pub(crate) fn endpoint(key: &EndpointKey) -> Option<Endpoint> {
    // SAFETY: a live map value, written once, before its row is.
    ENDPOINTS.get_ptr(*key).map(|endpoint| unsafe { *endpoint })
}

/// Live connections to an endpoint, the kernel's and the agent's.
#[inline(always)]
pub(crate) fn load(row: u32) -> u64 {
    let Some(load) = LOADS.get_ptr(row) else {
        return 0;
    };
    // SAFETY: a live map value; eight-byte aligned loads are whole while others write them.
    let (kernel, agent) = unsafe { ((*load).kernel, (*load).agent) };
    Load::connections(kernel, agent)
}

/// One connection more to an endpoint; row zero is nobody's.
#[inline(always)]
pub(crate) fn load_begins(row: u32) {
    add_load(row, 1);
}

/// One less.
#[inline(always)]
pub(crate) fn load_ends(row: u32) {
    add_load(row, u64::MAX);
}

#[inline(always)]
fn add_load(row: u32, value: u64) {
    if row != 0
        && let Some(load) = LOADS.get_ptr_mut(row)
    {
        // SAFETY: a live, aligned map value; all writers in the kernel add atomically, the agent never writes this field of
        // a row that connections count in.
        unsafe { atomic_add(&raw mut (*load).kernel, value) };
    }
}

/// Notes a connection that was let pass; false if its table is full.
#[inline(always)]
pub(crate) fn note_passed(of: u32, key: &FlowKey, passed: &Passed) -> bool {
    if of == kind::DIRECT {
        DIRECT.insert(*key, *passed, 0).is_ok()
    } else {
        OUTSIDE.insert(*key, *passed, 0).is_ok()
    }
}

/// Removes it if `socket` noted it.
#[inline(always)]
pub(crate) fn forget_passed(of: u32, key: &FlowKey, socket: u64) {
    let table = if of == kind::DIRECT { &DIRECT } else { &OUTSIDE };
    let Some(passed) = table.get_ptr(*key) else {
        return;
    };
    // SAFETY: a live map value; an eight-byte aligned load is whole.
    if unsafe { (*passed).socket } == socket {
        let _ = table.remove(*key);
    }
}

/// Tells the agent a moment of a connection that it does not carry.
#[inline(always)]
pub(crate) fn tell_passage(passage: Passage) {
    match PASSAGES.reserve(0) {
        Some(mut slot) => {
            slot.write(passage);
            slot.submit(0);
        }
        None => count(Counter::PassageLost),
    }
}
