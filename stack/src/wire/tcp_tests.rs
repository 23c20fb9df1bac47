use super::super::{protocol, pseudo_header};
use super::*;
use barewire_driver::mem::Checksum;
use etherparse::{TcpOptionElement as Element, TcpOptionReadError};
use proptest::option::of;
use proptest::prelude::*;
use std::net::Ipv4Addr;

prop_compose! {
    /// Options that fit into 40 bytes and, in a segment without SYN, belong there.
    fn options(syn: bool)(
        mss in of(any::<u16>()), window_scale in of(any::<u8>()), sack_permitted in any::<bool>(),
        timestamps in of(any::<(u32, u32)>()),
        blocks in proptest::collection::vec(any::<(u32, u32)>(), 0..=4),
        cookie in of(proptest::collection::vec(any::<u8>(), 0..=16)),
    ) -> TcpOptions {
        let mut options = TcpOptions {
            mss: mss.filter(|_| syn),
            window_scale: window_scale.filter(|_| syn),
            sack_permitted: sack_permitted && syn,
            timestamps: timestamps.map(|(val, ecr)| Timestamps { val, ecr }),
            fast_open: cookie.and_then(|bytes| FastOpenCookie::new(&bytes)).filter(|_| syn),
            ..TcpOptions::default()
        };
        let room = (MAX_LEN - LEN - options.emit_len(syn)).saturating_sub(4);
        options.sack = blocks.into_iter().take(room / 8).collect();
        options
    }
}

prop_compose! {
    fn header()(bits in any::<u8>())(
        (src_port, dst_port, seq, ack, window, urgent) in any::<(u16, u16, u32, u32, u16, u16)>(),
        options in options(bits & TcpFlags::SYN.bits() != 0),
        bits in Just(bits),
    ) -> TcpHeader {
        let flags = TcpFlags::from_bits_retain(bits);
        TcpHeader { src_port, dst_port, seq, ack, flags, window, urgent, options }
    }
}

fn emitted(header: &TcpHeader) -> Vec<u8> {
    let mut bytes = vec![0xaa; MAX_LEN];
    let len = header.emit(&mut bytes);
    assert!(bytes[len..].iter().all(|&b| b == 0xaa), "wrote past the header");
    bytes.truncate(len);
    bytes
}

/// What etherparse makes of the options. It does not know fast open, which is the last.
fn theirs(header: &etherparse::TcpHeader) -> TcpOptions {
    let mut options = TcpOptions::default();
    for element in header.options_iterator() {
        match element {
            Err(TcpOptionReadError::UnknownId(34)) => break,
            Err(error) => panic!("an option that etherparse can't read: {error}"),
            Ok(element) => take(&mut options, element),
        }
    }
    options
}

fn take(options: &mut TcpOptions, element: Element) {
    match element {
        Element::Noop => {}
        Element::MaximumSegmentSize(mss) => options.mss = Some(mss),
        Element::WindowScale(shift) => options.window_scale = Some(shift),
        Element::SelectiveAcknowledgementPermitted => options.sack_permitted = true,
        Element::SelectiveAcknowledgement(first, [second, third, fourth]) => {
            let rest = [second, third, fourth].into_iter().flatten();
            options.sack = std::iter::once(first).chain(rest).collect();
        }
        Element::Timestamp(val, ecr) => options.timestamps = Some(Timestamps { val, ecr }),
    }
}

fn elements(options: &TcpOptions) -> Vec<Element> {
    let mut elements = Vec::new();
    elements.extend(options.window_scale.map(Element::WindowScale));
    elements.extend(options.timestamps.map(|t| Element::Timestamp(t.val, t.ecr)));
    elements.extend(options.mss.map(Element::MaximumSegmentSize));
    if options.sack_permitted {
        elements.push(Element::SelectiveAcknowledgementPermitted);
    }
    let mut blocks = options.sack.iter();
    if let Some(first) = blocks.next() {
        let rest = [blocks.next(), blocks.next(), blocks.next()];
        elements.push(Element::SelectiveAcknowledgement(first, rest));
    }
    elements
}

/// A header of so many bytes as it is read where it lies, and its length.
fn in_place<const HEADER: usize>(bytes: &[u8]) -> Option<(PlainTcp, usize)> {
    let (header, text) = InPlace::<HEADER>::split(bytes)?;
    Some((header.read(), bytes.len() - text.len()))
}

