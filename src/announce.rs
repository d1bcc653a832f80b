//! Tells an application server where to post to the devices: by HTTPS, or in files of one folder.
//!
//! A capability leaves the gateway only over a connection whose server was verified, or into a file that nobody but its
//! owner may read. What was told and what is due is known elsewhere; here one announcement is made and its outcome reported.
//!
//! Source: RFC 8030 §4, §8.3 (the push resource is told confidentially to whom it is for); RFC 8291 §2.1.

mod folder;
mod post;

use std::fmt;
use std::io;
use std::path::PathBuf;

use http::Uri;
use tokio::sync::mpsc;
use tokio::task::{JoinSet, spawn_blocking};
use tracing::{info, warn};

use self::post::{Post, Verified};
use crate::proto::announcement::Outcome;
use crate::transport::clock::WallClock;
use crate::transport::credential::Credential;
use crate::transport::endpoint::RemoteEndpoint;
use crate::transport::preconnection::Preconnection;
use crate::transport::stack::tcp_tls::TcpTls;

/// Where announcements go.
pub enum Target {
    /// To an application server.
    Post {
        /// Its resource; only `https`.
        url: Uri,
        /// How it is connected to, and verified.
        stack: TcpTls,
        /// What it wants to see.
        credential: Option<Credential>,
    },
    /// Into one file for each device.
    Folder(PathBuf),
}

/// Makes announcements, one at a time.
pub struct Announcer {
    target: Target,
    clock: WallClock,
    reports: mpsc::Receiver<Report>,
    reporter: mpsc::Sender<Report>,
    tasks: JoinSet<()>,
    last_error: Option<String>,
}

impl Target {
    /// What tells it from others: an announcement at another one is another announcement.
    pub fn name(&self) -> String {
        match self {
            Self::Post { url, .. } => url.to_string(),
            Self::Folder(folder) => folder.display().to_string(),
        }
    }
}

impl Announcer {
    /// An announcer that has announced nothing.
    pub fn new(target: Target, clock: WallClock) -> Self {
        // One announcement is made at a time.
        let (reporter, reports) = mpsc::channel(1);
        Self { target, clock, reports, reporter, tasks: JoinSet::new(), last_error: None }
    }

    /// Where it announces.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Why the last one of those that were not accepted was not.
    pub fn last_error(&self) -> Option<&str> {
        self.last_error.as_deref()
    }

    /// Makes an announcement; `all` are the documents of all channels of the device.
    pub fn announce(&mut self, number: u64, device: &str, document: String, all: Vec<String>) {
        while self.tasks.try_join_next().is_some() {}
        let reporter = self.reporter.clone();
        match &self.target {
            Target::Post { url, stack, credential } => {
                let post = Post::new(url, credential.as_ref(), document, self.clock.clone());
                let remote = url.authority().and_then(|authority| RemoteEndpoint::of_authority(authority.as_str()));
                let preconnection = remote.map(|remote| Preconnection::new(remote, stack.clone(), Verified));
                self.tasks.spawn_local(async move {
                    let done = match preconnection {
                        Some(preconnection) => post.at(preconnection).await,
                        None => Err(unavailable("the URL has no usable host")),
                    };
                    report(&reporter, number, done).await;
                });
            }
            Target::Folder(folder) => {
                let path = folder.join(format!("{device}.json"));
                self.tasks.spawn_local(async move {
                    // A sync may take seconds on a worn card.
                    let written = spawn_blocking(move || folder::write(&path, &all)).await;
                    let written = written.unwrap_or_else(|error| Err(io::Error::other(error)));
                    report(&reporter, number, written.map_err(unavailable)).await;
                });
            }
        }
    }

    /// Waits for the outcome of an announcement.
    ///
    /// Cancel safety: no outcome is lost.
    pub async fn next(&mut self) -> (u64, Outcome) {
        let (number, done) = self.reports.recv().await.expect("this holds a sender itself");
        let Err(NotAccepted { outcome, reason }) = done else {
            info!("an application server was told of a subscription");
            return (number, Outcome::Accepted);
        };
        match outcome {
            Outcome::Rejected => warn!("an announcement is not wanted: {reason}"),
            _ => info!("an announcement was not accepted: {reason}"),
        }
        self.last_error = Some(reason);
        (number, outcome)
    }
}

/// The number of an announcement, and what became of it.
type Report = (u64, Result<(), NotAccepted>);

/// Why an announcement was not accepted.
struct NotAccepted {
    outcome: Outcome,
    reason: String,
}

fn unavailable(reason: impl fmt::Display) -> NotAccepted {
    NotAccepted { outcome: Outcome::Unavailable(None), reason: reason.to_string() }
}

async fn report(reporter: &mpsc::Sender<Report>, number: u64, done: Result<(), NotAccepted>) {
    if reporter.send((number, done)).await.is_err() {
        warn!("an outcome came after the end");
    }
}

/// What a task of one announcement is, for those who only pass it on.
impl fmt::Debug for Announcer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Announcer(..)")
    }
}

/// Waits for an outcome; for ever where nothing is announced.
pub async fn next(announcer: &mut Option<Announcer>) -> (u64, Outcome) {
    match announcer {
        Some(announcer) => announcer.next().await,
        None => std::future::pending().await,
    }
}
