//! A table of entries that stay where they are, found by index.

use std::hint::cold_path;

use barewire_driver::mem::prefetch_value;

use crate::hint::{rarely, usually};

/// Entries a chunk, a bit each: growing allocates one chunk and moves nothing.
const CHUNK_LEN: usize = 64;

#[derive(Debug)]
struct Slot<T> {
    generation: u32,
    value: Option<T>,
}

/// Empty chunks that are kept; those beyond are freed.
const SPARE_CHUNKS: usize = 16;

/// Entries side by side. Without any it may have no memory.
#[derive(Debug)]
struct Chunk<T> {
    slots: Box<[Slot<T>]>,
    /// A bit for each entry.
    used: u64,
    /// What generations begin with: later than all that were handed out.
    generation: u32,
}

impl<T> Chunk<T> {
    fn empty() -> Chunk<T> {
        Chunk { slots: Box::default(), used: 0, generation: 0 }
    }

    #[cold]
    fn grow(&mut self) {
        let generation = self.generation;
        self.slots = (0..CHUNK_LEN).map(|_| Slot { generation, value: None }).collect();
    }

    #[cold]
    fn shrink(&mut self) {
        self.generation = self.slots.iter().map(|slot| slot.generation).max().unwrap_or_default();
        self.slots = Box::default();
    }
}

/// A table that grows and shrinks in chunks up to a limit, hands out indices near those freed last,
/// and tells an old index from a new one by its generation.
#[derive(Debug)]
pub struct Slab<T> {
    chunks: Vec<Chunk<T>>,
    /// Chunks with room, each once.
    roomy: Vec<u32>,
    /// Chunks that have memory and no entries.
    spare: usize,
    len: usize,
    limit: usize,
}

impl<T> Slab<T> {
    /// An empty table for at most `limit` entries (rounded up to whole chunks when it grows).
    pub fn new(limit: usize) -> Slab<T> {
        Slab { chunks: Vec::new(), roomy: Vec::new(), spare: 0, len: 0, limit }
    }

    /// Entries in the table.
    pub fn len(&self) -> usize {
        self.len
    }

    /// True without entries.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// True if the limit is reached.
    pub fn is_full(&self) -> bool {
        self.len >= self.limit
    }

    /// Stores `value` and gives its index and generation, or gives it back if the limit is reached.
    #[inline(always)]
    pub fn insert(&mut self, value: T) -> Result<(u32, u32), T> {
        if self.is_full() {
            return Err(value);
        }
        match self.insert_with(|| value) {
            Some(place) => Ok(place),
            None => unreachable!("there is room"),
        }
    }

    /// Stores what `make` gives, in its place from the beginning, and gives its index and generation.
    /// `None` if the limit is reached: nothing is made then.
    #[inline(always)]
    pub fn insert_with(&mut self, make: impl FnOnce() -> T) -> Option<(u32, u32)> {
        if self.is_full() {
            cold_path();
            return None;
        }
        let number = self.roomy.last().copied().unwrap_or_else(|| {
            cold_path();
            let number = self.chunks.len() as u32;
            self.chunks.push(Chunk::empty());
            self.roomy.push(number);
            number
        });
        let chunk = &mut self.chunks[number as usize];
        if chunk.slots.is_empty() {
            cold_path();
            chunk.grow();
        } else if rarely(chunk.used == 0) {
            self.spare -= 1;
        }
        let at = chunk.used.trailing_ones();
        chunk.used |= 1 << at;
        if chunk.used == u64::MAX {
            cold_path();
            self.roomy.pop();
        }
        let slot = &mut chunk.slots[at as usize];
        slot.value = Some(make());
        self.len += 1;
        Some((number * CHUNK_LEN as u32 + at, slot.generation))
    }

    /// Puts what `make` gives in the place of the entry at `index`, which keeps its generation.
    #[inline(always)]
    pub fn replace_with(&mut self, index: u32, make: impl FnOnce() -> T) {
        if let Some(slot) = self.slot_mut(index)
            && slot.value.is_some()
        {
            // First: what is made while the old one is there would be made elsewhere, and copied.
            slot.value = None;
            slot.value = Some(make());
        }
    }

