//! The properties that the fuzz targets search to break, over the octets that were kept, altered ones and random ones.

use std::fs;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use fieldgate::random::{Random as _, SeededRandom};

#[path = "../common/properties/mod.rs"]
pub mod properties;

use properties::Check;

const RANDOM_COUNT: u64 = 500;
const RANDOM_BYTES_MAX: usize = 600;
const ALTERED_COUNT: u64 = 10;

/// C-66: every target has octets that reach its depths, and its property holds for them.
#[test]
fn c_66_the_kept_octets_break_no_property() {
    for (name, check) in properties::ALL {
        let kept = kept(name);
        assert!(!kept.is_empty() || !folder().exists(), "{name} has no corpus");
        for (path, octets) in kept {
            run(&path.display().to_string(), *check, &octets);
        }
    }
}

/// C-66: octets that are nearly right.
#[test]
fn c_66_altered_octets_break_no_property() {
    for (name, check) in properties::ALL {
        for (path, octets) in kept(name) {
            for seed in 0..ALTERED_COUNT {
                let altered = altered(octets.clone(), &mut SeededRandom::new(seed));
                run(&format!("{} altered with seed {seed}", path.display()), *check, &altered);
            }
        }
    }
}

/// C-66: octets of any length and value.
#[test]
fn c_66_random_octets_break_no_property() {
    for (name, check) in properties::ALL {
        for seed in 0..RANDOM_COUNT {
            let mut random = SeededRandom::new(seed);
            let mut octets = vec![0; below(&mut random, RANDOM_BYTES_MAX)];
            random.fill(&mut octets);
            run(&format!("{name} with seed {seed}"), *check, &octets);
        }
    }
}

/// Tells which octets broke a property.
fn run(what: &str, check: Check, octets: &[u8]) {
    assert!(catch_unwind(|| check(octets)).is_ok(), "{what}: see the message above");
}

/// A published package leaves it out: it has a manifest of its own.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz")
}

fn kept(name: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let Ok(files) = fs::read_dir(folder().join("corpus").join(name)) else { return Vec::new() };
    let mut paths: Vec<PathBuf> = files.map(|file| file.expect("the corpus is readable").path()).collect();
    paths.sort();
    let read = |path: PathBuf| {
        let octets = fs::read(&path).expect("the corpus is readable");
        (path, octets)
    };
    paths.into_iter().map(read).collect()
}

/// Some octets replaced, then perhaps a part doubled or left out.
fn altered(mut octets: Vec<u8>, random: &mut SeededRandom) -> Vec<u8> {
    if octets.is_empty() {
        return octets;
    }
    for _ in 0..below(random, 4) {
        let at = below(random, octets.len());
        octets[at] = random.next_u64() as u8;
    }
    let from = below(random, octets.len());
    let to = from + below(random, octets.len() - from + 1);
    match below(random, 4) {
        0 => drop(octets.drain(from..to)),
        1 => octets.extend_from_within(from..to),
        _ => {}
    }
    octets
}

fn below(random: &mut SeededRandom, end: usize) -> usize {
    (random.next_u64() % end as u64) as usize
}
