//! The scoreboard: marks, splits, bounds, and what it costs.

use super::*;
use proptest::prelude::*;

const MSS: u32 = 1000;

fn s(n: u32) -> SeqNum {
    SeqNum::new(n)
}

fn t(ms: u64) -> Instant {
    Instant::from_millis(ms)
}

fn nothing() -> Delivery {
    Delivery::new(s(0))
}

fn seen(records: &Records) -> Vec<(u32, u32, Fate)> {
    records.iter().map(|r| (r.start.get(), r.len, r.fate)).collect()
}

impl Records {
    /// What must hold between any two calls: records follow each other from snd.una to snd.nxt, the
    /// sums are right, and the ranges are those of the records that are marked.
    pub(crate) fn check(&self, una: SeqNum, nxt: SeqNum) {
        let sum = |fate| self.iter().filter(|r| r.fate == fate).map(|r| r.len).sum::<u32>();
        assert_eq!((self.sacked, self.lost), (sum(Fate::Sacked), sum(Fate::Lost)));
        let mut at = una;
        for record in self.iter() {
            assert_eq!(record.start, at, "records follow each other");
            assert!(record.len > 0 && record.first_sent <= record.last_sent);
            let known =
                self.board.as_ref().is_some_and(|b| b.sacked.gap(at, record.end()).is_none());
            assert_eq!(known, record.fate == Fate::Sacked);
            at = record.end();
        }
        assert_eq!(at, nxt);
        let lowest = self.iter().find(|r| r.fate == Fate::Lost).map(|r| r.start);
        assert_eq!(self.next_lost(1).map(|(start, _)| start), lowest, "the hint is right");
        assert!(self.records.len() <= SPLITS_MAX);
    }
}

#[test]
fn records_split_join_and_shrink() {
    let mut q = Records::default();
    q.sent(s(100), 1000, MSS, t(1));
    q.sent(s(1100), 500, MSS, t(1));
    assert_eq!(seen(&q).len(), 1, "the same moment is one record");
    q.sent(s(1600), 100, MSS, t(1));
    assert_eq!(seen(&q).len(), 2, "unless its segments could not be told apart");
    q.resent(s(300), 200, t(2), false);
    let resent: Vec<_> = q.iter().map(|r| (r.start.get(), r.retransmissions)).collect();
    assert_eq!(resent, [(100, 0), (300, 1), (500, 0), (1600, 0)]);
    let mut d = nothing();
    q.ack(s(200), &mut d);
    assert_eq!((d.sent_once_at, d.resent_at, d.bytes), (Some(t(1)), None, 100));
    let mut d = nothing();
    q.ack(s(600), &mut d);
    assert_eq!((d.sent_once_at, d.resent_at, d.bytes), (Some(t(1)), Some(t(2)), 400));
    assert_eq!(q.first().map(|r| (r.start.get(), r.len)), Some((600, 1000)));
    q.check(s(600), s(1700));
}

#[test]
fn records_are_bounded_and_joined_ones_give_no_sample() {
    let mut q = Records::default();
    let many = 2 * RECORDS_MAX as u32;
    for i in 0..many {
        q.sent(s(i), 1, MSS, t(u64::from(i)));
    }
    assert_eq!(seen(&q).len(), RECORDS_MAX);
    q.ack(s(RECORDS_MAX as u32 - 1), &mut nothing());
    let mut d = nothing();
    q.ack(s(many), &mut d);
    assert_eq!((d.sent_once_at, d.resent_at), (None, None));
    assert_eq!(d.latest_once, Some(SentAt { at: t(u64::from(many) - 1), end: s(many) }));
    assert!(q.is_empty());
}

#[test]
fn a_growing_block_moves_a_border() {
    let mut q = Records::default();
    q.sent(s(0), 10 * MSS, MSS, t(1));
    let mut d = nothing();
    assert!(q.sack(s(3 * MSS), s(4 * MSS), MSS, &mut d));
    let in_flight = |from, n| (from * MSS, n * MSS, Fate::InFlight);
    let sacked = |from, n| (from * MSS, n * MSS, Fate::Sacked);
    assert_eq!(seen(&q), [in_flight(0, 3), sacked(3, 1), in_flight(4, 6)]);
    assert!(q.sack(s(3 * MSS), s(6 * MSS), MSS, &mut d));
    assert!(q.sack(s(2 * MSS), s(6 * MSS), MSS, &mut d));
    assert_eq!(seen(&q), [in_flight(0, 2), sacked(2, 4), in_flight(6, 4)]);
    assert_eq!((d.bytes, d.sacked, q.sacked()), (4 * MSS, 4 * MSS, 4 * MSS));
    let again = d;
    assert!(q.sack(s(2 * MSS), s(6 * MSS), MSS, &mut d));
    assert_eq!(d, again, "what is known is no news");
    q.check(s(0), s(10 * MSS));
}

