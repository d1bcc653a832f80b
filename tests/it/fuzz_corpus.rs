//! The properties that the fuzz targets search to break, over the octets that were kept and over random ones.

use std::fs;
use std::path::Path;

use fieldgate::random::{Random as _, SeededRandom};

#[path = "../common/properties/mod.rs"]
mod properties;

const RANDOM_COUNT: u64 = 300;
const RANDOM_BYTES_MAX: u64 = 600;

/// C-66: every target has octets that reach its depths, and its property holds for them.
#[test]
fn c_66_the_kept_octets_break_no_property() {
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz");
    if !fuzz.exists() {
        return; // A published package leaves out folders that have a manifest of their own.
    }
    for (name, check) in properties::ALL {
        let files = fs::read_dir(fuzz.join("corpus").join(name)).expect("every target has a corpus");
        let mut count = 0;
        for file in files {
            let path = file.expect("the corpus is readable").path();
            let octets = fs::read(&path).expect("the corpus is readable");
            run(&path.display().to_string(), *check, &octets);
            count += 1;
        }
        assert!(count > 0, "{name} has no corpus");
    }
}

/// C-66: octets of any length and value.
#[test]
fn c_66_random_octets_break_no_property() {
    for (name, check) in properties::ALL {
        for seed in 0..RANDOM_COUNT {
            let mut random = SeededRandom::new(seed);
            let mut octets = vec![0; (random.next_u64() % RANDOM_BYTES_MAX) as usize];
            random.fill(&mut octets);
            run(&format!("{name} with seed {seed}"), *check, &octets);
        }
    }
}

/// Tells which octets broke a property.
fn run(what: &str, check: properties::Check, octets: &[u8]) {
    let outcome = std::panic::catch_unwind(|| check(octets));
    assert!(outcome.is_ok(), "{what}: see the message above");
}
