//! `bench [NAME]…`: our stack and its peers in turn, a table and JSON of it.
//! `bench --instructions`: what callgrind counts, which no other work on the machine changes.
//! `bench NAME --operations N --side ours|smoltcp`: N operations of one side and nothing else, for
//! a tool that counts or samples.
//!
//! ```text
//!   cases ─▶ measure ─▶ report::Row ─▶ table, JSON
//!     └────▶ memory (counting allocator)
//! ```

#![allow(clippy::print_stdout, reason = "the table is what the program is for")]
#![allow(clippy::print_stderr, reason = "what is left out of it, and what failed, has to be said")]

mod cases;
mod instructions;
mod memory;
mod report;

use std::path::PathBuf;
use std::process::ExitCode;
use std::str::FromStr;
use std::time::Duration;

use anyhow::{Context, bail};
use barewire_benches::{Pair, Workload, ours, peer};
use barewire_driver::sys;
use cases::{CASES, Case, Effort};
use clap::{Parser, ValueEnum};
use instructions::Then;

#[derive(Parser)]
#[command(about = "Measures our stack and its peers in turn, in one process")]
struct Options {
    /// Rows whose name is one of these, or contains one; all without.
    names: Vec<String>,
    /// Shorter turns, and fewer: all rows within two minutes.
    #[arg(long)]
    quick: bool,
    /// Writes the rows into this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Seconds for each row, both sides together.
    #[arg(long)]
    seconds: Option<f64>,
    /// Turns of each side; the median counts.
    #[arg(long, value_parser = clap::value_parser!(u32).range(5..1000))]
    turns: Option<u32>,
    /// The network namespace of the kernel's server; without it the kernel's rows are left out.
    #[arg(long, value_name = "FILE")]
    namespace: Option<PathBuf>,
    /// Processors for rows that need two, as `taskset` lists them; those that may be used without.
    #[arg(long, value_name = "LIST")]
    processors: Option<Processors>,
    /// Counts instructions an operation instead, under callgrind.
    #[arg(long, conflicts_with_all = ["quick", "json", "seconds", "turns", "namespace"])]
    instructions: bool,
    /// Fails if the counts are not those of benches/instructions.toml.
    #[arg(long, requires = "instructions")]
    check: bool,
    /// Writes the counts into benches/instructions.toml.
    #[arg(long, requires = "instructions", conflicts_with_all = ["check", "names"])]
    write: bool,
    /// Only does this many operations of one side, untimed.
    #[arg(long, requires_all = ["side", "names"])]
    operations: Option<u64>,
    /// The side of `--operations`.
    #[arg(long, requires = "operations")]
    side: Option<Side>,
}

/// A side that lives in this process alone.
#[derive(Clone, Copy, Debug, ValueEnum)]
pub(crate) enum Side {
    Ours,
    Smoltcp,
}

impl Side {
    /// As on the command line.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Side::Ours => <ours::Pair as Pair>::NAME,
            Side::Smoltcp => <peer::Pair as Pair>::NAME,
        }
    }
}

/// A list such as `0-3,8`.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Processors(Vec<usize>);

impl FromStr for Processors {
    type Err = std::num::ParseIntError;

    fn from_str(list: &str) -> Result<Processors, Self::Err> {
        let mut all = Vec::new();
        for part in list.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            all.extend(first.parse::<usize>()?..=last.parse()?);
        }
        Ok(Processors(all))
    }
}

/// Those of `all` that are asked for. A name that is one of theirs means that one only, others
/// mean all that contain it.
fn select<T: Copy>(
    all: &[T],
    name: impl Fn(&T) -> &'static str,
    wanted: &[String],
) -> anyhow::Result<Vec<T>> {
    let is_named = |item: &T, wanted: &str| {
        let exact = all.iter().any(|item| name(item) == wanted);
        if exact { name(item) == wanted } else { name(item).contains(wanted) }
    };
    for wanted in wanted {
        if !all.iter().any(|item| is_named(item, wanted)) {
            let mut names: Vec<&str> = all.iter().map(&name).collect();
            names.dedup();
            bail!("nothing is called `{wanted}`; there are {}", names.join(", "));
        }
    }
    let asked = |item: &&T| wanted.is_empty() || wanted.iter().any(|name| is_named(item, name));
    Ok(all.iter().filter(asked).copied().collect())
}

