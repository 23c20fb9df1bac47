//! The simulation under a fixed set of seeds, or under any seed by hand.
//!
//! | variable | meaning |
//! | --- | --- |
//! | `BAREWIRE_SIM_SEED=n` | run this seed alone |
//! | `BAREWIRE_SIM_SEEDS=count`, `BAREWIRE_SIM_FIRST=n` | run this many seeds from `n` on |
//! | `BAREWIRE_SIM_CAPTURE=path` | with one seed: write its frames to a pcapng file |

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use barewire_stack::sim::{Failure, Report, Scenario};

/// Seeds that every test run takes.
const FOUL_SEEDS: u64 = 200;
const CALM_SEEDS: u64 = 40;

/// Failures after which no more seeds are begun.
const ENOUGH_FAILURES: usize = 5;

fn variable(name: &str) -> Option<u64> {
    let value = std::env::var(name).ok()?;
    Some(value.parse().unwrap_or_else(|_| panic!("{name}={value} is not a whole number")))
}

/// The seeds to run: one, a range, or the fixed set.
fn seeds(fixed: u64) -> std::ops::Range<u64> {
    if let Some(seed) = variable("BAREWIRE_SIM_SEED") {
        return seed..seed + 1;
    }
    let first = variable("BAREWIRE_SIM_FIRST").unwrap_or(0);
    first..first + variable("BAREWIRE_SIM_SEEDS").unwrap_or(fixed)
}

/// Runs one seed; a panic is a failure like others.
fn run(scenario: Scenario) -> Result<Report, Failure> {
    let result = catch_unwind(AssertUnwindSafe(|| scenario.run()));
    result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().map(String::as_str);
        let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
        Err(Failure(format!("panic: {text}")))
    })
}

/// Runs seeds on all processors and checks each report. What fails is told with the command that
/// repeats it.
#[allow(clippy::print_stderr, reason = "who repeats one seed wants to see what it was like")]
fn run_all(
    test: &str,
    fixed: u64,
    scenario: fn(u64) -> Scenario,
    check: fn(u64, &Report) -> Result<(), String>,
) -> Vec<(u64, Report)> {
    let seeds = seeds(fixed);
    let alone = seeds.end - seeds.start == 1;
    let next = AtomicU64::new(seeds.start);
    let (reports, failures) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let lock = |failures: &Mutex<Vec<String>>, failure: String| {
        failures.lock().unwrap_or_else(PoisonError::into_inner).push(failure);
    };
    let work = || {
        loop {
            let seed = next.fetch_add(1, Ordering::Relaxed);
            let failed = failures.lock().unwrap_or_else(PoisonError::into_inner).len();
            if seed >= seeds.end || failed >= ENOUGH_FAILURES {
                return;
            }
            let capture = std::env::var_os("BAREWIRE_SIM_CAPTURE");
            let scenario = match capture.filter(|_| alone) {
                Some(path) => scenario(seed).capture(path.into()),
                None => scenario(seed),
            };
            let checked = run(scenario).map_err(|failure| failure.to_string());
            match checked.and_then(|report| check(seed, &report).map(|()| report)) {
                Ok(report) => {
                    if alone {
                        eprintln!("seed {seed}: {report:#?}");
                    }
                    reports.lock().unwrap_or_else(PoisonError::into_inner).push((seed, report));
                }
                Err(why) => lock(
                    &failures,
                    format!(
                        "seed {seed} {why}\nrepeat it with: BAREWIRE_SIM_SEED={seed} \
                         cargo test -p barewire-stack --test sim {test} -- --exact --nocapture"
                    ),
                ),
            }
        }
    };
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get()).min(8);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let failures = failures.into_inner().unwrap_or_else(PoisonError::into_inner);
    assert!(failures.is_empty(), "{} seeds failed\n{}", failures.len(), failures.join("\n\n"));
    let mut reports = reports.into_inner().unwrap_or_else(PoisonError::into_inner);
    reports.sort_by_key(|(seed, _)| *seed);
    reports
}

#[test]
fn foul_weather_never_shows_in_a_stream() {
    let name = "foul_weather_never_shows_in_a_stream";
    let reports = run_all(name, FOUL_SEEDS, Scenario::foul, |_, _| Ok(()));
    if reports.len() as u64 >= FOUL_SEEDS {
        // A set that tests nothing would pass, too.
        let sum = |f: fn(&Report) -> u64| reports.iter().map(|(_, r)| f(r)).sum::<u64>();
        assert!(sum(|r| r.figures.bytes_checked) > 50_000_000);
        assert!(sum(|r| r.figures.graceful) > 2_000);
        assert!(sum(|r| r.retransmissions) > 2_000);
        assert!(sum(|r| r.figures.errors) > 100);
        // Bad luck on a bad wire is rare: more of it is a fault of the stack's.
        assert!(sum(|r| r.figures.unexplained) < 40);
        assert!(sum(|r| r.figures.datagrams_received) > 1_000);
        assert!(sum(|r| r.figures.pongs) > 1_000);
    }
}

#[test]
fn calm_weather_needs_no_retransmission_and_no_error() {
    let name = "calm_weather_needs_no_retransmission_and_no_error";
    run_all(name, CALM_SEEDS, Scenario::calm, |_, report| {
        let figures = report.figures;
        match (report.retransmissions, figures.errors, figures.connects_failed) {
            (0, 0, 0) => Ok(()),
            _ => Err(format!("needed a retransmission or failed: {report:?}")),
        }
    });
}

#[test]
fn a_seed_repeats_every_frame_and_its_time() {
    let first = run(Scenario::foul(3)).unwrap();
    let again = run(Scenario::foul(3)).unwrap();
    let other = run(Scenario::foul(4)).unwrap();
    assert_eq!(first, again);
    assert_ne!(first.digest, other.digest);
}
