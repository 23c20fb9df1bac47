//! # Barewire
//!
//! Sockets over a network card that this process drives itself: the card's queues, the TCP/IP
//! stack and the servers on top of it run on cores of their own, without the kernel in between.
//!
//! ```text
//!   TcpListener, TcpStream, UdpSocket     blocking, from any thread: as in std::net   (net)
//!   AsyncTcpListener, AsyncTcpStream, …   async, on the engine's own core             (runtime)
//!             └────────── Barewire: engines on a device, started by a builder ──────────┘
//! ```
//!
//! A server that wants speed runs its handlers on the cores: no thread is crossed, and with
//! [`AsyncTcpStream::read_owned`] and [`AsyncTcpStream::write_owned`] no byte is copied.
//!
//! ```no_run
//! use barewire::{AsyncTcpListener, Barewire};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let bw = Barewire::builder().device("tap:bw0".parse()?).address("10.77.0.2/24".parse()?).start()?;
//! bw.on_core(|core| async move {
//!     let Ok(listener) = core.tcp_listen(([0, 0, 0, 0], 7).into(), 128) else { return };
//!     while let Ok((stream, _peer)) = listener.accept().await {
//!         core.spawn(async move {
//!             while let Ok(Some(data)) = stream.read_owned(usize::MAX).await {
//!                 if stream.write_owned(data).await.is_err() {
//!                     break;
//!                 }
//!             }
//!         });
//!     }
//! })?;
//! # Ok(())
//! # }
//! ```
//!
//! Code that is written for `std::net` keeps its shape: replace the `use` line. The sockets go to
//! the instance that was started first, or to the one that [`Barewire::set_default`] names.
//!
//! ```no_run
//! use std::io::{Read, Write};
//! use barewire::TcpStream;
//!
//! # fn main() -> std::io::Result<()> {
//! let mut stream = TcpStream::connect("10.77.0.1:8000")?;
//! stream.write_all(b"GET / HTTP/1.0\r\n\r\n")?;
//! let mut answer = Vec::new();
//! stream.read_to_end(&mut answer)?;
//! # Ok(())
//! # }
//! ```

#![forbid(unsafe_code)]

pub mod http;
pub mod net;
pub mod runtime;

pub use barewire_driver::{
    DeviceSpec, NicSettings, PacketBuf, PacketSlice, PciSpec, Pool, PoolConfig,
};
pub use barewire_stack::engine::{Elapsed, EngineReport, EngineStats, Idle};
pub use barewire_stack::tcp::TcpConfig;
pub use barewire_stack::{Cidr, Limits, OptionName, SocketError, SocketOption};
pub use net::{Incoming, TcpListener, TcpStream, UdpSocket};
pub use runtime::{
    AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, Barewire, Builder, Core, ReadHalf,
    StartError, Stats, StopReport, Unclean, WriteHalf,
};

/// The README's example, compiled with the doc tests so that it stays true.
#[cfg(doctest)]
#[doc = include_str!("../../README.md")]
struct Readme;
