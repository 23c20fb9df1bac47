//! ICMP messages for IPv4 (RFC 792, RFC 1122 §3.2.2, RFC 1191 §4), through etherparse, and the
//! datagrams that error messages quote.

use std::net::Ipv4Addr;

use barewire_driver::mem::Checksum;
use etherparse::{IcmpEchoHeader, Icmpv4Header, Icmpv4Slice, Icmpv4Type, icmpv4 as ether};

use super::{WireError, get_u16, get_u32, protocol, put_u16};

/// Bytes of the header of every message that the stack sends.
pub const LEN: usize = 8;
/// Where the checksum lies in the header.
pub const CHECKSUM_OFFSET: usize = 2;

/// Why a destination cannot be reached (RFC 792).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Unreachable {
    /// Its network.
    Net,
    /// The host.
    Host,
    /// The host does not speak the protocol.
    Protocol,
    /// Nothing listens on the port.
    Port,
    /// The datagram is too large for the next hop and must not be fragmented.
    FragmentationNeeded {
        /// The next hop's MTU (RFC 1191 §4), or 0 from a router that does not tell.
        next_hop_mtu: u16,
    },
    /// Any other code.
    Other(u8),
}

/// Which time was exceeded (RFC 792).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TimeExceeded {
    /// The time to live, in transit.
    TimeToLive,
    /// That for reassembly.
    Reassembly,
    /// Any other code.
    Other(u8),
}

/// An ICMP message without what follows its header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Icmpv4Message {
    /// A ping.
    EchoRequest {
        /// Which ping program.
        id: u16,
        /// Which of its pings.
        seq: u16,
    },
    /// The answer to one.
    EchoReply {
        /// Identifier of the request.
        id: u16,
        /// Sequence number of the request.
        seq: u16,
    },
    /// The quoted datagram did not reach its destination.
    Unreachable(Unreachable),
    /// The quoted datagram took too long.
    TimeExceeded(TimeExceeded),
    /// Any other message.
    Other {
        /// Its type.
        kind: u8,
        /// Its code.
        code: u8,
        /// Bytes 4 to 7 of it.
        rest: [u8; 4],
    },
}

impl Icmpv4Message {
    /// Bytes of the header.
    pub const LEN: usize = LEN;

    /// Reads a whole message, header and payload, and verifies its checksum. The payload, which for
    /// an error is what [`Quoted::parse`] takes, begins at [`LEN`].
    ///
    /// # Errors
    /// [`WireError::Truncated`] and [`WireError::BadChecksum`].
    pub fn parse(message: &[u8]) -> Result<Icmpv4Message, WireError> {
        Self::parse_pieces([message])
    }

