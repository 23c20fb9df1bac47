use super::super::{TcpFlags, TcpHeader};
use super::*;
use proptest::prelude::*;

/// A header with these flags and these options, which are a multiple of four bytes.
fn segment(flags: TcpFlags, options: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0; LEN];
    TcpHeader { flags, ..TcpHeader::default() }.emit(&mut bytes);
    bytes.extend_from_slice(options);
    bytes[12] = ((bytes.len() / 4) << 4) as u8;
    bytes
}

fn parse_with(flags: TcpFlags, options: &[u8]) -> TcpOptions {
    let bytes = segment(flags, options);
    TcpHeader::parse(&bytes, bytes.len()).unwrap().0.options
}

fn parse_options(options: &[u8]) -> TcpOptions {
    parse_with(TcpFlags::SYN, options)
}

#[test]
fn an_illegal_option_length_ends_the_reading() {
    let mss = TcpOptions { mss: Some(1000), ..TcpOptions::default() };
    for bad in [[3, 0, 1, 1], [3, 1, 1, 1], [3, 5, 1, 1], [1, 1, 1, 8]] {
        assert_eq!(parse_options(&[&[2, 4, 3, 232], &bad[..]].concat()), mss, "{bad:?}");
    }
}

#[test]
fn options_of_a_wrong_length_or_kind_are_skipped() {
    let mss = TcpOptions { mss: Some(1000), ..TcpOptions::default() };
    for odd in [[2, 3, 9, 1], [3, 4, 9, 9], [8, 4, 9, 9], [5, 2, 1, 1], [254, 4, 9, 9]] {
        assert_eq!(parse_options(&[&odd[..], &[2, 4, 3, 232]].concat()), mss, "{odd:?}");
    }
    assert_eq!(parse_options(&[0, 2, 4, 3]), TcpOptions::default(), "nothing follows the end");
}

#[test]
fn blocks_beyond_the_fourth_are_refused() {
    let mut blocks = SackBlocks::new();
    assert!(blocks.is_empty());
    for at in 0..4 {
        assert!(blocks.push(at, at + 1));
    }
    assert!(!blocks.push(4, 5));
    assert_eq!(blocks.len(), 4);
    assert!(blocks.iter().eq((0..4).map(|at| (at, at + 1))));
    assert_eq!((0..9).map(|at| (at, at + 1)).collect::<SackBlocks>(), blocks);
}

#[test]
fn the_last_sack_option_counts() {
    let first = [5, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 1];
    let last = [5, 18, 0, 0, 0, 3, 0, 0, 0, 4, 0, 0, 0, 5, 0, 0, 0, 6, 1, 1];
    let read = parse_with(TcpFlags::ACK, &[&first[..], &last[..]].concat());
    assert_eq!(read.sack.as_slice(), [(3, 4), (5, 6)]);
}

#[test]
fn a_cookie_has_an_even_length_from_4_to_16() {
    for len in 0..=40 {
        let legal = len == 0 || (4..=16).contains(&len) && len % 2 == 0;
        let cookie = FastOpenCookie::new(&vec![7; len]);
        assert_eq!(cookie.is_some(), legal, "{len} bytes");
        if let Some(cookie) = cookie {
            assert_eq!(cookie.as_slice(), vec![7; len]);
            assert_eq!(cookie.is_request(), len == 0);
        }
    }
    assert_eq!(FastOpenCookie::new(&[]), Some(FastOpenCookie::REQUEST));
}

#[test]
fn a_cookie_is_the_last_option_of_a_syn_and_aligned() {
    let cookie = FastOpenCookie::new(&[1, 2, 3, 4, 5, 6, 7, 8]);
    let options = TcpOptions { mss: Some(1460), fast_open: cookie, ..TcpOptions::default() };
    let mut syn = TcpHeader { flags: TcpFlags::SYN, options, ..TcpHeader::default() };
    let mut bytes = [0; MAX_LEN];
    assert_eq!(syn.emit(&mut bytes), LEN + 16);
    assert_eq!(bytes[LEN..LEN + 16], [2, 4, 5, 180, 1, 1, 34, 10, 1, 2, 3, 4, 5, 6, 7, 8]);

    syn.options.fast_open = Some(FastOpenCookie::REQUEST);
    assert_eq!(syn.emit(&mut bytes), LEN + 8);
    assert_eq!(bytes[LEN..LEN + 8], [2, 4, 5, 180, 1, 1, 34, 2]);

    let ack = TcpHeader { flags: TcpFlags::ACK, ..syn };
    assert_eq!(ack.emit(&mut bytes), LEN, "a cookie belongs to a SYN");
}

#[test]
fn a_cookie_fits_beside_all_options_of_a_syn() {
    let options = TcpOptions {
        mss: Some(1460),
        window_scale: Some(7),
        sack_permitted: true,
        timestamps: Some(Timestamps { val: 1, ecr: 2 }),
        fast_open: FastOpenCookie::new(&[9; 16]),
        ..TcpOptions::default()
    };
    let syn = TcpHeader { flags: TcpFlags::SYN, options, ..TcpHeader::default() };
    let mut bytes = [0; MAX_LEN];
    assert_eq!(syn.emit(&mut bytes), MAX_LEN);
    assert_eq!(TcpHeader::parse(&bytes, MAX_LEN), Ok((syn, MAX_LEN)));
}

/// RFC 7413 §4.1.1.
#[test]
fn a_cookie_of_an_illegal_length_or_without_syn_is_ignored() {
    for odd in [[34, 3, 9, 1], [34, 4, 9, 9]] {
        assert_eq!(parse_options(&odd), TcpOptions::default(), "{odd:?}");
    }
    let request = [1, 1, 34, 2];
    assert_eq!(parse_options(&request).fast_open, Some(FastOpenCookie::REQUEST));
    assert_eq!(parse_with(TcpFlags::ACK, &request), TcpOptions::default());
    let long = [&[34, 20][..], &[9; 18]].concat();
    assert_eq!(parse_options(&long), TcpOptions::default());
}

proptest! {
    /// The short ways and the general one are the same function.
    #[test]
    fn aligned_timestamps_read_and_write_like_any_others(syn: bool, val: u32, ecr: u32) {
        let clock = Timestamps { val, ecr };
        let options = TcpOptions { timestamps: Some(clock), ..TcpOptions::default() };
        let (mut short, mut general) = ([0xaa; 12], [0xbb; 12]);
        options.emit(syn, &mut short);
        options.emit_all(syn, &mut general);
        prop_assert_eq!(short, general);
        let mut read = TcpOptions::default();
        read.read_each(&short, syn);
        prop_assert_eq!(read, options);
        let mut read = TcpOptions::default();
        read.read_all(&short, syn);
        prop_assert_eq!(read, options);
    }
}
