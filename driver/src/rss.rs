//! Receive-side scaling: the hash that network cards deal flows out to their queues by.
//!
//! It is the Toeplitz hash over addresses and ports in network order, with the key that the
//! RSS specification publishes: an engine that computes it for a 4-tuple knows on which queue the
//! flow's frames will arrive.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddrV4};

/// The key of the RSS specification's verification suite, which most drivers load by default.
pub const DEFAULT_KEY: [u8; 40] = [
    0x6d, 0x5a, 0x56, 0xda, 0x25, 0x5b, 0x0e, 0xc2, 0x41, 0x67, 0x25, 0x3d, 0x43, 0xa3, 0x8f, 0xb0,
    0xd0, 0xca, 0x2b, 0xcb, 0xae, 0x7b, 0x30, 0xb4, 0x77, 0xcb, 0x2d, 0xa3, 0x80, 0x30, 0xf2, 0x0c,
    0x6a, 0x42, 0xb7, 0x3b, 0xbe, 0xac, 0x01, 0xfa,
];

/// A key of sixteen bits repeated, under which a flow's hash is that of its way back: positions of a
/// key that are sixteen bits apart are alike, so addresses, and ports, can change places. Both ends
/// of a connection then lie on queues of one number, at the price of a hash that spreads less well.
pub const SYMMETRIC_KEY: [u8; 40] = {
    let mut key = [0x6d; 40];
    let mut at = 1;
    while at < key.len() {
        key[at] = 0x5a;
        at += 2;
    }
    key
};

/// Entries of the indirection table, as the 82599 has it.
pub const TABLE_LEN: usize = 128;

/// The Toeplitz hash of at most 36 bytes under a 40-byte key: for every bit set in the input, the
/// 32 bits of the key that begin at the same position are added, carry-less.
///
/// # Panics
/// If `input` is longer than the key allows.
pub fn toeplitz(key: &[u8; 40], input: &[u8]) -> u32 {
    assert!(input.len() + 4 <= key.len(), "the key is too short for this input");
    let mut hash = 0;
    let mut window = u64::from(u32::from_be_bytes([key[0], key[1], key[2], key[3]])) << 32;
    for (i, byte) in input.iter().enumerate() {
        window |= u64::from(key[i + 4]) << 24;
        for bit in (0..8).rev() {
            if byte >> bit & 1 == 1 {
                hash ^= (window >> 32) as u32;
            }
            window <<= 1;
        }
    }
    hash
}

/// Bytes that are hashed for a TCP or UDP flow over IPv4: both addresses, both ports.
const TUPLE_V4: usize = 12;

/// The hash under one key, computed by table, for every packet if need be.
#[derive(Clone, PartialEq, Eq)]
pub struct FlowHash {
    /// What each value of each byte of the input adds to the hash. It is linear: the hash of the
    /// whole is the sum, carry-less, of the hashes of its bytes.
    sums: Box<[[u32; 256]; TUPLE_V4]>,
}

impl FlowHash {
    /// The hash under `key`.
    pub fn new(key: &[u8; 40]) -> FlowHash {
        let mut sums = Box::new([[0; 256]; TUPLE_V4]);
        for (at, row) in sums.iter_mut().enumerate() {
            for value in 1..row.len() {
                let lowest = value & value.wrapping_neg();
                row[value] = if value == lowest {
                    let mut input = [0; TUPLE_V4];
                    input[at] = value as u8;
                    toeplitz(key, &input)
                } else {
                    row[lowest] ^ row[value ^ lowest]
                };
            }
        }
        FlowHash { sums }
    }

    /// The hash of a flow over IPv4, seen from the receiver; over the addresses alone without ports,
    /// which is what ports of zero come to.
    pub fn v4(&self, source: Ipv4Addr, destination: Ipv4Addr, ports: Option<(u16, u16)>) -> u32 {
        let (source_port, destination_port) = ports.unwrap_or((0, 0));
        let mut input = [0; TUPLE_V4];
        input[..4].copy_from_slice(&source.octets());
        input[4..8].copy_from_slice(&destination.octets());
        input[8..10].copy_from_slice(&source_port.to_be_bytes());
        input[10..].copy_from_slice(&destination_port.to_be_bytes());
        let pairs = self.sums.iter().zip(input);
        pairs.fold(0, |hash, (row, byte)| hash ^ row[usize::from(byte)])
    }

    /// The hash of a frame, of which the headers lie in `first`: over the 4-tuple of whole TCP and
    /// UDP packets over IPv4, over the addresses of other IPv4 packets and of fragments (only the
    /// first one has ports, and all have to meet). `None` for everything else.
    pub fn frame(&self, first: &[u8]) -> Option<u32> {
        let ip = first.get(14..)?;
        if first[12..14] != [0x08, 0x00] || ip.len() < 20 || ip[0] >> 4 != 4 {
            return None;
        }
        let address = |at: usize| Ipv4Addr::new(ip[at], ip[at + 1], ip[at + 2], ip[at + 3]);
        let more_fragments = ip[6] & 0x20 != 0;
        let fragment = more_fragments || u16::from_be_bytes([ip[6] & 0x1f, ip[7]]) != 0;
        let transport = ip.get(usize::from(ip[0] & 15) * 4..).unwrap_or(&[]);
        let ports = match (ip[9], transport) {
            (6 | 17, [a, b, c, d, ..]) if !fragment => {
                Some((u16::from_be_bytes([*a, *b]), u16::from_be_bytes([*c, *d])))
            }
            _ => None,
        };
        Some(self.v4(address(12), address(16), ports))
    }
}

impl fmt::Debug for FlowHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("FlowHash(…)")
    }
}

