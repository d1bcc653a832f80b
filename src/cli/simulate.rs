//! `fieldgate simulate`: a device at the far end of a link.
//!
//! It is built from the same [`link`](crate::link) that firmware uses. Standard output has one line for each thing that
//! happens; a `received` line is the application, and comes once for each message, however often it is delivered.
//!
//! # When a message counts as received
//!
//! With `--state` the state file is the application's own journal: a message is received when its line is in the file
//! and the file is synced. Then the same line is printed, then the device ack is sent. A device killed in between has
//! the message in its journal, and acknowledges the copy that comes after its restart without printing it again: the
//! journal has every message exactly once, standard output at most once. Without `--state` a message is received when
//! its line is written to standard output, and a restart forgets which those were.

mod application;
mod device;
mod intake;
mod journal;
mod life;
mod line;
mod place;
mod report;

use std::io;
use std::path::PathBuf;

use super::{Failure, Outcome, block_on, terminated};
use crate::limits::{
    CHANNELS_PER_DEVICE_MAX, LINK_MTU_BYTES_MAX, LINK_MTU_BYTES_MIN, SIMULATE_DELAY_MS_MAX, SIMULATE_LIFE_S_MAX,
    SIMULATE_PACE_BAUD_MAX, SIMULATE_PACE_BAUD_MIN, SIMULATE_SLOW_MS_MAX,
};
use crate::random::{self, SystemRandom};
use crate::time::Duration;
use crate::wire::{ChannelId, DeviceId, Refusal};

pub use device::{Failed, Options, device};
pub use intake::{Manners, Refusing};
pub use life::Habits;
pub use line::Quality;
pub use place::{InvalidPlace, Place};
pub use report::Report;

pub(super) use place::Site;
pub(super) use report::{content, uplink_name};

/// Octets of the largest frame, unless another number is asked for.
const MTU_DEFAULT: usize = 256;

/// Arguments of `fieldgate simulate`.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    fieldgate simulate pty:/tmp/meter-7 --id meter-7\n  \
    fieldgate simulate unix:/tmp/meter.sock --loss 5 --corrupt 2 --delay 16 --pace 115200\n  \
    fieldgate simulate pty:/tmp/meter-7 --slow 500 --refuse full --refuse-count 3\n  \
    fieldgate simulate pty:/tmp/meter-7 --sleep 60 --reset 3600 --state meter-7.journal")]
pub struct Args {
    /// Where the device is: pty, pty:/path/of/a/link, serial:/dev/ttyUSB0?baud=115200, unix:/path, tcp:HOST:PORT
    link: Place,
    /// The id of the device
    #[arg(long, default_value = "device-1")]
    id: DeviceId,
    /// A journal of what was received, so that a restart knows it
    #[arg(long, value_name = "FILE")]
    state: Option<PathBuf>,
    /// Print one JSON object a line
    #[arg(long)]
    json: bool,
    /// Ask for a subscription on this channel; may be repeated
    #[arg(long, value_name = "CHANNEL", value_parser = channel)]
    subscribe: Vec<ChannelId>,
    /// Octets of the largest frame that the device takes
    #[arg(long, default_value_t = MTU_DEFAULT, value_parser = mtu)]
    mtu: usize,
    /// End after so many messages
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
    #[command(flatten)]
    line: LineArgs,
    #[command(flatten)]
    behaviour: BehaviourArgs,
}

/// What the line is like, in both directions.
#[derive(clap::Args)]
#[command(next_help_heading = "The line, in both directions")]
struct LineArgs {
    /// Lose this share of all frames
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    loss: u8,
    /// Flip a bit in this share of all frames
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    corrupt: u8,
    /// Deliver each frame so much later, as a USB adapter does
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=SIMULATE_DELAY_MS_MAX))]
    delay: u64,
    /// Carry octets no faster than a line of this speed does, ten bits an octet
    #[arg(long, value_name = "BAUD", value_parser = pace)]
    pace: Option<u32>,
    /// Lose and damage the same frames each time
    #[arg(long)]
    seed: Option<u64>,
}

/// What the device does.
#[derive(clap::Args)]
#[command(next_help_heading = "The device")]
struct BehaviourArgs {
    /// Take so long for each message before it is acknowledged; its octets are no credit of the gateway meanwhile
    #[arg(long, value_name = "MS", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=SIMULATE_SLOW_MS_MAX))]
    slow: u64,
    /// Refuse every message
    #[arg(long, value_name = "full|unknown-channel|not-possible", value_parser = refusal)]
    refuse: Option<Refusal>,
    /// Refuse only the first so many
    #[arg(long, value_name = "N", requires = "refuse", value_parser = clap::value_parser!(u64).range(1..))]
    refuse_count: Option<u64>,
    /// Sleep so long whenever everything is handled, and wake again
    #[arg(long, value_name = "SECONDS", value_parser = life)]
    sleep: Option<u32>,
    /// Start anew each so often, with another boot id; with --state the ids of messages are kept
    #[arg(long, value_name = "SECONDS", value_parser = life)]
    reset: Option<u32>,
    /// Ask once for another subscription in place of this channel's
    #[arg(long, value_name = "CHANNEL", value_parser = channel)]
    rotate: Option<ChannelId>,
}

