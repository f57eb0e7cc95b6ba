//! `bpf(2)` commands that aya 0.14 does not offer for every link type: pin, open and update a link in place.

use std::{
    ffi::CString,
    io,
    os::{
        fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::Path,
};

pub(crate) mod inspect;

const BPF_OBJ_PIN: libc::c_int = 6;
const BPF_OBJ_GET: libc::c_int = 7;
const BPF_LINK_CREATE: libc::c_int = 28;
const BPF_LINK_UPDATE: libc::c_int = 29;

/// `enum bpf_attach_type` of uapi `linux/bpf.h`.
#[derive(Clone, Copy, Debug)]
#[repr(u32)]
pub(crate) enum AttachType {
    CgroupSockOps = 3,
    CgroupInet4Connect = 10,
    CgroupInet6Connect = 11,
    CgroupInet4GetPeerName = 29,
    CgroupInet6GetPeerName = 30,
    SkLookup = 36,
}

#[repr(C)]
#[derive(Default)]
struct ObjAttr {
    pathname: u64,
    bpf_fd: u32,
    file_flags: u32,
    path_fd: i32,
    reserved: u32,
}

#[repr(C)]
#[derive(Default)]
struct LinkAttr {
    prog_or_link_fd: u32,
    target_or_prog_fd: u32,
    attach_type_or_flags: u32,
    flags_or_old_fd: u32,
    reserved: [u64; 2],
}

/// Pins a descriptor of a link below a BPF filesystem.
pub(crate) fn pin(fd: BorrowedFd<'_>, path: &Path) -> io::Result<()> {
    let path = c_path(path)?;
    let attr = ObjAttr {
        pathname: path.as_ptr() as u64,
        bpf_fd: raw(fd),
        ..ObjAttr::default()
    };
    call(BPF_OBJ_PIN, &attr).map(drop)
}

/// Opens what is pinned at `path`.
pub(crate) fn open_pinned(path: &Path) -> io::Result<OwnedFd> {
    let path = c_path(path)?;
    let attr = ObjAttr {
        pathname: path.as_ptr() as u64,
        ..ObjAttr::default()
    };
    let fd = call(BPF_OBJ_GET, &attr)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches a program to a cgroup or a network namespace.
pub(crate) fn link_create(
    program: BorrowedFd<'_>,
    target: BorrowedFd<'_>,
    kind: AttachType,
) -> io::Result<OwnedFd> {
    let attr = LinkAttr {
        prog_or_link_fd: raw(program),
        target_or_prog_fd: raw(target),
        attach_type_or_flags: kind as u32,
        ..LinkAttr::default()
    };
    let fd = call(BPF_LINK_CREATE, &attr)?;
    // SAFETY: the kernel has just made this descriptor for us; nobody else owns it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Replaces the program of a link: at no moment is nothing attached.
///
/// Fails with `ENOLINK` if what the link was attached to is gone.
pub(crate) fn link_update(link: BorrowedFd<'_>, program: BorrowedFd<'_>) -> io::Result<()> {
    let attr = LinkAttr {
        prog_or_link_fd: raw(link),
        target_or_prog_fd: raw(program),
        ..LinkAttr::default()
    };
    call(BPF_LINK_UPDATE, &attr).map(drop)
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    // A borrowed descriptor is never negative.
    fd.as_raw_fd().unsigned_abs()
}

fn c_path(path: &Path) -> io::Result<CString> {
    CString::new(path.as_os_str().as_bytes()).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))
}

fn call<T>(command: libc::c_int, attr: &T) -> io::Result<i32> {
    // SAFETY: `attr` is a repr(C) struct without padding that begins as `union bpf_attr` does for `command`;
    // the kernel reads `size_of` bytes of it and treats the rest as zero. Pointers in it outlive the call.
    let code = unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    match i32::try_from(code) {
        Ok(code) if code >= 0 => Ok(code),
        _ => Err(io::Error::last_os_error()),
    }
}
