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

mod device;
mod journal;
mod place;
mod report;

use std::io;
use std::path::PathBuf;

use super::{Failure, Outcome, block_on, terminated};
use crate::limits::{CHANNELS_PER_DEVICE_MAX, LINK_MTU_BYTES_MAX, LINK_MTU_BYTES_MIN};
use crate::random::{self, SystemRandom};
use crate::wire::{ChannelId, DeviceId};

pub use device::{Failed, Options, device};
pub use place::{InvalidPlace, Place};
pub use report::Report;

/// Arguments of `fieldgate simulate`.
#[derive(clap::Args)]
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
    #[arg(long, default_value_t = 256, value_parser = mtu)]
    mtu: usize,
    /// Lose this share of all frames
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=100))]
    loss: u8,
    /// Lose the same frames each time
    #[arg(long)]
    seed: Option<u64>,
    /// End after so many messages
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    count: Option<u64>,
}

fn channel(text: &str) -> Result<ChannelId, String> {
    text.parse().ok().filter(|number| *number > 0).map(ChannelId).ok_or_else(|| "a channel is 1 to 65535".to_owned())
}

fn mtu(text: &str) -> Result<usize, String> {
    let within = LINK_MTU_BYTES_MIN..=LINK_MTU_BYTES_MAX;
    text.parse().ok().filter(|bytes| within.contains(bytes)).ok_or_else(|| format!("an MTU is {within:?} octets"))
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
    let options = Options {
        place: args.link,
        id: args.id,
        state: args.state,
        subscribe: args.subscribe,
        mtu: args.mtu,
        loss_percent: args.loss,
        seed: args.seed.unwrap_or_else(|| u64::from_le_bytes(random::array(&mut SystemRandom::default()))),
        count: args.count,
    };
    block_on(async move {
        device(options, |report| print(report, json), terminated()?).await.map(|_| ()).map_err(Failure::failed)
    })
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
