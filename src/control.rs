//! The local control socket: one JSON object a line, a request and its answer.
//!
//! Who may open the socket may command who listens there. That of the gateway has mode 0660, so these are the gateway's
//! own user, its group and root, as far as they get to the folder. An answer of `device-show` holds capabilities; no other
//! does.

use std::io;
use std::os::unix::fs::{FileTypeExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, AsyncReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::net::{UnixListener, UnixStream};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::time::timeout;
use tracing::debug;

use crate::limits::{
    CONTROL_ANSWER_BYTES_MAX, CONTROL_CONNECTION_COUNT_MAX, CONTROL_REQUEST_BYTES_MAX, CONTROL_WAIT_MS_MAX,
};
use crate::proto::device::{LinkOptions, Options};

/// What can be asked of somebody who listens.
pub trait Command: Serialize + DeserializeOwned + 'static {
    /// The mode of the socket.
    const MODE: u32;
    /// Who listens.
    const PARTY: &str;
    /// What to do when nobody does.
    const ABSENT: &str;
    /// Who may ask.
    const DENIED: &str;
}

impl Command for Request {
    const MODE: u32 = 0o660;
    const PARTY: &str = "the gateway";
    const ABSENT: &str = "start the gateway with fieldgate run, or name the socket of a running one with --control";
    const DENIED: &str = "only the gateway's own user, its group and root may use it";
}

/// What a person asks of a running gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// States and counts.
    Status,
    /// Connection to the service and device links.
    Connections,
    /// All devices.
    DeviceList,
    /// Takes up a device for good.
    DeviceAdd {
        /// Its id.
        id: String,
        /// Its link, as in the configuration.
        link: String,
        /// Its channels.
        channels: Vec<u16>,
        /// Octets of the largest frame on its link.
        mtu: u16,
        /// What it wants of its subscriptions.
        #[serde(default)]
        options: Options,
        /// What is special about its link.
        #[serde(default)]
        link_options: LinkOptions,
    },
    /// The push subscription of a device's channel.
    DeviceShow {
        /// Its id.
        id: String,
        /// The channel; the first one if none is named.
        channel: Option<u16>,
    },
    /// Removes a device and its subscriptions.
    DeviceRemove {
        /// Its id.
        id: String,
    },
    /// Asks the service for what it stores for a device.
    DeviceFetch {
        /// Its id.
        id: String,
    },
    /// Makes other push URIs and keys for a device.
    DeviceRotate {
        /// Its id.
        id: String,
        /// The channel; all of them if none is named.
        channel: Option<u16>,
    },
    /// What is known of the time.
    Time,
    /// Forgets the stored time. The answer is what is known then.
    TimeReset,
    /// Removes everything at the push services and on flash. The answer says how much is left; it may be asked again.
    Reset,
}

/// The answer: something to print, or why not.
pub type Answer = Result<Value, String>;

/// A request with the way to answer it.
#[derive(Debug)]
pub struct Asked<R = Request> {
    /// The request.
    pub request: R,
    /// Takes the answer.
    pub answer: oneshot::Sender<Answer>,
}

/// The listening socket; its file is removed when this is dropped.
#[derive(Debug)]
pub struct Control<R = Request> {
    path: PathBuf,
    requests: mpsc::Receiver<Asked<R>>,
}

impl<R: Command> Control<R> {
    /// Listens at a path, replacing what a dead process left there.
    ///
    /// # Errors
    /// The path cannot be used, or another process listens there.
    pub fn listen(path: &Path) -> io::Result<Self> {
        remove_stale(path)?;
        let listener = UnixListener::bind(path)?;
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(R::MODE))?;
        let (sender, requests) = mpsc::channel(CONTROL_CONNECTION_COUNT_MAX);
        tokio::task::spawn_local(accept(listener, sender));
        Ok(Self { path: path.to_owned(), requests })
    }

    /// Waits for the next request; forever when nobody asks.
    ///
    /// Cancel safety: no request is lost.
    pub async fn next(&mut self) -> Asked<R> {
        match self.requests.recv().await {
            Some(asked) => asked,
            None => std::future::pending().await,
        }
    }
}