fn channel(text: &str) -> Result<ChannelId, String> {
    text.parse().ok().filter(|number| *number > 0).map(ChannelId).ok_or_else(|| "a channel is 1 to 65535".to_owned())
}

/// Octets of a frame, as they are named on the command line.
pub(super) fn mtu(text: &str) -> Result<usize, String> {
    let within = LINK_MTU_BYTES_MIN..=LINK_MTU_BYTES_MAX;
    text.parse().ok().filter(|bytes| within.contains(bytes)).ok_or_else(|| format!("an MTU is {within:?} octets"))
}

fn pace(text: &str) -> Result<u32, String> {
    let within = SIMULATE_PACE_BAUD_MIN..=SIMULATE_PACE_BAUD_MAX;
    text.parse().ok().filter(|baud| within.contains(baud)).ok_or_else(|| format!("a line has {within:?} baud"))
}

fn life(text: &str) -> Result<u32, String> {
    let within = 1..=SIMULATE_LIFE_S_MAX as u32;
    text.parse().ok().filter(|seconds| within.contains(seconds)).ok_or_else(|| format!("it is {within:?} seconds"))
}

fn refusal(text: &str) -> Result<Refusal, String> {
    match text {
        "full" => Ok(Refusal::Full),
        "unknown-channel" => Ok(Refusal::UnknownChannel),
        "not-possible" => Ok(Refusal::NotPossible),
        _ => Err("a device refuses with full, unknown-channel or not-possible".to_owned()),
    }
}

/// Runs the command.
///
/// # Errors
/// The link or the state file cannot be used, or standard output is closed.
pub fn run(args: Args) -> Outcome {
    if args.subscribe.len() > CHANNELS_PER_DEVICE_MAX {
        return Err(Failure::usage(format_args!("a device has at most {CHANNELS_PER_DEVICE_MAX} channels")));
    }
    let json = args.json;
    let options = options(args);
    block_on(async move {
        device(options, |report| print(report, json), terminated()?).await.map(|_| ()).map_err(Failure::failed)
    })
}

fn options(args: Args) -> Options {
    let Args { link, id, state, subscribe, mtu, count, line, behaviour, json: _ } = args;
    let BehaviourArgs { slow, refuse, refuse_count, sleep, reset, rotate } = behaviour;
    Options {
        place: link,
        id,
        state,
        subscribe,
        mtu,
        line: Quality {
            loss_percent: line.loss,
            corrupt_percent: line.corrupt,
            delay: Duration::from_millis(line.delay),
            baud: line.pace,
        },
        seed: line.seed.unwrap_or_else(|| u64::from_le_bytes(random::array(&mut SystemRandom::default()))),
        manners: Manners {
            slow: Duration::from_millis(slow),
            refuse: refuse.map(|reason| Refusing { reason, count: refuse_count }),
        },
        habits: Habits { sleep_s: sleep, reset_s: reset, rotate },
        count,
    }
}

/// Writes a line and has it leave the process.
fn print(report: &Report<'_>, json: bool) -> io::Result<()> {
    print_to(&mut io::stdout().lock(), report, json)
}

/// In one write, so that a process that is killed leaves no half a line before the first one of the next.
fn print_to(output: &mut impl io::Write, report: &Report<'_>, json: bool) -> io::Result<()> {
    let line = if json { format!("{}\n", report.to_json()) } else { format!("{report}\n") };
    output.write_all(line.as_bytes())?;
    output.flush()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limits::PLAINTEXT_BYTES_MAX;
    use crate::wire::MessageId;

    #[test]
    fn the_longest_line_leaves_in_one_write() {
        let body = [b'"'; PLAINTEXT_BYTES_MAX];
        let report = Report::Received {
            message: MessageId([1; 8]),
            channel: ChannelId(1),
            age_s: None,
            body: &body,
            at_unix_ms: 0,
        };
        for json in [false, true] {
            let mut writes = Writes::default();
            print_to(&mut io::LineWriter::new(&mut writes), &report, json).expect("it takes everything");
            assert_eq!(writes.0.len(), 1);
            assert!(writes.0[0] > PLAINTEXT_BYTES_MAX);
        }
    }

    /// Octets of each write.
    #[derive(Default)]
    struct Writes(Vec<usize>);

    impl io::Write for &mut Writes {
        fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
            self.0.push(octets.len());
            Ok(octets.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
