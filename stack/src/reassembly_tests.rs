use super::*;
use barewire_driver::{Pool, PoolConfig};
use proptest::prelude::*;

const NOW: Instant = Instant::from_millis(1_000);

fn pool() -> Pool {
    Pool::new(PoolConfig { slots: 256, slot_len: 2048, cells: 2, try_huge: false }).unwrap()
}

/// Byte `at` of every datagram, so that a misplaced piece shows.
fn byte(at: usize) -> u8 {
    (at * 7 + at / 251) as u8
}

/// A reassembler with the memory that its fragments lie in.
struct Host {
    pool: Pool,
    reassembler: Reassembler,
}

impl Host {
    fn new(change: impl FnOnce(&mut ReassemblyLimits)) -> Host {
        let mut limits = ReassemblyLimits::default();
        change(&mut limits);
        Host { pool: pool(), reassembler: Reassembler::new(limits) }
    }

    /// A fragment of datagram `ident` arrives at `NOW`; gives the datagram if that is whole.
    fn arrive(&mut self, ident: u16, offset: u16, len: usize, more: bool) -> Option<Vec<u8>> {
        let whole = self.arrive_marked(ident, offset, len, more, Ecn::NotEct)?;
        Some(whole.payload.iter().flat_map(|piece| piece.to_vec()).collect())
    }

    /// As [`Host::arrive`], with an ECN field; gives the datagram with its header.
    fn arrive_marked(
        &mut self,
        ident: u16,
        offset: u16,
        len: usize,
        more: bool,
        ecn: Ecn,
    ) -> Option<Whole> {
        let header = Ipv4Header {
            ident,
            tos: ecn.in_tos(0x20),
            fragment_offset: offset,
            more_fragments: more,
            ..Ipv4Header::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), 17, len)
        };
        let bytes: Vec<u8> = (0..len).map(|i| byte(usize::from(offset) + i)).collect();
        // In pieces, as a frame over several slots would be.
        let pieces =
            bytes.chunks(1000).map(|piece| self.pool.copy_from(piece).unwrap().freeze()).collect();
        self.reassembler.insert(NOW, &header, pieces)
    }

    fn counters(&self) -> ReassemblyCounters {
        self.reassembler.counters()
    }

    /// Everything is let go of and nothing leaks.
    #[track_caller]
    fn empty(mut self) {
        let mut expired = Vec::new();
        self.reassembler.handle_timeout(Instant::FAR_FUTURE, &mut expired);
        drop(expired);
        assert_eq!((self.reassembler.len(), self.reassembler.pinned_bytes()), (0, 0));
        assert!(self.pool.audit().all_free(), "{:?}", self.pool.audit());
    }
}

fn datagram(len: usize) -> Option<Vec<u8>> {
    Some((0..len).map(byte).collect())
}

#[test]
fn fragments_in_any_order_become_the_datagram() {
    let mut host = Host::new(|_| {});
    assert_eq!(host.arrive(1, 2960, 40, false), None);
    assert_eq!(host.arrive(1, 0, 1480, true), None);
    assert_eq!(host.arrive(2, 0, 8, true), None, "another datagram");
    assert_eq!(host.arrive(1, 1480, 1480, true), datagram(3000));
    assert_eq!(host.counters().reassembled, 1);
    assert_eq!(host.reassembler.len(), 1);
    host.empty();
}

#[test]
fn a_repeated_fragment_is_ignored() {
    let mut host = Host::new(|_| {});
    host.arrive(1, 0, 16, true);
    host.arrive(1, 24, 5, false);
    assert_eq!(host.arrive(1, 0, 16, true), None);
    assert_eq!(host.arrive(1, 24, 5, false), None);
    assert_eq!(host.counters().duplicates, 2);
    assert_eq!(host.arrive(1, 16, 8, true), datagram(29));
    host.empty();
}

#[test]
fn an_overlap_poisons_the_datagram_and_what_still_comes() {
    // Front, back, inside, around; and a last fragment where another one is.
    for (offset, len, more) in
        [(8, 16, true), (24, 16, true), (16, 8, true), (8, 40, true), (16, 16, false)]
    {
        let mut host = Host::new(|_| {});
        host.arrive(1, 16, 16, true);
        assert_eq!(host.arrive(1, offset, len, more), None);
        assert_eq!(host.counters().overlapping, 1, "{offset}+{len}");
        assert_eq!(host.reassembler.pinned_bytes(), 0, "what was there is let go of at once");
        host.arrive(1, 0, 16, true);
        assert_eq!(host.arrive(1, 32, 8, false), None, "nothing brings it back");
        assert_eq!(host.counters().of_poisoned, 2);
        host.empty();
    }
}

