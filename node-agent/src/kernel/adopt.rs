//! Which of the maps that are there an agent goes on with, and which it makes anew.
//!
//! A pin proves nothing: an agent that crashed between two steps, or one of another version that ran in between, may have
//! left one that nobody has written to since. So a map is gone on with only if the attached programs use it, and nothing
//! else in its place.

use super::{KernelError, attached::Attached, pins::Pins};
use crate::sys::bpf::{self, inspect};
use aya::maps::{MapError, MapInfo};
use std::{
    io,
    os::fd::{AsFd as _, OwnedFd},
    path::{Path, PathBuf},
};
use tramline_common::layout::{Kind, PINNED, Pinned, Shape};

/// The pinned maps of this agent, held so that they can be pinned again: a successor of another layout removes their pins.
pub(super) struct Own {
    maps: Vec<OwnMap>,
}

struct OwnMap {
    map: &'static Pinned,
    id: u32,
    is_new: bool,
    fd: OwnedFd,
}

/// Makes room for this agent's maps: leaves the pins of those that it goes on with, and removes those that only have the
/// name. Returns the maps that are to be made.
pub(super) fn make_room(pins: &Pins, attached: &Attached) -> Result<Vec<&'static str>, KernelError> {
    let mut new = Vec::new();
    for map in &PINNED {
        let path = pins.map(map);
        if goes_on(map, &path, attached)? {
            continue;
        }
        Pins::remove(&path)?;
        new.push(map.name);
    }
    Ok(new)
}

fn goes_on(map: &'static Pinned, path: &Path, attached: &Attached) -> Result<bool, KernelError> {
    let mut pinned = info_at(map, path)?;
    let used = attached.ids(map.name);
    if map.kind != Kind::Shared {
        return Ok(
            pinned.is_some_and(|(id, shape)| shape == map.shape && used.len() == 1 && used.contains(&id))
        );
    }
    let different = |found: String| KernelError::Contract { map: map.name, found };
    if used.len() > 1 {
        return Err(different("programs use several".into()));
    }
    if let (None, Some(id)) = (&pinned, used.first()) {
        // Somebody removed the pin. The programs have the map still.
        let failed = |source| KernelError::Pins {
            path: path.to_owned(),
            source,
        };
        let fd = inspect::map(*id).map_err(failed)?;
        bpf::pin(fd.as_fd(), path).map_err(failed)?;
        pinned = info_at(map, path)?;
    }
    match pinned {
        None => Ok(false),
        Some((_, shape)) if shape != map.shape => Err(different(words(shape))),
        Some((id, _)) if used.iter().any(|used| *used != id) => {
            Err(different("the programs use another than the pinned one".into()))
        }
        Some(_) => Ok(true),
    }
}

impl Own {
    /// Opens the maps that loading has pinned, and checks that they are what this agent reads and writes: with another size
    /// the kernel would write beyond the agent's memory.
    pub(super) fn open(pins: &Pins, new: &[&'static str]) -> Result<Self, KernelError> {
        let mut maps = Vec::new();
        for map in &PINNED {
            let path = pins.map(map);
            let (id, shape) = info_at(map, &path)?.ok_or(KernelError::Missing(map.name))?;
            if shape != map.shape {
                return Err(KernelError::Shape {
                    map: map.name,
                    found: words(shape),
                    expected: words(map.shape),
                });
            }
            let fd = bpf::open_pinned(&path).map_err(|source| KernelError::Pins { path, source })?;
            maps.push(OwnMap {
                map,
                id,
                is_new: new.contains(&map.name),
                fd,
            });
        }
        Ok(Self { maps })
    }

    /// Pins them where a successor has not left them.
    pub(super) fn pin_again(&self, pins: &Pins) -> Result<(), KernelError> {
        for own in &self.maps {
            let path = pins.map(own.map);
            if matches!(info_at(own.map, &path)?, Some((id, _)) if id == own.id) {
                continue;
            }
            Pins::remove(&path)?;
            bpf::pin(own.fd.as_fd(), &path).map_err(|source| KernelError::Pins { path, source })?;
        }
        Ok(())
    }

    /// Whether a program that uses `maps` would not know what the one before it knew: one of those that must be filled
    /// first was made anew.
    pub(super) fn must_be_filled(&self, maps: &[u32]) -> bool {
        let mut new = self.maps.iter().filter(|own| own.is_new);
        new.any(|own| matches!(own.map.kind, Kind::Filled(_)) && maps.contains(&own.id))
    }

    /// This agent's map of this name.
    pub(super) fn id(&self, name: &str) -> Option<u32> {
        let mut maps = self.maps.iter();
        maps.find(|own| own.map.name == name).map(|own| own.id)
    }

    /// Whether it is one of them.
    fn has(&self, id: u32) -> bool {
        self.maps.iter().any(|own| own.id == id)
    }

    /// Empties the maps of this name that attached programs of other agents use, whatever their layout.
    pub(super) fn clear_others(&self, name: &'static str, attached: &Attached) -> Result<(), KernelError> {
        for id in attached.ids(name).into_iter().filter(|id| !self.has(*id)) {
            let failed = |source| KernelError::Map { map: name, source };
            let info = MapInfo::from_id(id).map_err(failed)?;
            let clear = || -> io::Result<()> {
                inspect::clear(
                    inspect::map(id)?.as_fd(),
                    info.key_size() as usize,
                    info.max_entries() as usize,
                )
            };
            clear().map_err(|error| failed(MapError::IoError(error)))?;
        }
        Ok(())
    }

    /// Removes the pins of maps that no program and no agent on duty needs.
    pub(super) fn clean_up(&self, pins: &Pins, attached: &Attached) -> Result<(), KernelError> {
        let own: Vec<PathBuf> = self.maps.iter().map(|own| pins.map(own.map)).collect();
        for path in pins.maps()?.into_iter().filter(|path| !own.contains(path)) {
            let id = MapInfo::from_pin(&path).map(|info| info.id());
            if id.is_ok_and(|id| !attached.uses(id)) {
                tracing::debug!(pin = %path.display(), "removing a map that nothing uses");
                Pins::remove(&path)?;
            }
        }
        Ok(())
    }
}

fn info_at(map: &'static Pinned, path: &Path) -> Result<Option<(u32, Shape)>, KernelError> {
    match MapInfo::from_pin(path) {
        Ok(info) => Ok(Some((info.id(), shape_of(map, &info)))),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(KernelError::Map {
            map: map.name,
            source,
        }),
    }
}

fn shape_of(map: &Pinned, info: &MapInfo) -> Shape {
    Shape {
        key: info.key_size() as usize,
        value: info.value_size() as usize,
        // Of a socket storage the kernel says nothing.
        entries: if map.shape.entries == 0 {
            0
        } else {
            info.max_entries() as usize
        },
    }
}

fn words(shape: Shape) -> String {
    let Shape { key, value, entries } = shape;
    format!("{key} bytes to {value} bytes, {entries} entries")
}
