//! A unix socket that only root and the agent's own user can reach.

use std::fs::{self, DirBuilder, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, FileTypeExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use nix::unistd::Uid;
use socket2::{Domain, SockAddr, Socket, Type};
use tokio::net::{UnixListener, UnixStream};

/// The admin socket cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// An agent answers there.
    #[error(
        "admin socket {0}: another agent answers there; stop it, or give this one its own --admin-socket"
    )]
    InUse(PathBuf),
    /// Something else lies there.
    #[error(
        "admin socket {0}: the path exists and is not a socket; remove it or choose another --admin-socket"
    )]
    NotASocket(PathBuf),
    /// Others could replace the socket.
    #[error(
        "admin socket: directory {path} (mode {mode:04o}, owner {owner}) can be written by others; chmod 0700 it"
    )]
    OpenDirectory {
        /// The directory.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
        /// Its owner's user id.
        owner: u32,
    },
    /// The system refused.
    #[error("admin socket {path}: {action}: {source}")]
    Io {
        /// The socket or its directory.
        path: PathBuf,
        /// What was being done.
        action: &'static str,
        /// Why it failed.
        source: io::Error,
    },
}

/// Binds `path`, mode 0600 from its first moment: made inside a private directory, then moved into place.
pub(super) fn bind(path: &Path) -> Result<UnixListener, SocketError> {
    let directory = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    prepare_directory(directory)?;
    refuse_occupied(path)?;
    let private = directory.join(format!(".admin-{}", std::process::id()));
    let _ = fs::remove_dir_all(&private);
    let at = |action| {
        move |source| SocketError::Io {
            path: path.to_owned(),
            action,
            source,
        }
    };
    DirBuilder::new()
        .mode(0o700)
        .create(&private)
        .map_err(at("make a private directory for it"))?;
    let bound = bind_in(&private, path);
    let _ = fs::remove_dir_all(&private);
    bound.map_err(at("bind"))
}

/// Whether the process at the other end is root's or this user's: the mode keeps others out already, this holds even
/// if somebody changes it.
pub(super) fn peer_may_enter(stream: &UnixStream) -> bool {
    match stream.peer_cred() {
        Ok(peer) if user_may_enter(peer.uid(), Uid::effective().as_raw()) => true,
        Ok(peer) => {
            tracing::warn!(uid = peer.uid(), "refused a user on the admin socket");
            false
        }
        Err(error) => {
            tracing::warn!(%error, "refused an unknown peer on the admin socket");
            false
        }
    }
}

/// Root and the agent's own user.
pub(super) fn user_may_enter(peer: u32, own: u32) -> bool {
    peer == 0 || peer == own
}

fn bind_in(private: &Path, path: &Path) -> io::Result<UnixListener> {
    let temporary = private.join("s");
    let listener = UnixListener::bind(&temporary)?;
    fs::set_permissions(&temporary, Permissions::from_mode(0o600))?;
    fs::rename(&temporary, path)?;
    Ok(listener)
}

fn prepare_directory(directory: &Path) -> Result<(), SocketError> {
    let at = |action| {
        move |source| SocketError::Io {
            path: directory.to_owned(),
            action,
            source,
        }
    };
    DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(directory)
        .map_err(at("make the directory"))?;
    let metadata = fs::metadata(directory).map_err(at("look at the directory"))?;
    let (mode, owner) = (metadata.mode() & 0o7777, metadata.uid());
    let trusted_owner = owner == 0 || owner == Uid::effective().as_raw();
    if !trusted_owner || mode & 0o022 != 0 {
        return Err(SocketError::OpenDirectory {
            path: directory.to_owned(),
            mode,
            owner,
        });
    }
    Ok(())
}

/// Leaves a free path or a dead socket, which the rename replaces.
fn refuse_occupied(path: &Path) -> Result<(), SocketError> {
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(source) => Err(SocketError::Io {
            path: path.to_owned(),
            action: "look at it",
            source,
        }),
        Ok(metadata) if !metadata.file_type().is_socket() => Err(SocketError::NotASocket(path.to_owned())),
        Ok(_) => match knock(path) {
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
            // A full backlog is somebody too, only a busy one.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                Err(SocketError::InUse(path.to_owned()))
            }
            Err(source) => Err(SocketError::Io {
                path: path.to_owned(),
                action: "see who answers",
                source,
            }),
            Ok(()) => Err(SocketError::InUse(path.to_owned())),
        },
    }
}

/// Connects without waiting.
fn knock(path: &Path) -> io::Result<()> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.connect(&SockAddr::unix(path)?)
}