#[test]
fn two_ends_poison_the_datagram() {
    for (offset, len, more) in
        [(40, 8, false), (16, 8, false), (40, 8, true), (24, 8, true), (32, 8, true)]
    {
        let mut host = Host::new(|_| {});
        host.arrive(1, 32, 8, false);
        host.arrive(1, offset, len, more);
        assert_eq!(
            (host.counters().overlapping, host.reassembler.pinned_bytes() == 0),
            // A part before the end is as it should be.
            if (offset, more) == (24, true) { (0, false) } else { (1, true) },
            "{offset}+{len}"
        );
        host.empty();
    }
    let mut host = Host::new(|_| {});
    host.arrive(1, 32, 8, true);
    host.arrive(1, 16, 8, false);
    assert_eq!(host.counters().overlapping, 1, "an end before what is there");
    host.empty();
}

#[test]
fn a_datagram_beyond_65535_bytes_is_refused() {
    let mut host = Host::new(|_| {});
    host.arrive(1, 0, 8, true);
    assert_eq!(host.arrive(1, 65_528, 8, false), None);
    assert_eq!((host.counters().too_large, host.reassembler.pinned_bytes()), (1, 0));
    assert_eq!(host.arrive(2, 65_504, 12, false), None, "one byte more than fits the header");
    assert_eq!(host.counters().too_large, 2);
    host.arrive(3, 65_504, 11, false);
    assert_eq!(host.counters().too_large, 2);
    host.empty();
}

#[test]
fn empty_and_unaligned_fragments_are_dropped_alone() {
    let mut host = Host::new(|_| {});
    host.arrive(1, 0, 8, true);
    host.arrive(1, 8, 0, false);
    host.arrive(1, 8, 7, true);
    assert_eq!(host.counters().malformed, 2);
    assert_eq!(host.arrive(1, 8, 7, false), datagram(15));
    host.empty();
}

#[test]
fn the_oldest_datagram_gives_way_to_a_new_one() {
    let mut host = Host::new(|limits| limits.max_datagrams = 2);
    for ident in 1..=3 {
        host.arrive(ident, 0, 8, true);
    }
    assert_eq!((host.counters().evicted, host.reassembler.len()), (1, 2));
    assert_eq!(host.arrive(2, 8, 8, false), datagram(16));
    assert_eq!(host.arrive(3, 8, 8, false), datagram(16));
    host.empty();
}

#[test]
fn pinned_memory_is_bounded_by_whole_slots() {
    let mut host = Host::new(|limits| limits.max_pinned_bytes = 3 * 2048);
    host.arrive(1, 0, 8, true);
    host.arrive(2, 0, 8, true);
    host.arrive(2, 16, 8, true);
    assert_eq!((host.counters().evicted, host.reassembler.pinned_bytes()), (0, 3 * 2048));
    host.arrive(2, 32, 8, true);
    assert_eq!((host.counters().evicted, host.reassembler.pinned_bytes()), (1, 3 * 2048));
    host.arrive(2, 48, 8, true);
    assert_eq!(host.counters().evicted, 2, "a datagram that is too much alone goes, too");
    assert!(host.reassembler.is_empty());
    host.empty();
}

#[test]
fn too_many_fragments_poison_the_datagram() {
    let mut host = Host::new(|limits| limits.max_fragments = 4);
    for i in 0..5 {
        host.arrive(1, i * 16, 8, true);
    }
    assert_eq!((host.counters().too_many_fragments, host.reassembler.pinned_bytes()), (1, 0));
    host.empty();
}

#[test]
fn time_exceeded_is_told_only_about_datagrams_whose_first_fragment_came() {
    let mut host = Host::new(|_| {});
    host.arrive(1, 8, 8, true);
    host.arrive(1, 0, 8, true);
    host.arrive(2, 8, 8, true);
    host.arrive(3, 0, 8, true);
    host.arrive(3, 0, 16, true);
    let deadline = NOW + Duration::from_secs(30);
    assert_eq!(host.reassembler.poll_at(), Some(deadline));
    let mut expired = Vec::new();
    host.reassembler.handle_timeout(NOW + Duration::from_millis(29_999), &mut expired);
    assert!(expired.is_empty());
    host.reassembler.handle_timeout(deadline, &mut expired);
    assert_eq!(expired.len(), 1, "not without the first fragment, not of a poisoned one");
    assert_eq!((expired[0].header.ident, expired[0].header.fragment_offset), (1, 0));
    assert_eq!(expired[0].payload[..], datagram(8).unwrap());
    assert_eq!((host.counters().timed_out, host.reassembler.poll_at()), (2, None));
    drop(expired);
    host.empty();
}

