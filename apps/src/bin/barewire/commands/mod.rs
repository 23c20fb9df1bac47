//! One file a command.

mod bench;
mod devices;
mod doctor;
mod echo;
mod fetch;
mod nic;
mod nic_device;
mod ping;
mod serve;
mod start;
mod stats;
mod transport;

use std::process::ExitCode;

use crate::cli::Command;

/// Runs a command to its end.
///
/// # Errors
/// When it could not do what was asked; the error says why, and what to do next.
pub(crate) fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(args) => serve::run(args),
        Command::Echo(args) => echo::run(args),
        Command::Fetch(args) => fetch::run(args),
        Command::Ping(args) => ping::run(args),
        Command::Bench(command) => bench::run(command),
        Command::Devices => devices::run(),
        Command::Doctor => doctor::run(),
        Command::Nic(command) => nic::run(command),
    }
}
