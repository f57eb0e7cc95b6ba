//! Load the programs; attach them or replace those an earlier agent left attached.

use super::{KernelError, diagnostics::Logger, maps::Maps, object, pins::Pins};
use crate::sys::bpf::{self, AttachType};
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
    sync::{Mutex, PoisonError},
};
use tramline_common::{PodId, map::name};

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
}

impl Programs {
    /// Loads the object, opens or creates the pinned maps, and attaches to `cgroup` what runs once per node; to the
    /// kubelet's cgroup, where it is known, what recognises its health checks.
    pub(crate) fn start(
        pins: Pins,
        cgroup: &Path,
        kubelet: Option<&Path>,
        home: PodId,
    ) -> Result<(Self, Maps), KernelError> {
        let mut ebpf = load(&pins, home)?;
        let maps = Maps::take(&mut ebpf)?;
        let programs = Self {
            pins,
            cgroup: cgroup.to_owned(),
            kubelet: kubelet.map(Path::to_owned),
            ebpf: Mutex::new(ebpf),
        };
        programs.attach_to_node()?;
        Ok((programs, maps))
    }

    fn attach_to_node(&self) -> Result<(), KernelError> {
        let ebpf = &mut *self.ebpf.lock().unwrap_or_else(PoisonError::into_inner);
        let (pins, cgroup) = (&self.pins, &self.cgroup);
        // Registration first: from the moment connects are captured, deliveries must be known.
        attach_to(ebpf, pins, cgroup, SOCKET_EVENT, AttachType::CgroupSockOps)?;
        if let Some(kubelet) = &self.kubelet {
            attach_to(ebpf, pins, kubelet, PROBE4, AttachType::CgroupInet4Connect)?;
            attach_to(ebpf, pins, kubelet, PROBE6, AttachType::CgroupInet6Connect)?;
        } else {
            pins.remove_links(PROBE4, None)?;
            pins.remove_links(PROBE6, None)?;
        }
        // A name that the kernel gave must be known before it gives one.
        attach_to(ebpf, pins, cgroup, PEER_NAME4, AttachType::CgroupInet4GetPeerName)?;
        attach_to(ebpf, pins, cgroup, PEER_NAME6, AttachType::CgroupInet6GetPeerName)?;
        attach_to(ebpf, pins, cgroup, CONNECT4, AttachType::CgroupInet4Connect)?;
        attach_to(ebpf, pins, cgroup, CONNECT6, AttachType::CgroupInet6Connect)
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

    /// Puts this agent's programs back in the place of a successor's.
    ///
    /// # Errors
    /// [`KernelError::InUse`] while the successor lives.
    pub(crate) fn take_back(&self) -> Result<(), KernelError> {
        self.pins.relock()?;
        self.attach_to_node()
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
        let map = MapData::from_pin(self.pins.map(map)).map_err(failed)?;
        RingBuf::try_from(Map::RingBuf(map)).map_err(failed)
    }

    /// Reads the programs' diagnostics into this process's log; `None` for an object built without them.
    pub(crate) fn diagnostics(&self) -> Option<Logger> {
        let mut ebpf = self.ebpf.lock().unwrap_or_else(PoisonError::into_inner);
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
    let paths: Vec<_> = name::PINNED.iter().map(|map| (*map, pins.map(map))).collect();
    let mut loader = EbpfLoader::new();
    // No program needs the kernel's types (no CO-RE relocation), and reading them takes 40 ms a load.
    loader.btf(None).verifier_log_level(VerifierLogLevel::empty());
    // One ring buffer of diagnostics for all instances, where the object has diagnostics.
    let diagnostics = pins.map("AYA_LOGS");
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
