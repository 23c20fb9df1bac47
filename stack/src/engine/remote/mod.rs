//! Sockets as threads other than the engine's hold them.
//!
//! Calls work on the rings of the socket's [`Portal`] and wait on its bells; only opening a socket
//! and its options ask the engine for an answer. All calls take `&self` and may be made from
//! several threads at once. `std::net`'s names, timeouts and error kinds are put on top of this by
//! the `barewire` package.

mod datagram;
mod listener;
mod stream;

use std::sync::atomic::{Ordering, fence};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::executor::on_engine_thread;
use super::mailbox::{Answer, Op};
use super::parcel::Parcel;
use super::portal::{Portal, Status, Wishes};
use crate::error::SocketError;
use crate::socket::{OptionName, SocketOption};

pub use datagram::RemoteDatagram;
pub use listener::RemoteListener;
pub use stream::RemoteStream;

/// The largest payload of a UDP datagram over IPv4 (RFC 768, RFC 791).
pub const MAX_DATAGRAM_BYTES: usize = 65_507;

/// How long a call may wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// Not at all: [`SocketError::WouldBlock`] instead.
    Never,
    /// Until it can be done.
    Forever,
    /// Until then, and [`SocketError::WouldBlock`] after that.
    Until(Instant),
}

impl Wait {
    /// Waits for `timeout` from now on, or for ever.
    pub fn for_at_most(timeout: Option<Duration>) -> Wait {
        match timeout.map(|timeout| Instant::now().checked_add(timeout)) {
            Some(Some(deadline)) => Wait::Until(deadline),
            Some(None) | None => Wait::Forever,
        }
    }

    /// Repeats `attempt` until it answers; between attempts it sleeps in `sleep`, which says
    /// whether there is news before the deadline. An engine's own thread never sleeps here: nobody
    /// else could bring the news.
    fn retry<T>(
        self,
        mut attempt: impl FnMut() -> Option<Result<T, SocketError>>,
        mut sleep: impl FnMut(Option<Instant>) -> bool,
    ) -> Result<T, SocketError> {
        loop {
            if let Some(outcome) = attempt() {
                return outcome;
            }
            let news = match self {
                Wait::Never => false,
                Wait::Forever | Wait::Until(_) if on_engine_thread() => false,
                Wait::Forever => sleep(None),
                Wait::Until(deadline) => sleep(Some(deadline)),
            };
            if !news {
                return Err(SocketError::WouldBlock);
            }
        }
    }
}

fn set_option(portal: &Portal, option: SocketOption) -> Result<(), SocketError> {
    portal.mailbox.call(Op::SetOption { key: portal.key, option }).map(|_| ())
}

fn option(portal: &Portal, name: OptionName) -> Result<SocketOption, SocketError> {
    match portal.mailbox.call(Op::Option { key: portal.key, name })? {
        Answer::Option(option) => Ok(option),
        Answer::Done
        | Answer::Portal(_)
        | Answer::Opened(..)
        | Answer::Address(_)
        | Answer::Stats(_) => Err(SocketError::InvalidInput),
    }
}

fn copied(portal: &Portal, bytes: usize) {
    portal.writers.bytes_copied.fetch_add(bytes as u64, Ordering::Relaxed);
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Pushes a filled parcel.
fn push_tx(portal: &Portal, parcel: Parcel) {
    portal.push_tx(parcel);
    // Orders the push before the look at the status; pairs with the fence in the engine's
    // `Remotes::drop`, which orders STOPPED before its last look at the ring. One side drops it.
    fence(Ordering::SeqCst);
    if portal.endpoint.status().contains(Status::STOPPED) {
        portal.drop_buffers();
    }
}

/// What the status says about writing, if it says no.
fn refuse_write(portal: &Portal) -> Option<SocketError> {
    let status = portal.endpoint.status();
    if let Some(error) = portal.endpoint.take_error() {
        return Some(error);
    }
    if status.contains(Status::STOPPED) {
        return Some(SocketError::EngineStopped);
    }
    let closed = portal.wishes().intersects(Wishes::SHUT_WRITE | Wishes::CLOSE);
    if closed || status.contains(Status::WRITE_END) {
        return Some(SocketError::BrokenPipe);
    }
    (!status.contains(Status::CONNECTED)).then_some(SocketError::NotConnected)
}

fn can_write(portal: &Portal, slots: usize) -> bool {
    let ended = Status::FAILED | Status::STOPPED | Status::WRITE_END | Status::CLOSED;
    portal.endpoint.status().intersects(ended)
        || portal.wishes().contains(Wishes::SHUT_WRITE)
        || portal.grants() >= slots
}
