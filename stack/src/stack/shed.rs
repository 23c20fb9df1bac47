//! Connections that keep packet memory without using it, when it is scarce.
//!
//! A peer may close its window, or open it by a few bytes at a time, for as long as it answers
//! probes (RFC 9293 §3.8.6.1). What waits for it stays in memory, and a few hundred such peers keep
//! all of it (known as Sockstress, and RFC 6429): who writes to others finds nothing left. So in each
//! turn the first write that is refused for want of memory looks at a few connections, in turn. One that has not
//! got rid of what was queued when it was looked at first, is slower than [`Limits::stall_bytes_per_s`]
//! and has been for [`Limits::stall_patience`], is reset and counted (RFC 6429 §3 leaves that to the
//! system). While memory is not scarce nobody is reset for being slow.
//!
//! [`Limits::stall_bytes_per_s`]: super::Limits::stall_bytes_per_s
//! [`Limits::stall_patience`]: super::Limits::stall_patience

use super::Stack;
use super::calls::queued_bytes;
use crate::socket::conn::Drain;
use crate::tcp::Memory;

/// Connections looked at in a turn in which writes are refused.
const LOOKS: u32 = 64;

impl Stack {
    /// Memory has run out: looks at the next few connections and resets those that only keep it.
    #[cold]
    pub(super) fn shed_stalled(&mut self) {
        let (now, end) = (self.egress.now, self.sockets.end());
        // Once a turn: nobody has become slower since, and many writes may be refused in one.
        if self.memory() != Memory::Exhausted || self.shed_at == Some(now) {
            return;
        }
        self.shed_at = Some(now);
        for _ in 0..LOOKS.min(end) {
            let index = self.shed_hand % end;
            self.shed_hand = index + 1;
            let (patience, rate) = (self.limits.stall_patience, self.limits.stall_bytes_per_s);
            let Some(connection) = self.connection_mut(index) else { continue };
            let (acked, queued) =
                (connection.tcb.look(|tcb| tcb.bytes_acked()), queued_bytes(connection));
            let stalled = match &connection.drain {
                Some(drain) => drain.is_stalled(acked, now, patience, rate),
                None => Some(false),
            };
            match stalled {
                None => {}
                Some(false) if queued > 0 => {
                    connection.drain = Some(Box::new(Drain::new(now, acked, queued as u64)));
                }
                Some(false) => connection.drain = None,
                Some(true) => {
                    self.egress.counters.stalled_aborted += 1;
                    self.with_tcb(index, |tcb| ((), tcb.shed()));
                }
            }
        }
    }
}
