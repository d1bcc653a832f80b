//! `fieldgate link probe`: a line's speed and quality, seen from the gateway's side.
//!
//! It opens the place and does what the measuring machine says; every wait has an end.

use std::io::ErrorKind;
use std::path::Path;

use serde_json::json;
use tokio::time::{sleep_until, timeout};
use tokio_serial::{ClearBuffer, SerialPort as _, SerialStream};

use super::ear::Overheard;
use super::figures::HEADING;
use super::measure::{Output, Plan, Prober, Result as Measured};
use super::place::ProbePlace;
use crate::cli::simulate::mtu;
use crate::cli::{Failure, Outcome, block_on, say, terminated};
use crate::limits::{
    LINK_MTU_BYTES_MAX, LINK_PROBE_CONNECT_S_DEFAULT, LINK_PROBE_CONNECT_S_MAX, LINK_PROBE_COUNT_DEFAULT,
    LINK_PROBE_COUNT_MAX,
};
use crate::time::Duration;
use crate::transport::listener::Listener;
use crate::transport::stack::{ByteStream, LinkConnection, Ready, ready, serial};

/// Octets read at once.
const READ_BYTES: usize = 1024;
/// How many of a thousand more of the largest frames than of the smallest are lost before a smaller MTU is proposed.
const LOST_MORE_PER_MILLE: u32 = 50;

/// Arguments of `fieldgate link probe`.
#[derive(clap::Args)]
#[command(after_help = "Examples:\n  \
    fieldgate link probe serial:/dev/ttyUSB0\n  \
    fieldgate link probe 'serial:/dev/ttyUSB0?baud=115200' --count 500 --json\n  \
    fieldgate link probe unix:/tmp/meter.sock")]
pub(super) struct Args {
    /// The place of the link, as in the configuration: serial:/dev/PORT[?baud=N], unix:/PATH or tcp:127.0.0.1:PORT
    place: ProbePlace,
    /// How many frames of each size are sent
    #[arg(long, value_name = "N", default_value_t = LINK_PROBE_COUNT_DEFAULT, value_parser = clap::value_parser!(u32).range(1..=i64::from(LINK_PROBE_COUNT_MAX)))]
    count: u32,
    /// Octets of the largest frame that is tried
    #[arg(long, value_name = "OCTETS", default_value_t = LINK_MTU_BYTES_MAX, value_parser = mtu)]
    mtu: usize,
    /// How long a device may take to connect to a socket
    #[arg(long, value_name = "SECONDS", default_value_t = LINK_PROBE_CONNECT_S_DEFAULT, value_parser = clap::value_parser!(u64).range(1..=LINK_PROBE_CONNECT_S_MAX))]
    wait: u64,
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// Runs the command.
///
/// # Errors
/// The place cannot be opened, nobody connects, nothing answers, or standard output is closed.
pub(super) fn run(args: Args) -> Outcome {
    block_on(async move {
        let stop = terminated()?;
        tokio::select! {
            outcome = probe(args) => outcome,
            () = stop => Err(Failure::failed("stopped before the end")),
        }
    })
}

async fn probe(args: Args) -> Outcome {
    let Args { place, count, mtu, wait, json } = args;
    let mut line = Line::open(&place, Duration::from_secs(wait)).await?;
    let mut prober = Prober::new(Plan { bauds: place.bauds.clone(), mtu, count });
    let measured = measure(&mut prober, &mut line).await.map_err(|error| lost(&place, &error));
    // What was measured before the line went is worth nothing without the rest.
    let overheard = prober.overheard();
    match (measured?, prober.result()) {
        ((), Some(Some(result))) if json => say(to_json(&place, result, overheard)),
        ((), Some(Some(result))) => say(table(&place, result, overheard)),
        ((), Some(None) | None) => Err(Failure::failed(silence(&place, overheard))),
    }
}

/// Performs what the machine says until it has a result.
async fn measure(prober: &mut Prober, line: &mut Line) -> std::io::Result<()> {
    let start = tokio::time::Instant::now();
    let (mut input, mut output) = ([0; READ_BYTES], Vec::new());
    while prober.result().is_none() {
        prober.handle_timeout(start.elapsed());
        while let Some(due) = prober.poll_output(start.elapsed()) {
            match due {
                Output::Speed(baud) => line.set_speed(baud)?,
                Output::Send(octets) => output = octets,
            }
        }
        let wake = prober.poll_timeout().map_or(start, |at| start + at);
        tokio::select! {
            ready = ready(line.stream(), &mut input, &output) => match ready {
                Ready::Read(Ok(0)) | Ready::Wrote(Ok(0)) => return Err(ErrorKind::UnexpectedEof.into()),
                Ready::Read(Ok(bytes)) => prober.feed(&input[..bytes], start.elapsed()),
                Ready::Wrote(Ok(bytes)) => drop(output.drain(..bytes)),
                Ready::Read(Err(error)) | Ready::Wrote(Err(error)) => return Err(error),
            },
            () = sleep_until(wake) => {}
        }
    }
    Ok(())
}

/// The line, open.
enum Line {
    Serial(SerialStream),
    Socket(LinkConnection),
}

impl Line {
    async fn open(place: &ProbePlace, wait: Duration) -> Result<Self, Failure> {
        if let Some((path, baud)) = place.serial() {
            let port = serial::open(path, baud).map_err(|error| unopened(path, &error))?;
            return Ok(Self::Serial(port));
        }
        let mut listener = Listener::new(place.endpoint.clone());
        match timeout(wait, listener.accept()).await {
            Ok(Ok(connection)) => Ok(Self::Socket(connection)),
            Ok(Err(error)) => Err(Failure::failed(format_args!(
                "{error}\n  Does a gateway still hold it? Stop it first: only one can listen."
            ))),
            Err(_) => Err(Failure::failed(format_args!(
                "nobody connected to {place} within {} s\n  Is the device running, and does it connect to this place?",
                wait.as_secs()
            ))),
        }
    }

