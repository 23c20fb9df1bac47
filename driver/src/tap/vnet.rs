//! `struct virtio_net_hdr` (virtio 1.2 §5.1.6), which goes before every frame of a tap with offloads.
//!
//! ```text
//!   0      1         2        4         6           8            10
//!   flags  gso_type  hdr_len  gso_size  csum_start  csum_offset
//! ```
//! A tap speaks it in the machine's own byte order unless told otherwise.

use crate::device::{Features, RxChecksum, RxFrame, TxChecksum, TxFrame};

/// Bytes in the header.
pub(super) const HEADER_LEN: usize = 10;

/// Bytes in an Ethernet header.
pub(super) const ETHERNET_LEN: usize = 14;

const NEEDS_CSUM: u8 = 1;
const DATA_VALID: u8 = 2;
const GSO_NONE: u8 = 0;
const GSO_TCPV4: u8 = 1;
const GSO_TCPV6: u8 = 4;
const GSO_ECN: u8 = 0x80;

const ETHERTYPE_IPV4: [u8; 2] = [0x08, 0x00];
const ETHERTYPE_IPV6: [u8; 2] = [0x86, 0xdd];
/// Offset of the byte in a TCP header that holds `CWR` (RFC 9293 §3.1).
const TCP_FLAGS: usize = 13;
const TCP_CWR: u8 = 0x80;

/// Largest frame that the kernel takes: an IP packet of 65,535 bytes behind an Ethernet header.
const MAX_FRAME: u32 = 65_535 + ETHERNET_LEN as u32;

/// The header for a frame to send, or `None` where its metadata asks for what was not granted or
/// does not fit the frame: the kernel would misread it. `first` is the frame's first segment.
pub(super) fn encode(frame: &TxFrame, first: &[u8], granted: Features) -> Option<[u8; HEADER_LEN]> {
    if frame.vlan.is_some() || frame.len > MAX_FRAME || first.len() < ETHERNET_LEN {
        return None;
    }
    let mut header = [0; HEADER_LEN];
    let mut put = |at: usize, value: u16| {
        header[at..at + 2].copy_from_slice(&value.to_ne_bytes());
    };
    let TxChecksum::Partial { start, offset } = frame.checksum else {
        return (frame.tso_mss == 0).then_some(header);
    };
    let field_end = usize::from(start) + usize::from(offset) + 2;
    if !granted.contains(Features::TX_CHECKSUM) || field_end > first.len() {
        return None;
    }
    put(6, start);
    put(8, offset);
    let mut gso_type = GSO_NONE;
    if frame.tso_mss > 0 {
        let header_len = usize::from(frame.header_len);
        if header_len > first.len() || header_len < usize::from(start) + TCP_FLAGS + 1 {
            return None;
        }
        // A frame of one segment is no GSO frame to the kernel, whatever its header says.
        if frame.len as usize - header_len > usize::from(frame.tso_mss) {
            gso_type = gso_type_of(first, granted)?;
            if first[usize::from(start) + TCP_FLAGS] & TCP_CWR != 0 {
                gso_type |= GSO_ECN;
            }
            put(2, frame.header_len);
            put(4, frame.tso_mss);
        }
    }
    header[0] = NEEDS_CSUM;
    header[1] = gso_type;
    Some(header)
}

fn gso_type_of(first: &[u8], granted: Features) -> Option<u8> {
    let (feature, gso_type) = match [first[12], first[13]] {
        ETHERTYPE_IPV4 => (Features::TSO4, GSO_TCPV4),
        ETHERTYPE_IPV6 => (Features::TSO6, GSO_TCPV6),
        _ => return None,
    };
    granted.contains(feature).then_some(gso_type)
}

