use super::*;
use crate::mem::{Audit, PoolConfig};

fn complete<R: Row>(
    posted: &mut PostedSlots,
    row: R,
    lens: RangeInclusive<u16>,
    into: &mut Vec<PacketSlice>,
    filled: impl FnMut(R::Place) -> Option<u16>,
) -> usize {
    // SAFETY: there is no device.
    unsafe { posted.complete(row, lens, into, filled) }
}

fn abandon(posted: &mut PostedSlots) {
    // SAFETY: there is no device.
    unsafe { posted.abandon() };
}

const ANY: RangeInclusive<u16> = 1..=2048;

fn small() -> Pool {
    Pool::new(PoolConfig { slots: 4, slot_len: 2048, cells: 2, try_huge: false }).unwrap()
}

fn queue(queued: &mut QueuedSlots, slice: PacketSlice) -> Option<usize> {
    let mut at = None;
    queued.put([slice].into_iter(), ANY, |offset, _| at = Some(offset));
    at
}

#[test]
fn a_posted_slot_is_accounted_for_until_it_is_completed() {
    let pool = small();
    let (mut posted, mut slices) = (PostedSlots::new(&pool, 2), Vec::new());
    let mut offsets = Vec::new();
    assert_eq!(posted.post(0..3, |_, at| offsets.push(at)), 2, "the table is full");
    assert_eq!(pool.audit(), Audit { total: 6, free: 4, posted: 2, ..Audit::default() });
    let lens = 14..=2048;
    assert_eq!(complete(&mut posted, 0..1, lens.clone(), &mut slices, |_| Some(2049)), 0, "a lie");
    assert_eq!(
        complete(&mut posted, 0..1, lens.clone(), &mut slices, |_| Some(13)),
        0,
        "too little"
    );
    assert_eq!(complete(&mut posted, 0..1, lens.clone(), &mut slices, |_| Some(2048)), 1);
    assert_eq!(pool.audit(), Audit { total: 6, free: 4, posted: 1, held: 1, ..Audit::default() });
    let mut given = [60].into_iter();
    assert_eq!(complete(&mut posted, 0..8, lens.clone(), &mut slices, |_| given.next()), 1);
    assert_eq!(
        complete(&mut posted, 0..8, lens, &mut slices, |_| Some(60)),
        0,
        "a slot comes back once"
    );
    let base = pool.region().base() as usize;
    let places: Vec<_> = slices.iter().map(|slice| slice.as_ptr() as usize - base).collect();
    assert_eq!((places, slices[1].len()), (offsets, 60));
    drop(slices);
    assert!(pool.audit().all_free());
}

#[test]
fn a_table_goes_round_without_losing_a_slot() {
    let pool = small();
    let (mut posted, mut queued) = (PostedSlots::new(&pool, 4), QueuedSlots::new(&pool, 4));
    for round in 0..50 {
        let count = round % 4 + 1;
        assert_eq!(posted.post(0..count, |_, _| {}), count);
        let mut slices = Vec::new();
        while slices.len() < count {
            assert!(complete(&mut posted, 0..count, 0..=2048, &mut slices, |_| Some(60)) > 0);
        }
        assert_eq!(queued.put(slices.into_iter(), ANY, |_, _| {}), count);
        assert_eq!(pool.audit().queued as usize, count, "round {round}");
        queued.release_to(queued.end());
        assert!(pool.audit().all_free(), "round {round}");
    }
}

#[test]
fn an_empty_pool_posts_what_it_has() {
    let pool = small();
    let held = pool.alloc().unwrap();
    let mut posted = PostedSlots::new(&pool, 8);
    assert_eq!((posted.post(0..8, |_, _| {}), pool.counters().slots_exhausted), (3, 1));
    assert_eq!(pool.audit().posted, 3);
    abandon(&mut posted);
    assert_eq!((pool.audit().posted, pool.audit().free), (0, 5));
    let remote = held.into_remote().unwrap();
    drop(remote);
    assert_eq!(posted.post(0..8, |_, _| {}), 4, "what other threads dropped is posted, too");
    abandon(&mut posted);
    assert!(pool.audit().all_free() && posted.is_empty());
}

#[test]
fn a_forgotten_table_shows_in_the_audit() {
    let pool = small();
    let mut posted = PostedSlots::new(&pool, 4);
    posted.post(0..2, |_, _| {});
    drop(posted);
    assert_eq!((pool.audit().posted, pool.audit().balanced()), (2, true));
}

