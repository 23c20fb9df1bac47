//! # Barewire's protocol stack
//!
//! A sans-IO TCP/IP stack, and the poll-mode engine that runs it on a core of its own.
//!
//! ```text
//!   engine      one loop a core: burst in, Stack, handlers, timers, burst out
//!     │
//!   Stack       interfaces + routes + sockets in one object; no clock, thread, lock or randomness
//!     │         of its own: frames, calls and the time are passed in
//!   tcp  udp  icmp  neighbor  route
//!     │
//!   timer ─ wire ─ time, rng
//! ```
//!
//! Names point down only: `time, rng ← wire ← timer ← tcp, udp, icmp, neighbor, route ← socket ←
//! interface ← engine`. A test holds the code to it.

#![forbid(unsafe_code)]

pub mod addr;
pub mod counters;
pub mod engine;
pub mod error;
mod hint;
pub mod icmp;
pub mod interface;
pub mod neighbor;
pub mod reassembly;
pub mod rng;
pub mod route;
#[cfg(feature = "sim")]
pub mod sim;
pub mod socket;
pub mod stack;
pub mod tcp;
pub mod time;
pub mod timer;
pub mod wire;

pub use addr::Cidr;
pub use counters::StackCounters;
pub use error::SocketError;
pub use interface::{IfaceId, InterfaceConfig, Medium};
pub use rng::Rng;
pub use socket::{
    Family, OPERATOR_PRIORITY, OptionName, Received, SocketId, SocketKind, SocketOption,
};
pub use stack::{
    Event, Forward, ForwardKind, Limits, PollFlags, RawError, SentPacket, Setting, SettingError,
    Settings, Share, Stack, StackConfig, Value,
};
pub use time::Instant;
