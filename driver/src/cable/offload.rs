//! What a network card does to a frame between one host's memory and the other's: checksums and
//! segmentation, in software.
//!
//! ```text
//!   sent                    receiver granted        delivered
//!   complete                –                       as it is, checksum Unknown
//!   partial checksum        RX_CHECKSUM             as it is, Good
//!                           nothing                 checksum filled in, Unknown
//!   TSO                     LARGE_RECEIVE           as it is, Good, with the segment size
//!                           RX_CHECKSUM or nothing  frames of wire size, checksums filled in
//! ```

use std::ops::DerefMut;

use crate::device::{Features, RxChecksum, RxFrame, TxChecksum, TxFrame};
use crate::mem::{Checksum, PacketSlice};

/// Bytes in an Ethernet header.
pub(super) const ETHERNET_LEN: usize = 14;

/// Most header bytes that are rewritten: Ethernet, IP and TCP headers with all options, and room
/// for what a checksum field behind extension headers needs.
const MAX_HEADER: usize = 192;

const TCP: u8 = 6;
/// Offset of the checksum field in a TCP header (RFC 9293 §3.1).
const TCP_CHECKSUM: usize = 16;
const TCP_FLAGS: usize = 13;
const FIN: u8 = 0x01;
const PSH: u8 = 0x08;
const CWR: u8 = 0x80;

/// What the two ends agreed on, each for itself, and what the wire takes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Link {
    /// Granted to the sender.
    pub(super) sender: Features,
    /// Granted to the receiver.
    pub(super) receiver: Features,
    /// Largest frame without its Ethernet header.
    pub(super) mtu: u16,
}

/// The frame's metadata asks for what was not granted or does not fit the frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Misfit;

/// One frame on its way to the receiver: `header`, then `len` bytes of `source` from byte `from`.
pub(super) struct WireFrame<'a> {
    header: &'a [u8],
    source: &'a [PacketSlice],
    from: usize,
    len: usize,
    /// What the receiver is told about it.
    pub(super) meta: RxFrame,
}

impl WireFrame<'_> {
    /// Bytes in the frame.
    pub(super) fn len(&self) -> usize {
        self.header.len() + self.len
    }

    /// The sender's own slices, if the frame goes as they are.
    pub(super) fn untouched(&self) -> Option<&[PacketSlice]> {
        self.header.is_empty().then_some(self.source)
    }

    /// Copies the frame into as many of `bufs` as it takes, filling each, and returns the bytes in
    /// the last one. The caller has seen to it that it fits.
    pub(super) fn copy_into<B: DerefMut<Target = [u8]>>(&self, bufs: &mut [B]) -> usize {
        let (mut at, mut used) = (0, 0);
        let mut put = |mut bytes: &[u8]| {
            while !bytes.is_empty() {
                if used == bufs[at].len() {
                    (at, used) = (at + 1, 0);
                }
                let n = bytes.len().min(bufs[at].len() - used);
                bufs[at][used..used + n].copy_from_slice(&bytes[..n]);
                (bytes, used) = (&bytes[n..], used + n);
            }
        };
        put(self.header);
        for_pieces(self.source, self.from, self.len, put);
        used
    }
}

/// Calls `f` with each contiguous piece of bytes `from..from + len`.
fn for_pieces(source: &[PacketSlice], from: usize, len: usize, mut f: impl FnMut(&[u8])) {
    let (mut skip, mut left) = (from, len);
    for segment in source {
        let start = skip.min(segment.len());
        skip -= start;
        let n = (segment.len() - start).min(left);
        left -= n;
        if n > 0 {
            f(&segment[start..start + n]);
        }
    }
}

/// The lengths of plain frames of one segment that go as they are.
#[inline]
pub(super) fn untouched_lens(mtu: u16) -> std::ops::RangeInclusive<u32> {
    ETHERNET_LEN as u32..=u32::from(mtu) + ETHERNET_LEN as u32
}

/// What is known of a frame that crosses as it is: the verdict on its checksum, and the payload bytes
/// of each segment if it is several. `None` of one that [`carry`] has to change or refuses.
#[inline(always)]
pub(super) fn untouched(
    frame: &TxFrame,
    source: &[PacketSlice],
    link: Link,
) -> Option<(RxChecksum, u16)> {
    let first = source.first().filter(|first| first.len() >= ETHERNET_LEN)?;
    let fits = frame.len as usize <= usize::from(link.mtu) + ETHERNET_LEN;
    if frame.is_plain() {
        return fits.then_some((RxChecksum::Unknown, 0));
    }
    let TxChecksum::Partial { start, offset } = frame.checksum else { return None };
    let granted = link.sender.contains(Features::TX_CHECKSUM)
        && link.receiver.contains(Features::RX_CHECKSUM)
        && frame.vlan.is_none();
    if !granted {
        return None;
    }
    if frame.tso_mss > 0 && is_large(frame) {
        let taken = takes_large(frame, first, link);
        return taken.then_some((RxChecksum::Good, frame.tso_mss));
    }
    let end = usize::from(start) + usize::from(offset) + 2;
    (fits && end <= first.len().min(MAX_HEADER)).then_some((RxChecksum::Good, 0))
}

