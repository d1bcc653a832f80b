//! `fieldgate service expire`: ends a resource of a running push service.

use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use http::Uri;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tracing::warn;

use super::{configuration, state_folder};
use crate::cli::{Failure, Outcome, block_on, say};
use crate::config::CONTROL_FILE;
use crate::control::{self, Asked, Control};
use crate::limits::URI_BYTES_MAX;
use crate::service::Operator;

/// Arguments of `fieldgate service expire`.
#[derive(clap::Args)]
#[command(
    about = "End a subscription, a set, a receipt subscription or a message of a running service; its URL comes from \
    standard input, for whoever has it may use it, and command lines are seen by others",
    after_help = "Examples:\n  fieldgate service expire --state /var/lib/fieldgate-push < url"
)]
pub struct Args {
    /// Folder of the running service's state
    #[arg(long, value_name = "DIR")]
    state: Option<PathBuf>,
    /// Its configuration file, if that names the folder
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
}

/// What an operator asks of a running push service.
#[derive(Serialize, Deserialize)]
#[serde(tag = "command", rename_all = "kebab-case", deny_unknown_fields)]
pub enum Request {
    /// Ends a resource.
    Expire {
        /// Its path.
        path: String,
    },
}

impl control::Command for Request {
    const MODE: u32 = 0o600;
    const PARTY: &str = "the push service";
    const ABSENT: &str = "start the push service, or name its state folder with --state";
    const DENIED: &str = "only the push service's own user and root may use it";
}

/// Runs the command.
///
/// # Errors
/// Standard input holds no URL of the service, the service does not run, or has no such resource.
pub fn run(args: Args) -> Outcome {
    let folder = state_folder(args.state, configuration(args.config.as_deref())?.state)?;
    let request = Request::Expire { path: read_path()? };
    block_on(async move {
        control::ask(&folder.join(CONTROL_FILE), &request).await.map_err(Failure::failed)?;
        say("ended")
    })
}

/// The path of the URL on standard input; no part of it is ever printed.
fn read_path() -> Result<String, Failure> {
    let mut text = String::new();
    let failed = |error| Failure::failed(format_args!("standard input: {error}"));
    io::stdin().lock().take(URI_BYTES_MAX as u64 + 1).read_to_string(&mut text).map_err(failed)?;
    path(&text).ok_or_else(|| Failure::usage("standard input holds no URL; give it one of the service, or its path"))
}

fn path(text: &str) -> Option<String> {
    let text = Some(text.trim_ascii()).filter(|text| text.len() <= URI_BYTES_MAX)?;
    let uri: Uri = text.parse().ok()?;
    Some(uri.path().to_owned()).filter(|path| path.len() > 1)
}

/// Opens the socket for the operator. A service without it serves all the same.
pub fn listen(folder: &Path) -> Option<Control<Request>> {
    let path = folder.join(CONTROL_FILE);
    let refused = |error| warn!("fieldgate service expire will not work: control socket {}: {error}", path.display());
    Control::listen(&path).map_err(refused).ok()
}

/// Does what the operator asks, one after the other, for ever.
///
/// Cancel safety: what was begun may or may not be done.
pub async fn obey(control: Option<Control<Request>>, operator: Operator) {
    let Some(mut control) = control else { return std::future::pending().await };
    loop {
        let Asked { request: Request::Expire { path }, answer } = control.next().await;
        let expired = operator.expire(&path).await;
        // Whoever asked may be gone.
        answer.send(expired.map(|()| Value::Null).map_err(|error| error.to_string())).ok();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_and_paths_are_read() {
        let token = "/AAAAAAAAAAAAAAAAAAAAAA";
        for text in [token.to_owned(), format!(" {token}\n"), format!("https://push.example.net:8443{token}\n")] {
            assert_eq!(path(&text).as_deref(), Some(token), "{text:?}");
        }
        for text in ["", "\n", "https://push.example.net", "/", "a b", &format!("/{}", "x".repeat(URI_BYTES_MAX))] {
            assert_eq!(path(text), None, "{text:?}");
        }
    }
}
