//! The store of the gateway: what is written for what, and how fast it is read.
//!
//! ```sh
//! cargo bench --bench store                               # all sections
//! cargo bench --bench store -- --check                    # fails if a figure is out of bounds, as continuous integration
//! cargo bench --bench store -- replay                     # beside reading the file, on this machine
//! ```
//!
//! What is written does not depend on the machine: the real machine of the gateway runs on a computed clock, and the real
//! log writes to memory. Other stores with the same facts, on a disk, are in `peers`.

mod facts;
mod replay;
mod scene;
#[allow(dead_code, reason = "the other benches use more of it")]
#[path = "../system/table.rs"]
mod table;

#[path = "../../tests/common/flash.rs"]
mod flash;

use std::process::ExitCode;

use table::Table;

const SECTIONS: &[&str] = &["facts", "idle", "replay"];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let is_check = arguments.iter().any(|argument| argument == "--check");
    let names: Vec<&str> = arguments.iter().map(String::as_str).filter(|name| *name != "--check").collect();
    if let Some(unknown) = names.iter().find(|name| !SECTIONS.contains(name)) {
        eprintln!("{unknown}: not one of --check, {}", SECTIONS.join(", "));
        return ExitCode::from(2);
    }
    let mut table = Table::default();
    for name in SECTIONS.iter().filter(|name| names.is_empty() || names.contains(name)) {
        table.section(name);
        match *name {
            "facts" => facts::events(&mut table),
            "idle" => facts::days(&mut table),
            _ => replay::measure(&mut table),
        }
    }
    for broken in table.broken() {
        println!("out of bounds: {broken}");
    }
    if is_check && !table.broken().is_empty() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}
