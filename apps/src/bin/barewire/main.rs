//! The `barewire` command.
//!
//! ```text
//!   cli       arguments, checked before anything starts
//!   commands  serve · echo · fetch · ping · bench · devices · doctor · nic
//!   output    figures, the live line, errors that say what to do next
//!   signals   Ctrl-C and SIGTERM end a command gracefully, a second one at once
//! ```
//!
//! It exits with 0 when it did what was asked, 1 when that failed, 2 when it was asked wrongly.

mod cli;
mod commands;
mod output;
mod signals;

use std::process::ExitCode;

use clap::Parser;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

fn main() -> ExitCode {
    let cli = cli::Cli::parse();
    let result = start_logs(cli.log).and_then(|()| commands::run(cli.command));
    match result {
        Ok(code) => code,
        Err(error) => {
            output::error(&error);
            ExitCode::FAILURE
        }
    }
}

/// Logs go to standard error: standard output carries what other programs read.
fn start_logs(filter: Option<String>) -> anyhow::Result<()> {
    let filter =
        filter.or_else(|| std::env::var("RUST_LOG").ok()).unwrap_or_else(|| "warn".to_owned());
    let targets: Targets = filter.parse().map_err(|error| {
        output::Advice::new(
            format!("`{filter}` is no log filter: {error}"),
            "give a level (`--log debug`) or targets (`--log barewire=debug,barewire_stack=trace`)",
        )
    })?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    tracing_subscriber::registry().with(targets).with(lines).init();
    Ok(())
}
