//! Every target over the corpus that is kept, and over some bytes at random, on any compiler.

use std::path::PathBuf;

use barewire_fuzz::{TARGETS, Target};
use barewire_stack::Rng;

/// Inputs at random for each target, and the longest of them.
const RANDOM_INPUTS: u64 = 300;
const RANDOM_BYTES: u64 = 3_000;

fn corpus(name: &str) -> Vec<PathBuf> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{folder:?}: {error}"));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

fn target(name: &str) -> Target {
    TARGETS.iter().find(|(known, _)| *known == name).unwrap().1
}

fn replay(name: &str) {
    let paths = corpus(name);
    assert!(!paths.is_empty(), "{name} has no corpus");
    for path in paths {
        let bytes = std::fs::read(&path).unwrap();
        let result = std::panic::catch_unwind(|| target(name)(&bytes));
        assert!(result.is_ok(), "{} fails", path.display());
    }
    let mut rng = Rng::new(7);
    for input in 0..RANDOM_INPUTS {
        let len = rng.below(RANDOM_BYTES);
        let bytes: Vec<u8> = (0..len).map(|_| rng.next_u64() as u8).collect();
        let result = std::panic::catch_unwind(|| target(name)(&bytes));
        assert!(result.is_ok(), "{name} fails on input {input} at random");
    }
}

#[test]
fn parsers_take_whatever_comes() {
    replay("parsers");
}

#[test]
fn a_stack_survives_whatever_comes_and_leaves_nothing() {
    replay("stack");
}

#[test]
fn a_hostile_wire_never_shows_in_a_stream() {
    replay("peers");
}

#[test]
fn a_card_that_writes_anything_costs_no_slot() {
    replay("rings");
}
