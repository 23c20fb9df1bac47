//! Runs packet traces against a [`Stack`](barewire_stack::Stack) on raw packets, in virtual time.
//!
//! ```text
//!   script  text ─▶ lines       packet  words ⇄ IPv4 packets
//!   bench   the stack, its clock, the flows and sockets of the trace
//!   run     one line after another: set, flow, inject, expect, call, assert
//! ```

mod assert;
mod bench;
mod calls;
mod icmp;
mod packet;
mod run;
mod script;

use std::path::Path;

/// Why a trace failed, with its place.
#[derive(Debug)]
pub(crate) struct Failure(pub(crate) String);

/// Runs one trace.
pub(crate) fn run(path: &Path) -> Result<(), String> {
    let lines = script::read(path).map_err(|failure| failure.0)?;
    run::Run::new(lines).and_then(run::Run::play).map_err(|failure| failure.0)
}
