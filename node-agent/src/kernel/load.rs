//! Load the programs; attach them or replace those an earlier agent left attached.

use super::{
    KernelError,
    adopt::{self, Own},
    attached::Attached,
    diagnostics::Logger,
    maps::Maps,
    object,
    pins::Pins,
};
use crate::sys::bpf::{self, AttachType, inspect};
use aya::{
    Ebpf, EbpfLoader, VerifierLogLevel,
    maps::{Map, MapData, RingBuf},
    programs::{CgroupSockAddr, Program, ProgramError, SkLookup, SockOps},
};
use aya_log::EbpfLogger;
use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::MetadataExt as _,
    },
    path::{Path, PathBuf},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};
use tramline_common::{PodId, layout::PINNED, map::name};

const CONNECT4: &str = "connect4";
const CONNECT6: &str = "connect6";
const SOCKET_EVENT: &str = "socket_event";
const STEER: &str = "steer";
const PEER_NAME4: &str = "peer_name4";
const PEER_NAME6: &str = "peer_name6";
const PROBE4: &str = "probe4";
const PROBE6: &str = "probe6";

/// The object with the node's programs attached to the cgroup.
pub(crate) struct Programs {
    pins: Pins,
    cgroup: PathBuf,
    kubelet: Option<PathBuf>,
    /// Held for the life of the agent; the pins hold links and maps beyond it.
    ebpf: Mutex<Ebpf>,
    own: Own,
    /// The node's programs are still those of an agent with another layout.
    waits: AtomicBool,
}

/// How a successor stands to a map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Succession {
    /// No successor has replaced the programs yet.
    NotYet,
    /// Its programs use the same map.
    Shares,
    /// It has one of its own.
    Apart,
}

/// One of the node's programs: its name, the cgroup it belongs to, and how.
type NodeProgram<'a> = (&'static str, &'a Path, AttachType);

impl Programs {
    /// Loads the object and goes on with the maps that attached programs use, as far as they are of this agent's layout. Then
    /// attaches to `cgroup` what runs once per node; to the kubelet's cgroup, where it is known, what recognises its health
    /// checks. Where pods are captured by what is in maps of another layout, that waits for [`Self::attach_to_node`].
    pub(crate) fn start(
        pins: Pins,
        cgroup: &Path,
        kubelet: Option<&Path>,
        home: PodId,
    ) -> Result<(Self, Maps), KernelError> {
        let new = adopt::make_room(&pins, &Attached::read(&pins)?)?;
        let mut ebpf = load(&pins, home)?;
        let own = Own::open(&pins, &new)?;
        let maps = Maps::take(&mut ebpf)?;
        let programs = Self {
            pins,
            cgroup: cgroup.to_owned(),
            kubelet: kubelet.map(Path::to_owned),
            ebpf: Mutex::new(ebpf),
            own,
            waits: AtomicBool::new(false),
        };
        if programs.must_be_filled()? {
            programs.waits.store(true, Ordering::Relaxed);
        } else {
            programs.void_others()?;
            programs.attach_to_node()?;
        }
        Ok((programs, maps))
    }

    /// Whether the node's programs are still those of an agent with another layout.
    pub(crate) fn wait_for_pods(&self) -> bool {
        self.waits.load(Ordering::Relaxed)
    }

