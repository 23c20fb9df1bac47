//! # What is fuzzed
//!
//! ```text
//!   bytes ─┬─▶ parsers   every parser of the stack, and what it writes is read back
//!          ├─▶ stack     segments and calls on one stack; memory and tables are empty at the end
//!          ├─▶ peers     two stacks and a wire that damages; both streams arrive as they were
//!          └─▶ rings     a card that writes anything into its descriptors; no slot is lost
//! ```
//!
//! Each target is a function of bytes. `scripts/fuzz` runs it under libFuzzer; `cargo test` runs it
//! over the corpus that is kept in `corpus/`, and the program of its name over any files, on a
//! stable compiler: `cargo run -p barewire-fuzz --bin stack -- crash-1234`.

pub mod parsers;
pub mod peers;
pub mod stack;

use std::path::PathBuf;

/// A function of bytes that panics on what must not be.
pub type Target = fn(&[u8]);

/// All targets by name.
pub const TARGETS: [(&str, Target); 4] =
    [("parsers", parsers::run), ("stack", stack::run), ("peers", peers::run), ("rings", rings)];

/// See [`barewire_driver::intel::hostile`].
pub fn rings(data: &[u8]) {
    barewire_driver::intel::hostile::run(data);
}

/// Runs a target over the files that the command line names.
///
/// # Errors
/// If a file cannot be read.
pub fn run_files(target: Target) -> std::io::Result<()> {
    for path in std::env::args_os().skip(1).map(PathBuf::from) {
        target(&std::fs::read(path)?);
    }
    Ok(())
}
