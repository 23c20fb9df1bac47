//! The window that we offer: how far its right edge may move, and the field that says so.

use super::tcb::Tcb;

/// May the right edge of the receive window move with this segment?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Growth {
    Yes,
    /// A duplicate ACK: with another window it would not count as one (RFC 5681 §2).
    No,
}

impl Tcb {
    /// How far the right edge of the receive window could move.
    pub(super) fn window_growth(&self) -> u32 {
        let free = self.rcv.buffer.saturating_sub(self.recvq.len());
        // What the field cannot say is no growth: without scaling a large buffer would look, for
        // ever, like room that the peer has to be told of.
        let free = free.min(self.rcv.scale.bytes(u16::MAX));
        free.saturating_sub(self.rcv.edge.since(self.rcv.nxt))
    }

    /// The windows that are offered as before while nothing waits to be read: less than a step short
    /// of all that there is room for. The first is greater where there are none.
    pub(super) fn still_windows(&self) -> (u32, u32) {
        let most = self.rcv.buffer.min(self.rcv.scale.bytes(u16::MAX));
        let step = (self.rcv.buffer / 2).min(u32::from(self.rcv.our_mss));
        (most - step.min(most) + 1, most)
    }

    /// The window to advertise. The right edge never moves back (RFC 9293 §3.8.6), and forward only
    /// by a step worth sending (§3.8.6.2.2).
    #[inline]
    pub(super) fn window_field(&mut self, allowed: Growth) -> u16 {
        let growth = match allowed {
            Growth::Yes => self.window_growth(),
            Growth::No => 0,
        };
        let current = self.rcv.edge.since(self.rcv.nxt);
        let step = (self.rcv.buffer / 2).min(u32::from(self.rcv.our_mss));
        let scale = self.rcv.scale;
        // Rounding down takes back what was offered before, which RFC 7323 §2.4 would rather not
        // see; rounding up offers more than there is room for. Done with every ACK, that would move
        // the edge for ever: it stops one unit beyond the buffer, and rounds down from there. What
        // comes up to the old edge is still taken.
        let (up, unit) = (scale.field_up(current), scale.bytes(1));
        let most = self.rcv.buffer.saturating_add(unit - 1);
        let fits = scale.bytes(up).saturating_add(self.recvq.len()) <= most;
        let kept = if fits { up } else { scale.field_down(current) };
        let field = if growth > 0 && growth >= step {
            scale.field_down(current + growth).max(kept)
        } else {
            kept
        };
        self.rcv.edge = self.rcv.edge.later(self.rcv.nxt + self.rcv.scale.bytes(field));
        field
    }
}
