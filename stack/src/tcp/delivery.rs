//! What one ACK has told about the records: the facts that round-trip samples, loss detection and
//! the congestion window are made of.

use super::rate::Round;
use super::records::Record;
use super::seq::SeqNum;
use crate::time::Instant;

/// When the last byte before `end` was sent: RACK's order (RFC 8985 §6.2, `RACK_sent_after`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct SentAt {
    pub(crate) at: Instant,
    pub(crate) end: SeqNum,
}

impl SentAt {
    pub(crate) fn is_after(self, other: SentAt) -> bool {
        self.at > other.at || (self.at == other.at && self.end.after(other.end))
    }
}

/// What one ACK has told, by number and by SACK blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Delivery {
    /// The highest number that was known to have arrived before.
    fack: SeqNum,
    /// Bytes newly known to have arrived.
    pub(crate) bytes: u32,
    /// Those of them that a SACK block told.
    pub(crate) sacked: u32,
    /// When the oldest of the acknowledged bytes that were sent only once left.
    pub(crate) sent_once_at: Option<Instant>,
    /// When the first of the acknowledged bytes that were sent more than once left last (Karn's
    /// algorithm).
    pub(crate) resent_at: Option<Instant>,
    /// When the youngest of the SACKed bytes that were sent only once left.
    pub(crate) sacked_sent_at: Option<Instant>,
    /// The record sent last among those that arrived and were sent only once.
    pub(crate) latest_once: Option<SentAt>,
    /// The same among those sent more than once.
    pub(crate) latest_resent: Option<SentAt>,
    /// The lowest end of what arrived and was sent only once.
    pub(crate) original: Option<SeqNum>,
    /// Something sent only once arrived after what was sent behind it.
    pub(crate) reordered: bool,
    /// For the delivery rate.
    pub(crate) round: Round,
}

impl Delivery {
    /// Nothing yet; `fack` is the highest number known to have arrived.
    pub(crate) fn new(fack: SeqNum) -> Delivery {
        Delivery {
            fack,
            bytes: 0,
            sacked: 0,
            sent_once_at: None,
            resent_at: None,
            sacked_sent_at: None,
            latest_once: None,
            latest_resent: None,
            original: None,
            reordered: false,
            round: Round::default(),
        }
    }

    /// `record` has arrived, as a block or the acknowledgment number has told.
    pub(crate) fn note(&mut self, record: &Record, by_block: bool) {
        self.bytes += record.len;
        self.round.add(record.len, record.stamp, record.last_sent);
        let sent = SentAt { at: record.last_sent, end: record.end() };
        if by_block {
            self.sacked += record.len;
        }
        if record.retransmissions > 0 {
            if self.latest_resent.is_none_or(|latest| sent.is_after(latest)) {
                self.latest_resent = Some(sent);
            }
            if !by_block {
                self.resent_at = self.resent_at.or(Some(record.last_sent));
            }
            return;
        }
        if self.latest_once.is_none_or(|latest| sent.is_after(latest)) {
            self.latest_once = Some(sent);
        }
        let lowest = self.original.map_or(sent.end, |lowest| lowest.earlier(sent.end));
        self.original = Some(lowest);
        // RFC 8985 §6.2, step 3.
        self.reordered |= sent.end.before(self.fack);
        if record.untimed {
            return;
        }
        if by_block {
            self.sacked_sent_at = self.sacked_sent_at.max(Some(record.last_sent));
        } else {
            self.sent_once_at = self.sent_once_at.or(Some(record.last_sent));
        }
    }
}
