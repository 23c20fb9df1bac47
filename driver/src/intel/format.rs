//! What the rings need of a descriptor format, and how a frame's metadata becomes offload fields.

use crate::device::{Features, RssHash, RxChecksum, RxFrame, TxChecksum, TxFrame};
use crate::ring::HEADER_LEN;

/// Shortest frame that is handed to a device: fewer bytes than this hang some (82574 §7.2.5).
pub(crate) const MIN_TX_FRAME: u32 = 17;

/// Most header bytes of a frame that is cut up (82576 §7.2.4.2 and 82574 §7.2.5: 240).
pub(crate) const MAX_TSO_HEADER: usize = 240;

const ETHERNET_LEN: usize = 14;
const VLAN_TYPE: [u8; 2] = [0x81, 0x00];
const VLAN_LEN: usize = 4;
/// Offsets of the checksum fields (RFC 9293 §3.1, RFC 768).
const TCP_CHECKSUM: u16 = 16;
const UDP_CHECKSUM: u16 = 6;
const TCP_MIN_HEADER: usize = 20;

/// Bits of a written-back receive descriptor's second word, in both formats (82576 §7.1.5, 82574
/// §7.1.4): status in bits 0 to 19, errors in bits 20 to 31, length, VLAN tag.
mod rx {
    pub(super) const DD: u64 = 1 << 0;
    pub(super) const EOP: u64 = 1 << 1;
    pub(super) const VP: u64 = 1 << 3;
    pub(super) const UDPCS: u64 = 1 << 4;
    pub(super) const L4CS: u64 = 1 << 5;
    pub(super) const L4E: u64 = 1 << 29;
    pub(super) const IPE: u64 = 1 << 30;
    pub(super) const RXE: u64 = 1 << 31;
}

/// Bits of a written-back receive descriptor's first word that hold the RSS hash and its type,
/// which is 0 where there is no hash.
const HASH: u64 = !0 << 32 | 0xf;

/// Bits of a transmit descriptor's second word that both formats have in the same place.
pub(crate) mod tx {
    pub(crate) const EOP: u64 = 1 << 24;
    pub(crate) const RS: u64 = 1 << 27;
    pub(crate) const DD: u64 = 1 << 32;
}

/// What a device is to do with one frame besides sending it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Offload {
    /// Insert the transport checksum.
    pub(crate) checksum: bool,
    pub(crate) ipv4: bool,
    /// TCP; else UDP.
    pub(crate) tcp: bool,
    /// Bytes of the link header.
    pub(crate) mac_len: u8,
    /// Bytes of the network header with its extensions.
    pub(crate) ip_len: u16,
    /// Offset of the transport header in the frame.
    pub(crate) l4_start: u16,
    /// Offset of the checksum field in the frame.
    pub(crate) checksum_at: u16,
    /// Bytes of the transport header; only with segmentation.
    pub(crate) l4_len: u8,
    /// Bytes of all headers; only with segmentation.
    pub(crate) header_len: u16,
    /// Payload bytes a wire segment; 0 without segmentation.
    pub(crate) mss: u16,
    /// Payload bytes of the whole frame; only with segmentation.
    pub(crate) payload_len: u32,
    /// Tag to insert.
    pub(crate) vlan: Option<u16>,
}

/// The frame's metadata asks for what was not granted, or does not fit the frame or the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused;