fn main() -> ExitCode {
    match run(&Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> anyhow::Result<()> {
    if let (Some(operations), Some(side)) = (options.operations, options.side) {
        for workload in select(&Workload::ALL, |w| w.name(), &options.names)? {
            match side {
                Side::Ours => run_only::<ours::Pair>(workload, operations),
                Side::Smoltcp => run_only::<peer::Pair>(workload, operations),
            }
        }
        return Ok(());
    }
    if options.instructions {
        let named = match options.names.is_empty() {
            true => Vec::new(),
            false => select(&Workload::ALL, |w| w.name(), &options.names)?,
        };
        let then = match (options.check, options.write) {
            (true, _) => Then::Check,
            (false, true) => Then::Write,
            (false, false) => Then::Show,
        };
        return instructions::run(&named, then);
    }
    table(options)
}

fn run_only<P: Pair>(workload: Workload, operations: u64) {
    let mut pair = P::new(&workload.setup());
    workload.run(&mut pair, operations);
}

fn table(options: &Options) -> anyhow::Result<()> {
    let (seconds, turns) = if options.quick { (2.0, 5) } else { (10.0, 9) };
    let seconds = options.seconds.unwrap_or(seconds).clamp(0.1, 3600.0);
    let effort = Effort {
        time: Duration::from_secs_f64(seconds),
        turns: options.turns.unwrap_or(turns) as usize,
        idle: 10_000,
        namespace: options.namespace.clone(),
        processors: match &options.processors {
            Some(Processors(list)) => list.clone(),
            None => sys::allowed_cores().context("cannot ask which processors may be used")?,
        },
    };
    let cases = select(&CASES, Case::name, &options.names)?;
    let (cases, left_out): (Vec<Case>, Vec<Case>) =
        cases.into_iter().partition(|case| case.missing(&effort).is_none());
    println!("{}", report::heading());
    let mut rows = Vec::new();
    for case in &cases {
        let row = case.measure(&effort);
        println!("{row}");
        rows.push(row);
    }
    let count = |met| rows.iter().filter(|row| row.met() == Some(met)).count();
    println!("targets met: {} of {}", count(true), count(true) + count(false));
    for (name, note) in rows.iter().filter_map(|row| Some((row.workload, row.note.as_ref()?))) {
        eprintln!("{name}: {note}");
    }
    for (case, missing) in left_out.iter().filter_map(|case| Some((case, case.missing(&effort)?))) {
        eprintln!("left out: {} against {}, for want of {missing}", case.name(), case.peer.name());
    }
    if let Some(path) = &options.json {
        std::fs::write(path, report::json(&rows)).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exact_name_wins_over_names_that_contain_it() {
        let wanted = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            select(&Workload::ALL, |w| w.name(), &names)
        };
        assert_eq!(wanted(&["tcp-echo"]).unwrap(), [Workload::Echo]);
        assert_eq!(wanted(&["echo"]).unwrap().len(), 3);
        assert_eq!(wanted(&[]).unwrap().len(), Workload::ALL.len());
        assert!(wanted(&["tcp-echo", "tpc"]).is_err());
    }

    #[test]
    fn processors_are_listed_as_taskset_lists_them() {
        assert_eq!("0-2,5".parse(), Ok(Processors(vec![0, 1, 2, 5])));
        assert_eq!("7".parse(), Ok(Processors(vec![7])));
        assert!("a-b".parse::<Processors>().is_err());
    }

    #[test]
    fn options_agree_with_each_other() {
        use clap::CommandFactory;
        Options::command().debug_assert();
    }
}
