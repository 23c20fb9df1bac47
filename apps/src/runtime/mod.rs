//! Instances of Barewire, and async sockets for handlers on their cores.
//!
//! ```text
//!   Builder ─ start ─▶ Barewire (Clone + Send) ─ on_core(handler) ─▶ each engine's thread:
//!                        │ stats, ping, stop                           Core ─ tcp_listen ─▶ accept
//!                        └ net's blocking sockets                           ─ spawn, sleep, timeout
//! ```
//!
//! A handler runs on the thread of its engine. Its sockets are calls into the stack beside it: a
//! read that finds data returns at once, one that does not leaves a waker behind. With the owned
//! calls data moves as references to packet memory, from the receive ring to the transmit ring.

mod builder;
mod core;
mod instance;
mod tcp;
mod udp;

pub use self::core::Core;
pub use builder::{Builder, StartError};
pub use instance::{Barewire, Stats, StopReport, Unclean};
pub use tcp::{AsyncTcpListener, AsyncTcpStream, ReadHalf, WriteHalf};
pub use udp::AsyncUdpSocket;
