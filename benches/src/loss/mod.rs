//! Goodput over a link that loses frames, in virtual time: nothing here depends on the machine.
//!
//! ```text
//!   sender ─ frames ─▶ Link (rate, queue, loss, half of the RTT) ─▶ receiver
//!          ◀─────────── Link (the same) ─────────── ACKs ─
//! ```
//!
//! Both projects run in the same loop, [`goodput`], over the same two links with the same losses.
//! Each host is an [`End`]: frames and the time go in, frames come out. The application writes
//! whenever there is room and reads whatever has arrived.

mod ours;
mod peer;

use std::time::Duration;

use barewire_stack::Instant;
use barewire_stack::sim::{Link, LinkConfig};

pub use ours::Ours;
pub use peer::{Control, Peer};

/// Bytes on an Ethernet beside each frame: preamble, start, checksum, gap.
const OVERHEAD_BYTES: usize = 24;

/// Longest that the handshake may take.
const OPENING_MAX: Duration = Duration::from_secs(60);

/// Turns at one moment after which two hosts are taken to talk for ever.
const MAX_TURNS_AT_ONCE: u32 = 1_000_000;

/// The way between the hosts, and what is measured on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Path {
    /// Bits a second, both ways.
    pub rate_bps: u64,
    /// Time there and back without waiting.
    pub rtt: Duration,
    /// Probability that a frame is lost, both ways.
    pub loss: f64,
    /// Bytes that wait before the link.
    pub queue_bytes: usize,
    /// Send and receive buffer of the connection.
    pub buffer_bytes: usize,
    /// Seeds the losses and the hosts.
    pub seed: u64,
    /// Time that passes before anything is counted, from the first byte that was read: a SYN that
    /// was lost is not what is measured.
    pub warm_up: Duration,
    /// Time that is counted.
    pub measured: Duration,
}

impl Default for Path {
    /// 10 Gbit/s, 1 ms, 1 % lost, and buffers that hold three times what can be under way.
    fn default() -> Path {
        Path {
            rate_bps: 10_000_000_000,
            rtt: Duration::from_millis(1),
            loss: 0.01,
            queue_bytes: 2 << 20,
            buffer_bytes: 4 << 20,
            seed: 1,
            warm_up: Duration::from_millis(500),
            measured: Duration::from_secs(1),
        }
    }
}

/// Which end of the connection a host is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Connects and writes.
    Sender,
    /// Listens and reads.
    Receiver,
}

/// One host with one connection.
///
/// # Panics
/// Every method panics if the host does what it should not, as losing its connection: a figure of a
/// broken run would be worse than none.
pub trait End {
    /// Takes a frame in.
    fn receive(&mut self, now: Instant, frame: &[u8]);

    /// Lets the application write and read, does what is due, and hands over what is to be sent.
    /// Gives the bytes that the application has read.
    fn turn(&mut self, now: Instant, send: &mut dyn FnMut(Vec<u8>)) -> u64;

    /// When it wants its next turn if no frame comes.
    fn due(&mut self, now: Instant) -> Option<Instant>;
}

/// Bits a second that the receiver's application gets.
pub fn goodput(path: &Path, mut sender: impl End, mut receiver: impl End) -> f64 {
    let link = |seed| {
        Link::<Vec<u8>>::new(LinkConfig {
            seed,
            rate_bps: Some(path.rate_bps),
            queue_bytes: Some(path.queue_bytes),
            overhead_bytes: OVERHEAD_BYTES,
            delay: path.rtt / 2,
            loss: path.loss,
            ..LinkConfig::default()
        })
    };
    let (mut there, mut back) = (link(path.seed), link(path.seed ^ 1 << 40));
    let (mut begin, mut end) = (Instant::FAR_FUTURE, Instant::ZERO + OPENING_MAX);
    let (mut now, mut at_once, mut read) = (Instant::ZERO, 0, 0);
    while now < end {
        while let Some((frame, _)) = there.take(now) {
            receiver.receive(now, &frame);
        }
        while let Some((frame, _)) = back.take(now) {
            sender.receive(now, &frame);
        }
        sender.turn(now, &mut |frame| there.offer(now, frame.len(), frame));
        let got = receiver.turn(now, &mut |frame| back.offer(now, frame.len(), frame));
        if got > 0 && begin == Instant::FAR_FUTURE {
            begin = now + path.warm_up;
            end = begin + path.measured;
        }
        read += if now >= begin { got } else { 0 };
        let hosts = [sender.due(now), receiver.due(now)].into_iter().flatten();
        let links = [there.next_due(), back.next_due()].into_iter().flatten();
        let next = hosts.chain(links).min().expect("a connection always has a timer");
        at_once = if next <= now { at_once + 1 } else { 0 };
        assert!(at_once < MAX_TURNS_AT_ONCE, "time stands still at {now:?}");
        now = now.max(next);
    }
    assert!(begin < Instant::FAR_FUTURE, "nothing was read within {OPENING_MAX:?}");
    read as f64 * 8.0 / path.measured.as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;
    use barewire_stack::tcp::Algorithm;

    #[test]
    fn both_fill_a_link_that_loses_nothing() {
        let path = Path {
            rate_bps: 100_000_000,
            loss: 0.0,
            // More than the buffers hold: slow start has nothing to overflow.
            queue_bytes: 16 << 20,
            measured: Duration::from_millis(500),
            ..Path::default()
        };
        let full = 0.9 * path.rate_bps as f64..path.rate_bps as f64;
        let reno = Algorithm::NewReno;
        let ours = goodput(
            &path,
            Ours::new(&path, Role::Sender, reno),
            Ours::new(&path, Role::Receiver, reno),
        );
        assert!(full.contains(&ours), "ours: {ours}");
        let control = Control::Cubic;
        let peer = goodput(
            &path,
            Peer::new(&path, Role::Sender, control),
            Peer::new(&path, Role::Receiver, control),
        );
        assert!(full.contains(&peer), "the peer: {peer}");
    }
}
