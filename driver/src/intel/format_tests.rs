use super::*;
use crate::mem::Checksum;

/// A TCP frame over IPv4 with `payload` bytes announced, as the stack hands it over: the checksum
/// field holds the pseudo-header's sum.
fn frame(payload: usize) -> (Vec<u8>, TxFrame) {
    let mut bytes = Vec::new();
    etherparse::PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4([10, 0, 0, 1], [10, 0, 0, 2], 64)
        .tcp(1000, 80, 7, 512)
        .write(&mut bytes, &vec![0x5a; payload])
        .unwrap();
    let sum = pseudo_sum(20 + payload as u16);
    bytes[50..52].copy_from_slice(&sum.to_be_bytes());
    bytes.truncate(54);
    let meta = TxFrame {
        count: 2,
        len: 54 + payload as u32,
        checksum: TxChecksum::Partial { start: 34, offset: 16 },
        ..TxFrame::default()
    };
    (bytes, meta)
}

fn pseudo_sum(len: u16) -> u16 {
    let mut sum = Checksum::new();
    sum.add(&[10, 0, 0, 1, 10, 0, 0, 2]);
    sum.add_u16(6);
    sum.add_u16(len);
    sum.partial()
}

#[test]
fn headers_to_be_cut_lose_their_lengths() {
    for payload in [1449, 9_000, 65_000] {
        let (bytes, meta) = frame(payload);
        let meta = TxFrame { tso_mss: 1448, header_len: 54, ..meta };
        let offload = Offload::of(&meta, &bytes, Features::all()).unwrap();
        let (headers, len) = offload.segment_headers(&bytes);
        assert_eq!((len, &headers[16..18], &headers[24..26]), (54, &[0, 0][..], &[0, 0][..]));
        let sum = u16::from_be_bytes([headers[50], headers[51]]);
        // In ones' complement 0 and 0xffff are the same number.
        assert_eq!(sum % 0xffff, pseudo_sum(0) % 0xffff, "payload {payload}");
        assert_eq!(headers[..16], bytes[..16]);
    }
}

#[test]
fn what_was_not_granted_or_does_not_fit_is_refused() {
    let (bytes, meta) = frame(100);
    let tso = TxFrame { tso_mss: 50, header_len: 54, ..meta };
    let all = Features::all();
    assert!(Offload::of(&meta, &bytes, all).is_ok() && Offload::of(&tso, &bytes, all).is_ok());
    let partial =
        |start, offset| TxFrame { checksum: TxChecksum::Partial { start, offset }, ..meta };
    for (what, meta, granted) in [
        ("checksum not granted", meta, Features::empty()),
        ("segmentation not granted", tso, Features::TX_CHECKSUM | Features::TSO6),
        ("tag not granted", TxFrame { vlan: Some(1), ..meta }, all.difference(Features::VLAN)),
        ("field outside of the first segment", partial(40, 16), all),
        ("neither TCP nor UDP", partial(34, 12), all),
        ("transport header in the link header", partial(4, 6), all),
        ("complete, but to be cut", TxFrame { checksum: TxChecksum::Complete, ..tso }, all),
        ("UDP to be cut", TxFrame { tso_mss: 50, header_len: 54, ..partial(34, 6) }, all),
        ("headers beyond the first segment", TxFrame { header_len: 60, ..tso }, all),
        ("headers shorter than TCP's", TxFrame { header_len: 50, ..tso }, all),
        ("headers longer than the frame", TxFrame { len: 50, ..tso }, all),
    ] {
        assert_eq!(Offload::of(&meta, &bytes, granted), Err(Refused), "{what}");
    }
    let mut other = bytes.clone();
    other[14] = 0x55;
    assert_eq!(Offload::of(&meta, &other, all), Err(Refused), "IP version 5");
}

#[test]
fn a_checksum_is_bad_only_where_the_device_can_know() {
    let verdict = |status: u64| {
        rx_meta([0, status | rx::DD | rx::EOP], &RxMask::of(Features::all())).checksum
    };
    assert_eq!(verdict(0), RxChecksum::Unknown);
    assert_eq!(verdict(rx::L4CS), RxChecksum::Good);
    assert_eq!(verdict(rx::L4CS | rx::UDPCS), RxChecksum::Good);
    assert_eq!(verdict(rx::L4CS | rx::L4E), RxChecksum::Bad);
    assert_eq!(verdict(rx::L4CS | rx::UDPCS | rx::L4E), RxChecksum::Unknown);
    assert_eq!(verdict(rx::L4CS | rx::IPE), RxChecksum::Unknown);
    let nothing = rx_meta([1, rx::L4CS | rx::VP | 7 << 48], &RxMask::of(Features::empty()));
    assert_eq!(nothing, RxFrame::default());
}

#[test]
fn hash_and_tag_are_read_from_the_descriptor() {
    let descriptor = [0xdead_beef << 32 | 1, rx::VP | 0x2005 << 48 | 60 << 32];
    let meta = rx_meta(descriptor, &RxMask::of(Features::all()));
    assert_eq!((meta.rss_hash.get(), meta.vlan.get()), (Some(0xdead_beef), Some(0x2005)));
    assert_eq!(rx_len(descriptor[1]), 60);
    assert_eq!(
        rx_meta([0xdead_beef << 32, 0], &RxMask::of(Features::all())).rss_hash.get(),
        None,
        "no hash type"
    );
}

#[test]
fn a_plain_frame_is_one_of_which_only_the_hash_is_its_own() {
    let offloads = [Features::RX_CHECKSUM, Features::VLAN, Features::RSS_HASH];
    let bits = [rx::EOP, rx::VP, rx::UDPCS, rx::L4CS, rx::L4E, rx::IPE, rx::RXE, 7 << 48];
    let mut plain = 0;
    for choice in 0..1 << offloads.len() {
        let chosen = offloads.iter().enumerate().filter(|(n, _)| choice >> n & 1 != 0);
        let mask = RxMask::of(chosen.map(|(_, feature)| *feature).collect());
        let is_plain = |status| mask.is_plain(mask.difference(status));
        assert!(!is_plain(rx::EOP | rx::L4CS), "not finished");
        for set in 0..1 << bits.len() {
            let is_set = |(n, bit): (usize, &u64)| if set >> n & 1 != 0 { *bit } else { 0 };
            let status = rx::DD | bits.iter().enumerate().map(is_set).sum::<u64>() | 60 << 32;
            let difference = mask.difference(status);
            let whole = status & (rx::EOP | rx::RXE) == rx::EOP;
            assert_eq!((RxMask::is_whole(difference), rx_len(difference)), (whole, 60));
            for hash in [0, 0xdead_beef << 32 | 1, 0xdead_beef << 32 | 0xfff0] {
                if is_plain(status) {
                    assert!(whole, "{status:x}");
                    let meta = mask.plain_meta(mask.plain_verdict(), hash);
                    assert_eq!(meta, rx_meta([hash, status], &mask), "{status:x}");
                    plain += 1;
                }
            }
        }
    }
    assert!(plain > 0);
}
