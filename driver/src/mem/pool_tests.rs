use super::super::{HEADROOM, PacketBuf, PacketSlice};
use super::*;

fn small() -> Pool {
    Pool::new(PoolConfig { slots: 4, slot_len: 2048, cells: 2, try_huge: false }).unwrap()
}

#[test]
fn buffers_are_16_bytes() {
    assert_eq!(size_of::<PacketBuf>(), 16);
    assert_eq!(size_of::<PacketSlice>(), 16);
    assert_eq!(size_of::<Option<PacketSlice>>(), 16);
}

#[test]
fn bad_sizes_are_refused() {
    let config = PoolConfig { slots: 4, slot_len: 2048, cells: 2, try_huge: false };
    let with = |f: fn(&mut PoolConfig)| {
        let mut config = config;
        f(&mut config);
        Pool::new(config).err()
    };
    assert!(matches!(with(|c| c.slot_len = 1500), Some(PoolError::SlotLen(1500))));
    assert!(matches!(with(|c| c.slots = 0), Some(PoolError::Slots(2))));
    assert!(matches!(with(|c| c.cells = 0), Some(PoolError::Slots(4))));
    assert!(matches!(with(|c| c.slots = MAX_SLOTS), Some(PoolError::Slots(_))));
}

#[test]
fn an_empty_pool_counts_and_recovers() {
    let pool = small();
    let held: Vec<_> = (0..4).map(|_| pool.alloc().unwrap()).collect();
    assert!(pool.alloc().is_none());
    assert_eq!(pool.counters().slots_exhausted, 1);
    let cells: Vec<_> = (0..2).map(|_| pool.alloc_cell().unwrap()).collect();
    assert!(pool.alloc_cell().is_none());
    assert_eq!(pool.counters().cells_exhausted, 1);
    assert_eq!(pool.audit(), Audit { total: 6, held: 6, ..Audit::default() });
    drop((held, cells));
    assert!(pool.audit().all_free());
    assert!(pool.alloc().is_some());
}

#[test]
fn a_slice_grows_into_its_slot_only_while_nothing_else_refers_to_it() {
    let pool = small();
    let mut buf = pool.alloc().unwrap();
    buf[..5].copy_from_slice(b"front");
    buf.truncate(5);
    let mut slice = buf.freeze();
    assert!(slice.try_append(b" and"));
    let other = slice.clone();
    assert!(!slice.try_append(b" no"), "the clone might be on its way out");
    drop(other);
    assert!(slice.try_append(b" back"));
    assert_eq!(&slice[..], b"front and back");
    assert!(!slice.try_append(&[0; 2048 - 13]), "one byte more than the slot has");
    assert!(slice.try_append(&[7; 2048 - 14]));
    assert_eq!((slice.len(), slice[2047]), (2048, 7));
    slice.advance(2047);
    assert!(!slice.try_append(b"!"), "what was cut off the front is not room behind");
    drop(slice);
    assert!(pool.audit().all_free());
}

#[test]
fn a_slice_is_narrowed_to_what_lies_in_it() {
    let pool = small();
    let mut slice = pool.copy_from(b"a frame with padding").unwrap().freeze();
    slice.narrow(2..12);
    assert_eq!(&slice[..], b"frame with");
    slice.narrow(6..10);
    assert_eq!(&slice[..], b"with");
    for beyond in [0..5, 5..5] {
        let mut same = slice.clone();
        let narrowed = std::panic::AssertUnwindSafe(|| same.narrow(beyond));
        assert!(std::panic::catch_unwind(narrowed).is_err());
    }
    slice.narrow(4..4);
    assert!(slice.is_empty());
    drop(slice);
    assert!(pool.audit().all_free());
}

#[test]
fn headers_are_written_once_into_the_headroom_that_was_left() {
    let pool = small();
    let mut buf = pool.alloc().unwrap();
    buf[HEADROOM..HEADROOM + 4].copy_from_slice(b"body");
    let body = buf.split_to(HEADROOM + 4).freeze_behind_headroom();
    let (again, part) = (body.clone(), body.slice(1..4));
    assert!(part.with_headers(|_| unreachable!("it does not begin behind the headroom")).is_none());
    let write = |room: &mut [u8; HEADROOM]| {
        room[HEADROOM - 4..].copy_from_slice(b"head");
        4
    };
    let frame = again.with_headers(write).unwrap();
    assert_eq!((&frame[..], &body[..]), (&b"headbody"[..], &b"body"[..]));
    assert!(body.with_headers(|_| unreachable!("someone may be reading them")).is_none());
    drop((frame, again, part, buf));
    assert!(body.with_headers(|_| unreachable!("they were used")).is_none());
    assert_eq!(pool.audit().held, 1);
    drop(body);
    assert!(pool.audit().all_free());
}

#[test]
fn headroom_that_nobody_used_is_gone_with_its_slot() {
    let pool = small();
    for round in 0..3 {
        let body = pool.alloc().unwrap().freeze_behind_headroom();
        assert_eq!(pool.audit(), Audit { total: 6, free: 5, held: 1, ..Audit::default() });
        match round {
            0 => drop(body),
            1 => drop(body.into_remote().unwrap()),
            _ => drop((body.clone(), body)),
        }
        assert_eq!(pool.collect_returns(), usize::from(round == 1));
        assert!(pool.audit().all_free());
        // The same slot again: whatever begins at that place in it, its front is somebody's.
        let whole = pool.alloc().unwrap().freeze();
        let tail = whole.slice(HEADROOM..HEADROOM + 4);
        assert!(tail.with_headers(|_| unreachable!("it is the slice's")).is_none());
    }
}

