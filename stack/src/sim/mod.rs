//! Whole networks in virtual time: hosts, a wire that fails, and an oracle that knows every byte.
//!
//! ```text
//!   apps ─ calls ─▶ Stack ─▶ Card ─ cable ─ Card ─▶ Faulty ─▶ Switch ─▶ Link ─▶ … ─▶ other hosts
//!    │                │        each side's frames are copied into its own pool, as a card would
//!    └──▶ Oracle ◀────┴── WireCheck: every frame that is sent and received
//! ```
//!
//! Nothing here reads a clock or asks the operating system for randomness: the same seed gives the
//! same frames at the same times, and [`Report::digest`] proves it. Time stands still while there
//! is work to do and then jumps to the next deadline of a stack, a delayed frame or an application,
//! so that an hour of TIME-WAIT costs nothing. A run is bounded in steps and in virtual time; one
//! that does not end has lost a timer or an event, and is a failure like any other.
//!
//! Read [`World`] first (time and frames), then [`Scenario`] (what a seed becomes) and [`Oracle`]
//! (what is promised). [`Pair`] is the small one: two hosts for a test of one behaviour.

mod app;
mod bulk;
mod card;
mod content;
mod draw;
mod frames;
mod host;
mod link;
mod oracle;
mod pair;
mod runner;
mod scenario;
mod switch;
mod window;
mod world;

pub use bulk::{Bulk, BulkError, BulkReport};
pub use card::Card;
pub use host::{Host, HostConfig};
pub use link::{Bursts, Episodes, Link, LinkConfig, LinkCounters, MAX_LINK_FRAMES};
pub use oracle::Figures;
pub use oracle::Oracle;
pub use pair::{Pair, PairConfig, SentFrame, SentSegment};
pub use runner::{Outcome, Runner};
pub use scenario::{Failure, MAX_FRAMES, Report, Scenario, Weather};
pub use switch::{Switch, SwitchCounters, Wire};
pub use window::WireCheck;
pub use world::{Watch, World};
