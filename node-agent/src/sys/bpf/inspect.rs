//! What is attached and what it reads, as the kernel tells it: nothing that an agent wrote down and could have left behind wrong.

use super::{call, raw};
use std::{
    io,
    os::fd::{BorrowedFd, FromRawFd as _, OwnedFd},
};

const BPF_MAP_DELETE_ELEM: libc::c_int = 3;
const BPF_MAP_GET_NEXT_KEY: libc::c_int = 4;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_MAP_GET_FD_BY_ID: libc::c_int = 14;
const BPF_OBJ_GET_INFO_BY_FD: libc::c_int = 15;

/// Maps of one program, at most: `MAX_USED_MAPS` of the kernel.
const MAX_USED_MAPS: usize = 64;

#[repr(C)]
struct InfoAttr {
    bpf_fd: u32,
    info_len: u32,
    info: u64,
}

#[repr(C)]
#[derive(Default)]
struct IdAttr {
    id: u32,
    next_id: u32,
    open_flags: u32,
    reserved: u32,
}

#[repr(C)]
struct ElementAttr {
    map_fd: u32,
    reserved: u32,
    key: u64,
    /// A value, or where the next key goes.
    second: u64,
    flags: u64,
}

/// The beginning of `struct bpf_link_info`, with its part about cgroups and network namespaces.
#[repr(C)]
#[derive(Default)]
struct LinkInfo {
    kind: u32,
    id: u32,
    program: u32,
    reserved: u32,
    /// `cgroup.cgroup_id`, or in its first half `netns.netns_ino`: zero once that is gone.
    target: u64,
    attach_type: [u32; 8],
}

/// The beginning of `struct bpf_prog_info`.
#[repr(C)]
#[derive(Default)]
struct ProgramInfo {
    kind: u32,
    id: u32,
    tag: [u8; 8],
    jited_len: u32,
    xlated_len: u32,
    jited: u64,
    xlated: u64,
    load_time: u64,
    created_by: u32,
    nr_map_ids: u32,
    map_ids: u64,
}

/// `BPF_LINK_TYPE_CGROUP` of `enum bpf_link_type`.
const LINK_TYPE_CGROUP: u32 = 3;

/// The program of a link; `None` if what it was attached to is gone.
pub(crate) fn program_of(link: BorrowedFd<'_>) -> io::Result<Option<u32>> {
    let mut info = LinkInfo::default();
    read_info(link, &mut info)?;
    let is_there = match info.kind {
        LINK_TYPE_CGROUP => info.target != 0,
        // The other half is the type of attachment.
        _ => {
            info.target
                .to_ne_bytes()
                .first_chunk()
                .map(|ino| u32::from_ne_bytes(*ino))
                != Some(0)
        }
    };
    Ok(is_there.then_some(info.program))
}

/// A program as the kernel knows it.
#[derive(Debug)]
pub(crate) struct Program {
    /// Its id, which the kernel uses once.
    pub(crate) id: u32,
    /// The maps that it reads or writes, by their ids.
    pub(crate) maps: Vec<u32>,
}

/// What a program is.
pub(crate) fn facts(program: BorrowedFd<'_>) -> io::Result<Program> {
    let mut ids = [0_u32; MAX_USED_MAPS];
    let mut info = ProgramInfo {
        nr_map_ids: MAX_USED_MAPS as u32,
        map_ids: ids.as_mut_ptr() as u64,
        ..ProgramInfo::default()
    };
    read_info(program, &mut info)?;
    Ok(Program {
        id: info.id,
        maps: ids.into_iter().take(info.nr_map_ids as usize).collect(),
    })
}

/// A descriptor of the program with this id.
pub(crate) fn program(id: u32) -> io::Result<OwnedFd> {
    by_id(BPF_PROG_GET_FD_BY_ID, id)
}

/// A descriptor of the map with this id.
pub(crate) fn map(id: u32) -> io::Result<OwnedFd> {
    by_id(BPF_MAP_GET_FD_BY_ID, id)
}

/// Removes every entry of a hash map whose layout need not be known.
pub(crate) fn clear(map: BorrowedFd<'_>, key_size: usize, entries: usize) -> io::Result<()> {
    let mut key = vec![0_u8; key_size];
    // Whoever still writes to it must not keep this from ending.
    for _ in 0..entries.saturating_mul(2) {
        let mut attr = ElementAttr {
            map_fd: raw(map),
            reserved: 0,
            // No key: the first one is the next.
            key: 0,
            second: key.as_mut_ptr() as u64,
            flags: 0,
        };
        match call(BPF_MAP_GET_NEXT_KEY, &attr) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            found => found?,
        };
        (attr.key, attr.second) = (attr.second, 0);
        match call(BPF_MAP_DELETE_ELEM, &attr) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            removed => drop(removed?),
        }
    }
    Err(io::Error::other("somebody keeps writing to it"))
}

fn by_id(command: libc::c_int, id: u32) -> io::Result<OwnedFd> {
    let fd = call(
        command,
        &IdAttr {
            id,
            ..IdAttr::default()
        },
    )?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Has the kernel fill in `info`, which begins as its struct for this kind of object does.
fn read_info<T>(object: BorrowedFd<'_>, info: &mut T) -> io::Result<()> {
    let attr = InfoAttr {
        bpf_fd: raw(object),
        info_len: size_of::<T>() as u32,
        info: std::ptr::from_mut(info) as u64,
    };
    call(BPF_OBJ_GET_INFO_BY_FD, &attr).map(drop)
}
