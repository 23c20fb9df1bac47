//! One file a command.

mod devices;
// The gate: these need the engine's API, and open with it.
#[cfg(false)]
mod echo;
#[cfg(false)]
mod ping;
#[cfg(false)]
mod serve;
#[cfg(false)]
mod start;
#[cfg(false)]
mod transport;

use std::process::ExitCode;

use crate::cli::Command;

/// Runs a command to its end.
///
/// # Errors
/// When it could not do what was asked; the error says why, and what to do next.
pub(crate) fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        #[cfg(false)]
        Command::Serve(args) => serve::run(args),
        #[cfg(false)]
        Command::Echo(args) => echo::run(args),
        #[cfg(false)]
        Command::Ping(args) => ping::run(args),
        Command::Devices => devices::run(),
        #[cfg(not(false))]
        Command::Serve(_) | Command::Echo(_) | Command::Ping(_) => {
            Err(crate::output::Advice::new("this build has no engine", "merge it").into())
        }
    }
}
