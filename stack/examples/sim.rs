//! Runs seeds of the simulation: what `scripts/sim` builds and calls.

#![allow(clippy::print_stdout, clippy::print_stderr, reason = "a command's output")]

use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use barewire_stack::sim::{Outcome, Report, Runner, Scenario};

const USAGE: &str =
    "usage: scripts/sim --seeds N [--first-seed M] [--calm]   runs N seeds from M on
       scripts/sim --seed N [--capture PATH] [--calm]    repeats one and captures its packets";

/// Seeds between two lines that tell how far it is.
const PROGRESS_SEEDS: u64 = 500;

#[derive(Default)]
struct Arguments {
    seeds: Option<u64>,
    first: u64,
    seed: Option<u64>,
    capture: Option<PathBuf>,
    calm: bool,
}

fn arguments() -> Result<Arguments, String> {
    let mut given = Arguments::default();
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        let mut value = || words.next().ok_or(format!("{word} needs a value"));
        let number =
            |text: String| text.parse().map_err(|_| format!("{word} {text}: not a whole number"));
        match word.as_str() {
            "--seeds" => given.seeds = Some(number(value()?)?),
            "--first-seed" => given.first = number(value()?)?,
            "--seed" => given.seed = Some(number(value()?)?),
            "--capture" => given.capture = Some(value()?.into()),
            "--calm" => given.calm = true,
            _ => return Err(format!("{word} is not known")),
        }
    }
    match (given.seeds, given.seed) {
        (Some(_), None) | (None, Some(_)) => Ok(given),
        _ => Err("one of --seeds and --seed is needed".into()),
    }
}

fn main() -> ExitCode {
    let given = match arguments() {
        Ok(given) => given,
        Err(why) => {
            eprintln!("error: {why}\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    let scenario = if given.calm { Scenario::calm } else { Scenario::foul };
    let runner = Runner { scenario, check: |_| Ok(()) };
    let fine = match given.seed {
        Some(seed) => repeat(&runner, seed, &given),
        None => run(&runner, &given),
    };
    if fine { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Runs one seed with a capture.
fn repeat(runner: &Runner, seed: u64, given: &Arguments) -> bool {
    let name = format!("barewire-sim-{seed}.pcapng");
    let path = given.capture.clone().unwrap_or_else(|| std::env::temp_dir().join(name));
    let result = runner.one((runner.scenario)(seed).capture(path.clone()));
    println!("packets: {}", path.display());
    match result {
        Ok(report) => println!("seed {seed}: {report:#?}"),
        Err(ref why) => println!("seed {seed} FAILED {why}"),
    }
    result.is_ok()
}

fn run(runner: &Runner, given: &Arguments) -> bool {
    let count = given.seeds.unwrap_or(0);
    let (begin, finished) = (Instant::now(), AtomicU64::new(0));
    let outcome = runner.run(given.first..given.first.saturating_add(count), |_| {
        let done = finished.fetch_add(1, Ordering::Relaxed) + 1;
        if done.is_multiple_of(PROGRESS_SEEDS) {
            eprintln!("{done} of {count} seeds in {} s", begin.elapsed().as_secs());
        }
    });
    tell(&outcome, begin);
    let calm = if given.calm { " --calm" } else { "" };
    for (seed, why) in &outcome.failures {
        println!("\nseed {seed} FAILED {why}\nrepeat it with: scripts/sim{calm} --seed {seed}");
    }
    outcome.failures.is_empty()
}

fn tell(outcome: &Outcome, begin: Instant) {
    let most = |figure: fn(&Report) -> u64| {
        outcome.reports.iter().map(|(seed, r)| (figure(r), *seed)).max().unwrap_or_default()
    };
    let (frames, frames_seed) = most(|r| r.frames);
    println!(
        "{} seeds in {} s: {} frames (at most {frames}, in seed {frames_seed}), {} sent again",
        outcome.reports.len(),
        begin.elapsed().as_secs(),
        outcome.sum(|r| r.frames),
        outcome.sum(|r| r.retransmissions),
    );
    println!(
        "  {} ends of connections, {} bytes checked, {} errors of which {} by the wire alone",
        outcome.sum(|r| r.figures.endpoints),
        outcome.sum(|r| r.figures.bytes_checked),
        outcome.sum(|r| r.figures.errors),
        outcome.sum(|r| r.figures.unexplained),
    );
    println!(
        "  {} connections opened with data, {} of them read again from a late copy",
        outcome.sum(|r| r.figures.fast_opens),
        outcome.sum(|r| r.figures.repeated_opens),
    );
}