    /// The same for a message in pieces, whose header lies in the first one.
    ///
    /// # Errors
    /// As [`Icmpv4Message::parse`].
    pub fn parse_pieces<'a>(
        pieces: impl IntoIterator<Item = &'a [u8]>,
    ) -> Result<Icmpv4Message, WireError> {
        let mut pieces = pieces.into_iter();
        let first = pieces.next().unwrap_or_default();
        // Only the header is decoded, so that a message of unexpected length is still a message.
        let header: &[u8; LEN] = first.first_chunk().ok_or(WireError::Truncated)?;
        let mut sum = Checksum::new();
        sum.add(first);
        for piece in pieces {
            sum.add(piece);
        }
        if sum.finish() != 0 {
            return Err(WireError::BadChecksum);
        }
        match header[0] {
            // etherparse wants the whole of a timestamp message, which nothing here reads.
            kind @ (ether::TYPE_TIMESTAMP | ether::TYPE_TIMESTAMP_REPLY) => {
                Ok(Self::other(kind, header[1], [header[4], header[5], header[6], header[7]]))
            }
            _ => {
                let slice = Icmpv4Slice::from_slice(header).map_err(|_| WireError::Truncated)?;
                Ok(Self::decode(&slice))
            }
        }
    }

    fn decode(slice: &Icmpv4Slice<'_>) -> Icmpv4Message {
        match (slice.icmp_type(), slice.type_u8(), slice.code_u8()) {
            (Icmpv4Type::EchoRequest(IcmpEchoHeader { id, seq }), ..) => {
                Icmpv4Message::EchoRequest { id, seq }
            }
            (Icmpv4Type::EchoReply(IcmpEchoHeader { id, seq }), ..) => {
                Icmpv4Message::EchoReply { id, seq }
            }
            (Icmpv4Type::DestinationUnreachable(header), _, code) => {
                Icmpv4Message::Unreachable(match header {
                    ether::DestUnreachableHeader::Network => Unreachable::Net,
                    ether::DestUnreachableHeader::Host => Unreachable::Host,
                    ether::DestUnreachableHeader::Protocol => Unreachable::Protocol,
                    ether::DestUnreachableHeader::Port => Unreachable::Port,
                    ether::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu } => {
                        Unreachable::FragmentationNeeded { next_hop_mtu }
                    }
                    _ => Unreachable::Other(code),
                })
            }
            (_, ether::TYPE_DEST_UNREACH, code) => {
                Icmpv4Message::Unreachable(Unreachable::Other(code))
            }
            (Icmpv4Type::TimeExceeded(code), ..) => Icmpv4Message::TimeExceeded(match code {
                ether::TimeExceededCode::TtlExceededInTransit => TimeExceeded::TimeToLive,
                ether::TimeExceededCode::FragmentReassemblyTimeExceeded => TimeExceeded::Reassembly,
            }),
            (_, ether::TYPE_TIME_EXCEEDED, code) => {
                Icmpv4Message::TimeExceeded(TimeExceeded::Other(code))
            }
            (_, kind, code) => Self::other(kind, code, slice.bytes5to8()),
        }
    }

    fn other(kind: u8, code: u8, rest: [u8; 4]) -> Icmpv4Message {
        Icmpv4Message::Other { kind, code, rest }
    }

    /// Writes the header to the front of `out`, with the checksum over it and the payload, which
    /// may come in pieces.
    ///
    /// # Panics
    /// If `out` has fewer than 8 bytes.
    pub fn emit<'a>(&self, payload: impl IntoIterator<Item = &'a [u8]>, out: &mut [u8]) {
        let out = &mut out[..LEN];
        out.copy_from_slice(&Icmpv4Header::new(self.encode()).to_bytes()[..LEN]);
        let mut sum = Checksum::new();
        sum.add(out);
        for piece in payload {
            sum.add(piece);
        }
        put_u16(out, CHECKSUM_OFFSET, sum.finish());
    }

    fn encode(&self) -> Icmpv4Type {
        let unknown =
            |type_u8, code_u8, bytes5to8| Icmpv4Type::Unknown { type_u8, code_u8, bytes5to8 };
        let unreachable = Icmpv4Type::DestinationUnreachable;
        match *self {
            Icmpv4Message::EchoRequest { id, seq } => {
                Icmpv4Type::EchoRequest(IcmpEchoHeader { id, seq })
            }
            Icmpv4Message::EchoReply { id, seq } => {
                Icmpv4Type::EchoReply(IcmpEchoHeader { id, seq })
            }
            Icmpv4Message::Unreachable(why) => match why {
                Unreachable::Net => unreachable(ether::DestUnreachableHeader::Network),
                Unreachable::Host => unreachable(ether::DestUnreachableHeader::Host),
                Unreachable::Protocol => unreachable(ether::DestUnreachableHeader::Protocol),
                Unreachable::Port => unreachable(ether::DestUnreachableHeader::Port),
                Unreachable::FragmentationNeeded { next_hop_mtu } => {
                    unreachable(ether::DestUnreachableHeader::FragmentationNeeded { next_hop_mtu })
                }
                Unreachable::Other(code) => unknown(ether::TYPE_DEST_UNREACH, code, [0; 4]),
            },
            Icmpv4Message::TimeExceeded(why) => match why {
                TimeExceeded::TimeToLive => {
                    Icmpv4Type::TimeExceeded(ether::TimeExceededCode::TtlExceededInTransit)
                }
                TimeExceeded::Reassembly => Icmpv4Type::TimeExceeded(
                    ether::TimeExceededCode::FragmentReassemblyTimeExceeded,
                ),
                TimeExceeded::Other(code) => unknown(ether::TYPE_TIME_EXCEEDED, code, [0; 4]),
            },
            Icmpv4Message::Other { kind, code, rest } => unknown(kind, code, rest),
        }
    }

    /// True for messages that report an error and quote the datagram that caused it. No error is
    /// ever sent about one of them (RFC 1122 §3.2.2).
    pub fn is_error(&self) -> bool {
        match *self {
            Icmpv4Message::Unreachable(_) | Icmpv4Message::TimeExceeded(_) => true,
            Icmpv4Message::EchoRequest { .. } | Icmpv4Message::EchoReply { .. } => false,
            Icmpv4Message::Other { kind, .. } => is_error_type(kind),
        }
    }
}

