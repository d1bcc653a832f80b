//! Where a monitor gets its octets from: standard input, a serial port, or both sides of a line that it carries.

use std::cell::RefCell;
use std::io::{self, Read as _};
use std::pin::pin;

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _, split};
use tokio::sync::mpsc;

use super::monitor::Monitor;
use crate::cli::simulate::{Place, Site};
use crate::cli::{Failure, Outcome};
use crate::limits::{LINK_MONITOR_INPUT_COUNT, LINK_REOPEN_MS_MAX, LINK_REOPEN_MS_MIN};
use crate::time::Duration;
use crate::transport::endpoint::LinkEndpoint;
use crate::transport::listener::Listener;
use crate::transport::stack::{ByteStream, LinkConnection};
use crate::wire::Role;

/// Octets read at once.
const READ_BYTES: usize = 1024;

/// Shows what comes on standard input until that ends.
pub(super) async fn read_input(monitor: &mut Monitor) -> Outcome {
    let (sender, mut chunks) = mpsc::channel(LINK_MONITOR_INPUT_COUNT);
    // A thread of its own: it may wait for input when the command is told to end, and ends with the process.
    std::thread::spawn(move || {
        let (mut input, mut chunk) = (io::stdin().lock(), [0; READ_BYTES]);
        loop {
            let read = input.read(&mut chunk).map(|bytes| chunk[..bytes].to_vec());
            let is_last = !read.as_ref().is_ok_and(|octets| !octets.is_empty());
            if sender.blocking_send(read).is_err() || is_last {
                return;
            }
        }
    });
    while let Some(chunk) = chunks.recv().await {
        let octets = chunk.map_err(|error| Failure::failed(format_args!("standard input: {error}")))?;
        monitor.feed(None, &octets)?;
    }
    Ok(())
}

/// Shows what comes from a port, which is never written to.
pub(super) async fn listen(port: &LinkEndpoint, monitor: &mut Monitor) -> Outcome {
    let failed = |error: &dyn std::fmt::Display| Failure::failed(format_args!("{port}: {error}"));
    let mut connection = Listener::new(port.clone()).accept().await.map_err(|error| failed(&error))?;
    let mut chunk = [0; READ_BYTES];
    loop {
        match connection.read(&mut chunk).await {
            Ok(0) => return Err(failed(&"it was unplugged")),
            Ok(bytes) => monitor.feed(None, &chunk[..bytes])?,
            Err(error) => return Err(failed(&error)),
        }
    }
}

/// How a pair of connections ended.
enum End {
    Lost(Role, io::Error),
    /// The device connected again.
    Replaced(LinkConnection),
    Failed(Failure),
}

/// Carries octets between a gateway and a device, again and again, and shows them.
pub(super) async fn relay(gateway: Place, device: LinkEndpoint, monitor: &mut Monitor) -> Outcome {
    let mut site =
        Site::new(gateway.clone()).map_err(|error| Failure::failed(format_args!("cannot be at {gateway}: {error}")))?;
    let mut listener = Listener::new(device.clone());
    monitor.note(&format!("the gateway is at {site}, the device at {device}"))?;
    let (mut replacement, mut retry) = (None, Retry::new());
    loop {
        let to_device = match replacement.take() {
            Some(connection) => connection,
            None => match listener.accept().await {
                Ok(connection) => connection,
                Err(error) => {
                    retry.pause(format!("no device: {error}"), monitor).await?;
                    continue;
                }
            },
        };
        let end = match site.connect().await {
            Err(error) => {
                retry.pause(format!("no gateway: {error}"), monitor).await?;
                continue;
            }
            Ok(mut to_gateway) => {
                monitor.note("connected")?;
                retry = Retry::new();
                carry(to_gateway.as_mut(), to_device, &mut listener, monitor).await
            }
        };
        match end {
            End::Failed(failure) => return Err(failure),
            End::Replaced(connection) => {
                monitor.note("the device connected again")?;
                replacement = Some(connection);
            }
            End::Lost(role, error) => {
                let side = if role == Role::Gateway { "gateway" } else { "device" };
                retry.pause(format!("the {side} is gone: {error}"), monitor).await?;
            }
        }
    }
}

/// When to connect again, and what was said about it last.
struct Retry {
    pause_ms: u64,
    reason: Option<String>,
}

impl Retry {
    fn new() -> Self {
        Self { pause_ms: LINK_REOPEN_MS_MIN, reason: None }
    }

    async fn pause(&mut self, reason: String, monitor: &mut Monitor) -> Outcome {
        if self.reason.as_ref() != Some(&reason) {
            monitor.note(&reason)?;
            self.reason = Some(reason);
        }
        tokio::time::sleep(Duration::from_millis(self.pause_ms)).await;
        self.pause_ms = (self.pause_ms * 2).min(LINK_REOPEN_MS_MAX);
        Ok(())
    }
}

async fn carry(
    to_gateway: &mut (dyn ByteStream + '_),
    to_device: LinkConnection,
    listener: &mut Listener,
    monitor: &mut Monitor,
) -> End {
    let (gateway_reads, gateway_writes) = split(to_gateway);
    let (device_reads, device_writes) = split(to_device);
    let monitor = RefCell::new(monitor);
    let show = |side: Role, octets: &[u8]| monitor.borrow_mut().feed(Some(side), octets);
    let down = pin!(copy(Role::Gateway, gateway_reads, device_writes, &show));
    let up = pin!(copy(Role::Device, device_reads, gateway_writes, &show));
    let is_listening = listener.yields_more();
    tokio::select! {
        end = down => end,
        end = up => end,
        // A listener that fails is noticed when it is needed.
        Ok(newer) = listener.accept(), if is_listening => End::Replaced(newer),
    }
}

/// Passes octets on as they come, and shows them: what cannot be written is not read.
async fn copy(
    from: Role,
    mut reads: impl AsyncRead + Unpin,
    mut writes: impl AsyncWrite + Unpin,
    show: &impl Fn(Role, &[u8]) -> Outcome,
) -> End {
    let mut chunk = [0; READ_BYTES];
    loop {
        let octets = match reads.read(&mut chunk).await {
            Ok(0) => return End::Lost(from, io::ErrorKind::UnexpectedEof.into()),
            Ok(bytes) => &chunk[..bytes],
            Err(error) => return End::Lost(from, error),
        };
        if let Err(failure) = show(from, octets) {
            return End::Failed(failure);
        }
        if let Err(error) = writes.write_all(octets).await {
            return End::Lost(from.peer(), error);
        }
    }
}
