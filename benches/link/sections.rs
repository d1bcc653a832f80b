//! What is measured, and what it should be.

use super::line::Line;
use super::measure::{self, Goodput, Load};
use super::table::{Goal, Row, Table, percentile};

const BAUDS: [u64; 3] = [9_600, 115_200, 1_000_000];
const MTUS: [usize; 3] = [64, 256, 1_024];
const SIZES: [usize; 3] = [16, 200, 4_000];
const LOSSES: [u64; 3] = [0, 1, 10];
const SEED: u64 = 1;

#[derive(Clone, Copy, Debug)]
pub struct Options {
    pub quick: bool,
}

impl Options {
    fn load(self, mtu: usize, bytes: usize, both: bool) -> Load {
        match self.quick {
            true => Load { mtu, bytes, both, seconds: 20, messages: 0, octets: 200_000 },
            false => Load { mtu, bytes, both, seconds: 60, messages: 2_000, octets: 6_000_000 },
        }
    }
}

/// A line for each rate, MTU and size of messages, and in it each loss.
pub fn goodput(options: Options, title: &str, both: bool, has_turnaround: bool) {
    println!("\n{title}");
    println!("{:>42}{}", "", LOSSES.map(|loss| format!("{:<28}", format!("  {loss} % of frames lost"))).concat());
    let columns = format!("{:>8} {:>8} {:>9}", "of line", "ceiling", "baseline");
    println!(
        "{:>9} {:>6} {:>9} {:>8} {:>6}{}",
        "baud",
        "MTU",
        "message",
        "ceiling",
        "",
        [columns.as_str(); 3].join("  ")
    );
    for baud in BAUDS.into_iter().filter(|baud| !options.quick || *baud == 115_200) {
        for mtu in MTUS.into_iter().filter(|mtu| !options.quick || *mtu == 256) {
            for bytes in SIZES {
                let load = options.load(mtu, bytes, both);
                let cells = LOSSES.map(|loss_percent| {
                    cell(measure::goodput(Line { baud, loss_percent, has_turnaround }, load, SEED))
                });
                println!(
                    "{baud:>9} {mtu:>6} {bytes:>9} {:>7.1}% {:>6}{}",
                    100.0 * load.ceiling(),
                    "",
                    cells.join("  ")
                );
            }
        }
    }
}

/// The share of the line, that of the ceiling, and how many times what stop and wait makes of it.
fn cell(goodput: Goodput) -> String {
    let Goodput { of_line, of_ceiling, baseline } = goodput;
    format!("{:>7.1}% {:>7.1}% {:>8.2}x", 100.0 * of_line, 100.0 * of_ceiling, of_line / baseline)
}

/// A message of 20 octets and its answer.
pub fn trip(options: Options) {
    println!("\nround trip of 20 octets answered by 20, in ms");
    println!(
        "{:>9} {:>6} {:>6} {:>18} {:>9} {:>9} {:>9}",
        "baud", "MTU", "loss", "turnaround", "median", "p99", "baseline"
    );
    let count = if options.quick { 300 } else { 2_000 };
    for baud in BAUDS.into_iter().filter(|baud| !options.quick || *baud == 115_200) {
        for mtu in MTUS.into_iter().filter(|mtu| !options.quick || *mtu == 256) {
            for (loss_percent, has_turnaround) in [(0, false), (1, false), (0, true), (1, true)] {
                let line = Line { baud, loss_percent, has_turnaround };
                let ours = measure::round_trips(line, mtu, count, SEED);
                let theirs = measure::round_trips_of_baseline(line, mtu, count, SEED);
                let [median, p99, theirs] = [percentile(&ours, 50), percentile(&ours, 99), percentile(&theirs, 50)];
                let turnaround = if has_turnaround { "16 ms" } else { "none" };
                println!(
                    "{baud:>9} {mtu:>6} {loss_percent:>5}% {turnaround:>18} {median:>9.2} {p99:>9.2} {theirs:>9.2}"
                );
            }
        }
    }
}

/// What a line of 115,200 baud should carry, with messages of 200 octets and frames of the usual size.
pub fn aims(options: Options, table: &mut Table) {
    table.section("aims at 115,200 baud, MTU 256, 200 octets");
    let load = options.load(256, 200, false);
    let line = |loss_percent| Line { baud: 115_200, loss_percent, has_turnaround: false };
    let shares = LOSSES.map(|loss| measure::goodput(line(loss), load, SEED));
    let [clean, one, ten] = shares.map(|share| 100.0 * share.of_line);
    let baseline = shares.map(|share| Some(100.0 * share.baseline));
    least(table, "clean, of the framing's own ceiling", "%", 100.0 * shares[0].of_ceiling, None, 98.0);
    least(table, "clean, of the line", "%", clean, baseline[0], 88.0);
    least(table, "1 % of frames lost, of the line", "%", one, baseline[1], 84.0);
    least(table, "10 % of frames lost, of the line", "%", ten, baseline[2], 65.0);
    let trips = |measure: fn(Line, usize, u64, u64) -> Vec<f64>| percentile(&measure(line(0), 256, 200, SEED), 100);
    let (ours, theirs) = (trips(measure::round_trips), trips(measure::round_trips_of_baseline));
    table.row(
        Row::new("round trip of 20 octets, the longest", "ms", ours)
            .peer(Some(theirs))
            .goal(Goal::Most(6.0))
            .bound(6.0),
    );
}

fn least(table: &mut Table, metric: &str, unit: &'static str, ours: f64, peer: Option<f64>, least: f64) {
    table.row(Row::new(metric, unit, ours).peer(peer).goal(Goal::Least(least)).bound_least(least));
}