impl Offload {
    /// Reads a frame's metadata; `first` is its first segment, which holds all headers.
    ///
    /// # Errors
    /// [`Refused`]: sending it would make the device do something else than was asked for.
    pub(crate) fn of(frame: &TxFrame, first: &[u8], granted: Features) -> Result<Offload, Refused> {
        let mut offload = Offload { vlan: frame.vlan, ..Offload::default() };
        if frame.vlan.is_some() && !granted.contains(Features::VLAN) {
            return Err(Refused);
        }
        let TxChecksum::Partial { start, offset } = frame.checksum else {
            // With TSO the checksum is always the device's affair.
            return if frame.tso_mss == 0 { Ok(offload) } else { Err(Refused) };
        };
        if !granted.contains(Features::TX_CHECKSUM) || first.len() < ETHERNET_LEN {
            return Err(Refused);
        }
        let tagged = first[12..14] == VLAN_TYPE;
        let mac_len = if tagged { ETHERNET_LEN + VLAN_LEN } else { ETHERNET_LEN };
        let version = first.get(mac_len).map(|byte| byte >> 4);
        let end = usize::from(start) + usize::from(offset) + 2;
        let ip_len = usize::from(start).checked_sub(mac_len).ok_or(Refused)?;
        // The fields have 7 bits (MACLEN), 9 bits (IPLEN) and 8 bits (82574's offsets).
        if end > first.len() || end > 255 || ip_len < 20 {
            return Err(Refused);
        }
        offload.checksum = true;
        offload.ipv4 = match version {
            Some(4) => true,
            Some(6) => false,
            _ => return Err(Refused),
        };
        offload.tcp = match offset {
            TCP_CHECKSUM => true,
            UDP_CHECKSUM => false,
            _ => return Err(Refused),
        };
        offload.mac_len = mac_len as u8;
        offload.ip_len = ip_len as u16;
        offload.l4_start = start;
        offload.checksum_at = start + offset;
        if frame.tso_mss > 0 {
            offload.segment(frame, first, granted)?;
        }
        Ok(offload)
    }

    fn segment(&mut self, frame: &TxFrame, first: &[u8], granted: Features) -> Result<(), Refused> {
        let feature = if self.ipv4 { Features::TSO4 } else { Features::TSO6 };
        let header_len = usize::from(frame.header_len);
        let l4_len = header_len.checked_sub(usize::from(self.l4_start)).ok_or(Refused)?;
        let fits = l4_len >= TCP_MIN_HEADER && header_len <= first.len().min(MAX_TSO_HEADER);
        let payload_len = frame.len.checked_sub(u32::from(frame.header_len)).ok_or(Refused)?;
        if !granted.contains(feature) || !self.tcp || !fits || payload_len == 0 {
            return Err(Refused);
        }
        self.l4_len = l4_len as u8;
        self.header_len = frame.header_len;
        self.mss = frame.tso_mss;
        self.payload_len = payload_len;
        Ok(())
    }

    /// The headers of a frame that is cut up, as the device wants them (82576 §7.2.4.7): lengths
    /// and the IPv4 checksum zero, since it fills them in for each segment, and the pseudo-header's
    /// sum without the length. Our own frames carry the sum with the whole length.
    pub(crate) fn segment_headers(&self, first: &[u8]) -> ([u8; HEADER_LEN], usize) {
        let len = usize::from(self.header_len).min(first.len()).min(HEADER_LEN);
        let mut headers = [0; HEADER_LEN];
        headers[..len].copy_from_slice(&first[..len]);
        let ip = usize::from(self.mac_len);
        if self.ipv4 {
            headers[ip + 2..ip + 4].fill(0);
            headers[ip + 10..ip + 12].fill(0);
        } else {
            headers[ip + 4..ip + 6].fill(0);
        }
        let at = usize::from(self.checksum_at);
        let sum = u32::from(u16::from_be_bytes([headers[at], headers[at + 1]]));
        let l4_bytes = self.payload_len + u32::from(self.l4_len);
        let l4_bytes = (l4_bytes >> 16) + (l4_bytes & 0xffff);
        // RFC 1071: subtracting is adding the ones' complement.
        let sum = sum + u32::from(!(l4_bytes as u16));
        let sum = ((sum >> 16) + (sum & 0xffff)) as u16;
        headers[at..at + 2].copy_from_slice(&sum.to_be_bytes());
        (headers, len)
    }
}

/// A descriptor format.
pub(crate) trait Format: std::fmt::Debug + 'static {
    /// A receive descriptor for a buffer, to be given to the device.
    fn rx_free(iova: u64) -> [u64; 2];

    /// The context that the frame needs, if it needs one. Two frames with the same context can
    /// share it.
    fn context(offload: &Offload, index: u8) -> Option<[u64; 2]>;

    /// True if the frame leaves its context as it was, so that the next one can share it.
    fn spares_context(offload: &Offload) -> bool;

    /// The second word of each of the frame's data descriptors, without length, EOP and RS.
    fn template(offload: &Offload, len: u32, index: u8) -> u64;

    /// What a byte more adds to the second word of a frame that is one segment, sent as it is.
    const PLAIN_BYTE: u64;
}

/// True if the device has finished with a receive descriptor.
#[inline]
pub(crate) fn rx_done(status: u64) -> bool {
    status & rx::DD != 0
}

