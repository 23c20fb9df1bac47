//! What is known about each transmission: the sender's scoreboard (RFC 6675 §3, RFC 8985 §5.1).
//!
//! ```text
//!   snd.una                                                          snd.nxt
//!   ├── lost ──┼── sacked ──┼─ resent ─┼──── sacked ────┼── in flight ──┤
//!
//!                       ┌───── RACK, RFC 6675, timeout ─────▶ Lost
//!   sent ─▶ InFlight ───┤                                      │ sent again
//!                       └─ SACK ─▶ Sacked ◀──── SACK ──── Resent ◀┘   (and may be lost again)
//! ```
//!
//! A record is one transmission, up to 64 KiB of it; it is split where a SACK block or a
//! retransmission ends inside it. What costs how much:
//! - an ACK costs a binary search for each of its blocks and a step for each record that it newly
//!   covers ([`RangeSet`] knows what earlier ACKs have covered);
//! - looking for losses costs a step for each record newly lost: records sent once lie in the order
//!   of their times, and `resent` keeps the others in theirs, so that both searches stop at the
//!   first record that is too young;
//! - splitting moves at most half of the records. A block that grows moves a border instead.
//!
//! The in-flight figure (*pipe* of RFC 6675) is kept as it changes, never counted.

use std::collections::VecDeque;

use super::delivery::{Delivery, SentAt};
use super::ranges::RangeSet;
use super::rate::{RateEstimator, Stamp};
use super::sendq::empty;
use super::seq::SeqNum;
use super::tcb::forget;
use crate::time::{Duration, Instant};

/// Records from which on transmissions share the last one, which then gives no round-trip sample. A
/// mebibyte in flight has 16 if it left as super-segments.
pub(crate) const RECORDS_MAX: usize = 4096;

/// Records that splitting may make of them. Beyond it SACK blocks that end inside a record are not
/// believed for that record, and retransmissions count for the whole of it.
pub(crate) const SPLITS_MAX: usize = 2 * RECORDS_MAX;

/// Separate ranges that the scoreboard remembers; a peer that reports more is not believed.
pub(crate) const SACK_RANGES_MAX: usize = 1024;

/// What has become of a transmission.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// Sent, nothing heard.
    InFlight,
    /// The peer has it (RFC 2018); it may change its mind until the cumulative ACK covers it.
    Sacked,
    /// Taken for lost, and not sent again yet.
    Lost,
    /// Taken for lost and sent again.
    Resent,
}

/// One transmission: a range of sequence numbers and when it was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Record {
    pub(crate) start: SeqNum,
    /// Sequence numbers in it, SYN and FIN included.
    pub(crate) len: u32,
    pub(crate) first_sent: Instant,
    pub(crate) last_sent: Instant,
    pub(crate) retransmissions: u8,
    /// Joined from transmissions of different times: no sample.
    pub(crate) untimed: bool,
    pub(crate) fate: Fate,
    /// What had been delivered when it was sent last.
    pub(crate) stamp: Stamp,
}

impl Record {
    #[inline]
    fn new(start: SeqNum, len: u32, now: Instant, stamp: Stamp) -> Record {
        Record {
            start,
            len,
            first_sent: now,
            last_sent: now,
            retransmissions: 0,
            untimed: false,
            fate: Fate::InFlight,
            stamp,
        }
    }

    pub(crate) fn end(&self) -> SeqNum {
        self.start + self.len
    }

    pub(crate) fn is_sacked(&self) -> bool {
        self.fate == Fate::Sacked
    }

    /// Its part `[start, end)`.
    fn part(&self, start: SeqNum, end: SeqNum) -> Record {
        Record { start, len: end.since(start), ..*self }
    }
}

/// Records that were sent again, or a part of one, at one moment.
#[derive(Clone, Copy, Debug)]
struct Resent {
    start: SeqNum,
    end: SeqNum,
    at: Instant,
}

