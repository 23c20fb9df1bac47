use super::*;
use crate::mem::{Pool, PoolConfig};

fn pool() -> Pool {
    Pool::new(PoolConfig { slots: 16, slot_len: 2048, cells: 4, try_huge: false }).unwrap()
}

fn slice(pool: &Pool, bytes: &[u8]) -> PacketSlice {
    pool.copy_from(bytes).unwrap().freeze()
}

#[test]
fn frames_that_were_sent_arrive_as_they_are_but_for_those_taken_before() {
    let pool = pool();
    let (mut sent, mut arrived) = (TxBurst::new(), RxBurst::new());
    for bytes in [&b"taken"[..], b"one", b"two"] {
        sent.push_segment(slice(&pool, bytes));
        sent.push_segment(slice(&pool, b"!"));
        sent.finish_frame(TxFrame::default());
    }
    sent.push_segment(slice(&pool, b"unfinished"));
    sent.take_front();
    // One that the wire does not take as it is keeps all where they are.
    let known = |text: &'static [u8]| {
        move |_: &TxFrame, segments: &[PacketSlice]| {
            (&segments[0][..] != text).then_some((RxChecksum::Good, 0))
        }
    };
    assert_eq!(sent.move_to(&mut arrived, known(b"two")), None);
    assert_eq!((sent.len(), arrived.len()), (2, 0));
    assert_eq!(sent.move_to(&mut arrived, known(b"three")), Some(8));
    assert!(arrived.frames().iter().all(|frame| frame.checksum == RxChecksum::Good));
    assert!(sent.is_empty() && sent.segments_len() == 0);
    let frames: Vec<_> = arrived.frames().iter().map(|f| (f.first, f.count, f.len)).collect();
    assert_eq!(frames, [(0, 2, 4), (2, 2, 4)]);
    assert_eq!(&arrived.segments(&arrived.frames()[1])[0][..], b"two");
    sent.push_segment(slice(&pool, b"next"));
    sent.finish_frame(TxFrame::default());
    assert_eq!(sent.move_to(&mut arrived, |_, _| Some((RxChecksum::Unknown, 0))), Some(4));
    assert_eq!(arrived.len(), 1);
    arrived.clear();
    assert!(pool.audit().all_free());
}

#[test]
fn a_pair_is_a_frame_of_two_segments() {
    let pool = pool();
    let meta = TxFrame { header_len: 4, ..TxFrame::default() };
    let (mut pair, mut apart) = (TxBurst::new(), TxBurst::new());
    pair.push_single(slice(&pool, b"before"), TxFrame::default());
    pair.push_pair(slice(&pool, b"head"), slice(&pool, b"payload"), meta);
    pair.push_single(slice(&pool, b"behind"), TxFrame::default());
    for (segments, meta) in [
        (&[&b"before"[..]][..], TxFrame::default()),
        (&[b"head", b"payload"], meta),
        (&[b"behind"], TxFrame::default()),
    ] {
        segments.iter().for_each(|bytes| apart.push_segment(slice(&pool, bytes)));
        apart.finish_frame(meta);
    }
    assert_eq!(pair.simple_len(), apart.simple_len());
    while let Some((frame, segments)) = apart.front() {
        let (same, same_segments) = pair.front().unwrap();
        assert_eq!(frame, same);
        assert!(segments.iter().map(|s| &**s).eq(same_segments.iter().map(|s| &**s)));
        apart.take_front();
        pair.take_front();
    }
    assert!(pair.is_empty() && pair.segments_len() == 0);
    assert!(pool.audit().all_free());
}