#[test]
fn half_a_segment_is_not_believed() {
    let mut q = Records::default();
    q.sent(s(0), 4 * MSS + 300, MSS, t(1));
    let mut d = nothing();
    let _ = q.sack(s(MSS + 1), s(2 * MSS + 1), MSS, &mut d);
    assert_eq!(d.bytes, 0);
    let _ = q.sack(s(MSS / 2), s(3 * MSS - 1), MSS, &mut d);
    assert_eq!(d.bytes, MSS);
    assert!(q.sack(s(4 * MSS), s(4 * MSS + 300), MSS, &mut d), "the last one is shorter");
    assert_eq!(q.sacked(), MSS + 300);
    q.check(s(0), s(4 * MSS + 300));
}

#[test]
fn ranges_are_bounded() {
    let mut q = Records::default();
    let most = SACK_RANGES_MAX as u32;
    q.sent(s(0), (2 * most + 10) * MSS, MSS, t(1));
    let mut d = nothing();
    for i in 0..most {
        assert!(q.sack(s((2 * i + 1) * MSS), s((2 * i + 2) * MSS), MSS, &mut d));
    }
    let at = 2 * most + 1;
    assert!(!q.sack(s(at * MSS), s((at + 1) * MSS), MSS, &mut d), "one too many");
    assert_eq!(q.sacked_ranges(), SACK_RANGES_MAX);
    assert!(q.sack(s(MSS), s((at - 1) * MSS), MSS, &mut d), "one that joins them all");
    assert_eq!(q.sacked_ranges(), 1);
    q.check(s(0), s((2 * most + 10) * MSS));
}

#[test]
fn lost_stretches_leave_in_order_and_count_as_one() {
    let mut q = Records::default();
    for i in 0..6 {
        q.sent(s(i * MSS), MSS, MSS, t(u64::from(i)));
    }
    let _ = q.sack(s(3 * MSS), s(4 * MSS), MSS, &mut nothing());
    q.lose_on_timeout(t(100), Duration::ZERO);
    assert_eq!((q.lost(), q.next_lost(u32::MAX)), (5 * MSS, Some((s(0), 3 * MSS))));
    assert_eq!(q.next_lost(2 * MSS), Some((s(0), 2 * MSS)));
    q.resent(s(0), 3 * MSS, t(100), true);
    assert_eq!(seen(&q)[0], (0, 3 * MSS, Fate::Resent));
    assert_eq!(q.next_lost(u32::MAX), Some((s(4 * MSS), 2 * MSS)));
    q.forgive();
    assert_eq!(q.lost(), 0);
    q.check(s(0), s(6 * MSS));
}

#[test]
fn two_records_that_left_again_together_are_one() {
    let mut q = Records::default();
    q.sent(s(0), MSS, MSS, t(1));
    q.sent(s(MSS), MSS, MSS, t(2));
    q.lose_on_timeout(t(100), Duration::ZERO);
    q.resent(s(0), 2 * MSS, t(100), true);
    assert_eq!(seen(&q), [(0, 2 * MSS, Fate::Resent)]);
    q.check(s(0), s(2 * MSS));
}

#[test]
fn what_is_forgiven_is_judged_again() {
    let mut q = Records::default();
    for i in 0..4 {
        q.sent(s(i * MSS), MSS, MSS, t(u64::from(i)));
    }
    let _ = q.sack(s(3 * MSS), s(4 * MSS), MSS, &mut nothing());
    let latest = SentAt { at: t(3), end: s(4 * MSS) };
    for _ in 0..2 {
        assert_eq!(q.lose_older(t(50), latest, Duration::ZERO), None);
        assert_eq!(q.next_lost(u32::MAX), Some((s(0), 3 * MSS)));
        q.forgive();
        assert_eq!(q.next_lost(u32::MAX), None);
    }
    q.check(s(0), s(4 * MSS));
}

#[test]
fn borders_are_bounded() {
    let mut q = Records::default();
    let count = SPLITS_MAX as u32;
    q.sent(s(0), 2 * count * MSS, MSS, t(1));
    // Every other segment leaves again, until no more borders are to be had.
    for i in 0..count {
        q.resent(s((2 * i + 1) * MSS), MSS, t(2), false);
        if q.records.len() == SPLITS_MAX {
            break;
        }
    }
    assert_eq!(q.records.len(), SPLITS_MAX);
    let last = *q.last().unwrap();
    q.resent(last.start + MSS, MSS, t(3), false);
    assert_eq!(q.records.len(), SPLITS_MAX, "the whole record counts as sent again");
    let first = *q.first().unwrap();
    assert_eq!((first.start, first.len), (s(0), MSS));
    assert!(!q.sack(last.start, last.start + MSS, MSS, &mut nothing()), "it cannot be told apart");
    assert!(q.sack(s(0), s(MSS), MSS, &mut nothing()), "a whole record can");
    assert_eq!(q.records.len(), SPLITS_MAX);
}

