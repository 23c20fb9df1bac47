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

pub mod engine;
pub mod error;
pub mod rng;
pub mod tcp;
pub mod time;
pub mod wire;

pub use error::SocketError;
pub use rng::Rng;
pub use time::Instant;