    #[inline]
    fn slot(&self, index: u32) -> Option<&Slot<T>> {
        let chunk = usually(self.chunks.get(index as usize / CHUNK_LEN))?;
        usually(chunk.slots.get(index as usize % CHUNK_LEN))
    }

    #[inline]
    fn slot_mut(&mut self, index: u32) -> Option<&mut Slot<T>> {
        let chunk = usually(self.chunks.get_mut(index as usize / CHUNK_LEN))?;
        usually(chunk.slots.get_mut(index as usize % CHUNK_LEN))
    }

    /// Has the memory of the entry at `index` fetched, which is soon asked for.
    #[inline]
    pub fn prefetch(&self, index: u32) {
        if let Some(slot) = self.slot(index) {
            prefetch_value(slot);
        }
    }

    /// The entry at `index`, whatever its generation.
    pub fn get(&self, index: u32) -> Option<&T> {
        usually(self.slot(index)?.value.as_ref())
    }

    /// The entry at `index`, whatever its generation.
    pub fn get_mut(&mut self, index: u32) -> Option<&mut T> {
        usually(self.slot_mut(index)?.value.as_mut())
    }

    /// The entry at `index` with its generation.
    pub fn entry_mut(&mut self, index: u32) -> Option<(u32, &mut T)> {
        let slot = self.slot_mut(index)?;
        Some((slot.generation, usually(slot.value.as_mut())?))
    }

    /// The entry that was given this index and generation, if it is still there.
    pub fn get_held(&self, index: u32, generation: u32) -> Option<&T> {
        let slot = usually(self.slot(index).filter(|slot| slot.generation == generation))?;
        usually(slot.value.as_ref())
    }

    /// The entry that was given this index and generation, if it is still there.
    pub fn get_held_mut(&mut self, index: u32, generation: u32) -> Option<&mut T> {
        let slot = usually(self.slot_mut(index).filter(|slot| slot.generation == generation))?;
        usually(slot.value.as_mut())
    }

    /// True if the entry that was given this index and generation is still there.
    pub fn holds(&self, index: u32, generation: u32) -> bool {
        self.slot(index).is_some_and(|slot| slot.generation == generation && slot.value.is_some())
    }

    /// The generation of the entry at `index`.
    pub fn generation(&self, index: u32) -> Option<u32> {
        self.slot(index).map(|slot| slot.generation)
    }

    /// Takes the entry out; the index will be used again, with another generation.
    #[inline]
    pub fn remove(&mut self, index: u32) -> Option<T> {
        let slot = self.slot_mut(index)?;
        // Handed on as it is: every look inside may be another copy of a large entry.
        let value = slot.value.take();
        if value.is_some() {
            slot.generation = slot.generation.wrapping_add(1);
            self.len -= 1;
            self.free(index);
        }
        value
    }

    /// As [`Slab::remove`], where only a part of the entry is wanted: `f` gets it without another
    /// copy of it on the way.
    #[inline(always)]
    pub fn remove_with<R>(&mut self, index: u32, f: impl FnOnce(T) -> R) -> Option<R> {
        let slot = self.slot_mut(index)?;
        let value = slot.value.take()?;
        slot.generation = slot.generation.wrapping_add(1);
        let wanted = f(value);
        self.len -= 1;
        self.free(index);
        Some(wanted)
    }

    /// As [`Slab::remove`], where nothing of the entry is wanted but what `f` tells of it: it is not
    /// moved.
    #[inline(always)]
    pub fn discard<R>(&mut self, index: u32, f: impl FnOnce(&T) -> R) -> Option<R> {
        let slot = self.slot_mut(index)?;
        let told = f(slot.value.as_ref()?);
        slot.value = None;
        slot.generation = slot.generation.wrapping_add(1);
        self.len -= 1;
        self.free(index);
        Some(told)
    }

