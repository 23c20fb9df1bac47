//! `barewire bench`: the load tool.
//!
//! ```text
//!   client ── hello: mode, sizes, time ──▶ server      one port serves every mode
//!          ◀───────── ACK ────────────────           then it waits until all are connected
//!          ── GO ─────────────────────────▶
//!          ◀═══ stream · requests and answers ═══▶
//!          ── end of stream ──▶ ◀── end of stream ──   nothing of what was counted is lost
//!
//!   client, server   start connections, on a device's cores or on the kernel's sockets
//!   work, answer     what one connection does, on either side of it, written once
//!   gate             where connections wait for each other
//!   half             one direction of a connection, and when requests are due
//!   link             the connection: ours or the kernel's
//!   tally, report    what has been counted and timed, and how it is told
//!   packets          bursts of a device's queue, without a stack
//!   kernel_packets   the same on packet sockets of the kernel
//! ```
//!
//! # What is measured
//!
//! Connections that stay are opened first and begin together. The rate of a stream is what was
//! confirmed, over the time from then to the last one's end. A connection ends with the server's end
//! of stream, which the server sends only after it has read everything: bytes that merely sat in a
//! buffer do not count as carried.
//!
//! A rate of requests, or of short connections, is what has ended in the time that was asked for,
//! over that time. What is open when it ends is told apart, so that one that hangs neither counts
//! nor makes the others look slow.
//!
//! At a fixed rate (`rr --rate`) a request has a time at which it is due, whether earlier ones have
//! been answered or not, and its latency counts from then. A server that stalls is charged for all
//! requests that had to wait meanwhile. One that could not even be sent, or was never answered, is
//! charged with the time that it had waited at the end, and the rate is over the time in which
//! requests were due.

mod answer;
mod client;
mod gate;
mod half;
mod hello;
mod kernel_packets;
mod link;
mod packets;
mod report;
mod server;
mod tally;
mod work;

use std::process::ExitCode;
use std::time::Duration;

use crate::cli::BenchCommand;

/// How much longer than it measures a run may take, to connect before and to end connections
/// afterwards.
const GRACE: Duration = Duration::from_secs(10);

/// Bytes read or written by one call.
const BLOCK_BYTES: usize = 64 * 1024;

/// Runs one mode to its end.
///
/// # Errors
/// When it could not start, or could not connect at all.
pub(super) fn run(command: BenchCommand) -> anyhow::Result<ExitCode> {
    match command {
        BenchCommand::Server(args) => server::run(&args),
        BenchCommand::Client(command) => client::run(&command),
        BenchCommand::Pktgen(args) => packets::generate(&args),
        BenchCommand::Rxdrop(args) => packets::drop_received(&args),
        BenchCommand::Forward(args) => packets::forward(&args),
    }
}
