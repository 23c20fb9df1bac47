//! What a NIC understands of a frame: where its headers are, its checksums, its flow.

/// Adds bytes to a ones'-complement sum (RFC 1071), the plain way.
pub(super) fn sum(mut total: u32, bytes: &[u8]) -> u32 {
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        total += u32::from(u16::from_be_bytes([pair[0], low]));
        total = (total & 0xffff) + (total >> 16);
    }
    total
}

/// The transport protocols whose checksums devices know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

impl Transport {
    pub(super) fn checksum_offset(self) -> usize {
        match self {
            Transport::Tcp => 16,
            Transport::Udp => 6,
        }
    }
}

/// An IP packet in a frame.
#[derive(Clone, Copy, Debug)]
pub(super) struct Packet {
    pub(super) ip_at: usize,
    pub(super) ipv4: bool,
    /// Where the IP packet ends: frames may be padded.
    pub(super) end: usize,
    pub(super) l4_at: usize,
    pub(super) transport: Option<Transport>,
}

impl Packet {
    /// Understands an untagged frame; `None` for everything that is not IP or is cut short.
    pub(super) fn parse(frame: &[u8]) -> Option<Packet> {
        let ip_at = 14;
        let ip = frame.get(ip_at..)?;
        let word = |at: usize| Some(u16::from_be_bytes([*ip.get(at)?, *ip.get(at + 1)?]));
        let (ipv4, header, len, protocol) = match u16::from_be_bytes([frame[12], frame[13]]) {
            0x0800 => {
                let header = usize::from(ip.first()? & 15) * 4;
                let fragment = word(6)? & 0x3fff != 0;
                let protocol = if fragment { 0 } else { *ip.get(9)? };
                (true, header, usize::from(word(2)?), protocol)
            }
            0x86dd => (false, 40, usize::from(word(4)?) + 40, *ip.get(6)?),
            _ => return None,
        };
        let (l4_at, end) = (ip_at + header, ip_at + len);
        if end > frame.len() || l4_at > end || header < 20 {
            return None;
        }
        let transport = match (protocol, end - l4_at) {
            (6, 20..) => Some(Transport::Tcp),
            (17, 8..) => Some(Transport::Udp),
            _ => None,
        };
        Some(Packet { ip_at, ipv4, end, l4_at, transport })
    }

    /// Source and destination address.
    pub(super) fn addresses<'a>(&self, frame: &'a [u8]) -> &'a [u8] {
        if self.ipv4 {
            &frame[self.ip_at + 12..self.ip_at + 20]
        } else {
            &frame[self.ip_at + 8..self.ip_at + 40]
        }
    }

    fn pseudo_header(&self, frame: &[u8]) -> u32 {
        let protocol = match self.transport {
            Some(Transport::Tcp) => 6,
            Some(Transport::Udp) => 17,
            None => 0,
        };
        let len = (self.end - self.l4_at) as u32;
        sum(protocol + (len & 0xffff) + (len >> 16), self.addresses(frame))
    }

    /// True if the IPv4 header's checksum is right; IPv6 has none.
    pub(super) fn ip_checksum_holds(&self, frame: &[u8]) -> bool {
        !self.ipv4 || sum(0, &frame[self.ip_at..self.l4_at]) == 0xffff
    }

    /// True if the transport checksum is right.
    pub(super) fn l4_checksum_holds(&self, frame: &[u8]) -> bool {
        sum(self.pseudo_header(frame), &frame[self.l4_at..self.end]) == 0xffff
    }

    /// What the flow's hash is over, and the type of the hash (82576 §7.1.1.7.1).
    pub(super) fn hash_input(&self, frame: &[u8], types: u32) -> Option<(Vec<u8>, u8)> {
        let mut input = self.addresses(frame).to_vec();
        let with_ports = match (self.ipv4, self.transport) {
            (true, Some(Transport::Tcp)) if types & 1 << 16 != 0 => Some(1),
            (true, Some(Transport::Udp)) if types & 1 << 22 != 0 => Some(7),
            (false, Some(Transport::Tcp)) if types & (1 << 21 | 1 << 18) != 0 => Some(6),
            (false, Some(Transport::Udp)) if types & 1 << 23 != 0 => Some(8),
            _ => None,
        };
        if let Some(kind) = with_ports {
            input.extend_from_slice(&frame[self.l4_at..self.l4_at + 4]);
            return Some((input, kind));
        }
        match self.ipv4 {
            true if types & 1 << 17 != 0 => Some((input, 2)),
            false if types & 1 << 20 != 0 => Some((input, 5)),
            _ => None,
        }
    }
}

/// The Toeplitz hash by its definition: a 32-bit window slides over the key, bit by bit.
pub(super) fn toeplitz(key: &[u8; 40], input: &[u8]) -> u32 {
    let bit = |i: usize| key[i / 8] >> (7 - i % 8) & 1;
    let mut hash = 0;
    for (i, byte) in input.iter().enumerate() {
        for b in 0..8 {
            if byte >> (7 - b) & 1 == 1 {
                let at = i * 8 + b;
                hash ^= (at..at + 32).fold(0u32, |window, k| window << 1 | u32::from(bit(k)));
            }
        }
    }
    hash
}