/// What only a connection needs whose peer reports gaps.
#[derive(Debug, Default)]
struct Board {
    sacked: RangeSet,
    /// Retransmissions in flight, in the order of their times. An entry may be out of date: its
    /// records tell.
    resent: VecDeque<Resent>,
}

#[derive(Debug, Default)]
pub(crate) struct Records {
    records: VecDeque<Record>,
    board: Option<Box<Board>>,
    /// Bytes in records that are `Sacked`, and in those that are `Lost`.
    sacked: u32,
    lost: u32,
    /// Bytes that became `Lost` since the connection began, modulo 2^32.
    lost_ever: u32,
    /// No `Lost` record begins before this, while there are any.
    lost_from: SeqNum,
    /// No record `InFlight` that was sent only once begins before this and could be found lost.
    judged_to: SeqNum,
    /// How fast what they tell of comes through.
    pub(crate) rate: RateEstimator,
}

impl Records {
    pub(crate) fn first(&self) -> Option<&Record> {
        self.records.front()
    }

    pub(crate) fn last(&self) -> Option<&Record> {
        self.records.back()
    }

    #[cfg(test)]
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Record> {
        self.records.iter()
    }

    /// None of them, without memory; how fast they came through is remembered.
    pub(crate) fn trimmed(&self) -> Records {
        Records { rate: self.rate, lost_ever: self.lost_ever, ..Records::default() }
    }

