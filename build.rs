//! Says when this is built: an earlier time than that it cannot be.

use std::time::{SystemTime, UNIX_EPOCH};

fn main() {
    println!("cargo::rerun-if-env-changed=SOURCE_DATE_EPOCH");
    println!("cargo::rerun-if-changed=src");
    println!("cargo::rerun-if-changed=build.rs");
    // Builds that are to be repeated octet by octet say it themselves: https://reproducible-builds.org/specs/source-date-epoch
    let given = std::env::var("SOURCE_DATE_EPOCH").ok().and_then(|text| text.trim().parse::<u64>().ok());
    #[allow(clippy::disallowed_methods, reason = "it runs on the machine that builds")]
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    println!("cargo::rustc-env=FIELDGATE_BUILT_UNIX_S={}", given.unwrap_or_else(now));
}