#[test]
fn a_plain_frame_alone_arrives_as_it_would_among_others_and_nothing_else_does() {
    let pool = pool();
    let (mut sent, mut alone, mut arrived) = (TxBurst::new(), RxBurst::new(), RxBurst::new());
    assert_eq!(sent.move_only(1..=9, &mut alone), None, "there is none");
    sent.push_single(slice(&pool, b"only"), TxFrame::default());
    assert_eq!(sent.move_only(5..=9, &mut alone), None, "it is too short");
    assert_eq!(sent.move_only(4..=9, &mut alone), Some(4));
    assert!(sent.is_empty() && sent.segments_len() == 0);
    sent.push_single(slice(&pool, b"only"), TxFrame::default());
    assert_eq!(sent.move_only(4..=9, &mut alone), None, "there is one before it");
    assert!(sent.move_to(&mut arrived, |_, _| Some((RxChecksum::Unknown, 0))).is_some());
    assert_eq!(alone.frames(), arrived.frames());
    assert_eq!(alone.take_only().map(|only| only.to_vec()), Some(b"only".to_vec()));
    let mut refused = |sent: &mut TxBurst| {
        assert_eq!(sent.move_only(1..=9, &mut alone), None);
        sent.clear();
    };
    sent.push_single(slice(&pool, b"two"), TxFrame::default());
    sent.push_single(slice(&pool, b"of them"), TxFrame::default());
    refused(&mut sent);
    sent.push_single(slice(&pool, b"tagged"), TxFrame { vlan: Some(5), ..TxFrame::default() });
    refused(&mut sent);
    sent.push_segment(slice(&pool, b"in"));
    sent.push_segment(slice(&pool, b"pieces"));
    sent.finish_frame(TxFrame::default());
    refused(&mut sent);
    arrived.clear();
    assert!(pool.audit().all_free());
}

#[test]
fn a_received_frame_is_a_run_of_segments() {
    let pool = pool();
    let mut burst = RxBurst::new();
    burst.push_segment(slice(&pool, b"one"));
    burst.finish_frame(RxFrame::default());
    burst.push_segment(slice(&pool, b"lost"));
    burst.abandon_frame();
    burst.push_segment(slice(&pool, b"two"));
    burst.push_segment(slice(&pool, b"three"));
    burst.finish_frame(RxFrame { checksum: RxChecksum::Good, ..RxFrame::default() });
    let frame = burst.frames()[1];
    assert_eq!((frame.first, frame.count, frame.len), (1, 2, 8));
    assert_eq!(&burst.segments(&frame)[1][..], b"three");
    burst.truncate_frames(1);
    assert_eq!(pool.audit().held, 1);
    burst.clear();
    assert!(pool.audit().all_free());
}

#[test]
fn unwanted_frames_leave_the_others_as_they_were() {
    let pool = pool();
    let mut burst = RxBurst::new();
    let ours = RxFrame { vlan: VlanTag::new(5), ..RxFrame::default() };
    let filled = |burst: &mut RxBurst| {
        for (segments, meta) in [
            (&[&b"foreign"[..]][..], RxFrame::default()),
            (&[b"one", b"two"], ours),
            (&[b"a", b"b", b"c"], RxFrame::default()),
            (&[b"d"], RxFrame::default()),
            (&[b"three"], ours),
            (&[b"e", b"f"], RxFrame::default()),
        ] {
            segments.iter().for_each(|bytes| burst.push_segment(slice(&pool, bytes)));
            burst.finish_frame(meta);
        }
        burst.push_segment(slice(&pool, b"begun"));
    };
    let joined = |burst: &RxBurst| -> Vec<Vec<u8>> {
        let all = |frame| burst.segments(frame).iter().flat_map(|s| s.to_vec()).collect();
        burst.frames().iter().map(all).collect()
    };
    // The first is not looked at.
    filled(&mut burst);
    assert_eq!(burst.retain_from(1, |frame| frame.vlan.get() == Some(5)), (3, 6));
    burst.finish_frame(ours);
    assert_eq!(joined(&burst), [&b"foreign"[..], b"onetwo", b"three", b"begun"]);
    assert_eq!(burst.retain_from(1, |_| true), (0, 0));
    assert_eq!(burst.retain_from(0, |_| false), (4, 23));
    assert!(burst.is_empty() && pool.audit().all_free());
    assert_eq!(burst.retain_from(0, |_| false), (0, 0));
}

