//! Sockets of this machine: Unix stream sockets and TCP on the loopback interface.

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};

/// A Unix socket that listens and is removed when dropped.
#[derive(Debug)]
pub struct BoundUnix {
    listener: UnixListener,
    path: PathBuf,
}

impl BoundUnix {
    /// Listens at `path`, for this user alone; replaces what a dead process left there.
    ///
    /// # Errors
    /// Somebody listens there already, something else is there, or the folder does not permit it.
    pub async fn bind(path: &Path) -> io::Result<Self> {
        refuse_unless_stale(path).await?;
        // Bound under another name, restricted, and only then renamed: nobody else can connect in between.
        let mut fresh = path.as_os_str().to_owned();
        fresh.push(".new");
        remove(Path::new(&fresh))?;
        let listener = UnixListener::bind(&fresh)?;
        fs::set_permissions(&fresh, fs::Permissions::from_mode(0o600))?;
        fs::rename(&fresh, path)?;
        Ok(Self { listener, path: path.to_owned() })
    }

    /// The next connection. Cancel safe.
    ///
    /// # Errors
    /// The operating system has no room for one more.
    pub async fn accept(&self) -> io::Result<UnixStream> {
        self.listener.accept().await.map(|(stream, _)| stream)
    }
}

impl Drop for BoundUnix {
    fn drop(&mut self) {
        if let Err(error) = remove(&self.path) {
            tracing::debug!(path = %self.path.display(), %error, "cannot remove a socket");
        }
    }
}

/// A TCP socket that listens.
#[derive(Debug)]
pub struct BoundTcp(TcpListener);

impl BoundTcp {
    /// Listens at a loopback address.
    ///
    /// # Errors
    /// The port is taken.
    pub async fn bind(address: SocketAddr) -> io::Result<Self> {
        TcpListener::bind(address).await.map(Self)
    }

    /// The address it listens at: with the port that was chosen when 0 was asked for.
    ///
    /// # Errors
    /// The operating system does not say.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// The next connection. Cancel safe.
    ///
    /// # Errors
    /// The operating system has no room for one more.
    pub async fn accept(&self) -> io::Result<TcpStream> {
        let (stream, _) = self.0.accept().await?;
        without_delay(&stream)?;
        Ok(stream)
    }
}

/// Frames are small and each is waited for: none is held back to fill a segment.
///
/// # Errors
/// The socket is gone already.
pub fn without_delay(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)
}

async fn refuse_unless_stale(path: &Path) -> io::Result<()> {
    let kind = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found?.file_type(),
    };
    if !kind.is_socket() {
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, "it exists and is no socket"));
    }
    match UnixStream::connect(path).await {
        Ok(_) => Err(io::Error::new(io::ErrorKind::AddrInUse, "another process listens there")),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(error),
    }
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}
