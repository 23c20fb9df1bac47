//! The blocks of a pcapng file (draft-ietf-opsawg-pcapng) that a capture consists of.
//!
//! ```text
//!   block    type(4) length(4) body… length(4)        all padded to 4 bytes, in our byte order
//!   file     Section Header, Interface Description …, Enhanced Packet …
//! ```

use std::io::{self, Write};

use crate::mem::PacketSlice;

const SECTION_HEADER: u32 = 0x0a0d_0d0a;
const INTERFACE_DESCRIPTION: u32 = 1;
const ENHANCED_PACKET: u32 = 6;
const BYTE_ORDER_MAGIC: u32 = 0x1a2b_3c4d;
const LINKTYPE_ETHERNET: u16 = 1;

const OPT_END: u16 = 0;
const SHB_USERAPPL: u16 = 4;
const IF_NAME: u16 = 2;
const IF_TSRESOL: u16 = 9;
const EPB_FLAGS: u16 = 2;

/// Which way a packet went, as `epb_flags` has it in its two lowest bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Inbound = 1,
    Outbound = 2,
}

/// One packet to write.
pub(super) struct Packet<'a> {
    pub(super) interface: u32,
    pub(super) time_ns: u64,
    pub(super) direction: Direction,
    pub(super) segments: &'a [PacketSlice],
    /// Most bytes to keep.
    pub(super) snaplen: usize,
}

impl Packet<'_> {
    fn len(&self) -> usize {
        self.segments.iter().map(|segment| segment.len()).sum()
    }

    /// True if the packet is longer than what is kept of it.
    pub(super) fn is_cut(&self) -> bool {
        self.len() > self.snaplen
    }
}

fn padding(len: usize) -> &'static [u8] {
    &[0; 3][..len.next_multiple_of(4) - len]
}

/// An option: code, length, value, padding.
fn option(body: &mut Vec<u8>, code: u16, value: &[u8]) {
    let value = &value[..value.len().min(usize::from(u16::MAX))];
    body.extend_from_slice(&code.to_ne_bytes());
    body.extend_from_slice(&(value.len() as u16).to_ne_bytes());
    body.extend_from_slice(value);
    body.extend_from_slice(padding(value.len()));
}

fn block(out: &mut dyn Write, kind: u32, body: &[u8]) -> io::Result<()> {
    let len = (body.len() + 12) as u32;
    out.write_all(&kind.to_ne_bytes())?;
    out.write_all(&len.to_ne_bytes())?;
    out.write_all(body)?;
    out.write_all(&len.to_ne_bytes())
}

/// §4.1: version 1.0, length of the section not known.
pub(super) fn section_header(out: &mut dyn Write) -> io::Result<()> {
    let mut body = Vec::new();
    body.extend_from_slice(&BYTE_ORDER_MAGIC.to_ne_bytes());
    body.extend_from_slice(&1u16.to_ne_bytes());
    body.extend_from_slice(&0u16.to_ne_bytes());
    body.extend_from_slice(&u64::MAX.to_ne_bytes());
    option(&mut body, SHB_USERAPPL, b"barewire");
    option(&mut body, OPT_END, b"");
    block(out, SECTION_HEADER, &body)
}

/// §4.2: Ethernet, times in nanoseconds.
pub(super) fn interface_description(
    out: &mut dyn Write,
    name: &str,
    snaplen: u32,
) -> io::Result<()> {
    let mut body = Vec::new();
    body.extend_from_slice(&LINKTYPE_ETHERNET.to_ne_bytes());
    body.extend_from_slice(&0u16.to_ne_bytes());
    body.extend_from_slice(&snaplen.to_ne_bytes());
    option(&mut body, IF_NAME, name.as_bytes());
    option(&mut body, IF_TSRESOL, &[9]);
    option(&mut body, OPT_END, b"");
    block(out, INTERFACE_DESCRIPTION, &body)
}

/// §4.3, straight from the packet's slices.
pub(super) fn enhanced_packet(out: &mut dyn Write, packet: &Packet<'_>) -> io::Result<()> {
    let len = packet.len();
    let kept = len.min(packet.snaplen);
    // Around the packet: block header, 20 bytes before it, its padding, two options, the trailer.
    let total = (12 + 20 + kept.next_multiple_of(4) + 8 + 4) as u32;
    let head = [
        ENHANCED_PACKET,
        total,
        packet.interface,
        (packet.time_ns >> 32) as u32,
        packet.time_ns as u32,
        kept as u32,
        len as u32,
    ];
    for word in head {
        out.write_all(&word.to_ne_bytes())?;
    }
    let mut left = kept;
    for segment in packet.segments {
        let n = segment.len().min(left);
        out.write_all(&segment[..n])?;
        left -= n;
    }
    out.write_all(padding(kept))?;
    let mut options = Vec::with_capacity(12);
    option(&mut options, EPB_FLAGS, &(packet.direction as u32).to_ne_bytes());
    option(&mut options, OPT_END, b"");
    out.write_all(&options)?;
    out.write_all(&total.to_ne_bytes())
}
