//! What the frames of one flow have in common in front of their segments and datagrams: who sends them,
//! to whom, and that they are plain.
//!
//! ```text
//!   Ethernet │ ▓▓▓▓▓▓ addresses, type ▓▓▓▓▓▓ │
//!   IPv4     │ ▓ version │ TOS │ length │ ident │ ▓▓ no fragment, TTL, protocol ▓▓ │ sum │ ▓▓ addresses ▓▓ │
//!   TCP, UDP │ ▓▓ ports ▓▓ │ …                          ▓ is the same in all
//! ```
//!
//! A frame that looks like an earlier one that was found right in all of this need not be asked again.
//! What is left is its length and the sum of its IPv4 header.

use super::{ethernet, ipv4};

/// Bytes up to the ports and with them.
const HEAD_LEN: usize = ethernet::LEN + ipv4::LEN + 4;

/// The front of an Ethernet frame with an IPv4 packet without options.
pub(crate) type Head = [u8; HEAD_LEN];

/// Where the fields lie in it.
mod at {
    use crate::wire::{ethernet, ipv4};

    pub(super) const VERSION: usize = ethernet::LEN;
    pub(super) const TOS: usize = VERSION + 1;
    pub(super) const TOTAL_LEN: usize = VERSION + 2;
    pub(super) const IDENT: usize = VERSION + 4;
    pub(super) const FRAGMENT: usize = VERSION + 6;
    pub(super) const PROTOCOL: usize = VERSION + 9;
    pub(super) const CHECKSUM: usize = VERSION + 10;
    pub(super) const ADDRESSES: usize = VERSION + 12;
    pub(super) const PORTS: usize = ethernet::LEN + ipv4::LEN;
}

/// Everything of the second word but the TOS, its last byte.
const WITHOUT_TOS: u64 = u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0]);

/// How many [places](place) there are.
pub(crate) const PLACES: usize = 256;

/// What is the same in all frames of a flow. Words as they lie in memory: they are only compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Envelope {
    /// Most of the link addresses,
    front: u64,
    /// the rest, the type and the version.
    kind: u64,
    /// No fragment, TTL and protocol.
    plain: u32,
    ports: u32,
    addresses: u64,
    /// The sum of what is the same in the IPv4 header, but for the version.
    sum: u32,
}

impl Envelope {
    /// What no frame has: in it stands what is never looked at.
    pub(crate) const NOBODYS: Envelope =
        Envelope { front: 0, kind: !WITHOUT_TOS, plain: 0, ports: 0, addresses: 0, sum: 0 };

    /// That of a frame.
    pub(crate) fn of(head: &Head) -> Envelope {
        let halves = [at::FRAGMENT, at::FRAGMENT + 2, at::ADDRESSES, at::ADDRESSES + 2]
            .into_iter()
            .chain([at::ADDRESSES + 4, at::ADDRESSES + 6]);
        Envelope {
            front: u64::from_ne_bytes(field(head, 0)),
            kind: u64::from_ne_bytes(field(head, 8)) & WITHOUT_TOS,
            plain: u32::from_ne_bytes(field(head, at::FRAGMENT)),
            ports: u32::from_ne_bytes(field(head, at::PORTS)),
            addresses: u64::from_ne_bytes(field(head, at::ADDRESSES)),
            sum: halves.map(|at| half(head, at)).sum(),
        }
    }

    /// True if the frame has it.
    #[inline(always)]
    pub(crate) fn is_of(&self, head: &Head) -> bool {
        self.addresses == u64::from_ne_bytes(field(head, at::ADDRESSES))
            && self.ports == u32::from_ne_bytes(field(head, at::PORTS))
            && self.plain == u32::from_ne_bytes(field(head, at::FRAGMENT))
            && self.front == u64::from_ne_bytes(field(head, 0))
            && self.kind == u64::from_ne_bytes(field(head, 8)) & WITHOUT_TOS
    }

    /// True if the sum of the IPv4 header is right, of a frame that has this envelope.
    #[inline(always)]
    pub(crate) fn is_summed_right(&self, head: &Head) -> bool {
        let lengths = half(head, at::VERSION) + half(head, at::TOTAL_LEN);
        let sum = self.sum + lengths + half(head, at::IDENT) + half(head, at::CHECKSUM);
        // It is not zero: there is a version. So it is that of all ones if 2^16 - 1 divides it.
        sum.is_multiple_of(0xffff)
    }
}

