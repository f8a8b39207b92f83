//! The plugin's unix socket: found by Docker in `/run/docker/plugins` under the plugin's name.

use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

/// A bound socket; its file is removed when this is dropped.
#[derive(Debug)]
pub struct PluginSocket {
    /// Accepts Docker's connections.
    pub listener: UnixListener,
    file: SocketFile,
}

#[derive(Debug)]
struct SocketFile(PathBuf);

impl Drop for SocketFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

/// Why the socket cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum SocketError {
    /// Something answers there.
    #[error("another plugin already serves {path}; stop it, or choose another --plugin-name")]
    Served {
        /// The socket.
        path: PathBuf,
    },
    /// The path does not fit into a socket address.
    #[error(
        "the path {path} is longer than the 107 bytes of a unix socket's address; choose a shorter --plugin-dir"
    )]
    TooLong {
        /// The socket.
        path: PathBuf,
    },
    /// It cannot be made.
    #[error("could not make the socket {path}")]
    Io {
        /// The socket.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
}

impl PluginSocket {
    /// Binds `<folder>/<name>.sock` with mode 0600. A stale one is replaced; one that answers is not.
    pub fn bind(folder: &Path, name: &str) -> Result<PluginSocket, SocketError> {
        let path = folder.join(format!("{name}.sock"));
        // Bound under another name first, so that Docker never sees it before its mode is set.
        let hidden = folder.join(format!(".{name}.{}", std::process::id()));
        if hidden.as_os_str().len() > 107 || path.as_os_str().len() > 107 {
            return Err(SocketError::TooLong { path });
        }
        if UnixStream::connect(&path).is_ok() {
            return Err(SocketError::Served { path });
        }
        let io = |source| SocketError::Io { path: path.clone(), source };
        fs::create_dir_all(folder).map_err(io)?;
        let _ = fs::remove_file(&hidden);
        let listener = UnixListener::bind(&hidden).map_err(io)?;
        let published = fs::set_permissions(&hidden, fs::Permissions::from_mode(0o600))
            .and_then(|()| fs::rename(&hidden, &path));
        published.inspect_err(|_| drop(fs::remove_file(&hidden))).map_err(io)?;
        Ok(PluginSocket { listener, file: SocketFile(path) })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.file.0
    }
}