    fn must_be_filled(&self) -> Result<bool, KernelError> {
        // No pod is captured: nothing can be missing.
        if self.steered()?.is_empty() {
            return Ok(false);
        }
        let mut ebpf = self.ebpf();
        for (program, ..) in self.node_programs() {
            let program = loaded(&mut ebpf, program)?;
            let facts = inspect::facts(program).map_err(|source| KernelError::Inspect {
                path: self.cgroup.clone(),
                source,
            })?;
            if self.own.must_be_filled(&facts.maps) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// In the order in which they are attached.
    fn node_programs(&self) -> Vec<NodeProgram<'_>> {
        // Registration first: from the moment connects are captured, deliveries must be known.
        let mut programs = vec![(SOCKET_EVENT, &*self.cgroup, AttachType::CgroupSockOps)];
        if let Some(kubelet) = &self.kubelet {
            programs.push((PROBE4, kubelet, AttachType::CgroupInet4Connect));
            programs.push((PROBE6, kubelet, AttachType::CgroupInet6Connect));
        }
        // A name that the kernel gave must be known before it gives one.
        programs.push((PEER_NAME4, &self.cgroup, AttachType::CgroupInet4GetPeerName));
        programs.push((PEER_NAME6, &self.cgroup, AttachType::CgroupInet6GetPeerName));
        programs.push((CONNECT4, &self.cgroup, AttachType::CgroupInet4Connect));
        programs.push((CONNECT6, &self.cgroup, AttachType::CgroupInet6Connect));
        programs
    }

    /// Attaches the node's programs or puts them in the place of others. What they ask of the maps has to be there.
    pub(crate) fn attach_to_node(&self) -> Result<(), KernelError> {
        self.attach_first(usize::MAX)
    }

    /// The first so many of them.
    pub(crate) fn attach_first(&self, programs: usize) -> Result<(), KernelError> {
        let mut ebpf = self.ebpf();
        let all = self.node_programs();
        for (program, cgroup, kind) in all.iter().take(programs) {
            attach_to(&mut ebpf, &self.pins, cgroup, program, *kind)?;
        }
        if programs < all.len() {
            return Ok(());
        }
        if self.kubelet.is_none() {
            self.pins.remove_links(PROBE4, None)?;
            self.pins.remove_links(PROBE6, None)?;
        }
        self.waits.store(false, Ordering::Relaxed);
        Ok(())
    }

    /// Leaves links and maps to a successor.
    pub(crate) fn step_aside(&self) {
        self.pins.unlock();
    }

    /// Whether nobody has the pins.
    pub(crate) fn is_free(&self) -> bool {
        let free = self.pins.relock().is_ok();
        self.pins.unlock();
        free
    }

    /// Takes the pins back from a successor, and pins this agent's maps where it has removed them. The programs are to be put
    /// back next, when the maps say what is.
    ///
    /// # Errors
    /// [`KernelError::InUse`] while the successor lives.
    pub(crate) fn take_back(&self) -> Result<(), KernelError> {
        self.pins.relock()?;
        self.own.pin_again(&self.pins)
    }

    /// Makes the verdicts void that programs of another layout may still go by.
    pub(crate) fn void_others(&self) -> Result<(), KernelError> {
        self.own
            .clear_others(name::VERSIONS, &Attached::read(&self.pins)?)
    }

    /// Whether a successor's programs have taken the place of this agent's, and use its map of this name.
    pub(crate) fn succession(&self, map: &'static str) -> Result<Succession, KernelError> {
        let inspected = |source| KernelError::Inspect {
            path: self.cgroup.clone(),
            source,
        };
        let cgroup = std::fs::metadata(&self.cgroup).map_err(inspected)?.ino();
        let own = inspect::facts(loaded(&mut self.ebpf(), SOCKET_EVENT)?).map_err(inspected)?;
        Ok(match Attached::at(&self.pins.link(SOCKET_EVENT, cgroup))? {
            None => Succession::NotYet,
            Some(program) if program.id == own.id => Succession::NotYet,
            Some(program) if self.own.id(map).is_some_and(|map| program.maps.contains(&map)) => {
                Succession::Shares
            }
            Some(_) => Succession::Apart,
        })
    }

    /// Removes maps of other layouts that no program uses any more.
    pub(crate) fn clean_up(&self) -> Result<(), KernelError> {
        self.own.clean_up(&self.pins, &Attached::read(&self.pins)?)
    }

    fn ebpf(&self) -> MutexGuard<'_, Ebpf> {
        self.ebpf.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The events' ring buffer, opened anew: where a successor has read, only a new reader finds its place.
    pub(crate) fn reopen_events(&self) -> Result<RingBuf<MapData>, KernelError> {
        self.reopen(name::EVENTS)
    }

    /// The same for the connections that the kernel lets pass.
    pub(crate) fn reopen_passages(&self) -> Result<RingBuf<MapData>, KernelError> {
        self.reopen(name::PASSAGES)
    }

    fn reopen(&self, map: &'static str) -> Result<RingBuf<MapData>, KernelError> {
        let failed = |source| KernelError::Map { map, source };
        let pinned = PINNED.iter().find(|pinned| pinned.name == map);
        let path = self.pins.map(pinned.ok_or(KernelError::Missing(map))?);
        let map = MapData::from_pin(path).map_err(failed)?;
        RingBuf::try_from(Map::RingBuf(map)).map_err(failed)
    }

    /// Reads the programs' diagnostics into this process's log; `None` for an object built without them.
    pub(crate) fn diagnostics(&self) -> Option<Logger> {
        let mut ebpf = self.ebpf();
        match EbpfLogger::init(&mut ebpf) {
            Ok(logger) => Some(logger),
            Err(error) => {
                tracing::debug!(%error, "the eBPF programs have no diagnostics in this build");
                None
            }
        }
    }

    /// Attaches an instance of `steer` to a pod's namespace, or replaces the one that is there.
    pub(crate) fn steer(&self, pod: PodId, namespace: BorrowedFd<'_>) -> Result<(), KernelError> {
        let mut ebpf = load(&self.pins, pod)?;
        let program = loaded(&mut ebpf, STEER)?;
        attach(program, namespace, AttachType::SkLookup, &self.pins.pod(pod)).map_err(|source| {
            KernelError::Attach {
                program: STEER,
                target: format!("namespace {pod:#x}"),
                source,
            }
        })
    }

    /// Puts this agent's instance of `steer` in the place of one that an earlier agent attached; the pod need not be
    /// enrolled, nor exist any more.
    pub(crate) fn steer_again(&self, pod: PodId) -> Result<(), KernelError> {
        let failed = |source| KernelError::Attach {
            program: STEER,
            target: format!("namespace {pod:#x}"),
            source,
        };
        let link = bpf::open_pinned(&self.pins.pod(pod)).map_err(failed)?;
        let mut ebpf = load(&self.pins, pod)?;
        match bpf::link_update(link.as_fd(), loaded(&mut ebpf, STEER)?) {
            Err(error) if error.raw_os_error() != Some(libc::ENOLINK) => Err(failed(error)),
            _ => Ok(()),
        }
    }

    /// Whether this agent or one before it attached an instance of `steer` for the pod.
    pub(crate) fn is_steered(&self, pod: PodId) -> bool {
        self.pins.pod(pod).exists()
    }

    /// Detaches a pod's instance of `steer`.
    pub(crate) fn release(&self, pod: PodId) -> Result<(), KernelError> {
        Pins::remove(&self.pins.pod(pod))
    }

    /// Pods steered by this agent or one before it.
    pub(crate) fn steered(&self) -> Result<Vec<PodId>, KernelError> {
        self.pins.pods()
    }
}

/// Names of the programs, in the order in which they meet a connection.
pub(crate) const PROGRAMS: [&str; 8] = [
    CONNECT4,
    CONNECT6,
    STEER,
    SOCKET_EVENT,
    PEER_NAME4,
    PEER_NAME6,
    PROBE4,
    PROBE6,
];

/// Passes one program through this kernel's verifier, with maps of its own that go again at once.
pub(crate) fn verify(program: &'static str) -> Result<(), KernelError> {
    let mut ebpf = EbpfLoader::new().btf(None).load(object::bytes()?)?;
    loaded(&mut ebpf, program).map(drop)
}

/// Attaches the connect programs to `cgroup` with maps of their own, does `work`, and tells how many connects of
/// processes below the cgroup they saw meanwhile.
pub(crate) fn seen_below(cgroup: &Path, work: impl FnOnce()) -> Result<u64, KernelError> {
    let mut ebpf = EbpfLoader::new().btf(None).load(object::bytes()?)?;
    let target = |source| KernelError::Attach {
        program: CONNECT4,
        target: cgroup.display().to_string(),
        source,
    };
    let directory = File::open(cgroup).map_err(target)?;
    let maps = Maps::take(&mut ebpf)?;
    let program = loaded(&mut ebpf, CONNECT4)?;
    let link =
        bpf::link_create(program, directory.as_fd(), AttachType::CgroupInet4Connect).map_err(target)?;
    work();
    drop(link);
    Ok(maps.counter(tramline_common::counter::Counter::Seen))
}

/// Reads the object; `pod` is its constant: the namespace that `steer` is for, or the node's.
fn load(pins: &Pins, pod: PodId) -> Result<Ebpf, KernelError> {
    let paths: Vec<_> = PINNED.iter().map(|map| (map.name, pins.map(map))).collect();
    let mut loader = EbpfLoader::new();
    // No program needs the kernel's types (no CO-RE relocation), and reading them takes 40 ms a load.
    loader.btf(None).verifier_log_level(VerifierLogLevel::empty());
    // One ring buffer of diagnostics for all instances, where the object has diagnostics.
    let diagnostics = pins.unnumbered("AYA_LOGS");
    loader.map_pin_path("AYA_LOGS", diagnostics.as_path());
    for (map, path) in &paths {
        loader.map_pin_path(map, path.as_path());
    }
    loader.override_global("POD", &pod, true);
    Ok(loader.load(object::bytes()?)?)
}

/// Passes a program through the verifier and returns its descriptor.
fn loaded<'a>(ebpf: &'a mut Ebpf, program: &'static str) -> Result<BorrowedFd<'a>, KernelError> {
    let refused = |source| KernelError::Program { program, source };
    let found = ebpf.program_mut(program).ok_or(KernelError::Missing(program))?;
    let load = match found {
        Program::CgroupSockAddr(p) => p.load(),
        Program::SockOps(p) => p.load(),
        Program::SkLookup(p) => p.load(),
        _ => return Err(KernelError::Missing(program)),
    };
    match load {
        Ok(()) | Err(ProgramError::AlreadyLoaded) => {}
        Err(source) => return Err(refused(source)),
    }
    let fd = match found {
        Program::CgroupSockAddr(p) => CgroupSockAddr::fd(p),
        Program::SockOps(p) => SockOps::fd(p),
        Program::SkLookup(p) => SkLookup::fd(p),
        _ => return Err(KernelError::Missing(program)),
    };
    Ok(fd.map_err(refused)?.as_fd())
}

/// Attaches a program to a cgroup under its own name's pin.
fn attach_to(
    ebpf: &mut Ebpf,
    pins: &Pins,
    cgroup: &Path,
    program: &'static str,
    kind: AttachType,
) -> Result<(), KernelError> {
    let failed = |source| KernelError::Attach {
        program,
        target: cgroup.display().to_string(),
        source,
    };
    let target = File::open(cgroup).map_err(failed)?;
    // A cgroup's id is its directory's inode number.
    let id = target.metadata().map_err(failed)?.ino();
    attach(
        loaded(ebpf, program)?,
        target.as_fd(),
        kind,
        &pins.link(program, id),
    )
    .map_err(failed)?;
    pins.remove_links(program, Some(id))
}

/// Replaces the program of the link pinned at `pin`; where there is none, or its target is gone, attaches anew.
fn attach(program: BorrowedFd<'_>, target: BorrowedFd<'_>, kind: AttachType, pin: &Path) -> io::Result<()> {
    match bpf::open_pinned(pin) {
        Ok(link) => match bpf::link_update(link.as_fd(), program) {
            Ok(()) => return Ok(()),
            // ENOLINK: the cgroup or namespace the link belonged to is gone.
            Err(error) => tracing::debug!(%error, pin = %pin.display(), "stale link; attaching anew"),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    if pin.exists() {
        std::fs::remove_file(pin)?;
    }
    let link = bpf::link_create(program, target, kind)?;
    bpf::pin(link.as_fd(), pin)
}
