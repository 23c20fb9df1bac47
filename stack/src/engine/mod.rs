//! The engine: one loop a core that runs a queue, a pool and a [`Stack`] to completion, the tasks
//! on top of them, and the sockets that other threads hold.
//!
//! ```text
//!   tasks (async, on the core)                 threads (blocking)
//!        │ Core                                     │ RemoteStream, RemoteListener, …
//!        ▼                                          ▼
//!   ┌─ executor ─── run: the loop ─── remotes ◀─ portals, mailbox ─┐
//!   │                  │    │                                      │
//!   │               Stack  Queue                     owner ◀──▶ other engines
//!   └──────────────────────────────────────────────────────────────┘
//! ```
//!
//! Read `run` first (the loop), then [`Core`] (what tasks see), `portal` (what threads see) and
//! `sync` (the wake-up protocols that all of it rests on). [`Engines`] starts and stops them, on threads
//! of its own, or leaves the turns of an [`Engine`] to a thread that has something else to do as well.
//!
//! Every queue has a limit with a name: [`MAX_REQUESTS`] control calls, [`MAX_FORWARDED`] frames
//! from other engines, [`RX_RING_SLOTS`] and [`TX_RING_SLOTS`] buffers a socket and direction, [`TX_RING_SMALL`] messages without,
//! [`EngineConfig::max_tasks`] tasks, [`EngineConfig::thread_sockets`] sockets of threads.
//!
//! [`Stack`]: crate::stack::Stack

mod core;
mod executor;
mod group;
pub mod idle;
mod mailbox;
mod owner;
mod parcel;
mod portal;
mod remote;
mod remotes;
mod run;
mod seed;
mod stats;
mod sync;
mod waiters;

pub use self::core::{Core, Elapsed, Sleep};
pub use executor::TaskCounters;
pub use group::{EngineConfig, EngineError, Engines};
pub use idle::Idle;
pub use mailbox::{MAX_FORWARDED, MAX_REQUESTS};
pub use portal::{RX_RING_SLOTS, TX_RING_SLOTS, TX_RING_SMALL};
pub use remote::{MAX_DATAGRAM_BYTES, RemoteDatagram, RemoteListener, RemoteStream, Wait};
pub use run::{Engine, RX_BURSTS, Turn};
pub use seed::EngineSeed;
pub use stats::{EngineReport, EngineStats, LoopCounters};
pub use waiters::Direction;
