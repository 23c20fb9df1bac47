//! Reassembly against a map of bytes, and its limits.

use super::*;
use barewire_driver::{Pool, PoolConfig};
use proptest::prelude::*;

proptest! {
    /// Against a map of bytes in which the first to come stays: whatever overlaps, in whatever
    /// order, across the wrap of the sequence numbers.
    #[test]
    fn reassembly_keeps_the_bytes_received_first(
        start: u32,
        segments in proptest::collection::vec((0usize..400, 1usize..120, any::<u8>(), 1usize..40), 1..40),
    ) {
        let pool =
            Pool::new(PoolConfig { slots: 4096, slot_len: 2048, cells: 1, try_huge: false }).unwrap();
        let base = SeqNum::new(start);
        let mut reference: Vec<Option<u8>> = vec![None; 1000];
        let mut assembler = Assembler::default();
        for (at, len, value, piece) in segments {
            let data: Vec<u8> = (0..len).map(|i| value.wrapping_add(i as u8)).collect();
            for (i, byte) in data.iter().enumerate() {
                reference[at + i].get_or_insert(*byte);
            }
            let slices = data.chunks(piece).map(|c| pool.copy_from(c).unwrap().freeze());
            prop_assert_eq!(assembler.insert(base + at as u32, slices, u64::MAX), Inserted::All);
        }
        // Read run by run.
        let mut position = 0;
        while let Some(first) = assembler.first() {
            let from = first.since(base) as usize;
            prop_assert!(from >= position);
            prop_assert!(reference[position..from].iter().all(|b| b.is_none()), "a lost run");
            position = from;
            while let Some(data) = assembler.take(base + position as u32) {
                for byte in data.iter() {
                    prop_assert_eq!(Some(*byte), reference[position]);
                    position += 1;
                }
            }
        }
        prop_assert!(reference[position..].iter().all(|b| b.is_none()), "a lost end");
        prop_assert!(assembler.is_empty());
        prop_assert_eq!(assembler.pinned(), 0);
        drop(assembler);
        prop_assert!(pool.audit().all_free());
    }
}

#[test]
fn pieces_are_bounded_in_number_and_in_memory() {
    let pool =
        Pool::new(PoolConfig { slots: 8, slot_len: 2048, cells: 1, try_huge: false }).unwrap();
    let byte = pool.copy_from(b"x").unwrap().freeze();
    let mut assembler = Assembler::default();
    let mut kept = 0;
    for i in 0..PIECES_MAX as u32 + 10 {
        let seq = SeqNum::new(2 * i);
        if assembler.insert(seq, std::iter::once(byte.clone()), u64::MAX) == Inserted::All {
            kept += 1;
        }
    }
    assert_eq!(kept, PIECES_MAX);
    let mut assembler = Assembler::default();
    let insert =
        |a: &mut Assembler, seq| a.insert(SeqNum::new(seq), std::iter::once(byte.clone()), 4096);
    assert_eq!(insert(&mut assembler, 0), Inserted::All);
    assert_eq!(insert(&mut assembler, 2), Inserted::All);
    assert_eq!(insert(&mut assembler, 4), Inserted::Partly);
    assert_eq!(insert(&mut assembler, 2), Inserted::All, "what is known costs nothing");
    assert_eq!(assembler.pinned(), 4096);
}