/// How a device deals TCP and UDP flows over IPv4 out to its queues: what it computes, computed
/// here.
#[derive(Clone, PartialEq, Eq)]
pub struct Steering {
    hash: FlowHash,
    table: [u8; TABLE_LEN],
}

impl Steering {
    /// The device hashes with `key` and finds the queue in `table` by the hash's low seven bits.
    pub fn new(key: &[u8; 40], table: [u8; TABLE_LEN]) -> Steering {
        Steering { hash: FlowHash::new(key), table }
    }

    /// The device hashes with `key`, and its table names `queues` queues in turn.
    pub fn in_turn(key: &[u8; 40], queues: u16) -> Steering {
        Steering::new(key, std::array::from_fn(|at| queue_of(at as u32, queues) as u8))
    }

    /// The queue on which the flow's frames from `remote` arrive.
    pub fn queue_v4(&self, remote: SocketAddrV4, local: SocketAddrV4) -> u16 {
        let ports = Some((remote.port(), local.port()));
        self.queue_of(self.hash.v4(*remote.ip(), *local.ip(), ports))
    }

    /// The queue on which a frame arrives, of which the headers lie in `first`: the first one if it
    /// has no hash.
    pub fn queue_of_frame(&self, first: &[u8]) -> u16 {
        self.hash.frame(first).map_or(0, |hash| self.queue_of(hash))
    }

    fn queue_of(&self, hash: u32) -> u16 {
        u16::from(self.table[hash as usize % TABLE_LEN])
    }
}

impl fmt::Debug for Steering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Steering").field("table", &self.table).finish_non_exhaustive()
    }
}

/// The queue of `queues` that a hash leads to: through a table of 128 entries that names the queues
/// in turn.
pub fn queue_of(hash: u32, queues: u16) -> u16 {
    (hash as usize % TABLE_LEN) as u16 % queues.max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The hash without tables.
    fn plain(key: &[u8; 40], source: Ipv4Addr, destination: Ipv4Addr, ports: [u16; 2]) -> u32 {
        let ports = ports.map(u16::to_be_bytes).concat();
        let input = [&source.octets()[..], &destination.octets(), &ports].concat();
        toeplitz(key, &input)
    }

    #[test]
    fn tables_give_what_the_hash_gives() {
        let hash = FlowHash::new(&DEFAULT_KEY);
        let steering = Steering::new(&DEFAULT_KEY, std::array::from_fn(|i| i as u8));
        for n in 0..1000u32 {
            let remote = SocketAddrV4::new(Ipv4Addr::from(n.wrapping_mul(0x9e37_79b9)), n as u16);
            let local = SocketAddrV4::new(Ipv4Addr::from(!n), 65_535 - n as u16);
            let ports = [remote.port(), local.port()];
            let wanted = plain(&DEFAULT_KEY, *remote.ip(), *local.ip(), ports);
            assert_eq!(hash.v4(*remote.ip(), *local.ip(), Some(ports.into())), wanted);
            assert_eq!(u32::from(steering.queue_v4(remote, local)), wanted % TABLE_LEN as u32);
        }
    }

    #[test]
    fn under_the_symmetric_key_both_ways_have_one_queue() {
        let steering = Steering::in_turn(&SYMMETRIC_KEY, 16);
        let mut seen = [0; 16];
        for n in 0..1000u32 {
            let one = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 32_768 + n as u16);
            let other = SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 80);
            assert_eq!(steering.queue_v4(one, other), steering.queue_v4(other, one));
            seen[usize::from(steering.queue_v4(one, other))] += 1;
        }
        assert!(seen.iter().all(|&flows| flows > 0), "every queue has some: {seen:?}");
    }

    /// The verification suite of the RSS specification, for IPv4.
    #[test]
    fn published_test_vectors() {
        let hash = FlowHash::new(&DEFAULT_KEY);
        for (source, destination, addresses, with_ports) in [
            (([66, 9, 149, 187], 2794), ([161, 142, 100, 80], 1766), 0x323e_8fc2, 0x51cc_c178),
            (([199, 92, 111, 2], 14230), ([65, 69, 140, 83], 4739), 0xd718_262a, 0xc626_b0ea),
            (([24, 19, 198, 95], 12898), ([12, 22, 207, 184], 38024), 0xd2d0_a5de, 0x5c2b_394a),
        ] {
            let (from, to) = (Ipv4Addr::from(source.0), Ipv4Addr::from(destination.0));
            assert_eq!(hash.v4(from, to, None), addresses);
            assert_eq!(hash.v4(from, to, Some((source.1, destination.1))), with_ports);
        }
    }

    #[test]
    fn a_frame_hashes_as_its_tuple_and_a_fragment_as_its_addresses() {
        let builder = etherparse::PacketBuilder::ethernet2([1; 6], [2; 6])
            .ipv4([66, 9, 149, 187], [161, 142, 100, 80], 64)
            .tcp(2794, 1766, 0, 0);
        let hash = FlowHash::new(&DEFAULT_KEY);
        let mut frame = Vec::new();
        builder.write(&mut frame, &[]).unwrap();
        assert_eq!(hash.frame(&frame), Some(0x51cc_c178));
        frame[20] |= 0x20;
        assert_eq!(hash.frame(&frame), Some(0x323e_8fc2));
        frame[12] = 0x86;
        assert_eq!(hash.frame(&frame), None);
        assert_eq!(hash.frame(&frame[..20]), None);
        assert_eq!(hash.frame(&[]), None);
    }

    #[test]
    fn every_queue_is_reached() {
        for queues in [1, 2, 3, 16] {
            let reached: std::collections::BTreeSet<_> =
                (0..128).map(|hash| queue_of(hash, queues)).collect();
            assert_eq!(reached, (0..queues).collect());
        }
    }
}
