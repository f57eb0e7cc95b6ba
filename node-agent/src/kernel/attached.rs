//! What the programs that are attached read, asked of the kernel: the only account of it that a crash cannot falsify.

use super::{KernelError, pins::Pins};
use crate::sys::bpf::{self, inspect};
use aya::maps::MapInfo;
use std::{
    collections::{BTreeSet, HashMap},
    io,
    os::fd::AsFd as _,
    path::Path,
};

/// The maps of every program that is attached by one of the instance's links.
#[derive(Debug, Default)]
pub(super) struct Attached {
    /// By the kernel's id: its name.
    maps: HashMap<u32, String>,
}

impl Attached {
    /// Asks the kernel. Links whose cgroup or namespace is gone do not count: nothing runs by them.
    pub(super) fn read(pins: &Pins) -> Result<Self, KernelError> {
        let mut attached = Self::default();
        let mut programs = BTreeSet::new();
        for pin in pins.links()? {
            let failed = |source| KernelError::Inspect {
                path: pin.clone(),
                source,
            };
            let Some(program) = program_at(&pin).map_err(failed)? else {
                continue;
            };
            if programs.insert(program) {
                attached.add(program).map_err(failed)?;
            }
        }
        Ok(attached)
    }

    /// The program that runs by the link pinned there; `None` if none does.
    pub(super) fn at(pin: &Path) -> Result<Option<inspect::Program>, KernelError> {
        let facts = || -> io::Result<_> {
            let Some(program) = program_at(pin)? else {
                return Ok(None);
            };
            inspect::facts(inspect::program(program)?.as_fd()).map(Some)
        };
        match facts() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            found => found.map_err(|source| KernelError::Inspect {
                path: pin.to_owned(),
                source,
            }),
        }
    }

    fn add(&mut self, program: u32) -> io::Result<()> {
        // Between the two questions somebody may replace it, who holds no lock of ours: then its link tells no more.
        let program = inspect::program(program)?;
        for id in inspect::facts(program.as_fd())?.maps {
            if let std::collections::hash_map::Entry::Vacant(entry) = self.maps.entry(id) {
                let info = MapInfo::from_id(id).map_err(io::Error::other)?;
                entry.insert(String::from_utf8_lossy(info.name()).into_owned());
            }
        }
        Ok(())
    }

    /// The maps of this name that attached programs use, by id.
    pub(super) fn ids(&self, name: &str) -> BTreeSet<u32> {
        let named = self.maps.iter().filter(|(_, found)| *found == name);
        named.map(|(id, _)| *id).collect()
    }

    /// Whether an attached program uses the map.
    pub(super) fn uses(&self, map: u32) -> bool {
        self.maps.contains_key(&map)
    }
}

/// The program that runs by the link pinned there, if it is one and what it is attached to exists.
fn program_at(pin: &Path) -> io::Result<Option<u32>> {
    let link = bpf::open_pinned(pin)?;
    inspect::program_of(link.as_fd())
}