/// True if messages of type `kind` report errors.
pub(crate) fn is_error_type(kind: u8) -> bool {
    matches!(
        kind,
        ether::TYPE_DEST_UNREACH
            | ether::TYPE_SOURCE_QUENCH
            | ether::TYPE_REDIRECT
            | ether::TYPE_TIME_EXCEEDED
            | ether::TYPE_PARAMETER_PROBLEM
    )
}

/// The datagram that an error message is about: what finds the socket that sent it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Quoted {
    /// Its source: this host, or the message is not for it.
    pub src: Ipv4Addr,
    /// Its destination.
    pub dst: Ipv4Addr,
    /// Its protocol.
    pub protocol: u8,
    /// Source port of TCP and UDP, 0 otherwise.
    pub src_port: u16,
    /// Destination port of TCP and UDP, 0 otherwise.
    pub dst_port: u16,
    /// Sequence number, if it was a TCP segment: a connection believes only messages about data
    /// that it has in flight (RFC 5927 §4.1).
    pub tcp_seq: Option<u32>,
    /// Identifier and sequence number, if it was an ICMP echo request.
    pub echo: Option<(u16, u16)>,
}

/// What is read of a quoted IPv4 header, and where: its checksum and length say nothing, for
/// routers change the one and the quote cuts the other.
mod quoted_field {
    pub(super) const VERSION_IHL: usize = 0;
    pub(super) const FLAGS_OFFSET: usize = 6;
    pub(super) const PROTOCOL: usize = 9;
    pub(super) const SRC: usize = 12;
    pub(super) const DST: usize = 16;
    pub(super) const LEN: usize = 20;
    /// Bytes of the payload that every error message quotes (RFC 792).
    pub(super) const PAYLOAD_LEN: usize = 8;
}

impl Quoted {
    /// Reads the payload of an error message.
    ///
    /// # Errors
    /// [`WireError::Truncated`] if header and 8 bytes of payload are not there, and
    /// [`WireError::BadField`] for a fragment that has no transport header.
    pub fn parse(payload: &[u8]) -> Result<Quoted, WireError> {
        use quoted_field as field;
        let header: &[u8; field::LEN] = payload.first_chunk().ok_or(WireError::Truncated)?;
        if header[field::VERSION_IHL] >> 4 != 4 {
            return Err(WireError::BadVersion);
        }
        let header_len = usize::from(header[field::VERSION_IHL] & 0xf) * 4;
        if header_len < field::LEN {
            return Err(WireError::BadLength);
        }
        if get_u16(header, field::FLAGS_OFFSET) & 0x1fff != 0 {
            return Err(WireError::BadField);
        }
        let transport: &[u8; field::PAYLOAD_LEN] = payload
            .get(header_len..)
            .and_then(|payload| payload.first_chunk())
            .ok_or(WireError::Truncated)?;
        let mut quoted = Quoted {
            src: get_u32(header, field::SRC).into(),
            dst: get_u32(header, field::DST).into(),
            protocol: header[field::PROTOCOL],
            src_port: 0,
            dst_port: 0,
            tcp_seq: None,
            echo: None,
        };
        match quoted.protocol {
            protocol::TCP | protocol::UDP => {
                quoted.src_port = get_u16(transport, 0);
                quoted.dst_port = get_u16(transport, 2);
                quoted.tcp_seq = (quoted.protocol == protocol::TCP).then(|| get_u32(transport, 4));
            }
            protocol::ICMP if transport[0] == ether::TYPE_ECHO_REQUEST => {
                quoted.echo = Some((get_u16(transport, 4), get_u16(transport, 6)));
            }
            _ => {}
        }
        Ok(quoted)
    }
}

#[cfg(test)]
#[path = "icmpv4_tests.rs"]
mod tests;