impl<R> Drop for Control<R> {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_file(&self.path) {
            debug!("the control socket stays: {error}");
        }
    }
}

fn remove_stale(path: &Path) -> io::Result<()> {
    match std::fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
        Ok(found) if !found.file_type().is_socket() => Err(io::ErrorKind::AlreadyExists.into()),
        Ok(_) if std::os::unix::net::UnixStream::connect(path).is_ok() => Err(io::ErrorKind::AddrInUse.into()),
        Ok(_) => std::fs::remove_file(path),
    }
}

async fn accept<R: Command>(listener: UnixListener, requests: mpsc::Sender<Asked<R>>) {
    let places = Arc::new(Semaphore::new(CONTROL_CONNECTION_COUNT_MAX));
    while let Ok(place) = Arc::clone(&places).acquire_owned().await {
        tokio::select! {
            () = requests.closed() => return,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    let requests = requests.clone();
                    tokio::task::spawn_local(async move {
                        let served = timeout(Duration::from_millis(CONTROL_WAIT_MS_MAX), serve(stream, requests));
                        if !matches!(served.await, Ok(Ok(()))) {
                            debug!("a control request was not served");
                        }
                        drop(place);
                    });
                }
                Err(error) => {
                    debug!("the control socket: {error}");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
}

async fn serve<R: Command>(mut stream: UnixStream, requests: mpsc::Sender<Asked<R>>) -> io::Result<()> {
    let line = read_line(&mut stream, CONTROL_REQUEST_BYTES_MAX).await?;
    let line = match hand_over(&line, requests).await {
        Ok(value) => json!({ "ok": value }),
        Err(reason) => json!({ "error": reason }),
    };
    stream.write_all(format!("{line}\n").as_bytes()).await?;
    stream.shutdown().await
}

async fn hand_over<R: Command>(line: &str, requests: mpsc::Sender<Asked<R>>) -> Answer {
    let request = serde_json::from_str(line).map_err(|error| format!("not a request: {error}"))?;
    let (answer, answered) = oneshot::channel();
    let gone = || format!("{} is stopping", R::PARTY);
    requests.send(Asked { request, answer }).await.map_err(|_| gone())?;
    answered.await.map_err(|_| gone())?
}

async fn read_line(stream: &mut UnixStream, bytes_max: usize) -> io::Result<String> {
    let mut line = String::new();
    BufReader::new(stream).take(bytes_max as u64).read_line(&mut line).await?;
    if line.ends_with('\n') { Ok(line) } else { Err(io::ErrorKind::InvalidData.into()) }
}

/// Asks a running gateway, or who else listens at the path.
///
/// # Errors
/// What is said there, or that nobody listens.
pub async fn ask<R: Command>(path: &Path, request: &R) -> Answer {
    let asked = timeout(Duration::from_millis(2 * CONTROL_WAIT_MS_MAX), exchange(path, request)).await;
    let answer = asked.map_err(|_| format!("{} does not answer", R::PARTY))?.map_err(|error| {
        let hint = match error.kind() {
            io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => format!("; {}", R::ABSENT),
            io::ErrorKind::PermissionDenied => format!("; {}", R::DENIED),
            _ => String::new(),
        };
        format!("control socket {}: {error}{hint}", path.display())
    })?;
    let mut answer: Value = serde_json::from_str(&answer).map_err(|error| format!("not an answer: {error}"))?;
    match answer["error"].as_str() {
        Some(reason) => Err(reason.to_owned()),
        None => Ok(answer["ok"].take()),
    }
}

async fn exchange<R: Command>(path: &Path, request: &R) -> io::Result<String> {
    let mut stream = UnixStream::connect(path).await?;
    let request = serde_json::to_string(request)?;
    stream.write_all(format!("{request}\n").as_bytes()).await?;
    read_line(&mut stream, CONTROL_ANSWER_BYTES_MAX).await
}
