//! The device link: what it makes of a serial line, on a clock of its own, and what an idle one costs.
//!
//! ```sh
//! cargo bench --bench link                                # all sections
//! cargo bench --bench link -- goodput trip                # some of them
//! cargo bench --bench link -- --quick --check             # a smoke run, as continuous integration does it
//! ```
//!
//! Two real links, of the gateway and of a device, and a line that is computed: the figures are the same on every
//! machine and in every run. `--check` fails when an aim is missed that is stated as met.
//!
//! To see why a figure is what it is: `LINK_TRACE=1` prints each frame, `LINK_COUNTS=1` what was sent again.

mod application;
mod idle;
mod line;
mod measure;
mod ours;
mod sections;
mod stop_and_wait;
#[allow(dead_code, reason = "the other bench uses more of it")]
#[path = "../system/table.rs"]
mod table;
mod world;

use std::process::ExitCode;

use sections::Options;
use table::Table;

const SECTIONS: &[&str] = &["goodput", "turnaround", "both", "trip", "aims", "idle"];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let has = |flag: &str| arguments.iter().any(|argument| argument == flag);
    let names: Vec<&str> = arguments.iter().map(String::as_str).filter(|name| !name.starts_with("--")).collect();
    let unknown = |argument: &&String| !["--quick", "--check"].contains(&argument.as_str());
    let is_known = |argument: &&String| SECTIONS.contains(&argument.as_str());
    if let Some(argument) = arguments.iter().filter(unknown).find(|argument| !is_known(argument)) {
        eprintln!("{argument}: not one of --quick, --check, {}", SECTIONS.join(", "));
        return ExitCode::from(2);
    }
    let options = Options { quick: has("--quick") };
    let mut table = Table::default();
    for name in SECTIONS.iter().filter(|name| names.is_empty() || names.contains(name)) {
        match *name {
            "goodput" => sections::goodput(options, "goodput, gateway to device", false, false),
            "turnaround" => sections::goodput(options, "goodput, gateway to device, USB adapter of 16 ms", false, true),
            "both" => sections::goodput(options, "goodput, both ways at once", true, false),
            "trip" => sections::trip(options),
            "aims" => sections::aims(options, &mut table),
            _ => idle::measure(&mut table),
        }
    }
    for broken in table.broken() {
        println!("out of bounds: {broken}");
    }
    if has("--check") && !table.broken().is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
