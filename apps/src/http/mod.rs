//! A static file server over HTTP/1.1: a sans-IO core and a driver for any byte stream.
//!
//! ```text
//!   bytes in ──▶ Connection ──Request──▶ Site ──Response──▶ bytes out, then a body
//!                 head limits,            path, file cache,   head batched with small bodies;
//!                 framing, keep-alive     ranges, conditions  large files go by Transport::send_file
//!        └──────────────── serve_connection: reads, deadlines, flushing ───────────────┘
//! ```
//!
//! [`Connection`] knows framing and nothing about files or time. [`Site`] turns a request into a
//! response, with the wall clock passed in. [`serve_connection`] is the only part that waits, and
//! it does so through [`Transport`], four calls that any stream can offer. Read [`Connection`]
//! first; the RFCs are 9110 (semantics) and 9112 (HTTP/1.1).
//!
//! Everything a client can make grow has a name in [`Limits`].

mod cache;
mod connection;
mod counters;
mod date;
mod deadline;
mod driver;
mod path;
mod request;
mod response;
mod site;

pub use cache::{CACHE_ENTRIES, CACHED_BODY_BYTES, Entry};
pub use connection::{Connection, Step};
pub use counters::{Counters, Figures};
pub use deadline::{Deadline, Timer};
pub use driver::{End, Transport, serve_connection};
pub use request::{Method, Request, Version};
pub use response::{Body, Response, Status};
pub use site::Site;

use std::time::Duration;

/// What one client may make a connection hold or wait for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Largest request head, request line and header fields together. A larger one is answered 431,
    /// or 414 if the request line alone fills it.
    pub head_bytes: usize,
    /// Largest request body that is read and thrown away to keep the connection in step; a larger
    /// one is answered 413 and the connection closed.
    pub body_bytes: u64,
    /// Time for a whole request head, from its first byte to its last, and for a whole body.
    pub head_timeout: Duration,
    /// Time that a kept-alive connection may stay silent between requests.
    pub idle_timeout: Duration,
    /// Time for the client to take [`SEND_CHUNK_BYTES`]: the slowest pace that is served.
    pub send_timeout: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            head_bytes: 16 * 1024,
            body_bytes: 64 * 1024,
            head_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(60),
            send_timeout: Duration::from_secs(30),
        }
    }
}

/// Most header fields in a request; more are answered 431.
pub const MAX_HEADERS: usize = 64;

/// Bytes of a response that must leave within [`Limits::send_timeout`].
pub const SEND_CHUNK_BYTES: u64 = 256 * 1024;

#[cfg(test)]
mod tests;
