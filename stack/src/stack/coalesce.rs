//! What arrives together of one stream is taken in as one segment: receive offload in software.
//!
//! ```text
//!   burst   [1,448][1,448][1,448 PSH] [64] [1,448]…
//!            └──────── one run ─────┘  └ by itself
//! ```
//!
//! A run is joined by the next segment of its flow, if that says nothing else but more bytes: the
//! same length, ACK, window, timestamps, flags and codepoint. Each is checked for itself before it joins.
//! TCP then does once what it would have done for each, as it does where the device joins segments;
//! that the wire had several it is told. What is short is not waited with: it would gain nothing.

use barewire_driver::{PacketSlice, RxBurst, RxFrame};

use super::Stack;
use super::expected::{Found, Pieces};
use crate::interface::IfaceId;
use crate::socket::demux::FlowKey;
use crate::tcp::Text;
use crate::wire::protocol;
use crate::wire::tcp::{self, PlainTcp, TcpFlags};

/// Payload with which a segment begins a run: half of what is usual.
const RUN_MIN_BYTES: u32 = 700;

/// A run holds no more: what the length field of a joined packet could say.
const RUN_MAX_BYTES: u32 = 65_535;

/// Segments of one flow that are taken in together; their payload is in [`Stack::run_pieces`].
struct Run {
    /// The connection.
    index: u32,
    key: FlowKey,
    tos: u8,
    /// Of the first segment, with the flags of all.
    header: PlainTcp,
    text: Text,
    /// The payload of each: what the peer's segments hold is told from the mean.
    segment_bytes: u32,
}

impl Stack {
    /// Takes in a burst of more than one frame.
    #[inline(never)]
    pub(super) fn input_many(&mut self, iface: IfaceId, burst: &mut RxBurst) {
        let mut run = None;
        burst.drain(|frame, mut segments| {
            let mut pieces = match segments.as_slice() {
                [_] => Pieces::One(segments.next()),
                _ => Pieces::Many(segments),
            };
            self.input_next(iface, &mut run, &mut pieces, frame);
        });
        if let Some(run) = run {
            self.end_run(run);
        }
    }

    /// Takes in the next frame of a burst, or has it wait in a run.
    #[inline]
    fn input_next(
        &mut self,
        iface: IfaceId,
        run: &mut Option<Run>,
        pieces: &mut Pieces<'_, '_>,
        frame: &RxFrame,
    ) {
        if let Some(mut current) = run.take() {
            let joined = self.join(iface, &mut current, pieces, frame);
            if joined && !current.header.flags.contains(TcpFlags::PSH) {
                *run = Some(current);
                return;
            }
            self.end_run(current);
            if joined {
                return;
            }
        }
        if frame.len > RUN_MIN_BYTES && frame.gso_bytes == 0 {
            *run = self.begin_run(iface, pieces, frame);
            if run.is_some() {
                return;
            }
        }
        match pieces {
            Pieces::One(piece) => {
                if let Some(piece) = piece.take() {
                    self.input_piece(iface, piece, frame);
                }
            }
            Pieces::Many(_) => self.input_pieces(iface, pieces, frame),
        }
    }

    /// A run of this frame, if it is the next of what a connection expects. Otherwise nothing is
    /// done with it.
    fn begin_run(
        &mut self,
        iface: IfaceId,
        pieces: &mut Pieces<'_, '_>,
        frame: &RxFrame,
    ) -> Option<Run> {
        let (packet, at) = self.plain(iface, pieces.as_slice(), frame)?;
        // A segment that ends what was written is a message more often than the first of many.
        let flags = packet.bytes.get(tcp::FLAGS_OFFSET);
        if packet.ip.protocol != protocol::TCP || flags != Some(&TcpFlags::ACK.bits()) {
            return None;
        }
        let (Found::Connection(index), header, header_len) = self.find_flow(&packet)? else {
            return None;
        };
        let len = (packet.ip.payload_len - header_len) as u32;
        if len < RUN_MIN_BYTES || !self.awaits(index, header.seq) {
            return None;
        }
        let (key, tos) = (packet.key(header.dst_port, header.src_port), packet.ip.tos);
        let text_at = at + header_len..at + packet.bytes.len();
        let text = self.admit(&packet, header_len, 0)?;
        pieces.take_into(text_at, &mut self.run_pieces);
        Some(Run { index, key, tos, header, text, segment_bytes: len })
    }

    /// True if a connection's next byte has this number.
    fn awaits(&self, index: u32, seq: u32) -> bool {
        let tcb = self.connection(index).and_then(|connection| connection.tcb.whole());
        tcb.is_some_and(|tcb| tcb.next_expected() == seq)
    }

    /// Lets a frame join the run if it may, and says so.
    fn join(
        &mut self,
        iface: IfaceId,
        run: &mut Run,
        pieces: &mut Pieces<'_, '_>,
        frame: &RxFrame,
    ) -> bool {
        let Some((packet, at)) = self.plain(iface, pieces.as_slice(), frame) else {
            return false;
        };
        let parsed = PlainTcp::parse(packet.bytes, packet.ip.payload_len);
        let Some((header, header_len)) = parsed.filter(|_| packet.ip.protocol == protocol::TCP)
        else {
            return false;
        };
        let len = (packet.ip.payload_len - header_len) as u32;
        let pushed = header.flags == TcpFlags::ACK | TcpFlags::PSH;
        let same = header.seq == run.header.seq.wrapping_add(run.text.len)
            && packet.key(header.dst_port, header.src_port) == run.key
            && (header.flags == TcpFlags::ACK || pushed)
            && header.ack == run.header.ack
            && header.window == run.header.window
            && header.timestamps == run.header.timestamps
            && packet.ip.tos == run.tos
            && frame.gso_bytes == 0
            && len == run.segment_bytes
            && run.text.len + len <= RUN_MAX_BYTES;
        let text_at = at + header_len..at + packet.bytes.len();
        if !same || self.admit(&packet, header_len, 0).is_none() {
            return false;
        }
        pieces.take_into(text_at, &mut self.run_pieces);
        run.text.len += len;
        run.text.wire_segments += 1;
        self.egress.counters.tcp_segments_joined += 1;
        run.header.flags |= header.flags;
        true
    }

    /// Gives the run to its connection.
    fn end_run(&mut self, run: Run) {
        let mut pieces: Vec<PacketSlice> = std::mem::take(&mut self.run_pieces);
        self.deliver_expected(run.index, &run.header, &run.text, pieces.drain(..));
        self.run_pieces = pieces;
    }
}
