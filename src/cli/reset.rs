//! `fieldgate reset`: everything gone, at the push services and on flash.

use std::cell::Cell;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use serde_json::Value;
use tokio::time::{Instant, sleep};

use super::{Failure, Outcome, block_on, check, say, terminated};
use crate::config::Config;
use crate::control::{self, Request};
use crate::gateway;
use crate::gateway::supervisor::{News, Order, Supervisor};

/// How often the gateway is asked how much is left.
const ASK_INTERVAL: Duration = Duration::from_millis(200);

/// Arguments of `fieldgate reset`.
#[derive(clap::Args)]
#[command(
    after_help = "All subscriptions end: their push URIs are dead, and application servers need new ones. A running \
    gateway ends afterwards; started again it is as new. To give a board away: stop the gateway, then reset.\n\n\
    Examples:\n  fieldgate reset --yes\n  systemctl stop fieldgate && fieldgate reset --yes"
)]
pub struct Args {
    /// Configuration file of the gateway
    #[arg(long, value_name = "FILE", default_value_os_t = check::config_file())]
    config: PathBuf,
    /// Yes, remove everything
    #[arg(long)]
    yes: bool,
    /// Wait so many seconds for the push services
    #[arg(long, value_name = "SECONDS", default_value_t = 60)]
    wait: u64,
}

/// Runs the command.
///
/// # Errors
/// Nobody said yes, the configuration is wrong, or a push service did not answer.
pub fn run(args: Args) -> Outcome {
    if !args.yes {
        return Err(Failure::usage("all subscriptions and keys would be removed; say --yes to do that"));
    }
    let config = check::load(&args.config)?;
    let wait = Duration::from_secs(args.wait);
    block_on(async {
        if std::os::unix::net::UnixStream::connect(&config.control).is_ok() {
            ask(config, wait).await?;
        } else {
            alone(config, wait).await?;
        }
        say("everything is removed")
    })
}

/// Has the running gateway do it.
async fn ask(config: Config, wait: Duration) -> Outcome {
    let start = Instant::now();
    loop {
        let answer = control::ask(&config.control, &Request::Reset).await.map_err(Failure::failed)?;
        match answer["left"].as_u64() {
            Some(0) => return Ok(()),
            _ if start.elapsed() >= wait => return Err(unfinished(&answer)),
            _ => sleep(ASK_INTERVAL).await,
        }
    }
}

fn unfinished(answer: &Value) -> Failure {
    let left = &answer["left"];
    Failure::failed(format_args!("{left} subscriptions and sets are left; the gateway goes on, see fieldgate status"))
}

/// Without a running gateway it is done here.
async fn alone(config: Config, wait: Duration) -> Outcome {
    let was_interrupted = Rc::new(Cell::new(false));
    let supervisor =
        Resetting { is_ordered: false, end: Box::pin(terminated()?), was_interrupted: Rc::clone(&was_interrupted) };
    let place = config.state.display().to_string();
    let unfinished = |why: &str| Failure::failed(format_args!("{why}; what is left is in {place}, try again later"));
    match tokio::time::timeout(wait, gateway::run(config, supervisor)).await {
        Ok(Ok(())) if was_interrupted.get() => Err(unfinished("interrupted")),
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(Failure::failed(error)),
        Err(_) => Err(unfinished(&format!("a push service did not answer within {} s", wait.as_secs()))),
    }
}

/// Orders the reset, and nothing else.
struct Resetting {
    is_ordered: bool,
    end: Pin<Box<dyn Future<Output = ()>>>,
    /// Told to end before everything was removed.
    was_interrupted: Rc<Cell<bool>>,
}

impl Supervisor for Resetting {
    async fn order(&mut self) -> Order {
        if std::mem::replace(&mut self.is_ordered, true) {
            self.end.as_mut().await;
            self.was_interrupted.set(true);
            return Order::Stop;
        }
        Order::Reset
    }

    fn tell(&mut self, _: News<'_>) {}

    fn alive_interval(&self) -> Option<Duration> {
        None
    }
}
