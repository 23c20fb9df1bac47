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
use barewire_benches::arguments::{FiguresFile, number};
use barewire_benches::{Pair, ours, peer};
use barewire_driver::sys;
use cases::{CASES, Case, Effort};
use clap::error::ErrorKind;
use clap::{CommandFactory, Parser, ValueEnum};
use instructions::{Counted, Then};
use report::Row;

/// What `scripts/bench` runs in place of this program when it is the first argument.
const PROGRAMS: [&str; 4] = ["balance", "latency", "loss", "million"];

#[derive(Debug, Parser)]
#[command(
    bin_name = "scripts/bench",
    about = "Measures our stack and its peers in turn, in one process",
    after_help = what_there_is()
)]
struct Options {
    /// Rows whose name is one of these, or contains one; all without.
    names: Vec<String>,
    /// Shorter turns, and fewer: all rows within two minutes.
    #[arg(long)]
    quick: bool,
    /// Writes the rows into this file.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Seconds for each row, both sides together: 10, or 2 with `--quick`.
    #[arg(long, value_parser = number(0.1..=3600.0))]
    seconds: Option<f64>,
    /// Turns of each side; the median counts.
    #[arg(long, value_parser = clap::value_parser!(u32).range(5..1000))]
    turns: Option<u32>,
    /// The network namespace of the kernel's server; without it the kernel's rows are left out.
    // The script knows it, and nobody else.
    #[arg(long, value_name = "FILE", hide = true)]
    namespace: Option<PathBuf>,
    /// Processors for rows that need two, as `taskset` lists them; those that may be used without.
    #[arg(long, value_name = "LIST", hide = true)]
    processors: Option<Processors>,
    /// Counts instructions an operation instead, under callgrind.
    #[arg(long, conflicts_with_all = ["quick", "json", "seconds", "turns", "namespace"])]
    instructions: bool,
    /// With --instructions: fails if the counts are not those of benches/instructions.toml.
    #[arg(long)]
    check: bool,
    /// With --instructions: writes the counts into benches/instructions.toml.
    #[arg(long, conflicts_with = "check")]
    write: bool,
    /// Only does this many operations of one side, untimed.
    #[arg(long, requires_all = ["side", "names"])]
    operations: Option<u64>,
    /// The side of `--operations`.
    #[arg(long, requires = "operations")]
    side: Option<Side>,
}

impl Options {
    /// What attributes do not say: an argument that conflicts with one that is there is no longer
    /// missed by those that require it, and then `--check` would measure, check nothing and succeed.
    fn checked(self) -> Result<Options, clap::Error> {
        if (self.check || self.write) && !self.instructions {
            let what = if self.check { "--check" } else { "--write" };
            let message = format!("{what} is of counts: write `--instructions {what}`");
            return Err(Options::command().error(ErrorKind::MissingRequiredArgument, message));
        }
        Ok(self)
    }
}

/// What stands below the options: everything that can be named.
fn what_there_is() -> String {
    let mut rows: Vec<&str> = CASES.iter().map(Case::name).collect();
    rows.dedup();
    format!(
        "Rows:\n  {}\n\nPrograms of their own, as the first word and with a --help each:\n  {}",
        rows.join("\n  "),
        PROGRAMS.join("\n  ")
    )
}