proptest! {
    #[test]
    fn what_is_written_is_read_back_here_and_by_etherparse(header in header()) {
        let bytes = emitted(&header);
        prop_assert_eq!(bytes.len(), header.header_len());
        prop_assert_eq!(TcpHeader::parse(&bytes, 2000), Ok((header, bytes.len())));
        let read = etherparse::TcpHeader::from_slice(&bytes).unwrap().0;
        prop_assert_eq!(read.header_len(), bytes.len());
        prop_assert_eq!(read.source_port, header.src_port);
        prop_assert_eq!(read.destination_port, header.dst_port);
        prop_assert_eq!(read.sequence_number, header.seq);
        prop_assert_eq!(read.acknowledgment_number, header.ack);
        prop_assert_eq!(read.window_size, header.window);
        prop_assert_eq!(read.urgent_pointer, header.urgent);
        let flags = [read.fin, read.syn, read.rst, read.psh, read.ack, read.urg, read.ece, read.cwr];
        for (bit, flag) in flags.into_iter().enumerate() {
            prop_assert_eq!(flag, header.flags.bits() >> bit & 1 == 1, "bit {}", bit);
        }
        prop_assert_eq!(theirs(&read), TcpOptions { fast_open: None, ..header.options });
        prop_assert_eq!(read.checksum, 0);
    }

    #[test]
    fn options_in_another_order_are_read(mut header in header()) {
        header.options.fast_open = None;
        let mut other = etherparse::TcpHeader::from_slice(&emitted(&header)).unwrap().0;
        // Without NOPs in between, as etherparse packs them; nothing here relies on alignment.
        if other.set_options(&elements(&header.options)).is_ok() {
            let bytes = other.to_bytes();
            prop_assert_eq!(TcpHeader::parse(&bytes, bytes.len()), Ok((header, bytes.len())));
        }
    }

    #[test]
    fn checksums_are_those_of_etherparse(
        header in header(), src: u32, dst: u32,
        payload in proptest::collection::vec(any::<u8>(), 0..300),
    ) {
        let bytes = emitted(&header);
        let (src, dst) = (Ipv4Addr::from(src), Ipv4Addr::from(dst));
        let len = (bytes.len() + payload.len()) as u32;
        let mut sum = pseudo_header(src.into(), dst.into(), protocol::TCP, len);
        sum.add(&bytes);
        sum.add(&payload);
        let read = etherparse::TcpHeader::from_slice(&bytes).unwrap().0;
        let theirs = read.calc_checksum_ipv4_raw(src.octets(), dst.octets(), &payload);
        prop_assert_eq!(sum.finish(), theirs.unwrap());
    }

    #[test]
    fn what_is_plain_is_what_the_full_header_says(mut header in header()) {
        header.urgent = 0;
        let bytes = emitted(&header);
        let plain = PlainTcp::of(&header);
        prop_assert_eq!(PlainTcp::parse(&bytes, 2000), plain.map(|plain| (plain, bytes.len())));
        if let Some(plain) = plain {
            prop_assert_eq!(TcpHeader::from(plain), header);
            let (mut again, mut sum, mut of_bytes) = (vec![0xbb; MAX_LEN], Checksum::new(), Checksum::new());
            let header_len = plain.emit_summed(&mut again, &mut sum);
            prop_assert_eq!(&again[..header_len], &bytes[..]);
            prop_assert!(again[header_len..].iter().all(|&b| b == 0xbb), "wrote past the header");
            of_bytes.add(&bytes);
            prop_assert_eq!(sum.finish(), of_bytes.finish());
            prop_assert_eq!(PlainTcp::parse(&bytes, bytes.len() - 1), None);
            prop_assert_eq!(PlainTcp::parse(&bytes[..bytes.len() - 1], bytes.len()), None);
        }
    }

    #[test]
    fn a_usual_syn_is_written_as_any_header_is(
        ports: (u16, u16),
        numbers: (u32, u32, u16, u16),
        values: (Option<u16>, Option<u8>, u32, Option<u32>),
        has: (bool, bool, bool),
    ) {
        let (seq, acked, window, urgent) = numbers;
        let (mss, shift, val, ecr) = values;
        let (ack, sack_permitted, cookie) = has;
        let header = TcpHeader {
            src_port: ports.0,
            dst_port: ports.1,
            seq,
            ack: acked,
            flags: if ack { TcpFlags::SYN | TcpFlags::ACK } else { TcpFlags::SYN },
            window,
            urgent,
            options: TcpOptions {
                mss,
                window_scale: shift,
                sack_permitted,
                timestamps: ecr.map(|ecr| Timestamps { val, ecr }),
                fast_open: cookie.then_some(FastOpenCookie::REQUEST),
                ..TcpOptions::default()
            },
        };
        let usual = sack_permitted && !cookie && mss.is_some() && shift.is_some() && ecr.is_some();
        let (mut again, mut sum, mut of_bytes) = (vec![0xbb; MAX_LEN], Checksum::new(), Checksum::new());
        let len = header.emit_usual_syn(ports, &mut again, &mut sum);
        prop_assert_eq!(len.is_some(), usual);
        let len = len.unwrap_or_default();
        if usual {
            let bytes = emitted(&header);
            prop_assert_eq!(&again[..len], &bytes[..]);
            of_bytes.add(&bytes);
            prop_assert_eq!(sum.finish(), of_bytes.finish());
        }
        prop_assert!(again[len..].iter().all(|&b| b == 0xbb), "wrote past the header");
    }

    #[test]
    fn arbitrary_bytes_are_plain_only_if_they_are_a_header(
        mut bytes in proptest::collection::vec(any::<u8>(), 0..80), offset in 0u8..16, stamped: bool,
    ) {
        if let Some(byte) = bytes.get_mut(field::DATA_OFFSET) {
            *byte = offset << 4;
        }
        if let Some(options) = bytes.get_mut(LEN..LEN + 4)
            && stamped
        {
            options.copy_from_slice(&[1, 1, 8, 10]);
            bytes[field::DATA_OFFSET] = 8 << 4;
        }
        let unusual = TcpFlags::SYN | TcpFlags::URG;
        let in_place = in_place::<LEN>(&bytes).or(in_place::<{ LEN + PADDED_TIMESTAMPS_LEN }>(&bytes));
        prop_assert_eq!(
            in_place.filter(|(header, _)| !header.flags.intersects(unusual)),
            PlainTcp::parse(&bytes, bytes.len()),
        );
        if let Some((plain, header_len)) = PlainTcp::parse(&bytes, bytes.len()) {
            let (mut full, full_len) = TcpHeader::parse(&bytes, bytes.len()).unwrap();
            full.urgent = 0;
            prop_assert_eq!((TcpHeader::from(plain), header_len), (full, full_len));
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..80)) {
        let _ = TcpHeader::parse(&bytes, bytes.len());
    }

    #[test]
    fn arbitrary_options_never_panic(bits: u8, words in proptest::collection::vec(any::<[u8; 4]>(), 0..=10)) {
        let mut bytes = emitted(&TcpHeader {
            flags: TcpFlags::from_bits_retain(bits),
            ..TcpHeader::default()
        });
        bytes.extend_from_slice(words.as_flattened());
        bytes[field::DATA_OFFSET] = ((bytes.len() / 4) << 4) as u8;
        prop_assert_eq!(TcpHeader::parse(&bytes, bytes.len()).map(|p| p.1), Ok(bytes.len()));
    }

    #[test]
    fn more_options_than_fit_are_cut_and_not_overrun(bits: u8, mss: u16, clock: u32) {
        let header = TcpHeader {
            flags: TcpFlags::from_bits_retain(bits),
            options: TcpOptions {
                mss: Some(mss),
                window_scale: Some(7),
                sack_permitted: true,
                timestamps: Some(Timestamps { val: clock, ecr: 0 }),
                sack: [(1, 2); 4].into_iter().collect(),
                fast_open: None,
            },
            ..TcpHeader::default()
        };
        let bytes = emitted(&header);
        let (read, _) = TcpHeader::parse(&bytes, bytes.len()).unwrap();
        let syn = header.flags.contains(TcpFlags::SYN);
        prop_assert_eq!(read.options.sack.len(), if syn { 2 } else { 3 });
        prop_assert_eq!(read.options.mss, syn.then_some(mss));
        prop_assert_eq!(read.options.timestamps, header.options.timestamps);
    }
}