/// Where a flow's envelope is kept: one of [`PLACES`], as well spread as peers let it be.
#[inline(always)]
pub(crate) fn place(head: &Head) -> usize {
    let sender = u32::from_ne_bytes(field(head, at::ADDRESSES));
    let ports = u32::from_ne_bytes(field(head, at::PORTS));
    ((sender ^ ports).wrapping_mul(0x9e37_79b9) >> (u32::BITS - PLACES.ilog2())) as usize
}

/// Bytes of the IPv4 packet, as its header says.
#[inline(always)]
pub(crate) fn packet_len(head: &Head) -> usize {
    usize::from(u16::from_be_bytes(field(head, at::TOTAL_LEN)))
}

/// The TOS of its header.
#[inline(always)]
pub(crate) fn tos(head: &Head) -> u8 {
    head[at::TOS]
}

/// What the packet carries.
#[inline(always)]
pub(crate) fn protocol(head: &Head) -> u8 {
    head[at::PROTOCOL]
}

/// Source and destination address, one behind the other.
#[inline(always)]
pub(crate) fn addresses(head: &Head) -> [u8; 8] {
    field(head, at::ADDRESSES)
}

/// The source's port.
#[inline(always)]
pub(crate) fn source_port(head: &Head) -> u16 {
    u16::from_be_bytes(field(head, at::PORTS))
}

#[inline(always)]
fn field<const LEN: usize>(head: &Head, at: usize) -> [u8; LEN] {
    *head[at..].first_chunk().expect("a field of the head")
}

/// Sixteen bits as they lie in memory.
#[inline(always)]
fn half(head: &Head, at: usize) -> u32 {
    u16::from_ne_bytes(field(head, at)).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::plain::PlainIpv4;
    use proptest::prelude::*;

    fn head(src: u32, dst: u32, tos: u8, payload_len: usize) -> Head {
        let mut head = [0x5a; HEAD_LEN];
        let ip = PlainIpv4 { src: src.into(), dst: dst.into(), protocol: 6, tos, payload_len };
        ip.emit(64, true, &mut head[at::VERSION..]);
        head
    }

    /// Whether the full reader finds nothing wrong.
    fn is_right(head: &Head) -> bool {
        PlainIpv4::parse(&head[at::VERSION..], 65_535).is_some()
    }

    #[test]
    fn no_frame_is_nobodys() {
        for byte in 0..=u8::MAX {
            assert!(!Envelope::NOBODYS.is_of(&[byte; HEAD_LEN]));
        }
        let mut head = [0; HEAD_LEN];
        head[at::TOS] = 0xff;
        assert!(!Envelope::NOBODYS.is_of(&head));
    }

    proptest! {
        /// Another frame of the flow, damaged in any byte or in none.
        #[test]
        fn what_is_familiar_and_summed_right_is_right(
            (src, dst) in any::<(u32, u32)>(),
            lens in [4usize..65_000, 4usize..65_000],
            tos in any::<[u8; 2]>(),
            damage in proptest::option::of((0..HEAD_LEN, any::<u8>())),
        ) {
            let known = Envelope::of(&head(src, dst, tos[0], lens[0]));
            let whole = head(src, dst, tos[1], lens[1]);
            prop_assert!(known.is_of(&whole) && known.is_summed_right(&whole));
            let mut damaged = whole;
            if let Some((at, byte)) = damage {
                damaged[at] = byte;
            }
            let familiar = known.is_of(&damaged);
            if familiar {
                prop_assert_eq!(known.is_summed_right(&damaged), is_right(&damaged));
            }
            let varies = [at::TOS, at::TOTAL_LEN, at::TOTAL_LEN + 1, at::IDENT, at::IDENT + 1]
                .into_iter()
                .chain([at::CHECKSUM, at::CHECKSUM + 1]);
            let expected = (0..HEAD_LEN)
                .all(|at| damaged[at] == whole[at] || varies.clone().any(|varying| varying == at));
            prop_assert_eq!(familiar, expected);
        }
    }
}