/// A side that lives in this process alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
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
        if PROGRAMS.contains(&wanted.as_str()) {
            bail!(
                "`{wanted}` is no row but a program of its own: write `scripts/bench {wanted}`, and \
                 behind that what it is to do"
            );
        }
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
    let options = Options::try_parse().and_then(Options::checked);
    match run(&options.unwrap_or_else(|error| error.exit())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> anyhow::Result<()> {
    if let (Some(operations), Some(side)) = (options.operations, options.side) {
        let counted = select(&Counted::of(side), |counted| counted.name(), &options.names)?;
        return counted.into_iter().try_for_each(|counted| counted.run(side, operations));
    }
    if options.instructions {
        let named = match options.names.is_empty() {
            true => Vec::new(),
            false => select(&Counted::all(), |counted| counted.name(), &options.names)?,
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

fn table(options: &Options) -> anyhow::Result<()> {
    let (seconds, turns) = if options.quick { (2.0, 5) } else { (10.0, 9) };
    let seconds = options.seconds.unwrap_or(seconds);
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
    let json = options.json.as_deref().map(FiguresFile::open).transpose()?;
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
    if rows.iter().any(Row::is_uncertain) {
        println!("*: another run may say otherwise, for the spread is more than what decides");
    }
    for row in &rows {
        if let Some(note) = row.notes() {
            eprintln!("{} against {}: {note}", row.workload, row.peer);
        }
    }
    for (case, missing) in left_out.iter().filter_map(|case| Some((case, case.missing(&effort)?))) {
        eprintln!("left out: {} against {}, for want of {missing}", case.name(), case.peer.name());
    }
    if let Some(file) = json {
        file.write(&report::json(&rows))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use barewire_benches::Workload;

    use super::*;

    #[test]
    fn an_exact_name_wins_over_names_that_contain_it() {
        let wanted = |names: &[&str]| {
            let names: Vec<String> = names.iter().map(|&name| name.to_owned()).collect();
            select(&Counted::all(), |counted| counted.name(), &names)
        };
        assert_eq!(wanted(&["tcp-echo"]).unwrap(), [Counted::Stacks(Workload::Echo)]);
        assert_eq!(wanted(&["echo"]).unwrap().len(), 4);
        assert_eq!(wanted(&[]).unwrap().len(), Counted::all().len());
        assert!(wanted(&["tcp-echo", "tpc"]).is_err());
    }

    #[test]
    fn processors_are_listed_as_taskset_lists_them() {
        assert_eq!("0-2,5".parse(), Ok(Processors(vec![0, 1, 2, 5])));
        assert_eq!("7".parse(), Ok(Processors(vec![7])));
        assert!("a-b".parse::<Processors>().is_err());
    }

    fn parse(line: &str) -> Result<Options, clap::Error> {
        let words = ["bench"].into_iter().chain(line.split_whitespace());
        Options::try_parse_from(words).and_then(Options::checked)
    }

    #[test]
    fn options_agree_with_each_other() {
        Options::command().debug_assert();
        assert!(parse("--instructions --check tcp-echo").unwrap().check);
        assert!(parse("--instructions --write bulk-1500").unwrap().write);
        assert!(parse("--instructions --check --write").is_err());
    }

    #[test]
    fn nothing_is_checked_or_written_but_counts() {
        // As `scripts/bench` adds its own arguments.
        for line in ["--check", "--write", "--check --quick", "--write tcp-echo --seconds 1"] {
            let error = parse(&format!("--processors 0-1 --namespace x {line}")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::MissingRequiredArgument, "{line}");
            assert_eq!(error.exit_code(), 2, "{line}");
        }
    }

    #[test]
    fn times_that_are_none_are_refused() {
        for seconds in ["nan", "inf", "0", "-1", "3601", "1e300"] {
            let error = parse(&format!("--seconds={seconds}")).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::ValueValidation, "{seconds}");
        }
    }

    #[test]
    fn help_tells_rows_and_programs_and_not_what_is_the_scripts_own() {
        let help = Options::command().render_long_help().to_string();
        for says in CASES.iter().map(Case::name).chain(PROGRAMS).chain(["scripts/bench [OPTIONS]"])
        {
            assert!(help.contains(says), "{says}: {help}");
        }
        assert!(!help.contains("--namespace") && !help.contains("--processors"), "{help}");
        // The script tells them from rows by the same names.
        let script = include_str!("../../../../scripts/bench");
        assert!(script.contains(&format!("{})", PROGRAMS.join(" | "))), "{PROGRAMS:?}");
    }

    #[test]
    fn a_program_named_as_a_row_is_shown_the_way() {
        for program in PROGRAMS {
            let error = select(&CASES, Case::name, &[program.to_owned()]).unwrap_err().to_string();
            assert!(error.contains(&format!("write `scripts/bench {program}`")), "{error}");
        }
    }
}
