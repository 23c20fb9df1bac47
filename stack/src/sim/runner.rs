//! Many seeds on all processors.

use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use super::scenario::{Failure, Report, Scenario};

/// Failures after which no more seeds are begun.
const ENOUGH_FAILURES: usize = 5;

/// Most threads that seeds run on.
const MAX_THREADS: usize = 64;

/// Runs seeds, each a [`Scenario`] of its own.
#[derive(Clone, Copy)]
pub struct Runner {
    /// What a seed becomes.
    pub scenario: fn(u64) -> Scenario,
    /// What else its report must be like.
    pub check: fn(&Report) -> Result<(), String>,
}

/// What has become of all seeds.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Seeds that ended as they should, in order.
    pub reports: Vec<(u64, Report)>,
    /// Seeds that did not, in order. After a few of them no more are begun.
    pub failures: Vec<(u64, Failure)>,
}

impl Outcome {
    /// Adds up one figure of all reports.
    pub fn sum(&self, figure: impl Fn(&Report) -> u64) -> u64 {
        self.reports.iter().map(|(_, report)| figure(report)).sum()
    }
}

impl Runner {
    /// Runs every seed of the range and calls `done` after each.
    pub fn run(&self, seeds: Range<u64>, done: impl Fn(u64) + Sync) -> Outcome {
        let next = AtomicU64::new(seeds.start);
        let outcome = Mutex::new(Outcome::default());
        // A panic while it is locked is impossible: what can panic runs before.
        let locked = || outcome.lock().unwrap_or_else(PoisonError::into_inner);
        let work = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds.end || locked().failures.len() >= ENOUGH_FAILURES {
                    return;
                }
                match self.one((self.scenario)(seed)) {
                    Ok(report) => locked().reports.push((seed, report)),
                    Err(failure) => locked().failures.push((seed, failure)),
                }
                done(seed);
            }
        };
        let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
        std::thread::scope(|scope| {
            for _ in 0..threads.min(MAX_THREADS) {
                scope.spawn(work);
            }
        });
        let mut outcome = outcome.into_inner().unwrap_or_else(PoisonError::into_inner);
        outcome.reports.sort_by_key(|&(seed, _)| seed);
        outcome.failures.sort_by_key(|&(seed, _)| seed);
        outcome
    }

    /// Runs one scenario; a panic is a failure like others.
    ///
    /// # Errors
    /// [`Failure`] says what was wrong first.
    pub fn one(&self, scenario: Scenario) -> Result<Report, Failure> {
        let result = catch_unwind(AssertUnwindSafe(|| scenario.run()));
        let report = result.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().map(String::as_str);
            let text = text.or(panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
            Err(Failure(format!("panic: {text}")))
        })?;
        (self.check)(&report).map_err(Failure)?;
        Ok(report)
    }
}
