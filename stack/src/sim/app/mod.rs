//! Applications of a simulation: small state machines on the stack's non-blocking calls.
//!
//! They act when an event names one of their sockets and when a time that they have chosen has
//! come, never otherwise: an event that gets lost leaves them waiting, and the run fails.

mod client;
mod datagram;
mod endpoint;
mod server;

use crate::rng::Rng;
use crate::stack::{Event, Stack};
use crate::time::Instant;

use super::oracle::Oracle;

pub(super) use client::{Client, ClientPlan};
pub(super) use datagram::{Chatter, ECHO_PORT, Echo};
pub(super) use server::{Server, ServerPlan};

/// What an application has at hand while it acts.
pub(super) struct Context<'a> {
    pub(super) now: Instant,
    pub(super) host: usize,
    pub(super) stack: &'a mut Stack,
    pub(super) oracle: &'a mut Oracle,
    pub(super) rng: &'a mut Rng,
    pub(super) scratch: &'a mut Vec<u8>,
    /// The run has had as many frames as it should: nothing is begun any more, and what is under
    /// way comes to its end.
    pub(super) enough: bool,
}

/// An application on one host.
pub(super) trait App {
    /// Acts on an event; false if the socket is not its own.
    fn on_event(&mut self, cx: &mut Context<'_>, event: Event) -> bool;

    /// Does what is due.
    fn on_time(&mut self, cx: &mut Context<'_>);

    /// When it wants to act next without an event; the past for at once.
    fn wake_at(&self) -> Option<Instant>;

    /// True once it has done what it came for. Servers have at every moment.
    fn is_done(&self) -> bool;

    /// Starts nothing new any more and closes what only waits.
    fn retire(&mut self, cx: &mut Context<'_>);

    /// True if it holds no socket.
    fn is_gone(&self) -> bool;

    /// What it waits for, to be printed when the run is stuck.
    fn describe(&self) -> String;
}
