//! Data that arrived out of sequence, kept until the gap before it is filled.
//!
//! ```text
//!   rcv.nxt      gap        piece piece      gap       piece   FIN
//!   ├───────────┄┄┄┄┄┄┄┄┄┄┄├─────┼─────┤┄┄┄┄┄┄┄┄┄┄┄┄┄├─────┤┄┄┄┄│
//! ```
//!
//! Pieces are sorted and never overlap: where two segments disagree about a byte, the one received
//! first wins. Bounded by the window in bytes, by [`PIECES_MAX`] in number and by
//! [`recvq::pinned_max`](super::recvq::pinned_max) in packet memory; what does not fit is dropped
//! and sent again by the peer.

use std::collections::VecDeque;

use arrayvec::ArrayVec;
use barewire_driver::PacketSlice;

use super::ranges::{Range, RangeSet};
use super::seq::SeqNum;
use crate::wire::tcp::SackBlocks;

/// Most pieces that one connection keeps out of sequence. Inserting moves at most half of them, so
/// that a peer that sends single bytes in a bad order cannot buy much time with them.
pub(crate) const PIECES_MAX: usize = 4096;

#[derive(Debug)]
struct Piece {
    seq: SeqNum,
    data: PacketSlice,
}

impl Piece {
    fn end(&self) -> SeqNum {
        self.seq + self.data.len() as u32
    }
}

/// What became of an insertion.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Inserted {
    /// All new bytes are kept.
    All,
    /// A limit was reached: some were dropped.
    Partly,
}

#[derive(Debug, Default)]
pub(crate) struct Assembler {
    pieces: VecDeque<Piece>,
    pinned: u64,
    /// Sequence number of a FIN that arrived out of sequence.
    fin: Option<SeqNum>,
    /// Where pieces and FIN lie, those that touch as one: what SACK blocks tell.
    runs: RangeSet,
    /// A number in each of the runs that grew last, the latest first (RFC 2018 §4).
    recent: ArrayVec<SeqNum, { SackBlocks::MAX }>,
    /// What the last insertion brought a second time.
    duplicate: Option<Range>,
}

impl Assembler {
    /// True if it holds neither data nor a FIN.
    pub(crate) fn is_empty(&self) -> bool {
        self.pieces.is_empty() && self.fin.is_none()
    }

    /// Packet memory that the pieces keep from being freed.
    pub(crate) fn pinned(&self) -> u64 {
        self.pinned
    }

    /// Where the first piece begins.
    pub(crate) fn first(&self) -> Option<SeqNum> {
        self.pieces.front().map(|p| p.seq)
    }

    /// Remembers a FIN whose sequence number is `seq`. The first one wins.
    pub(crate) fn set_fin(&mut self, seq: SeqNum) {
        let first = *self.fin.get_or_insert(seq);
        if first == seq {
            self.runs.insert(seq, seq + 1);
            self.note_recent(seq);
        }
    }

    /// The runs in the order in which they are to be reported: the one that grew last first (RFC
    /// 2018 §4).
    pub(crate) fn recent_runs(&self) -> impl Iterator<Item = Range> {
        self.recent.iter().filter_map(|&seq| self.runs.find(seq))
    }

    /// What the last insertion brought a second time, once.
    pub(crate) fn take_duplicate(&mut self) -> Option<Range> {
        self.duplicate.take()
    }

    /// The run that `seq` lies in has grown.
    fn note_recent(&mut self, seq: SeqNum) {
        let Some(run) = self.runs.find(seq) else { return };
        let runs = &self.runs;
        self.recent.retain(|other| runs.find(*other).is_some_and(|r| r != run));
        if self.recent.is_full() {
            self.recent.pop();
        }
        self.recent.insert(0, seq);
    }

    /// Where the peer's stream ends, if its FIN waits here.
    pub(crate) fn fin(&self) -> Option<SeqNum> {
        self.fin
    }

    /// True if the FIN stands at `rcv_nxt`.
    pub(crate) fn fin_reached(&self, rcv_nxt: SeqNum) -> bool {
        self.fin == Some(rcv_nxt)
    }

    /// Keeps those bytes of `payload`, which begins at `seq`, that are not here yet.
    pub(crate) fn insert(
        &mut self,
        mut seq: SeqNum,
        payload: impl Iterator<Item = PacketSlice>,
        pinned_max: u64,
    ) -> Inserted {
        let mut outcome = Inserted::All;
        let start = seq;
        self.duplicate = None;
        for slice in payload {
            let next = seq + slice.len() as u32;
            if self.insert_slice(seq, slice, pinned_max) == Inserted::Partly {
                outcome = Inserted::Partly;
            }
            seq = next;
        }
        self.note_recent(start);
        outcome
    }

    fn insert_slice(&mut self, mut seq: SeqNum, mut data: PacketSlice, limit: u64) -> Inserted {
        while !data.is_empty() {
            let at = match self.pieces.back() {
                // The usual case: behind everything that is here.
                Some(last) if last.end().before_eq(seq) => self.pieces.len(),
                _ => self.pieces.partition_point(|p| p.end().before_eq(seq)),
            };
            let gap = match self.pieces.get(at) {
                None => data.len(),
                Some(piece) if piece.seq.before_eq(seq) => {
                    let known = (piece.end().since(seq) as usize).min(data.len());
                    data.advance(known);
                    let end = seq + known as u32;
                    match &mut self.duplicate {
                        Some(duplicate) if duplicate.end == seq => duplicate.end = end,
                        Some(_) => {}
                        None => self.duplicate = Some(Range { start: seq, end }),
                    }
                    seq = end;
                    continue;
                }
                Some(piece) => data.len().min(piece.seq.since(seq) as usize),
            };
            let cost = data.slot_len() as u64;
            if self.pieces.len() >= PIECES_MAX || self.pinned + cost > limit {
                return Inserted::Partly;
            }
            self.pinned += cost;
            self.pieces.insert(at, Piece { seq, data: data.split_to(gap) });
            self.runs.insert(seq, seq + gap as u32);
            seq += gap as u32;
        }
        Inserted::All
    }

    /// The next piece if it begins at or before `rcv_nxt`, cut to what lies behind that; empty if
    /// all of it is known.
    pub(crate) fn take(&mut self, rcv_nxt: SeqNum) -> Option<PacketSlice> {
        if self.first()?.after(rcv_nxt) {
            return None;
        }
        let Piece { seq, mut data } = self.pieces.pop_front()?;
        self.pinned -= data.slot_len() as u64;
        self.runs.remove_below(seq + data.len() as u32);
        let known = (rcv_nxt.since(seq) as usize).min(data.len());
        data.advance(known);
        Some(data)
    }
}

#[cfg(test)]
#[path = "tests/assembler.rs"]
mod tests;