#[test]
fn a_tag_is_for_every_frame_that_is_still_there() {
    let pool = pool();
    let mut burst = TxBurst::new();
    for bytes in [&b"a"[..], b"bb", b"ccc"] {
        burst.push_segment(slice(&pool, bytes));
        burst.finish_frame(TxFrame::default());
    }
    burst.take_front();
    burst.tag(5);
    assert_eq!(burst.simple_len(), 0, "none is to be sent as it is");
    burst.push_segment(slice(&pool, b"later"));
    burst.finish_frame(TxFrame::default());
    assert_eq!(burst.simple_len(), 0, "not while others are before it");
    let tags: Vec<_> = burst.iter().map(|(frame, _)| frame.vlan).collect();
    assert_eq!(tags, [Some(5), Some(5), None]);
}

#[test]
fn what_a_queue_did_not_take_stays_in_order() {
    let pool = pool();
    let mut burst = TxBurst::new();
    for bytes in [&b"a"[..], b"bb", b"ccc"] {
        burst.push_segment(slice(&pool, bytes));
        burst.push_segment(slice(&pool, b"-"));
        burst.finish_frame(TxFrame::default());
    }
    burst.take_front();
    burst.clear_taken();
    assert_eq!(pool.audit().held, 4);
    let lens: Vec<_> = burst.iter().map(|(f, s)| (f.len, s.len())).collect();
    assert_eq!(lens, [(3, 2), (4, 2)]);
    burst.push_segment(slice(&pool, b"dddd"));
    burst.finish_frame(TxFrame::default());
    burst.take_front();
    assert_eq!(burst.front().unwrap().0.len, 4);
    burst.take_front();
    assert_eq!(&burst.front().unwrap().1[0][..], b"dddd");
    burst.take_front();
    assert!(burst.is_empty() && pool.audit().all_free());
}

#[test]
fn a_burst_gives_its_segments_away() {
    let pool = pool();
    let (mut rx, mut tx) = (RxBurst::new(), TxBurst::new());
    for bytes in [&b"a"[..], b"bb", b"ccc"] {
        rx.push_segment(slice(&pool, bytes));
        rx.push_segment(slice(&pool, b"-"));
        rx.finish_frame(RxFrame {
            rss_hash: RssHash::new(bytes.len() as u32),
            ..RxFrame::default()
        });
    }
    rx.push_segment(slice(&pool, b"not a frame yet"));
    rx.drain(|frame, mut segments| {
        tx.push_segment(segments.next().unwrap());
        if frame.rss_hash != RssHash::new(2) {
            tx.push_segment(segments.next().unwrap());
            assert!(segments.next().is_none(), "the next segment is another frame's");
        }
        tx.finish_frame(TxFrame::default());
    });
    assert!(rx.is_empty());
    assert_eq!((pool.audit().held, tx.segments_len()), (5, 5));
    let mut kept = Vec::new();
    tx.push_segment(slice(&pool, b"not a frame yet"));
    tx.drain_front(2, |frame, segments| {
        assert_eq!(usize::from(frame.count), segments.size_hint().0);
        kept.extend(segments);
    });
    let bytes: Vec<_> = kept.iter().map(|segment| segment.to_vec()).collect();
    assert_eq!(bytes, [&b"a"[..], b"-", b"bb"]);
    assert_eq!((tx.len(), tx.front().unwrap().0.len), (1, 4));
    tx.finish_frame(TxFrame::default());
    tx.drain_front(9, |_, _| {});
    assert!(tx.is_empty());
    assert_eq!(pool.audit().held, 3, "what was not taken is dropped");
    drop(kept);
    assert!(pool.audit().all_free());
}

#[test]
fn a_tag_of_any_value_is_not_no_tag() {
    for tag in [0, 1, 0x2005, u16::MAX] {
        assert_eq!(
            (VlanTag::new(tag).get(), VlanTag::from(Some(tag))),
            (Some(tag), VlanTag::new(tag))
        );
    }
    assert_eq!(
        (VlanTag::NONE.get(), VlanTag::default(), VlanTag::from(None)),
        (None, VlanTag::NONE, VlanTag::NONE)
    );
    assert_eq!(size_of::<RxFrame>(), 24, "three words, of which one holds all small fields");
}
