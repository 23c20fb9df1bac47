use super::*;
use proptest::prelude::*;

prop_compose! {
    fn header()(
        src: u32, dst: u32, protocol: u8, ttl: u8, tos: u8, ident: u16,
        dont_fragment: bool, more_fragments: bool, blocks in 0u16..=OFFSET_MASK,
        payload_len in 0usize..3000,
    ) -> Ipv4Header {
        Ipv4Header {
            ttl, tos, ident, dont_fragment, more_fragments,
            fragment_offset: blocks * 8,
            ..Ipv4Header::new(src.into(), dst.into(), protocol, payload_len)
        }
    }
}

fn emitted(header: &Ipv4Header) -> [u8; LEN] {
    let mut bytes = [0; LEN];
    header.emit(&mut bytes);
    bytes
}

/// A packet of `options`, which must be a multiple of 4 bytes, with a right checksum.
fn with_options(options: &[u8]) -> Vec<u8> {
    let header = Ipv4Header::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 17, options.len());
    let mut bytes = emitted(&header).to_vec();
    bytes.extend_from_slice(options);
    bytes[field::VERSION_IHL] = 0x40 | (bytes.len() / 4) as u8;
    put_u16(&mut bytes, field::CHECKSUM, 0);
    let mut sum = Checksum::new();
    sum.add(&bytes);
    put_u16(&mut bytes, field::CHECKSUM, sum.finish());
    bytes
}

proptest! {
    #[test]
    fn what_is_written_is_read_back_here_and_by_etherparse(header in header()) {
        let bytes = emitted(&header);
        let len = usize::from(header.total_len);
        prop_assert_eq!(Ipv4Header::parse(&bytes, len), Ok(header));
        let theirs = etherparse::Ipv4Header::from_slice(&bytes).unwrap().0;
        prop_assert_eq!(theirs.source, header.src.octets());
        prop_assert_eq!(theirs.destination, header.dst.octets());
        prop_assert_eq!(theirs.protocol.0, header.protocol);
        prop_assert_eq!(theirs.time_to_live, header.ttl);
        prop_assert_eq!(theirs.dscp.value() << 2 | theirs.ecn.value(), header.tos);
        prop_assert_eq!(theirs.identification, header.ident);
        prop_assert_eq!(theirs.dont_fragment, header.dont_fragment);
        prop_assert_eq!(theirs.more_fragments, header.more_fragments);
        prop_assert_eq!(theirs.fragment_offset.byte_offset(), header.fragment_offset);
        prop_assert_eq!(theirs.total_len, header.total_len);
        prop_assert_eq!(theirs.calc_header_checksum(), theirs.header_checksum);
        // And a header that etherparse wrote reads the same here.
        prop_assert_eq!(Ipv4Header::parse(&theirs.to_bytes(), len), Ok(header));
    }

    #[test]
    fn a_flipped_bit_is_never_accepted(header in header(), bit in 0usize..LEN * 8) {
        let mut bytes = emitted(&header);
        bytes[bit / 8] ^= 1 << (bit % 8);
        prop_assert!(Ipv4Header::parse(&bytes, usize::from(u16::MAX)).is_err());
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80),
                                   extra in 0usize..2000) {
        let _ = Ipv4Header::parse(&bytes, bytes.len() + extra);
    }

    #[test]
    fn arbitrary_options_never_panic(words in proptest::collection::vec(any::<[u8; 4]>(), 1..=10)) {
        let bytes = with_options(words.as_flattened());
        match Ipv4Header::parse(&bytes, bytes.len()) {
            Ok(header) => prop_assert_eq!(usize::from(header.header_len), bytes.len()),
            Err(error) => prop_assert_eq!(error, WireError::BadField),
        }
    }
}

#[test]
fn every_truncation_is_told() {
    let bytes = with_options(&[option::NOP, option::NOP, option::NOP, option::END]);
    for len in 0..bytes.len() {
        let short = Ipv4Header::parse(&bytes[..len], bytes.len());
        assert_eq!(short, Err(WireError::Truncated), "a first piece of {len}");
        let short = Ipv4Header::parse(&bytes, len);
        assert_eq!(short, Err(WireError::Truncated), "a packet of {len}");
    }
    assert!(Ipv4Header::parse(&bytes, bytes.len()).is_ok());
    let padded = Ipv4Header::parse(&bytes, bytes.len() + 22).unwrap();
    assert_eq!(padded.payload_len(), 0, "padding is no payload");
}

#[test]
fn impossible_lengths_and_versions_are_told() {
    let parse = |at: usize, value: u8| {
        let mut bytes = emitted(&Ipv4Header::new([1; 4].into(), [2; 4].into(), 6, 0));
        bytes[at] = value;
        Ipv4Header::parse(&bytes, 20).unwrap_err()
    };
    assert_eq!(parse(field::VERSION_IHL, 0x65), WireError::BadVersion);
    assert_eq!(parse(field::VERSION_IHL, 0x44), WireError::BadLength);
    assert_eq!(parse(field::TOTAL_LEN + 1, 19), WireError::BadLength);
    assert_eq!(parse(field::TOTAL_LEN + 1, 21), WireError::Truncated);
    assert_eq!(parse(field::TTL, 63), WireError::BadChecksum);
}

#[test]
fn source_routes_are_flagged_and_other_options_skipped() {
    let parse = |options: &[u8]| {
        let bytes = with_options(options);
        Ipv4Header::parse(&bytes, bytes.len()).map(|h| h.source_routed)
    };
    assert_eq!(parse(&[option::NOP, 131, 7, 4, 10, 0, 0, 9]), Ok(true));
    assert_eq!(parse(&[137, 7, 4, 10, 0, 0, 9, option::END]), Ok(true));
    assert_eq!(parse(&[148, 4, 0, 0]), Ok(false), "router alert");
    assert_eq!(parse(&[option::END, 131, 0, 0]), Ok(false), "nothing follows the end");
    assert_eq!(parse(&[7, 1, 0, 0]), Err(WireError::BadField), "shorter than itself");
    assert_eq!(parse(&[7, 5, 0, 0]), Err(WireError::BadField), "longer than the header");
    assert_eq!(parse(&[1, 1, 1, 7]), Err(WireError::BadField), "no room for a length");
}
