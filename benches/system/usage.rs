//! What the kernel says a process has used.

use std::fs;

/// Memory of a process.
///
/// Units: kB of 1024 octets.
#[derive(Clone, Copy, Debug)]
pub struct Memory {
    pub resident: f64,
    pub anonymous: f64,
}

/// CPU time of all threads that a process has.
///
/// Units: microseconds.
pub fn cpu_us(id: u32) -> f64 {
    let tasks = fs::read_dir(format!("/proc/{id}/task")).expect("it runs");
    let nanoseconds = tasks.map(|task| {
        let path = task.expect("it runs").path().join("schedstat");
        let text = fs::read_to_string(path).expect("the kernel counts CPU time");
        text.split_whitespace().next().and_then(|first| first.parse::<f64>().ok()).expect("a number of nanoseconds")
    });
    nanoseconds.sum::<f64>() / 1_000.0
}

/// What a process occupies now.
pub fn memory(id: u32) -> Memory {
    let path = format!("/proc/{id}/smaps_rollup");
    Memory { resident: field(&path, "Rss:"), anonymous: field(&path, "Anonymous:") }
}

/// Octets that a process has had written to storage.
pub fn storage_bytes(id: u32) -> f64 {
    field(&format!("/proc/{id}/io"), "write_bytes:")
}

fn field(path: &str, name: &str) -> f64 {
    let text = fs::read_to_string(path).expect("it runs");
    let line = text.lines().find_map(|line| line.strip_prefix(name)).expect("the kernel says so");
    line.split_whitespace().next().and_then(|number| number.parse().ok()).expect("a number")
}
