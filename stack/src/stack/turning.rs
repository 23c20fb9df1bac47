//! The short way in goes on: a frame in one piece for a connection that opens, ends, or has something
//! unusual to be told.
//!
//! ```text
//!   expected ─▶ flow known? ─┬─ half open, or not the next segment ▶ deliver_unexpected ─┬▶ Tcb, listener,
//!                            └─ no, or a SYN ──────────────────────▶ input_other ───────┘  TIME-WAIT
//! ```
//!
//! What `expected` has found out by then is not asked again, and is handed over by value: had it an
//! address, it would lie in memory for every frame, not in registers. As there, nothing is counted,
//! moved or answered before the last check has passed: a frame that comes back is the long way's.

use std::hint::cold_path;
use std::net::Ipv4Addr;

use barewire_driver::{PacketSlice, RxChecksum};

use super::expected::{Found, Plain};
use super::{Socket, Stack};
use crate::hint::usually;
use crate::interface::IfaceId;
use crate::tcp::Text;
use crate::wire::ipv4::Ecn;
use crate::wire::plain::PlainIpv4;
use crate::wire::tcp::{PlainTcp, TcpHeader};
use crate::wire::{ethernet, protocol};

/// Where TCP's header begins in an Ethernet frame.
const TCP_AT: usize = ethernet::LEN + PlainIpv4::LEN;

impl Stack {
    /// Takes in a segment of a flow that is not known, or with flags or options that are not usual. Its
    /// frame is Ethernet's, and has the packet's end at `end`.
    #[inline(never)]
    pub(super) fn input_other(
        &mut self,
        iface: IfaceId,
        piece: PacketSlice,
        (src, dst): (Ipv4Addr, Ipv4Addr),
        (tos, end): (u8, usize),
        checksum: RxChecksum,
    ) -> Result<(), PacketSlice> {
        let bytes = &piece[TCP_AT..end];
        let ip = PlainIpv4 { src, dst, protocol: protocol::TCP, tos, payload_len: bytes.len() };
        let packet = Plain { ip, bytes, others: &[], checksum };
        // By reference: the header is large enough for its copies to be seen in profiles.
        let mut header = TcpHeader::default();
        let found = self.find_other(iface, &packet, &mut header);
        let Some((key, header_len)) = usually(found) else { return Err(piece) };
        let text = usually(self.admit(&packet, header_len, 0));
        let Some(text) = text else { return Err(piece) };
        self.deliver_other(key, &header, &text, text_in(piece, text.len, end));
        Ok(())
    }

    /// Gives a half-open connection its segment, or another one a segment that it does not expect. It
    /// is right, has so many bytes of text with this mark, and ends at `end` of its frame.
    #[inline(never)]
    pub(super) fn deliver_unexpected(
        &mut self,
        to: Found,
        header: PlainTcp,
        (len, ecn): (u32, Ecn),
        piece: PacketSlice,
        end: usize,
    ) -> Result<(), PacketSlice> {
        let Some(text) = usually(self.admit_right(len, 1, ecn)) else { return Err(piece) };
        let pieces = text_in(piece, len, end);
        match to {
            Found::Connection(index) => self.take_unexpected(index, &header, &text, pieces),
            Found::HalfOpen(index) => self.deliver_half_open(index, &header, &text, pieces),
        }
        Ok(())
    }

    /// Gives a connection a segment that it is known not to expect.
    #[inline(always)]
    pub(super) fn take_unexpected(
        &mut self,
        index: u32,
        header: &PlainTcp,
        text: &Text,
        pieces: impl Iterator<Item = PacketSlice>,
    ) {
        let now = self.egress.now;
        let Some(Socket::Connection(connection)) = self.sockets.get_mut(index) else {
            cold_path();
            return;
        };
        let tcb = connection.tcb.wake_calm();
        if let Some(outcome) = tcb.take_ending(now, header, text) {
            return self.settle(index, outcome);
        }
        self.scratch.clear();
        if text.len > 0 {
            self.scratch.extend(pieces);
        }
        let header = TcpHeader::from(*header);
        let outcome = tcb.handle_unexpected(now, text.segment(&header, &mut self.scratch));
        if let Some(reason) = tcb.take_drop() {
            cold_path();
            self.egress.counters.tcp_dropped(reason, text.wire_segments);
        }
        self.scratch.clear();
        self.settle(index, outcome);
    }
}

/// The last `len` bytes up to `end` of a frame: the text of its segment.
fn text_in(
    mut piece: PacketSlice,
    len: u32,
    end: usize,
) -> impl Iterator<Item = PacketSlice> + use<> {
    // When it is asked for: what opens or ends a connection has none.
    std::iter::once_with(move || {
        piece.truncate(end);
        piece.advance(end - len as usize);
        piece
    })
}