/// Finished, the frame's end, and undamaged: what tells that a descriptor holds a frame of its own.
const WHOLE_MASK: u64 = rx::DD | rx::EOP | rx::RXE;
const WHOLE: u64 = rx::DD | rx::EOP;

/// Bytes in the buffer of a finished descriptor, as the device claims.
#[inline]
pub(crate) fn rx_len(status: u64) -> u16 {
    (status >> 32) as u16
}

/// True if the frame ends here.
#[inline]
pub(crate) fn rx_ends(status: u64) -> bool {
    status & rx::EOP != 0
}

/// True if the device says that the frame is damaged.
#[inline]
pub(crate) fn rx_damaged(status: u64) -> bool {
    status & rx::RXE != 0
}

/// Which parts of a written-back descriptor are to be believed: what was granted. The rest is
/// masked away in one step, and reads as if the device had said nothing.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RxMask {
    believed: [u64; 2],
    /// Bits of the second word that tell a plain frame, and what they are in one.
    telling: u64,
    plain: u64,
    /// The verdict on a plain frame.
    verdict: RxChecksum,
}

impl RxMask {
    pub(crate) fn of(granted: Features) -> RxMask {
        let if_granted = |feature, bits| if granted.contains(feature) { bits } else { 0 };
        let verdict = if_granted(Features::RX_CHECKSUM, rx::L4CS);
        let tag = if_granted(Features::VLAN, rx::VP);
        let hash = if_granted(Features::RSS_HASH, HASH);
        let errors = if_granted(Features::RX_CHECKSUM, rx::L4E | rx::IPE);
        RxMask {
            believed: [hash, verdict | tag | !(rx::L4CS | rx::VP)],
            telling: WHOLE_MASK | verdict | errors | tag,
            plain: WHOLE | verdict,
            verdict: if verdict == 0 { RxChecksum::Unknown } else { RxChecksum::Good },
        }
    }

    /// How the second word differs from that of a plain frame, which is what most descriptors hold:
    /// whole, undamaged, without a tag, its checksum found right if the device looks at checksums at
    /// all. The length, which may be any, is in the difference as it is.
    #[inline]
    pub(crate) fn difference(&self, status: u64) -> u64 {
        status ^ self.plain
    }

    /// True if the difference is that of a whole, undamaged frame in one descriptor.
    #[inline]
    pub(crate) fn is_whole(difference: u64) -> bool {
        difference & WHOLE_MASK == 0
    }

    /// True if the difference is that of a plain frame.
    #[inline]
    pub(crate) fn is_plain(&self, difference: u64) -> bool {
        difference & self.telling == 0
    }

    /// The verdict on every plain frame.
    #[inline]
    pub(crate) fn plain_verdict(&self) -> RxChecksum {
        self.verdict
    }

    /// Metadata of a plain frame, given the verdict, of which nothing but the hash is its own.
    #[inline]
    pub(crate) fn plain_meta(&self, checksum: RxChecksum, first_word: u64) -> RxFrame {
        RxFrame { checksum, rss_hash: self.hash(first_word), ..RxFrame::default() }
    }

    #[inline]
    fn hash(&self, first_word: u64) -> RssHash {
        RssHash::from_word(first_word & self.believed[0])
    }
}

/// Metadata of a frame from its last descriptor.
pub(crate) fn rx_meta(descriptor: [u64; 2], mask: &RxMask) -> RxFrame {
    let status = descriptor[1] & mask.believed[1];
    let rss_hash = mask.hash(descriptor[0]);
    let vlan = (status & rx::VP != 0).then_some((status >> 48) as u16);
    RxFrame { checksum: rx_verdict(status), rss_hash, vlan: vlan.into(), ..RxFrame::default() }
}

fn rx_verdict(status: u64) -> RxChecksum {
    if status & rx::L4CS == 0 {
        return RxChecksum::Unknown;
    }
    match status & (rx::L4E | rx::IPE | rx::UDPCS) {
        0 | rx::UDPCS => RxChecksum::Good,
        rx::L4E => RxChecksum::Bad,
        // A UDP checksum of 0 means that there is none (RFC 768), and devices differ in what they
        // make of it; behind a wrong IP header nothing is certain. Software decides.
        _ => RxChecksum::Unknown,
    }
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
