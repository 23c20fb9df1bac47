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

use barewire_driver::device::Segments;
use barewire_driver::{PacketSlice, RxBurst, RxFrame};

use super::Stack;
use super::expected::{Found, Pieces, Plain, take_text};
use crate::interface::IfaceId;
use crate::tcp::Text;
use crate::wire::plain::PlainIpv4;
use crate::wire::protocol;
use crate::wire::series::Series;
use crate::wire::tcp::{self, PlainTcp, TcpFlags};

/// Payload with which a segment begins a run: half of what is usual.
const RUN_MIN_BYTES: u32 = 700;

/// A run holds no more: what the length field of a joined packet could say.
const RUN_MAX_BYTES: u32 = 65_535;

/// Segments of one flow that are taken in together; their payload is in [`Stack::run_pieces`].
struct Run {
    /// The connection.
    index: u32,
    /// The headers that all have in common.
    series: Series,
    /// IPv4's of the first segment, for the checksums of the others.
    ip: PlainIpv4,
    /// Of the first segment, with the flags of all.
    header: PlainTcp,
    text: Text,
    /// Where TCP's header begins in each frame, where the payload does, and where it ends.
    tcp_at: usize,
    text_at: usize,
    end: usize,
}

impl Run {
    /// Where a segment that joins leads.
    fn grow(&mut self, pushed: bool) {
        self.text.len += (self.end - self.text_at) as u32;
        self.text.wire_segments += 1;
        self.series.go_on(self.header.seq.wrapping_add(self.text.len));
        if pushed {
            self.header.flags |= TcpFlags::PSH;
        }
    }
}

/// What became of a frame that was to join a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Joined {
    /// It is none of it.
    No,
    /// It has joined, and the next may.
    Open,
    /// It has joined, and is the last.
    Last,
}

impl Stack {
    /// Takes in a burst of more than one frame.
    #[inline(never)]
    pub(super) fn input_many(&mut self, iface: IfaceId, burst: &mut RxBurst) {
        let mut run: Option<Run> = None;
        burst.drain(|frame, mut segments| {
            if let Some(current) = &mut run {
                match self.join(current, &mut segments, frame) {
                    Joined::Open => return,
                    Joined::Last => return self.end_run(run.take()),
                    Joined::No => self.end_run(run.take()),
                }
            }
            let mut pieces = match segments.as_slice() {
                [_] => Pieces::One(segments.next()),
                _ => Pieces::Many(segments),
            };
            if frame.len > RUN_MIN_BYTES && frame.gso_bytes == 0 {
                run = self.begin_run(iface, &mut pieces, frame);
                if run.is_some() {
                    return;
                }
            }
            match pieces {
                Pieces::One(Some(piece)) => self.input_piece(iface, piece, frame),
                mut pieces => self.input_pieces(iface, &mut pieces, frame),
            }
        });
        self.end_run(run);
    }

    /// A run of this frame, if it is the next of what a connection expects. Otherwise nothing is
    /// done with it.
    #[inline(never)]
    fn begin_run(
        &mut self,
        iface: IfaceId,
        pieces: &mut Pieces<'_, '_>,
        frame: &RxFrame,
    ) -> Option<Run> {
        let (packet, tcp_at) = self.plain(iface, pieces.as_slice(), frame)?;
        // A segment that ends what was written is a message more often than the first of many.
        let flags = packet.bytes.get(tcp::FLAGS_OFFSET);
        if packet.ip.protocol != protocol::TCP || flags != Some(&TcpFlags::ACK.bits()) {
            return None;
        }
        let (Found::Connection(index), header, header_len) = self.find_flow(&packet)? else {
            return None;
        };
        let (ip, len) = (packet.ip, (packet.ip.payload_len - header_len) as u32);
        if len < RUN_MIN_BYTES || !self.awaits(index, header.seq) {
            return None;
        }
        let headers_len = PlainIpv4::LEN + header_len;
        let link_len = tcp_at - PlainIpv4::LEN;
        let next = header.seq.wrapping_add(len);
        let series = Series::of(pieces.as_slice().first()?, link_len, headers_len, next)?;
        let text = self.admit(&packet, header_len, 0)?;
        let (text_at, end) = (tcp_at + header_len, tcp_at + ip.payload_len);
        take_text(pieces, text_at..end, &mut self.run_pieces);
        Some(Run { index, series, ip, header, text, tcp_at, text_at, end })
    }

    /// True if a connection's next byte has this number.
    fn awaits(&self, index: u32, seq: u32) -> bool {
        let tcb = self.connection(index).and_then(|connection| connection.tcb.whole());
        tcb.is_some_and(|tcb| tcb.next_expected() == seq)
    }

    /// Lets a frame join the run if it may.
    #[inline(always)]
    fn join(&mut self, run: &mut Run, segments: &mut Segments<'_, '_>, frame: &RxFrame) -> Joined {
        let [first, others @ ..] = segments.as_slice() else { return Joined::No };
        let Some(pushed) = run.series.next(first) else { return Joined::No };
        // Only a frame in one piece may have padding: there is nothing behind its first piece.
        let whole = match others {
            [] => first.len() >= run.end,
            _ => frame.len as usize == run.end && first.len() >= run.text_at,
        };
        let end = first.len().min(run.end);
        let bytes = &first[run.tcp_at..end];
        let packet = Plain { ip: run.ip, bytes, others, checksum: frame.checksum };
        let room = run.text.len + (run.end - run.text_at) as u32 <= RUN_MAX_BYTES;
        if !whole || !room || frame.gso_bytes != 0 || !packet.is_right() {
            return Joined::No;
        }
        take_text(segments, run.text_at..end, &mut self.run_pieces);
        run.grow(pushed);
        if pushed { Joined::Last } else { Joined::Open }
    }

    /// Gives the run, if there is one, to its connection.
    #[inline(never)]
    fn end_run(&mut self, run: Option<Run>) {
        let Some(run) = run else { return };
        // The first was counted when it was admitted.
        let joined = u64::from(run.text.wire_segments) - 1;
        self.egress.counters.rx_frames += joined;
        self.egress.counters.tcp_segments_received += joined;
        self.egress.counters.tcp_segments_joined += joined;
        let mut pieces: Vec<PacketSlice> = std::mem::take(&mut self.run_pieces);
        self.deliver_expected(run.index, &run.header, &run.text, pieces.drain(..));
        self.run_pieces = pieces;
    }
}
