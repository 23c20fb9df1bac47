//! The simulation under a fixed set of seeds. `scripts/sim` runs any others.

use barewire_stack::sim::{Outcome, Report, Runner, Scenario};

/// Seeds that every test run takes.
const FOUL_SEEDS: u64 = 200;
const CALM_SEEDS: u64 = 40;

const FOUL: Runner = Runner { scenario: Scenario::foul, check: |_| Ok(()) };
const CALM: Runner = Runner { scenario: Scenario::calm, check: needed_nothing };

fn needed_nothing(report: &Report) -> Result<(), String> {
    let figures = report.figures;
    match (report.retransmissions, figures.errors, figures.connects_failed) {
        (0, 0, 0) => Ok(()),
        _ => Err(format!("needed a retransmission or failed: {report:?}")),
    }
}

/// Runs seeds from 0 on; what fails is told with the command that repeats it.
#[track_caller]
fn run(runner: Runner, seeds: u64, arguments: &str) -> Outcome {
    let outcome = runner.run(0..seeds, |_| ());
    let tell = |(seed, why): &(u64, _)| {
        format!("seed {seed} {why}\nrepeat it with: scripts/sim{arguments} --seed {seed}")
    };
    let failures: Vec<_> = outcome.failures.iter().map(tell).collect();
    assert!(failures.is_empty(), "{} seeds failed\n{}", failures.len(), failures.join("\n\n"));
    outcome
}

#[test]
fn foul_weather_never_shows_in_a_stream() {
    let outcome = run(FOUL, FOUL_SEEDS, "");
    // A set that tests nothing would pass, too.
    assert!(outcome.sum(|r| r.figures.bytes_checked) > 50_000_000);
    assert!(outcome.sum(|r| r.figures.graceful) > 2_000);
    assert!(outcome.sum(|r| r.retransmissions) > 2_000);
    assert!(outcome.sum(|r| r.figures.errors) > 100);
    assert!(outcome.sum(|r| r.figures.fast_opens) > 1_000);
    // Bad luck on a bad wire is rare: more of it is a fault of the stack's.
    assert!(outcome.sum(|r| r.figures.unexplained) < 40);
    assert!(outcome.sum(|r| r.figures.datagrams_received) > 1_000);
    assert!(outcome.sum(|r| r.figures.pongs) > 1_000);
}

#[test]
fn calm_weather_needs_no_retransmission_and_no_error() {
    run(CALM, CALM_SEEDS, " --calm");
}

#[test]
fn a_seed_repeats_every_frame_and_its_time() {
    let first = FOUL.one(Scenario::foul(3)).unwrap();
    let again = FOUL.one(Scenario::foul(3)).unwrap();
    let other = FOUL.one(Scenario::foul(4)).unwrap();
    assert_eq!(first, again);
    assert_ne!(first.digest, other.digest);
}