#[test]
fn what_grows_into_headroom_has_it() {
    let pool = small();
    let mut buf = pool.alloc().unwrap();
    let mut front = buf.split_to(0).freeze();
    drop(buf.freeze_behind_headroom());
    assert!(front.try_append(&[7; 200]));
    let part = front.slice(HEADROOM..200);
    assert!(part.with_headers(|_| unreachable!("the bytes are the other slice's")).is_none());
}

#[test]
#[should_panic(expected = "no headroom")]
fn what_begins_later_has_no_headroom() {
    let mut buf = small().alloc().unwrap();
    buf.advance(1);
    let _body = buf.freeze_behind_headroom();
}

#[test]
fn the_tail_of_a_slot_fills_while_its_front_is_shared() {
    let pool = small();
    let mut buf = pool.alloc().unwrap();
    buf[..5].copy_from_slice(b"front");
    let front = buf.split_to(5).freeze();
    let again = front.clone();
    buf[..4].copy_from_slice(b"tail");
    buf.truncate(4);
    let tail = buf.freeze();
    assert_eq!((&front[..], &again[..], &tail[..]), (&b"front"[..], &b"front"[..], &b"tail"[..]));
    assert_eq!(pool.audit().held, 1);
    drop((front, tail));
    assert_eq!(pool.audit().held, 1, "one clone still holds the slot");
    drop(again);
    assert!(pool.audit().all_free());
}

#[test]
fn slices_cut_at_both_ends() {
    let pool = small();
    let whole = pool.copy_from(b"0123456789").unwrap().freeze();
    assert_eq!(pool.counters().bytes_copied, 10);
    assert_eq!(&whole.slice(2..5)[..], b"234");
    let mut rest = whole.clone();
    assert_eq!(&rest.split_to(4)[..], b"0123");
    assert_eq!(&rest[..], b"456789");
    assert!(pool.copy_from(&[0; 2049]).is_none());
}

#[test]
#[should_panic(expected = "advance past the end")]
fn cutting_too_much_panics_instead_of_reaching_the_next_slot() {
    let mut slice = small().copy_from(b"abc").unwrap().freeze();
    slice.advance(4);
}

#[test]
fn slots_do_not_overlap() {
    let pool = small();
    let mut bufs: Vec<_> = (0..4).map(|_| pool.alloc().unwrap()).collect();
    bufs.extend((0..2).map(|_| pool.alloc_cell().unwrap()));
    for (i, buf) in bufs.iter_mut().enumerate() {
        buf.fill(i as u8);
    }
    for (i, buf) in bufs.iter().enumerate() {
        assert!(buf.iter().all(|&b| b == i as u8), "buffer {i} was overwritten");
    }
}

#[test]
fn a_remote_buffer_comes_home() {
    let pool = small();
    let mut buf = pool.alloc().unwrap();
    buf[0] = 7;
    let remote = buf.into_remote().unwrap();
    assert_eq!(pool.audit().remote, 1);
    let remote = std::thread::spawn(move || {
        let mut remote = remote;
        remote[1] = remote[0] + 1;
        remote.truncate(2);
        remote
    })
    .join()
    .unwrap();
    let buf = pool.adopt(remote).unwrap();
    assert_eq!(&buf[..], &[7, 8]);
    let remote = buf.into_remote().unwrap();
    std::thread::spawn(move || drop(remote)).join().unwrap();
    assert!(pool.audit().all_free());
}

#[test]
fn a_shared_slice_does_not_cross_threads() {
    let pool = small();
    let slice = pool.copy_from(b"shared").unwrap().freeze();
    let other = slice.clone();
    let slice = slice.into_remote().unwrap_err();
    drop(other);
    assert_eq!(&slice.into_remote().unwrap()[..], b"shared");
}

#[test]
fn a_pool_does_not_adopt_another_pools_buffer() {
    let (a, b) = (small(), small());
    let remote = a.alloc().unwrap().into_remote().unwrap();
    let remote = b.adopt(remote).unwrap_err();
    drop(remote);
    assert!(a.audit().all_free() && b.audit().all_free());
}

#[test]
fn buffers_outlive_every_handle_of_their_pool() {
    let pool = small();
    let slice = pool.copy_from(b"alive").unwrap().freeze();
    let remote = pool.alloc().unwrap().into_remote().unwrap();
    drop(pool);
    assert_eq!(&slice[..], b"alive");
    drop(slice);
    assert_eq!(remote.len(), 2048);
    drop(remote);
}

#[test]
fn returns_refill_an_exhausted_pool() {
    let pool = small();
    let remotes: Vec<_> = (0..4).map(|_| pool.alloc().unwrap().into_remote().unwrap()).collect();
    assert!(pool.alloc().is_none());
    drop(remotes);
    assert!(pool.alloc().is_some(), "alloc takes home what other threads dropped");
}

#[test]
#[should_panic(expected = "a range beyond the slice")]
fn a_slice_of_more_than_there_is_panics() {
    let slice = small().copy_from(b"0123456789").unwrap().freeze();
    let _ = slice.slice(0..100);
}

#[test]
fn many_references_to_one_slot_are_counted() {
    let pool = small();
    let slice = pool.copy_from(b"popular").unwrap().freeze();
    let clones = vec![slice.clone(); 100_000];
    assert_eq!((pool.audit().held, slice.is_unique()), (1, false));
    drop(clones);
    assert!(slice.is_unique());
    drop(slice);
    assert!(pool.audit().all_free());
}