#[test]
fn a_reneging_receiver_is_taken_at_its_word() {
    let mut q = Records::default();
    q.sent(s(0), 4 * MSS, MSS, t(1));
    let _ = q.sack(s(MSS), s(3 * MSS), MSS, &mut nothing());
    q.forget_sacks();
    q.lose_on_timeout(t(100), Duration::ZERO);
    assert_eq!((q.sacked(), q.lost()), (0, 4 * MSS));
    assert_eq!(q.next_lost(u32::MAX), Some((s(0), 4 * MSS)));
    q.check(s(0), s(4 * MSS));
}

#[test]
fn rfc6675_counts_ranges_or_bytes_above() {
    let mut q = Records::default();
    for i in 0..10 {
        q.sent(s(i * MSS), MSS, MSS, t(u64::from(i)));
    }
    let _ = q.sack(s(2 * MSS), s(4 * MSS), MSS, &mut nothing());
    q.lose_below_sacked(MSS);
    assert_eq!(q.lost(), 0, "two segments are not more than two");
    let _ = q.sack(s(5 * MSS), s(6 * MSS), MSS, &mut nothing());
    q.lose_below_sacked(MSS);
    assert_eq!(q.next_lost(u32::MAX), Some((s(0), 2 * MSS)));
    assert_eq!(q.lost(), 2 * MSS, "of the gap between the ranges nothing is known yet");
}

/// The cost of a large window: thousands of records, one ACK for each with a block that grows.
#[test]
fn a_thousand_losses_are_found_in_one_pass() {
    let n = RECORDS_MAX as u32;
    let mut q = Records::default();
    for i in 0..n {
        q.sent(s(i * MSS), MSS, MSS, t(u64::from(i)));
    }
    // Every other segment is lost in the first half, none in the second.
    let latest = |i: u32| SentAt { at: t(u64::from(i)), end: s((i + 1) * MSS) };
    for i in (1..n).filter(|i| i % 2 == 1 || *i >= n / 8) {
        let _ = q.sack(s(i * MSS), s((i + 1) * MSS), MSS, &mut nothing());
        let _ = q.lose_older(t(u64::from(i)), latest(i), Duration::ZERO);
        assert!(q.judged_to.after_eq(s((i - 1) * MSS)), "the search goes on where it stopped");
    }
    assert_eq!(q.lost(), n / 16 * MSS);
    q.check(s(0), s(n * MSS));
}

proptest! {
    /// Whatever is sent, reported, lost, sent again and acknowledged: the sums and hints are right.
    #[test]
    fn the_scoreboard_stays_consistent(
        base: u32,
        steps in proptest::collection::vec((0u8..8, 0u32..12_000, 1u32..6_000), 1..80),
    ) {
        let (mut q, mut una, mut nxt) = (Records::default(), s(base), s(base));
        for (i, (what, offset, len)) in steps.into_iter().enumerate() {
            let now = t(10 + i as u64 / 3);
            let out = nxt.since(una);
            let from = una + offset.min(out);
            let to = (from + len).earlier(nxt);
            let mut d = Delivery::new(una);
            match what {
                0 | 1 => {
                    q.sent(nxt, len, MSS, now);
                    nxt += len;
                }
                2 | 3 if from.before(to) => {
                    let before = q.sacked();
                    let _ = q.sack(from, to, MSS, &mut d);
                    prop_assert_eq!(q.sacked() - before, d.sacked);
                }
                4 => {
                    let lost = q.sacked();
                    q.ack(from, &mut d);
                    una = from;
                    prop_assert!(d.bytes + (lost - q.sacked()) == offset.min(out));
                }
                5 => {
                    let latest = SentAt { at: now, end: from };
                    let due = q.lose_older(now, latest, Duration::from_millis(3));
                    prop_assert!(due.is_none_or(|at| at > now));
                }
                6 => {
                    if let Some((start, len)) = q.next_lost(len) {
                        q.lost_begins_at(start);
                        q.resent(start, len, now, true);
                    }
                }
                7 if offset < 300 => q.lose_on_timeout(now, Duration::from_millis(2)),
                7 if offset < 500 => q.forget_sacks(),
                7 if offset < 700 => q.forgive(),
                7 if from.before(to) => q.resent(from, to.since(from), now, true),
                _ => {}
            }
            q.check(una, nxt);
        }
    }
}
