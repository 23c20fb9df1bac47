//! Proportional rate reduction (RFC 9937): how much an ACK lets out during recovery, so that the
//! window shrinks over a round trip instead of at once, and what was lost is sent again meanwhile.

/// The variables of RFC 9937 §6.1, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Prr {
    delivered: u32,
    out: u32,
    /// RecoverFS: what was in flight when recovery began.
    flight: u32,
    /// What the last ACK allows and has not been sent yet.
    quota: u32,
}

impl Prr {
    pub(super) fn new(flight: u32) -> Prr {
        Prr { delivered: 0, out: 0, flight: flight.max(1), quota: 0 }
    }

    /// An ACK has told that `delivered` bytes arrived; now `pipe` are in flight. `safe` if it moved
    /// snd.una and told of no further loss.
    pub(super) fn on_ack(
        &mut self,
        delivered: u32,
        pipe: u32,
        ssthresh: u32,
        safe: bool,
        mss: u32,
    ) {
        self.delivered = self.delivered.saturating_add(delivered);
        let mut count = if pipe > ssthresh {
            let share = u64::from(self.delivered) * u64::from(ssthresh);
            let share = u32::try_from(share.div_ceil(u64::from(self.flight))).unwrap_or(u32::MAX);
            share.saturating_sub(self.out)
        } else {
            // The conservative bound, and slow start's when recovery goes well.
            let bound = self.delivered.saturating_sub(self.out).max(delivered);
            let bound = bound.saturating_add(if safe { mss } else { 0 });
            bound.min(ssthresh - pipe)
        };
        if self.out == 0 {
            // RFC 9937 §6.2: the first ACK of a recovery always sends something again.
            count = count.max(mss);
        }
        self.quota = count;
    }

    /// `bytes` were sent, new or again.
    pub(super) fn on_sent(&mut self, bytes: u32) {
        self.out = self.out.saturating_add(bytes);
        self.quota = self.quota.saturating_sub(bytes);
    }

    pub(super) fn quota(&self) -> u32 {
        self.quota
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MSS: u32 = 1000;

    #[test]
    fn half_of_what_is_delivered_leaves_while_the_window_halves() {
        // RFC 9937 §8: the pipe shrinks from 20 segments to 10 in one round trip.
        let mut prr = Prr::new(20 * MSS);
        let (mut pipe, mut sent) = (19 * MSS, 0);
        for _ in 0..19 {
            pipe -= MSS;
            prr.on_ack(MSS, pipe, 10 * MSS, false, MSS);
            while prr.quota() >= MSS {
                prr.on_sent(MSS);
                (pipe, sent) = (pipe + MSS, sent + 1);
            }
        }
        assert_eq!((pipe, sent), (10 * MSS, 10));
    }

    #[test]
    fn heavy_losses_are_repaired_at_the_rate_of_delivery_or_in_slow_start() {
        let mut prr = Prr::new(20 * MSS);
        prr.on_sent(MSS);
        prr.on_ack(MSS, 2 * MSS, 10 * MSS, false, MSS);
        assert_eq!(prr.quota(), MSS, "conservative");
        prr.on_sent(MSS);
        prr.on_ack(MSS, 2 * MSS, 10 * MSS, true, MSS);
        assert_eq!(prr.quota(), 2 * MSS, "slow start");
        prr.on_ack(100 * MSS, 9 * MSS, 10 * MSS, true, MSS);
        assert_eq!(prr.quota(), MSS, "not beyond ssthresh");
    }

    #[test]
    fn the_first_retransmission_does_not_wait() {
        let mut prr = Prr::new(20 * MSS);
        prr.on_ack(0, 19 * MSS, 10 * MSS, false, MSS);
        assert_eq!(prr.quota(), MSS);
        prr.on_sent(MSS);
        prr.on_ack(0, 19 * MSS, 10 * MSS, false, MSS);
        assert_eq!(prr.quota(), 0);
    }
}