    /// Forgets them; how fast they came through is remembered.
    pub(crate) fn clear(&mut self) {
        let Records { records, board, sacked, lost, lost_ever: _, lost_from, judged_to, rate: _ } =
            self;
        empty(records);
        forget(board);
        (*sacked, *lost) = (0, 0);
        (*lost_from, *judged_to) = (SeqNum::default(), SeqNum::default());
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// How many there are: at most as many as segments that are not acknowledged.
    pub(crate) fn len(&self) -> usize {
        self.records.len()
    }

    pub(crate) fn capacity(&self) -> usize {
        self.records.capacity() + usize::from(self.board.is_some())
    }

    /// Bytes that the peer has reported behind gaps.
    pub(crate) fn sacked(&self) -> u32 {
        self.sacked
    }

    /// Bytes that are lost and not sent again yet.
    pub(crate) fn lost(&self) -> u32 {
        self.lost
    }

    /// Bytes that were taken for lost and are not acknowledged, and bytes that were sent again and
    /// are not. Looks at every record.
    pub(crate) fn outstanding_losses(&self) -> (u32, u32) {
        let mut losses = (0, 0);
        for record in &self.records {
            let (lost, resent) = match record.fate {
                Fate::InFlight => (false, record.retransmissions > 0),
                Fate::Lost => (true, false),
                Fate::Resent => (true, true),
                Fate::Sacked => (false, false),
            };
            losses.0 += if lost { record.len } else { 0 };
            losses.1 += if resent { record.len } else { 0 };
        }
        losses
    }

    /// Bytes found lost since the connection began, modulo 2^32.
    pub(crate) fn lost_ever(&self) -> u32 {
        self.lost_ever
    }

    /// The end of the highest SACK block.
    pub(crate) fn highest_sacked(&self) -> Option<SeqNum> {
        self.board.as_ref()?.sacked.highest()
    }

    /// Separate ranges in the scoreboard.
    #[cfg(test)]
    pub(crate) fn sacked_ranges(&self) -> usize {
        self.board.as_ref().map_or(0, |board| board.sacked.len())
    }

    // --- sending ---------------------------------------------------------------------------------

    /// Remembers the transmission of `len` new sequence numbers. What leaves at the same moment is
    /// one record, as long as its segments can be told apart by counting.
    #[inline]
    pub(crate) fn sent(&mut self, start: SeqNum, len: u32, mss: u32, now: Instant) {
        if !self.records.is_empty() {
            return self.sent_behind(start, len, mss, now);
        }
        self.judged_to = start;
        let stamp = self.rate.on_send(now, true);
        self.records.push_back(Record::new(start, len, now, stamp));
    }

    #[inline(never)]
    fn sent_behind(&mut self, start: SeqNum, len: u32, mss: u32, now: Instant) {
        let stamp = self.rate.on_send(now, false);
        let full = self.records.len() >= RECORDS_MAX;
        if let Some(last) = self.records.back_mut() {
            let same_moment = last.last_sent == now && last.retransmissions == 0;
            let countable = last.len.is_multiple_of(mss) && last.fate == Fate::InFlight;
            if (same_moment && countable) || (full && last.fate == Fate::InFlight) {
                last.len = (start + len).since(last.start);
                last.untimed |= !same_moment;
                // The youngest byte counts, so that none is found lost too early.
                last.last_sent = now;
                return;
            }
        }
        self.records.push_back(Record::new(start, len, now, stamp));
    }

    /// Remembers that `[start, start + len)` was sent again. With `track` the loss of that can be
    /// found by time, too.
    pub(crate) fn resent(&mut self, start: SeqNum, len: u32, now: Instant, track: bool) {
        let end = start + len;
        let stamp = self.rate.on_send(now, false);
        self.split(start);
        self.split(end);
        let first = self.index_behind(start);
        let mut count = 0;
        for record in self.records.range_mut(first..) {
            if record.start.after_eq(end) {
                break;
            }
            record.last_sent = now;
            record.stamp = stamp;
            record.retransmissions = record.retransmissions.saturating_add(1);
            if record.fate == Fate::Lost {
                record.fate = Fate::Resent;
                self.lost -= record.len;
                if self.lost_from.before_eq(record.start) && start.before_eq(self.lost_from) {
                    self.lost_from = record.end();
                }
            }
            count += 1;
        }
        self.join(first, count);
        if track {
            let board = self.board.get_or_insert_default();
            if board.resent.len() < SPLITS_MAX {
                board.resent.push_back(Resent { start, end, at: now });
            }
        }
    }

    /// Nothing before `seq` is lost: the search need not look there.
    pub(crate) fn lost_begins_at(&mut self, seq: SeqNum) {
        self.lost_from = self.lost_from.later(seq);
    }

    /// Makes one record of `count` from `first` on that have just been sent again together: they left
    /// as segments of their own, which have nothing to do with the old borders.
    fn join(&mut self, first: usize, count: usize) {
        let same = |r: &Record| r.fate == Fate::Resent;
        if count < 2 || !self.records.range(first..first + count).all(same) {
            return;
        }
        let end = self.records[first + count - 1].end();
        let most = self.records.range(first..first + count).map(|r| r.retransmissions).max();
        let record = &mut self.records[first];
        record.len = end.since(record.start);
        record.retransmissions = most.unwrap_or(record.retransmissions);
        self.records.drain(first + 1..first + count);
    }

    /// The lowest stretch of lost bytes, cut at `max`.
    pub(crate) fn next_lost(&self, max: u32) -> Option<(SeqNum, u32)> {
        if self.lost == 0 {
            return None;
        }
        let first = self.index_behind(self.lost_from);
        let mut records = self.records.range(first..).skip_while(|r| r.fate != Fate::Lost);
        let start = records.next()?;
        let mut end = start.end();
        for record in records {
            if record.fate != Fate::Lost || end.since(start.start) >= max {
                break;
            }
            end = record.end();
        }
        Some((start.start, end.since(start.start).min(max)))
    }

    // --- ACKs ------------------------------------------------------------------------------------

    /// Takes the first record off if `una` acknowledges it and no more, it was sent once and at one
    /// moment, and nothing but its number has told of any record.
    #[inline]
    pub(crate) fn ack_first(&mut self, una: SeqNum) -> Option<Record> {
        let first = *self.records.front()?;
        let plain = first.end() == una
            && first.fate == Fate::InFlight
            && first.retransmissions == 0
            && !first.untimed
            && (self.lost, self.sacked) == (0, 0);
        if !plain {
            return None;
        }
        debug_assert_eq!(self.highest_sacked(), None, "no range without a sacked record");
        self.records.pop_front();
        self.judged_to = self.judged_to.later(una);
        Some(first)
    }

    /// Takes the only record off, which is acknowledged, if there is no other and it was sent once
    /// and at one moment; gives when, and how many bytes, the `bytes` that are left of it included,
    /// were delivered since. Nothing is lost or reported.
    #[inline(always)]
    pub(crate) fn settle_only(&mut self, bytes: u32) -> Option<(Instant, u32)> {
        let only = self.records.front()?;
        let plain = self.records.len() == 1
            && only.fate == Fate::InFlight
            && only.retransmissions == 0
            && !only.untimed;
        if !plain {
            return None;
        }
        let settled = (only.last_sent, self.rate.piped_since(&only.stamp, bytes));
        self.judged_to = only.end();
        self.records.clear();
        Some(settled)
    }

    /// Takes everything below `una` off.
    pub(crate) fn ack(&mut self, una: SeqNum, delivery: &mut Delivery) {
        while let Some(front) = self.records.front_mut() {
            if front.start.after_eq(una) {
                break;
            }
            let part = front.part(front.start, front.end().earlier(una));
            match front.fate {
                Fate::Sacked => self.sacked -= part.len,
                Fate::Lost => self.lost -= part.len,
                Fate::InFlight | Fate::Resent => {}
            }
            if front.fate != Fate::Sacked {
                delivery.note(&part, false);
            }
            if front.end().after(una) {
                front.len = front.end().since(una);
                front.start = una;
                break;
            }
            self.records.pop_front();
        }
        self.judged_to = self.judged_to.later(una);
        if let Some(board) = &mut self.board {
            board.sacked.remove_below(una);
        }
    }

    /// The peer has `[start, end)`, which lies between snd.una and snd.nxt. False if there are too
    /// many separate ranges to remember this one.
    pub(crate) fn sack(
        &mut self,
        start: SeqNum,
        end: SeqNum,
        mss: u32,
        delivery: &mut Delivery,
    ) -> bool {
        let mut at = start;
        let mut kept = true;
        while let Some(gap) = self.board.get_or_insert_default().sacked.gap(at, end) {
            kept &= self.sack_gap(gap.start, gap.end, mss, delivery);
            at = gap.end;
        }
        kept
    }

    /// As [`Records::sack`], for what no block has covered before.
    fn sack_gap(&mut self, start: SeqNum, end: SeqNum, mss: u32, d: &mut Delivery) -> bool {
        let mut kept = true;
        let mut i = self.index_behind(start);
        while let Some(record) = self.records.get(i)
            && record.start.before(end)
        {
            let (from, to) = whole_segments(record, start, end, mss);
            if record.fate != Fate::Sacked && from.before(to) {
                kept &= self.sack_part(&mut i, from, to, d);
            }
            i += 1;
        }
        kept
    }

    /// Marks the part `[from, to)` of the record at `i`, and leaves `i` at the last record that it
    /// has dealt with.
    fn sack_part(&mut self, i: &mut usize, from: SeqNum, to: SeqNum, d: &mut Delivery) -> bool {
        let Some(board) = &mut self.board else { return false };
        if board.sacked.len() >= SACK_RANGES_MAX && board.sacked.is_apart(from, to) {
            return false;
        }
        let record = self.records[*i];
        let sacked_at = |k: usize| self.records.get(k).is_some_and(|r| r.fate == Fate::Sacked);
        let whole = from == record.start && to == record.end();
        // A block that grows moves the border to its neighbour, which costs no insertion.
        let grows_up = from == record.start && *i > 0 && sacked_at(*i - 1);
        let grows_down = to == record.end() && sacked_at(*i + 1);
        let splits = usize::from(from != record.start) + usize::from(to != record.end());
        if !whole && !grows_up && !grows_down && self.records.len() + splits > SPLITS_MAX {
            return false;
        }
        let part = record.part(from, to);
        board.sacked.insert(from, to);
        d.note(&part, true);
        self.sacked += part.len;
        if record.fate == Fate::Lost {
            self.lost -= part.len;
        }
        if whole {
            self.records[*i].fate = Fate::Sacked;
        } else if grows_up {
            self.records[*i - 1].len += part.len;
            let rest = record.part(to, record.end());
            self.records[*i] = rest;
        } else if grows_down {
            self.records[*i].len -= part.len;
            let above = &mut self.records[*i + 1];
            (above.start, above.len) = (from, above.len + part.len);
        } else {
            self.split_at(*i, from);
            *i += usize::from(from != record.start);
            self.split_at(*i, to);
            self.records[*i].fate = Fate::Sacked;
        }
        true
    }

    /// RFC 2018 §8: the receiver may have thrown away what it reported.
    pub(crate) fn forget_sacks(&mut self) {
        for record in &mut self.records {
            if record.fate == Fate::Sacked {
                record.fate = Fate::InFlight;
            }
        }
        self.sacked = 0;
        self.judge_again();
        if let Some(board) = &mut self.board {
            board.sacked.clear();
        }
    }

    // --- losses ----------------------------------------------------------------------------------

    /// Everything is lost that was sent before `latest` and `patience` or more before `now` (RFC
    /// 8985 §6.2, step 5). Gives the time at which the next record will be. That RFC waits for the
    /// last record that might be lost and then looks at all; here each is found at its own time.
    pub(crate) fn lose_older(
        &mut self,
        now: Instant,
        latest: SentAt,
        patience: Duration,
    ) -> Option<Instant> {
        let is_older = |r: &Record| latest.is_after(SentAt { at: r.last_sent, end: r.end() });
        let mut due = None;
        let mut i = self.index_behind(self.judged_to);
        while let Some(record) = self.records.get(i) {
            if record.fate == Fate::InFlight && record.retransmissions == 0 {
                if !is_older(record) {
                    break;
                }
                if record.last_sent + patience > now {
                    due = Some(record.last_sent + patience);
                    break;
                }
                self.lose(i);
            }
            i += 1;
        }
        self.judged_to = match (self.records.get(i), self.records.back()) {
            (Some(record), _) => record.start,
            (None, Some(last)) => last.end(),
            (None, None) => self.judged_to,
        };
        let due_again = self.lose_resent(now, latest, patience);
        [due, due_again].into_iter().flatten().min()
    }

    /// The same among what was sent again.
    fn lose_resent(&mut self, now: Instant, latest: SentAt, patience: Duration) -> Option<Instant> {
        while let Some(resent) = self.board.as_ref().and_then(|b| b.resent.front()).copied() {
            let mut i = self.index_behind(resent.start);
            while let Some(record) = self.records.get(i)
                && record.start.before(resent.end)
            {
                let waits = match record.fate {
                    Fate::InFlight | Fate::Resent => record.last_sent == resent.at,
                    Fate::Sacked | Fate::Lost => false,
                };
                if waits {
                    if !latest.is_after(SentAt { at: resent.at, end: record.end() }) {
                        return None;
                    }
                    if resent.at + patience > now {
                        return Some(resent.at + patience);
                    }
                    self.lose(i);
                }
                i += 1;
            }
            self.board.as_mut()?.resent.pop_front();
        }
        None
    }

    /// RFC 6675 §4, `IsLost`, for every record: lost is what lies below three separate ranges that
    /// were reported, or below more than two segments that were.
    pub(crate) fn lose_below_sacked(&mut self, mss: u32) {
        const DUP_THRESH: u32 = 3;
        let Some(board) = &self.board else { return };
        let (mut ranges, mut bytes) = (0, 0);
        let edge = board.sacked.iter_down().find(|range| {
            (ranges, bytes) = (ranges + 1, bytes + range.end.since(range.start));
            ranges >= DUP_THRESH || bytes > (DUP_THRESH - 1) * mss
        });
        let Some(edge) = edge.map(|range| range.start) else { return };
        let mut i = self.index_behind(self.judged_to);
        while let Some(record) = self.records.get(i)
            && record.start.before(edge)
        {
            if record.fate == Fate::InFlight && record.retransmissions == 0 {
                self.lose(i);
            }
            i += 1;
        }
        self.judged_to = self.judged_to.later(edge);
    }

    /// The first record is lost.
    pub(crate) fn lose_first(&mut self, mss: u32) {
        if let Some(first) = self.records.front() {
            let end = first.start + mss;
            self.split(end);
            self.lose(0);
        }
    }

    /// The retransmission timer has expired. RFC 8985 §6.3: the first record is lost, and so is what
    /// was sent `patience` or more ago; without RACK, everything (RFC 5681 §3.1).
    pub(crate) fn lose_on_timeout(&mut self, now: Instant, patience: Duration) {
        for i in 0..self.records.len() {
            if i == 0 || self.records[i].last_sent + patience <= now {
                self.lose(i);
            }
        }
    }

    fn lose(&mut self, i: usize) {
        let record = &mut self.records[i];
        match record.fate {
            Fate::InFlight | Fate::Resent => {
                record.fate = Fate::Lost;
                let start = record.start;
                self.lost_from = if self.lost == 0 { start } else { self.lost_from.earlier(start) };
                self.lost += record.len;
                self.lost_ever = self.lost_ever.wrapping_add(record.len);
            }
            Fate::Sacked | Fate::Lost => {}
        }
    }

    /// Nothing was lost after all: what has not been sent again is in flight still.
    pub(crate) fn forgive(&mut self) {
        for record in &mut self.records {
            if record.fate == Fate::Lost {
                record.fate =
                    if record.retransmissions > 0 { Fate::Resent } else { Fate::InFlight };
            }
        }
        self.lost = 0;
        self.judge_again();
    }

    fn judge_again(&mut self) {
        self.judged_to = self.records.front().map_or(self.judged_to, |r| r.start);
    }

    // --- borders ---------------------------------------------------------------------------------

    /// The index of the first record that ends behind `seq`.
    fn index_behind(&self, seq: SeqNum) -> usize {
        match self.records.front() {
            Some(first) if first.end().before_eq(seq) => {
                self.records.partition_point(|r| r.end().before_eq(seq))
            }
            _ => 0,
        }
    }

    /// Makes `at` a border between records, unless there are too many: then the whole record
    /// counts as sent again, which costs samples but never correctness.
    fn split(&mut self, at: SeqNum) {
        if self.records.len() < SPLITS_MAX {
            self.split_at(self.index_behind(at), at);
        }
    }

    /// Makes `at` a border if it lies inside the record at `i`.
    fn split_at(&mut self, i: usize, at: SeqNum) {
        if let Some(record) = self.records.get_mut(i)
            && record.start.before(at)
            && at.before(record.end())
        {
            let rest = record.part(at, record.end());
            record.len = at.since(record.start);
            self.records.insert(i + 1, rest);
        }
    }
}

/// The part of `record` in `[start, end)`, without the segments that are only partly in it: no
/// receiver has half a segment, so one that says so is not to be given a record for it.
fn whole_segments(record: &Record, start: SeqNum, end: SeqNum, mss: u32) -> (SeqNum, SeqNum) {
    let from = match start.since(record.start) {
        0 => record.start,
        offset => record.start + offset.next_multiple_of(mss),
    };
    let to = if end.before(record.end()) {
        let offset = end.since(record.start);
        record.start + (offset - offset % mss)
    } else {
        record.end()
    };
    (from, to)
}

#[cfg(test)]
#[path = "tests/records.rs"]
mod tests;
