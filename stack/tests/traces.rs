//! Runs every packet trace in `tests/traces`, each as a test of its own name.
//!
//! The format is described in `tests/traces/README.md`. Arguments are those of every Rust test:
//! names (or parts of them) to run, `--exact`, `--skip`, `--list`.

#![allow(clippy::print_stdout, reason = "this program is a test harness")]

mod trace_runner;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What the command line asked for.
#[derive(Default)]
struct Arguments {
    filters: Vec<String>,
    skip: Vec<String>,
    exact: bool,
    list: bool,
    ignored_only: bool,
}

impl Arguments {
    fn parse(args: impl Iterator<Item = String>) -> Arguments {
        let mut parsed = Arguments::default();
        let mut args = args.peekable();
        while let Some(arg) = args.next() {
            match arg.as_str() {
                "--exact" => parsed.exact = true,
                "--list" => parsed.list = true,
                "--ignored" => parsed.ignored_only = true,
                "--skip" => parsed.skip.extend(args.next()),
                // The options of the ordinary harness that take a value.
                "--test-threads" | "--format" | "--color" | "--logfile" | "-Z" => {
                    let _value = args.next();
                }
                option if option.starts_with('-') => {}
                filter => parsed.filters.push(filter.to_owned()),
            }
        }
        parsed
    }

    fn wants(&self, name: &str) -> bool {
        let matches = |filter: &String| match self.exact {
            true => name == filter,
            false => name.contains(filter.as_str()),
        };
        !self.ignored_only
            && (self.filters.is_empty() || self.filters.iter().any(matches))
            && !self.skip.iter().any(matches)
    }
}

fn traces(dir: &Path) -> Vec<(String, PathBuf)> {
    let entries = std::fs::read_dir(dir).expect("the directory of the traces is there");
    let mut found: Vec<_> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.extension().is_some_and(|ext| ext == "trace"))
        .map(|path| (path.file_stem().unwrap_or_default().to_string_lossy().into_owned(), path))
        .collect();
    found.sort();
    found
}

/// Runs one trace; a panic of the stack is a failure like any other.
fn run(path: &Path) -> Result<(), String> {
    match catch_unwind(AssertUnwindSafe(|| trace_runner::run(path))) {
        Ok(result) => result,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            Err(format!("{}: panicked: {}", path.display(), text.unwrap_or_default()))
        }
    }
}

fn main() -> ExitCode {
    let arguments = Arguments::parse(std::env::args().skip(1));
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/traces");
    let chosen: Vec<_> =
        traces(&dir).into_iter().filter(|(name, _)| arguments.wants(name)).collect();
    if arguments.list {
        for (name, _) in &chosen {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    println!("\nrunning {} traces", chosen.len());
    let mut failures = Vec::new();
    for (name, path) in &chosen {
        match run(path) {
            Ok(()) => println!("trace {name} ... ok"),
            Err(why) => {
                println!("trace {name} ... FAILED");
                failures.push(why);
            }
        }
    }
    for why in &failures {
        println!("\n{why}");
    }
    let passed = chosen.len() - failures.len();
    let verdict = if failures.is_empty() { "ok" } else { "FAILED" };
    println!("\ntest result: {verdict}. {passed} passed; {} failed\n", failures.len());
    if failures.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