    #[inline]
    fn free(&mut self, index: u32) {
        let number = index / CHUNK_LEN as u32;
        let chunk = &mut self.chunks[number as usize];
        if chunk.used == u64::MAX {
            cold_path();
            self.roomy.push(number);
        }
        chunk.used &= !(1 << (index % CHUNK_LEN as u32));
        if rarely(chunk.used == 0) {
            if self.spare < SPARE_CHUNKS {
                self.spare += 1;
            } else {
                cold_path();
                chunk.shrink();
            }
        }
    }

    /// Makes every handle to the entry at `index` an old one, though the entry stays; gives it with
    /// its new generation.
    #[inline]
    pub fn renew(&mut self, index: u32) -> Option<(u32, &mut T)> {
        let slot = self.slot_mut(index)?;
        slot.generation = slot.generation.wrapping_add(1);
        Some((slot.generation, usually(slot.value.as_mut())?))
    }

    /// One more than the largest index ever given out, or somewhat more.
    pub fn end(&self) -> u32 {
        (self.chunks.len() * CHUNK_LEN) as u32
    }

    /// All entries with their indices. Costs the table's capacity: not for the hot path.
    pub fn iter(&self) -> impl Iterator<Item = (u32, &T)> {
        self.chunks.iter().enumerate().flat_map(|(number, chunk)| {
            let base = number * CHUNK_LEN;
            let slots = chunk.slots.iter().enumerate();
            slots.filter_map(move |(i, slot)| Some(((base + i) as u32, slot.value.as_ref()?)))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_old_handle_does_not_name_a_new_entry() {
        let mut slab = Slab::new(10);
        let (index, generation) = slab.insert("a").unwrap();
        assert!(slab.holds(index, generation));
        assert_eq!(slab.remove(index), Some("a"));
        assert!(!slab.holds(index, generation));
        assert_eq!(slab.remove(index), None);
        let (again, newer) = slab.insert("b").unwrap();
        assert_eq!(again, index);
        assert!(!slab.holds(index, generation) && slab.holds(index, newer));
    }

    #[test]
    fn an_entry_is_given_out_once() {
        let mut slab = Slab::new(10);
        let entry = std::rc::Rc::new(());
        let (index, generation) = slab.insert(entry.clone()).unwrap();
        for given in [Some(2), None] {
            let count = slab.remove_with(index, |entry| std::rc::Rc::strong_count(&entry));
            assert_eq!(count, given);
            assert_eq!((std::rc::Rc::strong_count(&entry), slab.len()), (1, 0));
        }
        let again = slab.insert(entry).unwrap();
        assert_eq!(again, (index, generation + 1));
        assert_eq!(slab.remove_with(u32::MAX, drop), None);
        assert_eq!(slab.len(), 1);
    }

    #[test]
    fn the_limit_holds_and_frees_make_room() {
        let mut slab = Slab::new(100);
        for i in 0..100 {
            assert_eq!(slab.insert(i).unwrap().0, i);
        }
        assert_eq!(slab.insert(100), Err(100));
        slab.remove(7);
        assert_eq!(slab.insert(200).unwrap().0, 7);
        assert_eq!((slab.len(), slab.iter().count()), (100, 100));
        assert_eq!(slab.get(7), Some(&200));
        assert_eq!(slab.get(u32::MAX), None);
    }

    #[test]
    fn memory_is_given_back_and_old_handles_stay_old() {
        let mut slab = Slab::new(1 << 20);
        let handles: Vec<_> = (0..10_000u32).map(|i| slab.insert(i).unwrap()).collect();
        let with_memory =
            |slab: &Slab<u32>| slab.chunks.iter().filter(|c| !c.slots.is_empty()).count();
        assert_eq!(with_memory(&slab), 10_000usize.div_ceil(CHUNK_LEN));
        for &(index, _) in &handles {
            assert_eq!(slab.remove(index), Some(index));
        }
        assert!(slab.is_empty() && with_memory(&slab) <= SPARE_CHUNKS);
        assert!(handles.iter().all(|&(index, _)| slab.get(index).is_none()));
        for i in 0..10_000 {
            slab.insert(i).unwrap();
        }
        assert_eq!((slab.len(), slab.iter().count()), (10_000, 10_000));
        assert!(handles.iter().all(|&(index, generation)| !slab.holds(index, generation)));
    }
}
