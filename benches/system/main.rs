//! The benches: the real binary as processes, beside what people build today, in the same minute.
//!
//! ```sh
//! cargo bench --bench system                              # all sections
//! cargo bench --bench system -- octets latency            # some of them
//! cargo bench --bench system -- --quick --check           # a smoke run, as continuous integration does it
//! ```
//!
//! `--check` fails when a figure that does not depend on the machine is out of its bounds.

mod faults;
mod mqtt;
mod ours;
mod peer;
mod poster;
#[allow(dead_code, reason = "the tests use more of it")]
#[path = "../../tests/it/process.rs"]
mod process;
mod proxy;
mod sections;
mod service;
#[allow(dead_code, reason = "the bench of the link uses more of it")]
mod table;
mod usage;

use std::fs;
use std::process::ExitCode;

use sections::Options;
use table::Table;

const SECTIONS: &[&str] =
    &["latency", "throughput", "memory", "octets", "idle", "flash", "cpu", "service", "stalled", "killed", "link"];

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
    let missing = peer::missing();
    let options = Options { quick: has("--quick"), peers: missing.is_none() };
    println!("{}", machine());
    if let Some(missing) = missing {
        println!("{missing}");
    }
    let mut table = Table::default();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build_local(Default::default());
    runtime.expect("a runtime").block_on(async {
        for name in SECTIONS.iter().filter(|name| names.is_empty() || names.contains(name)) {
            table.section(name);
            run(name, options, &mut table).await;
        }
    });
    println!("\nload after the run: {}", load());
    for broken in table.broken() {
        println!("out of bounds: {broken}");
    }
    if has("--check") && !table.broken().is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

async fn run(name: &str, options: Options, table: &mut Table) {
    match name {
        "latency" => sections::latency(options, table).await,
        "throughput" => sections::throughput(options, table).await,
        "memory" => sections::memory_of_gateway(options, table).await,
        "octets" => sections::octets(options, table).await,
        "idle" => sections::idle(options, table).await,
        "stalled" => faults::stalled(options, table).await,
        "killed" => faults::killed(options, table).await,
        "link" => faults::link(options, table).await,
        "service" => service::run(options, table).await,
        "flash" => sections::flash(options, table).await,
        _ => sections::cpu(options, table).await,
    }
}

/// The machine, and how busy it is with other things.
fn machine() -> String {
    let processors = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = processors.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cores} cores,{}, Linux {}, load {}", model.trim_start_matches(['\t', ' ', ':']), kernel.trim(), load())
}

fn load() -> String {
    fs::read_to_string("/proc/loadavg").unwrap_or_default().trim().to_owned()
}
