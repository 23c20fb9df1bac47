use super::super::ipv4::Ipv4Header;
use super::super::tcp::TcpHeader;
use super::super::udp::UdpHeader;
use super::*;
use proptest::prelude::*;

fn message() -> impl Strategy<Value = Icmpv4Message> {
    use Icmpv4Message as M;
    prop_oneof![
        any::<(u16, u16)>().prop_map(|(id, seq)| M::EchoRequest { id, seq }),
        any::<(u16, u16)>().prop_map(|(id, seq)| M::EchoReply { id, seq }),
        prop_oneof![
            Just(Unreachable::Net),
            Just(Unreachable::Host),
            Just(Unreachable::Protocol),
            Just(Unreachable::Port),
            any::<u16>().prop_map(|next_hop_mtu| Unreachable::FragmentationNeeded { next_hop_mtu }),
            (5u8..).prop_map(Unreachable::Other),
        ]
        .prop_map(M::Unreachable),
        prop_oneof![
            Just(TimeExceeded::TimeToLive),
            Just(TimeExceeded::Reassembly),
            (2u8..).prop_map(TimeExceeded::Other),
        ]
        .prop_map(M::TimeExceeded),
        ((13u8..), any::<u8>(), any::<[u8; 4]>()).prop_map(|(kind, code, rest)| M::Other {
            kind,
            code,
            rest
        }),
    ]
}

fn emitted(message: &Icmpv4Message, payload: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; LEN];
    message.emit([payload], &mut bytes);
    bytes.extend_from_slice(payload);
    bytes
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        message in message(), payload in proptest::collection::vec(any::<u8>(), 0..200), cut: u8,
    ) {
        let bytes = emitted(&message, &payload);
        prop_assert_eq!(Icmpv4Message::parse(&bytes), Ok(message));
        let cut = LEN + usize::from(cut).min(payload.len());
        let pieces = [&bytes[..cut], &bytes[cut..]];
        prop_assert_eq!(Icmpv4Message::parse_pieces(pieces), Ok(message));
        let mut again = [0; LEN];
        message.emit([&payload[..cut - LEN], &payload[cut - LEN..]], &mut again);
        prop_assert_eq!(&again[..], &bytes[..LEN]);
    }

    #[test]
    fn checksums_are_those_of_etherparse(
        message in message(), payload in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let theirs = Icmpv4Header::with_checksum(message.encode(), &payload);
        prop_assert_eq!(&emitted(&message, &payload)[..LEN], &theirs.to_bytes()[..LEN]);
    }

    #[test]
    fn a_flipped_bit_is_never_accepted(
        message in message(), payload in proptest::collection::vec(any::<u8>(), 0..40), bit: usize,
    ) {
        let mut bytes = emitted(&message, &payload);
        let bit = bit % (bytes.len() * 8);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert_eq!(Icmpv4Message::parse(&bytes), Err(WireError::BadChecksum));
    }

    #[test]
    fn arbitrary_bytes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
        let _ = Icmpv4Message::parse(&bytes);
        if bytes.len() >= LEN {
            put_u16(&mut bytes, CHECKSUM_OFFSET, 0);
            let mut sum = Checksum::new();
            sum.add(&bytes);
            put_u16(&mut bytes, CHECKSUM_OFFSET, sum.finish());
            prop_assert!(Icmpv4Message::parse(&bytes).is_ok());
        }
    }

    #[test]
    fn arbitrary_quotes_never_panic(mut bytes in proptest::collection::vec(any::<u8>(), 0..100),
                                    plausible: bool) {
        if let (true, Some(first)) = (plausible, bytes.first_mut()) {
            *first = 0x45 + (*first & 7);
        }
        let _ = Quoted::parse(&bytes);
    }
}

#[test]
fn every_truncation_is_told() {
    let bytes = emitted(&Icmpv4Message::EchoRequest { id: 1, seq: 2 }, &[]);
    for len in 0..LEN {
        assert_eq!(Icmpv4Message::parse(&bytes[..len]), Err(WireError::Truncated));
    }
    assert_eq!(Icmpv4Message::parse_pieces([]), Err(WireError::Truncated));
}

#[test]
fn timestamps_of_any_length_are_other_messages() {
    for payload in [0, 12, 13] {
        let message = Icmpv4Message::Other { kind: 13, code: 0, rest: [1, 2, 3, 4] };
        let bytes = emitted(&message, &vec![7; payload]);
        assert_eq!(Icmpv4Message::parse(&bytes), Ok(message));
    }
}

#[test]
fn errors_are_told_from_queries() {
    let other = |kind| Icmpv4Message::Other { kind, code: 0, rest: [0; 4] }.is_error();
    assert!([4, 5, 12].into_iter().all(other));
    assert!(![13, 14, 17, 200].into_iter().any(other));
    assert!(Icmpv4Message::Unreachable(Unreachable::Port).is_error());
    assert!(!Icmpv4Message::EchoReply { id: 0, seq: 0 }.is_error());
}

/// A datagram as an error message would quote it: header, then the first 8 bytes of `transport`.
fn quote(protocol: u8, transport: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; 20];
    Ipv4Header::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), protocol, 1400).emit(&mut bytes);
    bytes.extend_from_slice(&transport[..8]);
    bytes
}

#[test]
fn a_quote_names_the_socket() {
    let mut tcp = [0; 20];
    TcpHeader { src_port: 80, dst_port: 4000, seq: 7, ..TcpHeader::default() }.emit(&mut tcp);
    let quoted = Quoted::parse(&quote(protocol::TCP, &tcp)).unwrap();
    assert_eq!((quoted.src, quoted.dst), ([10, 0, 0, 1].into(), [10, 0, 0, 2].into()));
    assert_eq!((quoted.src_port, quoted.dst_port, quoted.tcp_seq), (80, 4000, Some(7)));

    let mut udp = [0; 8];
    UdpHeader { src_port: 53, dst_port: 5000, len: 8, checksum: 0 }.emit(&mut udp);
    let quoted = Quoted::parse(&quote(protocol::UDP, &udp)).unwrap();
    assert_eq!((quoted.src_port, quoted.dst_port, quoted.tcp_seq), (53, 5000, None));

    let ping = emitted(&Icmpv4Message::EchoRequest { id: 3, seq: 4 }, &[]);
    let quoted = Quoted::parse(&quote(protocol::ICMP, &ping)).unwrap();
    assert_eq!((quoted.echo, quoted.src_port), (Some((3, 4)), 0));
}

#[test]
fn a_quote_without_a_transport_header_names_nothing() {
    let whole = quote(protocol::UDP, &[0; 8]);
    for len in 0..whole.len() {
        assert_eq!(Quoted::parse(&whole[..len]), Err(WireError::Truncated));
    }
    let with = |at: usize, value: u8| {
        let mut bytes = whole.clone();
        bytes[at] = value;
        Quoted::parse(&bytes)
    };
    assert_eq!(with(7, 1), Err(WireError::BadField), "a later fragment");
    assert_eq!(with(0, 0x65), Err(WireError::BadVersion));
    assert_eq!(with(0, 0x44), Err(WireError::BadLength));
    assert_eq!(with(0, 0x46), Err(WireError::Truncated), "options push the payload out");
    assert!(with(10, 0xff).is_ok(), "routers leave stale checksums in quotes");
}