    fn set_speed(&mut self, baud: u32) -> std::io::Result<()> {
        if let Self::Serial(port) = self {
            port.set_baud_rate(baud)?;
            port.clear(ClearBuffer::All)?;
        }
        Ok(())
    }

    fn stream(&mut self) -> &mut dyn ByteStream {
        match self {
            Self::Serial(port) => port,
            Self::Socket(connection) => &mut **connection,
        }
    }
}

fn unopened(path: &Path, error: &std::io::Error) -> Failure {
    let advice = match error.kind() {
        ErrorKind::NotFound => "Is it plugged in? ls /dev/serial/by-id shows the ports that are there.",
        ErrorKind::PermissionDenied => "May you open it? Ports belong to the group dialout.",
        _ => "Does a gateway or another program still hold it? Stop it first.",
    };
    Failure::failed(format_args!("cannot open {}: {error}\n  {advice}", path.display()))
}

fn lost(place: &ProbePlace, error: &std::io::Error) -> Failure {
    Failure::failed(format_args!("{place}: the line was lost: {error}\n  Was it unplugged, or did the device restart?"))
}

/// Why nothing answers, as far as it can be told.
fn silence(place: &ProbePlace, overheard: Overheard) -> String {
    let Overheard { octets, damaged, echoes, gateways, version } = overheard;
    let mut lines = vec![match place.bauds.as_slice() {
        [] => format!("nothing answers at {place}"),
        [baud] => format!("nothing answers at {place} ({baud} baud)"),
        bauds => {
            let bauds: Vec<String> = bauds.iter().map(ToString::to_string).collect();
            format!("nothing answers at {place}, tried at {} baud", bauds.join(", "))
        }
    }];
    if let Some(version) = version {
        lines.push(format!("The device speaks version {version} of the link protocol: it needs other firmware."));
    } else if echoes > 0 {
        lines.push(format!("What was sent came back ({echoes} frames): TX and RX are joined, or the line echoes."));
    } else if gateways > 0 {
        lines.push("At the other end is a gateway, and no device.".to_owned());
    } else if octets > 0 {
        lines.push(format!(
            "{octets} octets came and no answer was among them ({damaged} damaged frames): another speed than these, \
             noise, or no device of this protocol."
        ));
    } else {
        lines.push("Not one octet came.".to_owned());
    }
    lines.push("Check:".to_owned());
    if !place.bauds.is_empty() {
        lines.push("- wiring: TX to RX and RX to TX, a common ground, the right levels".to_owned());
        lines.push("- speed: what the device uses; another one is tried with ?baud=N".to_owned());
    }
    lines.push("- the device: does it run, and does it answer PROBE as the specification says?".to_owned());
    lines.push("- other programs: does a gateway or a terminal still hold the line? fieldgate status".to_owned());
    lines.join("\n  ")
}

fn table(place: &ProbePlace, result: &Measured, overheard: Overheard) -> String {
    let Measured { baud, mtu, sizes } = result;
    let mut lines = vec![match baud {
        Some(baud) => format!("{place} answers at {baud} baud, frames of up to {mtu} octets"),
        None => format!("{place} answers, frames of up to {mtu} octets"),
    }];
    lines.push(HEADING.to_owned());
    lines.extend(sizes.iter().map(ToString::to_string));
    let late: u32 = sizes.iter().map(|figures| figures.late).sum();
    if overheard.damaged + u64::from(late) > 0 {
        lines.push(format!("{} frames came damaged, {late} answers too late", overheard.damaged));
    }
    if let (Some(small), Some(large)) = (sizes.first(), sizes.last())
        && large.lost_per_mille() > small.lost_per_mille() + LOST_MORE_PER_MILLE
    {
        lines.push("Large frames are lost more often than small ones: a smaller mtu may carry more.".to_owned());
    }
    lines.push(String::new());
    lines.push("For the configuration:".to_owned());
    lines.push(format!("  link = \"{}\"", place.at(*baud)));
    lines.push(format!("  mtu = {mtu}"));
    lines.join("\n")
}

fn to_json(place: &ProbePlace, result: &Measured, overheard: Overheard) -> serde_json::Value {
    let Measured { baud, mtu, sizes } = result;
    let sizes: Vec<_> = sizes.iter().map(super::figures::Figures::to_json).collect();
    json!({ "link": place.at(*baud).to_string(), "baud": baud, "mtu": mtu, "sizes": sizes, "damaged": overheard.damaged })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_says_what_to_check_for_this_kind_of_line() {
        let place = |text: &str| text.parse::<ProbePlace>().expect("a place");
        let text = silence(&place("serial:/dev/a"), Overheard::default());
        for words in ["1000000, 921600", "9600 baud", "Not one octet", "TX to RX", "?baud=N", "still hold"] {
            assert!(text.contains(words), "{words}: {text}");
        }
        let text = silence(&place("unix:/run/a"), Overheard { octets: 9, ..Overheard::default() });
        assert!(text.contains("9 octets came") && !text.contains("TX to RX"), "{text}");
        let echo = Overheard { octets: 9, echoes: 2, ..Overheard::default() };
        assert!(silence(&place("serial:/dev/a?baud=9600"), echo).contains("TX and RX are joined"));
        let old = Overheard { octets: 9, version: Some(0), ..Overheard::default() };
        assert!(silence(&place("serial:/dev/a?baud=9600"), old).contains("version 0"));
    }
}