#[test]
fn a_payload_that_fits_is_one_piece() {
    let pieces = |len, mtu| fragment(len, mtu).collect::<Vec<_>>();
    assert_eq!(pieces(1480, 1500), [Piece { offset: 0, len: 1480, more: false }]);
    assert_eq!(pieces(0, 1500), [Piece { offset: 0, len: 0, more: false }]);
    assert_eq!(
        pieces(1481, 1499),
        [Piece { offset: 0, len: 1472, more: true }, Piece { offset: 1472, len: 9, more: false }]
    );
    assert_eq!(pieces(65_515, 68).len(), 65_515usize.div_ceil(48));
}

proptest! {
    #[test]
    fn what_is_planned_is_put_together_again_in_any_order(
        len in 1u16..20_000, mtu in 200u16..3000, order: u64,
    ) {
        let mut host = Host::new(|limits| limits.max_fragments = 200);
        let mut pieces: Vec<Piece> = fragment(len, mtu).collect();
        let mut rng = crate::Rng::new(order.into());
        for i in (1..pieces.len()).rev() {
            pieces.swap(i, rng.below(i as u64 + 1) as usize);
        }
        let mut whole = None;
        for piece in &pieces {
            prop_assert!(usize::from(piece.len) + 20 <= usize::from(mtu));
            prop_assert_eq!(whole, None);
            whole = host.arrive(7, piece.offset, piece.len.into(), piece.more);
        }
        prop_assert_eq!(whole, datagram(len.into()));
        host.empty();
    }

    #[test]
    fn arbitrary_fragments_stay_within_the_limits_and_leak_nothing(
        arrivals in proptest::collection::vec((0u16..4, 0u16..8, 0usize..40, any::<bool>()), 0..150),
    ) {
        let mut host = Host::new(|limits| {
            (limits.max_datagrams, limits.max_fragments) = (3, 5);
            limits.max_pinned_bytes = 8 * 2048;
        });
        for (ident, block, len, more) in arrivals {
            if let Some(whole) = host.arrive(ident, block * 8, len, more) {
                let len = whole.len();
                prop_assert_eq!(Some(whole), datagram(len), "pieces are in their places");
            }
            let reassembler = &host.reassembler;
            prop_assert!(reassembler.len() <= 3 && reassembler.pinned_bytes() <= 8 * 2048);
            let pinned: usize = reassembler.datagrams.iter().map(|d| d.pinned_bytes).sum();
            prop_assert_eq!(pinned, reassembler.pinned_bytes());
        }
        host.empty();
    }
}

#[test]
fn a_mark_on_any_fragment_is_one_on_the_datagram() {
    // RFC 3168 §5.3.
    use Ecn::{Ce, Ect0, NotEct};
    let cases = [
        ([Ect0, Ect0, Ect0], Some(Ect0)),
        ([Ce, Ect0, Ect0], Some(Ce)),
        ([Ect0, Ce, Ect0], Some(Ce)),
        ([Ect0, Ect0, Ce], Some(Ce)),
        ([NotEct, NotEct, NotEct], Some(NotEct)),
        // Nobody could say what such a datagram means.
        ([NotEct, Ect0, Ce], None),
        ([Ce, Ect0, NotEct], None),
    ];
    for (marks, expected) in cases {
        let mut host = Host::new(|_| {});
        // The first fragment arrives last, and its header is the datagram's.
        assert!(host.arrive_marked(1, 16, 10, false, marks[2]).is_none());
        assert!(host.arrive_marked(1, 8, 8, true, marks[1]).is_none());
        let whole = host.arrive_marked(1, 0, 8, true, marks[0]);
        assert_eq!(host.counters().contradictory_marks, u64::from(expected.is_none()));
        let header = whole.map(|whole| whole.header);
        assert_eq!(header.map(|header| header.tos), expected.map(|ecn| ecn.in_tos(0x20)));
        if let Some(header) = header {
            assert_eq!((header.total_len, header.is_fragment()), (20 + 26, false));
        }
        host.empty();
    }
}