/// What the header of a received frame of `len` bytes says, or `None` where it contradicts the
/// frame or what was granted.
pub(super) fn decode(header: [u8; HEADER_LEN], len: usize, granted: Features) -> Option<RxFrame> {
    let get = |at: usize| u16::from_ne_bytes([header[at], header[at + 1]]);
    let (flags, gso_type, gso_bytes) = (header[0], header[1], get(4));
    let checksum = if flags & NEEDS_CSUM != 0 {
        // The sender is this very machine and left the checksum to us: there is nothing to verify.
        let field_end = usize::from(get(6)) + usize::from(get(8)) + 2;
        if field_end > len || !granted.contains(Features::RX_CHECKSUM) {
            return None;
        }
        RxChecksum::Good
    } else if flags & DATA_VALID != 0 && granted.contains(Features::RX_CHECKSUM) {
        RxChecksum::Good
    } else {
        RxChecksum::Unknown
    };
    let gso_bytes = match gso_type & !GSO_ECN {
        GSO_NONE => 0,
        GSO_TCPV4 | GSO_TCPV6 if gso_bytes > 0 && granted.contains(Features::LARGE_RECEIVE) => {
            gso_bytes
        }
        _ => return None,
    };
    Some(RxFrame { checksum, gso_bytes, ..RxFrame::default() })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Features = Features::all();

    fn first_segment(ethertype: [u8; 2], tcp_flags: u8) -> [u8; 54] {
        let mut bytes = [0; 54];
        bytes[12..14].copy_from_slice(&ethertype);
        bytes[34 + TCP_FLAGS] = tcp_flags;
        bytes
    }

    fn tso(len: u32) -> TxFrame {
        TxFrame {
            count: 2,
            len,
            checksum: TxChecksum::Partial { start: 34, offset: 16 },
            tso_mss: 1460,
            header_len: 54,
            vlan: None,
        }
    }

    fn fields(header: [u8; HEADER_LEN]) -> (u8, u8, [u16; 4]) {
        let at = |i: usize| u16::from_ne_bytes([header[i], header[i + 1]]);
        (header[0], header[1], [at(2), at(4), at(6), at(8)])
    }

    #[test]
    fn offload_requests_become_header_fields() {
        let v4 = first_segment(ETHERTYPE_IPV4, 0);
        let plain = TxFrame { len: 54, ..TxFrame::default() };
        assert_eq!(encode(&plain, &v4, ALL), Some([0; HEADER_LEN]));
        let header = encode(&tso(60_000), &v4, ALL).unwrap();
        assert_eq!(fields(header), (NEEDS_CSUM, GSO_TCPV4, [54, 1460, 34, 16]));
        let v6 = first_segment(ETHERTYPE_IPV6, TCP_CWR);
        assert_eq!(encode(&tso(60_000), &v6, ALL).unwrap()[1], GSO_TCPV6 | GSO_ECN);
        let one = encode(&tso(54 + 1460), &v4, ALL).unwrap();
        assert_eq!(fields(one), (NEEDS_CSUM, GSO_NONE, [0, 0, 34, 16]));
    }

    #[test]
    fn requests_that_do_not_fit_are_refused() {
        let v4 = first_segment(ETHERTYPE_IPV4, 0);
        let without = |f: Features| ALL.difference(f);
        assert_eq!(encode(&tso(60_000), &v4, without(Features::TX_CHECKSUM)), None);
        assert_eq!(encode(&tso(60_000), &v4, without(Features::TSO4)), None);
        assert_eq!(encode(&tso(70_000), &v4, ALL), None);
        assert_eq!(encode(&tso(60_000), &v4[..53], ALL), None);
        assert_eq!(encode(&tso(60_000), &first_segment([8, 6], 0), ALL), None);
        let unfinished = TxFrame { checksum: TxChecksum::Complete, ..tso(60_000) };
        assert_eq!(encode(&unfinished, &v4, ALL), None);
        let tagged = TxFrame { len: 54, vlan: Some(1), ..TxFrame::default() };
        assert_eq!(encode(&tagged, &v4, ALL), None);
    }

    #[test]
    fn received_metadata_is_believed_only_where_it_fits() {
        let header = |flags, gso_type, gso: u16, start: u16, offset: u16| {
            let mut h = [0; HEADER_LEN];
            (h[0], h[1]) = (flags, gso_type);
            h[4..6].copy_from_slice(&gso.to_ne_bytes());
            h[6..8].copy_from_slice(&start.to_ne_bytes());
            h[8..10].copy_from_slice(&offset.to_ne_bytes());
            h
        };
        let meta = decode(header(NEEDS_CSUM, GSO_TCPV4, 1448, 34, 16), 60_000, ALL).unwrap();
        assert_eq!((meta.checksum, meta.gso_bytes), (RxChecksum::Good, 1448));
        let valid = decode(header(DATA_VALID, 0, 0, 0, 0), 60, ALL).unwrap();
        assert_eq!(valid.checksum, RxChecksum::Good);
        let nothing = decode(header(DATA_VALID, 0, 0, 0, 0), 60, Features::empty()).unwrap();
        assert_eq!(nothing.checksum, RxChecksum::Unknown);
        for bad in [
            header(NEEDS_CSUM, 0, 0, 34, 25),
            header(NEEDS_CSUM, 0, 0, u16::MAX, u16::MAX),
            header(0, GSO_TCPV4, 0, 0, 0),
            header(0, 3, 1000, 0, 0),
        ] {
            assert_eq!(decode(bad, 60, ALL), None, "{bad:?}");
        }
        let large = header(NEEDS_CSUM, GSO_TCPV4, 1448, 34, 16);
        assert_eq!(decode(large, 60_000, Features::RX_CHECKSUM), None);
        assert_eq!(decode(header(NEEDS_CSUM, 0, 0, 34, 16), 60, Features::empty()), None);
    }
}