/// What is known of a frame, as its receiver is told it.
pub(super) fn meta_of((checksum, gso_bytes): (RxChecksum, u16)) -> RxFrame {
    RxFrame { checksum, gso_bytes, ..RxFrame::default() }
}

/// Whether a frame that the device would have to cut, and for which it may fill in the checksum, is
/// received as it is.
#[inline(never)]
fn takes_large(frame: &TxFrame, first: &PacketSlice, link: Link) -> bool {
    let TxChecksum::Partial { start, offset } = frame.checksum else { return false };
    link.receiver.contains(Features::LARGE_RECEIVE)
        && may_be_cut(frame, link)
        && Headers::parse(frame, first, start, offset).is_ok()
}

/// The device has to cut the frame.
#[inline]
fn is_large(frame: &TxFrame) -> bool {
    let payload = (frame.len as usize).saturating_sub(usize::from(frame.header_len));
    frame.tso_mss > 0 && payload > usize::from(frame.tso_mss)
}

/// It can, and what comes out of it fits the wire.
#[inline]
fn may_be_cut(frame: &TxFrame, link: Link) -> bool {
    let wire = usize::from(frame.header_len) + usize::from(frame.tso_mss);
    link.sender.contains(Features::TSO4)
        && wire <= usize::from(link.mtu) + ETHERNET_LEN
        && frame.len as usize - ETHERNET_LEN <= usize::from(u16::MAX)
}