#[test]
fn a_queued_slot_is_seen_until_the_device_is_done() {
    let pool = small();
    let slice = pool.copy_from(b"head and tail").unwrap().freeze();
    let mut queued = QueuedSlots::new(&pool, 4);
    let at = queue(&mut queued, slice.slice(9..13));
    assert_eq!(at, Some(slice.as_ptr() as usize + 9 - pool.region().base() as usize));
    let first = queued.end();
    queue(&mut queued, slice.clone());
    assert_eq!(pool.audit().queued, 1);
    queued.release_to(first);
    assert_eq!(pool.audit().queued, 1, "the other descriptor reads the same slot");
    queued.abandon();
    assert_eq!((pool.audit().queued, pool.audit().held), (0, 1));
    drop(slice);
    assert!(pool.audit().all_free());
}

#[test]
fn the_last_reference_may_be_the_devices() {
    let pool = small();
    let mut queued = QueuedSlots::new(&pool, 4);
    queue(&mut queued, pool.copy_from(b"given away").unwrap().freeze()).unwrap();
    let cell = pool.alloc_cell().unwrap();
    let at = cell.as_ptr() as usize - pool.region().base() as usize;
    assert_eq!(queue(&mut queued, cell.freeze()), Some(at));
    assert_eq!((pool.audit().queued, pool.audit().held), (2, 0));
    queued.release_to(queued.end() - 1);
    assert_eq!(pool.audit().queued, 1);
    drop(queued);
    assert!(pool.audit().all_free());
}

#[test]
fn what_the_device_must_not_read_is_dropped() {
    let (a, b) = (small(), small());
    let mut queued = QueuedSlots::new(&a, 2);
    assert_eq!(queue(&mut queued, b.copy_from(b"stranger").unwrap().freeze()), None);
    assert_eq!(queue(&mut queued, a.copy_from(b"").unwrap().freeze()), None);
    assert!(a.audit().all_free() && b.audit().all_free());
    let mut many: Vec<_> = (0..4).map(|_| a.copy_from(b"x").unwrap().freeze()).collect();
    assert_eq!(queued.put_front(&mut many, 0..1, ANY, |_, _, _| {}), 1);
    assert_eq!((many.len(), a.audit().held, a.audit().queued), (3, 3, 1));
    assert_eq!(queued.put(many.into_iter(), ANY, |_, _| {}), 1, "the table is full");
    queued.abandon();
    assert!(a.audit().all_free());
}

#[test]
fn a_run_goes_on_behind_the_tables_end_and_behind_what_is_refused() {
    let (pool, other) = (small(), small());
    let mut queued = QueuedSlots::new(&pool, 4);
    for _ in 0..3 {
        queue(&mut queued, pool.copy_from(b"before").unwrap().freeze()).unwrap();
        queued.release_to(queued.end());
    }
    let bytes = [&b"1"[..], b"22", b"foreign", b"", b"333", b"4444"];
    let mut slices: Vec<_> = bytes
        .iter()
        .map(|bytes| {
            let pool = if *bytes == b"foreign" { &other } else { &pool };
            let buf = if bytes.is_empty() { pool.alloc_cell() } else { pool.copy_from(b"????") };
            let mut buf = buf.unwrap();
            buf.truncate(bytes.len());
            buf.freeze()
        })
        .collect();
    let mut told = Vec::new();
    let kept = queued.put_front(&mut slices, 10..15, ANY, |place, _, len| told.push((place, len)));
    assert_eq!((kept, told), (3, vec![(10, 1), (11, 2), (12, 3)]));
    assert_eq!((slices.len(), slices[0].len()), (1, 4));
    assert!(other.audit().all_free());
    assert_eq!((pool.audit().queued, pool.audit().held), (3, 1));
    queued.abandon();
    drop(slices);
    assert!(pool.audit().all_free());
}

#[test]
fn places_go_on_behind_the_tables_end() {
    let pool = small();
    let (mut posted, mut slices) = (PostedSlots::new(&pool, 4), Vec::new());
    posted.post(0..3, |_, _| {});
    assert_eq!(complete(&mut posted, 0..3, ANY, &mut slices, |_| Some(1)), 3);
    slices.clear();
    let mut places = Vec::new();
    assert_eq!(posted.post(7..11, |place, _| places.push(place)), 4);
    assert_eq!(places, [7, 8, 9, 10]);
    assert_eq!(pool.counters().slots_exhausted, 0);
    abandon(&mut posted);
    assert!(pool.audit().all_free());
}

#[test]
#[should_panic(expected = "no length at all")]
#[expect(clippy::reversed_empty_ranges, reason = "that is what is refused")]
fn lengths_from_a_higher_to_a_lower_one_are_refused() {
    let pool = small();
    let mut posted = PostedSlots::new(&pool, 4);
    posted.post(0..1, |_, _| {});
    complete(&mut posted, 0..1, 5..=4, &mut Vec::new(), |_| Some(4096));
}
