//! `fieldgate link monitor`: what passes on a line, one line each.

use std::str::FromStr;

use super::decode::{Decoder, Passed};
use super::{show, tap};
use crate::cli::simulate::Place;
use crate::cli::{Failure, Outcome, block_on, say, terminated};
use crate::transport::endpoint::LinkEndpoint;
use crate::wire::Role;

/// Arguments of `fieldgate link monitor`.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    fieldgate link monitor 'serial:/dev/ttyUSB1?baud=115200'\n  \
    fieldgate link monitor - < captured.bin\n  \
    fieldgate link monitor --between pty:/tmp/meter-7 'serial:/dev/ttyUSB0?baud=115200'\n  \
    fieldgate link monitor --between unix:/run/gateway.sock unix:/run/device.sock --payloads")]
pub(super) struct Args {
    /// What is listened to: a serial port on a tap, which is never written to, or - for octets on standard input
    #[arg(required_unless_present = "between")]
    source: Option<Source>,
    /// Sit between the two and pass on what each says: where the gateway is found, as a device finds it (pty:/LINK,
    /// serial:, unix:, tcp:), and where the device is found, as a gateway finds it (serial:, unix:, tcp:)
    #[arg(long, num_args = 2, value_names = ["GATEWAY", "DEVICE"], conflicts_with = "source")]
    between: Option<Vec<String>>,
    /// Show the contents of messages, push URIs and keys too: they are secrets
    #[arg(long)]
    payloads: bool,
}

/// Where octets of both sides are heard.
#[derive(Clone, Debug)]
enum Source {
    Input,
    Port(LinkEndpoint),
}

impl FromStr for Source {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.parse() {
            _ if text == "-" => Ok(Self::Input),
            Ok(port @ LinkEndpoint::Serial { .. }) => Ok(Self::Port(port)),
            Ok(LinkEndpoint::Unix { .. } | LinkEndpoint::Tcp(_)) => {
                Err("nobody can listen to a socket of others: sit between them with --between".to_owned())
            }
            Err(error) => Err(format!("a source is - or serial:/dev/PORT?baud=N; {error}")),
        }
    }
}

/// Runs the command.
///
/// # Errors
/// The source cannot be opened or ended badly, or standard output is closed.
pub(super) fn run(args: Args) -> Outcome {
    let Args { source, between, payloads } = args;
    let ends = between.as_deref().map(ends).transpose()?;
    block_on(async move {
        let stop = terminated()?;
        let mut monitor = Monitor { decoder: Decoder::new(), start: tokio::time::Instant::now(), payloads };
        let watch = async {
            match (ends, source) {
                (Some((gateway, device)), _) => tap::relay(gateway, device, &mut monitor).await,
                (None, Some(Source::Port(port))) => tap::listen(&port, &mut monitor).await,
                (None, Some(Source::Input) | None) => tap::read_input(&mut monitor).await,
            }
        };
        let outcome = tokio::select! {
            outcome = watch => outcome,
            () = stop => Ok(()),
        };
        say(show::total(monitor.decoder.counts()))?;
        outcome
    })
}

fn ends(texts: &[String]) -> Result<(Place, LinkEndpoint), Failure> {
    let [gateway, device] = texts else { return Err(Failure::usage("--between takes two places")) };
    let wrong = |text: &str, error: &dyn std::fmt::Display| Failure::usage(format_args!("--between {text}: {error}"));
    let gateway = gateway.parse().map_err(|error| wrong(gateway, &error))?;
    let device = device.parse().map_err(|error| wrong(device, &error))?;
    Ok((gateway, device))
}

/// Decodes and prints.
pub(super) struct Monitor {
    decoder: Decoder,
    start: tokio::time::Instant,
    payloads: bool,
}

impl Monitor {
    /// Shows what octets of one side, or of both, are.
    pub fn feed(&mut self, side: Option<Role>, octets: &[u8]) -> Outcome {
        let (at, payloads) = (self.start.elapsed(), self.payloads);
        self.decoder.feed(side, octets, |passed: &Passed<'_>| say(show::line(at, passed, payloads)))
    }

    /// A connection began or ended.
    pub fn note(&mut self, text: &str) -> Outcome {
        self.decoder.cut();
        let at = self.start.elapsed();
        say(format_args!("{:>4}.{:03}  -  {text}", at.as_secs(), at.subsec_millis()))
    }
}