#[test]
fn the_layout_is_that_of_other_stacks() {
    let syn = TcpHeader {
        flags: TcpFlags::SYN,
        options: TcpOptions {
            mss: Some(1460),
            window_scale: Some(7),
            sack_permitted: true,
            timestamps: Some(Timestamps { val: 1, ecr: 2 }),
            ..TcpOptions::default()
        },
        ..TcpHeader::default()
    };
    assert_eq!(
        emitted(&syn)[LEN..],
        [2, 4, 0x05, 0xb4, 4, 2, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2, 1, 3, 3, 7]
    );
    let ack = TcpHeader { flags: TcpFlags::ACK, ..syn };
    assert_eq!(emitted(&ack)[LEN..], [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2]);
}

#[test]
fn every_truncation_is_told() {
    let header = TcpHeader {
        options: TcpOptions { timestamps: Some(Timestamps::default()), ..TcpOptions::default() },
        ..TcpHeader::default()
    };
    let bytes = emitted(&header);
    for len in 0..bytes.len() {
        assert_eq!(TcpHeader::parse(&bytes[..len], 2000), Err(WireError::Truncated));
        assert_eq!(TcpHeader::parse(&bytes, len), Err(WireError::Truncated));
    }
    let mut bytes = bytes;
    bytes[field::DATA_OFFSET] = 0x40;
    assert_eq!(TcpHeader::parse(&bytes, 2000), Err(WireError::BadLength));
}
