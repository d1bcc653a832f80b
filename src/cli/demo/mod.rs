//! `fieldgate demo`: service, gateway, devices and sender in one process, over real sockets, TLS and a pseudo-terminal.
//!
//! Nothing here is a stand-in: each part is what its own command runs, only that they share one process. The sender's
//! view decides: a message is done when its device has it and the push service no longer does.

mod report;
mod stage;

use std::io::IsTerminal as _;
use std::time::Duration;

use tokio::time::{Instant, interval, timeout};

use self::report::{Report, Shown};
use self::stage::Stage;
use super::{Failure, Outcome, block_on};
use crate::limits::{DEMO_DEVICE_COUNT_MAX, DEMO_INTERVAL_MS, DEMO_LOOK_MS, DEMO_MESSAGE_COUNT_MAX, DEMO_WAIT_MS_MAX};

/// Arguments of `fieldgate demo`.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  fieldgate demo\n  fieldgate demo --messages 200 --devices 4 --json")]
pub struct Args {
    /// Messages to send, to the devices in turn
    #[arg(long, value_name = "N", default_value_t = 20,
        value_parser = clap::value_parser!(u32).range(1..=DEMO_MESSAGE_COUNT_MAX as i64))]
    messages: u32,
    /// Devices: the first on a pseudo-terminal, the second behind a lossy link with packets of 20 octets
    #[arg(long, value_name = "N", default_value_t = 2,
        value_parser = clap::value_parser!(u32).range(1..=DEMO_DEVICE_COUNT_MAX as i64))]
    devices: u32,
    /// End with one line of JSON
    #[arg(long)]
    json: bool,
}

/// Runs the demonstration.
///
/// # Errors
/// A part did not start, or a message was not delivered, acknowledged and gone in time.
pub fn run(args: Args) -> Outcome {
    block_on(async {
        let shown = if std::io::stdout().is_terminal() { Shown::Live } else { Shown::Lines };
        let mut report = Report::new(shown);
        report.say("starting push service, gateway and devices");
        let mut stage = Stage::start(args.devices as usize).await.map_err(Failure::failed)?;
        for line in stage.describe() {
            report.say(&line);
        }
        let outcome = play(&mut stage, &mut report, args.messages as usize).await;
        let counters = stage.counters().await;
        stage.stop().await;
        report.finish(&counters, args.json)?;
        outcome.and_then(|()| report.verdict()).map_err(Failure::failed)
    })
}

/// Sends the messages at a steady rate and follows each until it is done.
async fn play(stage: &mut Stage, report: &mut Report, count: usize) -> Result<(), String> {
    let mut ticks = interval(Duration::from_millis(DEMO_INTERVAL_MS));
    let mut looks = interval(Duration::from_millis(DEMO_LOOK_MS));
    let mut sent = 0;
    let deadline = Duration::from_millis(DEMO_WAIT_MS_MAX);
    let mut last_progress = Instant::now();
    while report.done() < count {
        tokio::select! {
            _ = ticks.tick() => {
                if sent < count {
                    report.posted(stage.post(sent).await?);
                    sent += 1;
                    last_progress = Instant::now();
                }
            }
            _ = looks.tick() => {
                if let Some((number, message)) = report.next_delivered() && stage.is_gone(&message).await? {
                    report.gone(number);
                    last_progress = Instant::now();
                }
            }
            event = stage.received() => {
                report.received(&event);
                last_progress = Instant::now();
            }
        }
        if last_progress.elapsed() > deadline {
            return Err(format!("nothing happened for {} s", deadline.as_secs()));
        }
    }
    // A copy that reached an application would come now.
    while let Ok(event) = timeout(Duration::from_millis(DEMO_INTERVAL_MS), stage.received()).await {
        report.received(&event);
    }
    Ok(())
}