/// Gives the frames that arrive at the far end for one that was sent, in order, to `out`.
pub(super) fn carry(
    frame: &TxFrame,
    source: &[PacketSlice],
    link: Link,
    mut out: impl FnMut(&WireFrame<'_>),
) -> Result<(), Misfit> {
    if let Some(known) = untouched(frame, source, link) {
        let meta = meta_of(known);
        out(&WireFrame { header: &[], source, from: 0, len: frame.len as usize, meta });
        return Ok(());
    }
    let Some(first) = source.first() else { return Err(Misfit) };
    if first.len() < ETHERNET_LEN || frame.vlan.is_some() {
        return Err(Misfit);
    }
    let TxChecksum::Partial { start, offset } = frame.checksum else {
        // It is too long; or a TSO frame, which leaves its checksum to the device, always.
        return Err(Misfit);
    };
    if !link.sender.contains(Features::TX_CHECKSUM) {
        return Err(Misfit);
    }
    if is_large(frame) {
        if !may_be_cut(frame, link) {
            return Err(Misfit);
        }
        let headers = Headers::parse(frame, first, start, offset)?;
        cut(frame, source, &headers, link, out);
        return Ok(());
    }
    if frame.len as usize > usize::from(link.mtu) + ETHERNET_LEN {
        return Err(Misfit);
    }
    let start = usize::from(start);
    complete(frame, source, start, start + usize::from(offset), out)
}

/// Fills in the checksum at `field`, which covers everything from `start`.
fn complete(
    frame: &TxFrame,
    source: &[PacketSlice],
    start: usize,
    field: usize,
    mut out: impl FnMut(&WireFrame<'_>),
) -> Result<(), Misfit> {
    let (first, end) = (&source[0], field + 2);
    if end > first.len() || end > MAX_HEADER {
        return Err(Misfit);
    }
    let mut header = [0; MAX_HEADER];
    let header = &mut header[..end];
    header.copy_from_slice(&first[..end]);
    let len = frame.len as usize - end;
    let mut sum = Checksum::new();
    sum.add(&header[start..]);
    for_pieces(source, end, len, |piece| sum.add(piece));
    store_checksum(header, field, sum);
    out(&WireFrame { header, source, from: end, len, meta: RxFrame::default() });
    Ok(())
}

/// RFC 768: a UDP checksum of zero means none, so zero is sent as its other representation. The
/// card does not know the protocol here, and for TCP both are right.
fn store_checksum(header: &mut [u8], at: usize, sum: Checksum) {
    let value = match sum.finish() {
        0 => 0xffff,
        value => value,
    };
    header[at..at + 2].copy_from_slice(&value.to_be_bytes());
}

/// Where the headers of a TCP segment over IPv4 lie, and a copy of them.
struct Headers {
    bytes: [u8; MAX_HEADER],
    len: usize,
    /// Offset of the TCP header.
    tcp: usize,
}

impl Headers {
    fn parse(frame: &TxFrame, first: &[u8], start: u16, offset: u16) -> Result<Headers, Misfit> {
        let (len, tcp) = (usize::from(frame.header_len), usize::from(start));
        if len > first.len() || len > MAX_HEADER || usize::from(offset) != TCP_CHECKSUM {
            return Err(Misfit);
        }
        let mut bytes = [0; MAX_HEADER];
        bytes[..len].copy_from_slice(&first[..len]);
        let ip = &bytes[ETHERNET_LEN..];
        let ip_len = usize::from(ip[0] & 15) * 4;
        let is_tcp4 = bytes[12..14] == [0x08, 0x00] && ip[0] >> 4 == 4 && ip[9] == TCP;
        let is_fragment = ip[6] & 0x3f != 0 || ip[7] != 0;
        if !is_tcp4 || is_fragment || ip_len < 20 || tcp != ETHERNET_LEN + ip_len {
            return Err(Misfit);
        }
        let tcp_len = usize::from(bytes[tcp + 12] >> 4) * 4;
        if tcp_len < 20 || tcp + tcp_len != len {
            Err(Misfit)
        } else {
            Ok(Headers { bytes, len, tcp })
        }
    }

    /// The headers of segment `index`, with `payload` bytes of data behind them, but for the TCP
    /// checksum, whose sum over pseudo-header and header is returned.
    fn of_segment(&self, index: usize, mss: usize, payload: usize, last: bool) -> Headers {
        let Headers { mut bytes, len, tcp } = *self;
        let get16 = |at: usize| u16::from_be_bytes([self.bytes[at], self.bytes[at + 1]]);
        let ip = ETHERNET_LEN;
        let ip_total = (len - ip + payload) as u16;
        bytes[ip + 2..ip + 4].copy_from_slice(&ip_total.to_be_bytes());
        let id = get16(ip + 4).wrapping_add(index as u16);
        bytes[ip + 4..ip + 6].copy_from_slice(&id.to_be_bytes());
        bytes[ip + 10..ip + 12].fill(0);
        let mut sum = Checksum::new();
        sum.add(&bytes[ip..tcp]);
        bytes[ip + 10..ip + 12].copy_from_slice(&sum.finish().to_be_bytes());

        let seq = u32::from(get16(tcp + 4)) << 16 | u32::from(get16(tcp + 6));
        let seq = seq.wrapping_add((index * mss) as u32);
        bytes[tcp + 4..tcp + 8].copy_from_slice(&seq.to_be_bytes());
        if !last {
            // FIN takes the number behind the last byte, and PSH ends the data as a whole.
            bytes[tcp + TCP_FLAGS] &= !(FIN | PSH);
        }
        if index > 0 {
            // RFC 3168 §6.1.2: one reduction of the window is announced by one segment.
            bytes[tcp + TCP_FLAGS] &= !CWR;
        }
        bytes[tcp + TCP_CHECKSUM..tcp + TCP_CHECKSUM + 2].fill(0);
        Headers { bytes, len, tcp }
    }

    /// The sum of pseudo-header (RFC 9293 §3.1) and TCP header.
    fn tcp_sum(&self, payload: usize) -> Checksum {
        let mut sum = Checksum::new();
        sum.add(&self.bytes[ETHERNET_LEN + 12..ETHERNET_LEN + 20]);
        sum.add_u16(u16::from(TCP));
        sum.add_u16((self.len - self.tcp + payload) as u16);
        sum.add(&self.bytes[self.tcp..self.len]);
        sum
    }
}

/// Cuts a frame that is larger than one segment.
fn cut(
    frame: &TxFrame,
    source: &[PacketSlice],
    headers: &Headers,
    link: Link,
    mut out: impl FnMut(&WireFrame<'_>),
) {
    let rx_checksum = link.receiver.contains(Features::RX_CHECKSUM);
    let checksum = if rx_checksum { RxChecksum::Good } else { RxChecksum::Unknown };
    let mss = usize::from(frame.tso_mss);
    let total = frame.len as usize - headers.len;
    let count = total.div_ceil(mss);
    for index in 0..count {
        let len = mss.min(total - index * mss);
        let from = headers.len + index * mss;
        let mut segment = headers.of_segment(index, mss, len, index + 1 == count);
        let mut sum = segment.tcp_sum(len);
        for_pieces(source, from, len, |piece| sum.add(piece));
        let field = segment.tcp + TCP_CHECKSUM;
        segment.bytes[field..field + 2].copy_from_slice(&sum.finish().to_be_bytes());
        let header = &segment.bytes[..segment.len];
        let meta = RxFrame { checksum, ..RxFrame::default() };
        out(&WireFrame { header, source, from, len, meta });
    }
}

#[cfg(test)]
#[path = "offload_tests.rs"]
mod tests;
