//! Memory that a driver and a device share: descriptor rings and small header areas.
//!
//! ```text
//!   Region (one a queue)
//!   ├─ Descriptors   rx ring   16 bytes each; the device writes them back
//!   ├─ Descriptors   tx ring
//!   └─ HeaderArea    256 bytes for each tx descriptor; the device only reads it
//! ```
//!
//! The device changes descriptors at any moment, so no Rust reference to them ever exists: each
//! access is one volatile load or store of an aligned machine word, and the order between accesses
//! is [`crate::barrier`]'s affair. Indices are masked, never trusted: a ring's length is a power of
//! two, and so every index names a descriptor of the ring.

use std::marker::PhantomData;
use std::sync::Arc;

use crate::mem::{Region, Row};

/// Bytes in a descriptor of every Intel ring.
pub const DESCRIPTOR_LEN: usize = 16;

/// Fewest descriptors of a ring: eight fill the 128 bytes that RDLEN and TDLEN count in, and some
/// room is needed to keep one empty and refill in batches.
pub const MIN_DESCRIPTORS: u16 = 32;

/// Most descriptors of a ring, as the data sheets have it (82576 §7.1.5: 32 Ki less 8; the drivers
/// of all systems stop at 4,096, and so do TDLEN and RDLEN of the smallest family).
pub const MAX_DESCRIPTORS: u16 = 4096;

/// Bytes of each slot of a [`HeaderArea`].
pub const HEADER_LEN: usize = 256;

/// True if a ring can have `len` descriptors.
pub fn valid_ring_len(len: u16) -> bool {
    len.is_power_of_two() && (MIN_DESCRIPTORS..=MAX_DESCRIPTORS).contains(&len)
}

/// A ring of 16-byte descriptors in shared memory.
#[derive(Debug)]
pub struct Descriptors {
    region: Arc<Region>,
    /// First descriptor; 16-byte aligned.
    base: *mut u64,
    mask: u16,
    offset: usize,
}

impl Descriptors {
    /// A ring of `len` descriptors at `offset` of `region`.
    ///
    /// # Panics
    /// If the length is not one that [`valid_ring_len`] allows, the offset is not 128-byte aligned
    /// or the ring does not fit: bugs of the caller, who made the region for it.
    pub fn new(region: &Arc<Region>, offset: usize, len: u16) -> Descriptors {
        assert!(valid_ring_len(len), "a ring of {len} descriptors");
        assert!(offset.is_multiple_of(128), "a ring that begins inside a cache line");
        let end = offset + usize::from(len) * DESCRIPTOR_LEN;
        assert!(end <= region.len(), "a ring outside of its region");
        // SAFETY: `offset` lies inside the mapping, as was just checked.
        let base = unsafe { region.base().add(offset) }.cast();
        Descriptors { region: Arc::clone(region), base, mask: len - 1, offset }
    }

    /// Number of descriptors.
    #[inline]
    pub fn len(&self) -> u16 {
        self.mask + 1
    }

    /// Always false: a ring has at least [`MIN_DESCRIPTORS`].
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Where in its region the ring begins.
    pub fn offset(&self) -> usize {
        self.offset
    }

    /// The region that the ring lies in.
    pub fn region(&self) -> &Arc<Region> {
        &self.region
    }

    #[inline]
    fn word(&self, index: u16, word: usize) -> *mut u64 {
        debug_assert!(word < 2);
        // SAFETY: the masked index is below the ring's length, of which `new` checked that it fits
        // the mapping that `region` keeps alive; a descriptor has two words.
        unsafe { self.base.add(usize::from(index & self.mask) * 2 + word) }
    }

    /// The second word of a descriptor, in which every format has its DD bit.
    #[inline]
    pub fn status(&self, index: u16) -> u64 {
        // SAFETY: the pointer is aligned and inside the mapping (see `word`). No reference to the
        // memory exists; the device may store to it at any time, which a volatile load of one
        // aligned word allows for.
        unsafe { self.word(index, 1).read_volatile() }
    }

    /// Descriptors from `index` on, at most `most`, up to the end of the ring's memory.
    #[inline]
    pub fn run(&self, index: u16, most: usize) -> Run<'_> {
        let at = usize::from(index & self.mask);
        let len = most.min(usize::from(self.mask) + 1 - at);
        Run { first: self.word(index, 0), len, ring: PhantomData }
    }

    /// Both words of a descriptor, read once each. To be called when DD has been seen and
    /// [`crate::barrier::acquire_descriptor`] has been passed.
    #[inline]
    pub fn read(&self, index: u16) -> [u64; 2] {
        // SAFETY: as in `status`, for each word.
        unsafe { [self.word(index, 0).read_volatile(), self.word(index, 1).read_volatile()] }
    }

    /// Writes a descriptor.
    ///
    /// # Safety
    /// The device does not own the descriptor: it lies between the tail and the head. What it names
    /// is the device's from the moment that the tail passes it: memory that is posted, if the device
    /// is to write there, and that nobody changes, if it is to read.
    #[inline]
    pub unsafe fn write(&self, index: u16, descriptor: [u64; 2]) {
        // SAFETY: the pointers are aligned and inside the writable mapping (see `word`); no
        // reference to the memory exists.
        unsafe {
            self.word(index, 0).write_volatile(descriptor[0]);
            self.word(index, 1).write_volatile(descriptor[1]);
        }
    }

    /// Sets bits in the second word of a descriptor that was written before.
    ///
    /// # Safety
    /// The device does not own it yet: the tail has not moved past it. With these bits it still names
    /// no memory but what it named before.
    #[inline]
    pub unsafe fn set(&self, index: u16, bits: u64) {
        let word = self.word(index, 1);
        // SAFETY: as in `status` and `write`.
        unsafe { word.write_volatile(word.read_volatile() | bits) };
    }
}

/// Descriptors in a row, as [`Descriptors::run`] gives them.
#[derive(Clone, Copy, Debug)]
pub struct Run<'a> {
    first: *mut u64,
    len: usize,
    ring: PhantomData<&'a Descriptors>,
}

impl<'a> Run<'a> {
    /// Number of descriptors.
    #[inline]
    pub fn len(&self) -> usize {
        self.len
    }

    /// True if there is none.
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The descriptors, in order.
    pub fn iter(&self) -> impl Iterator<Item = Descriptor<'a>> {
        // SAFETY: every index is below the run's length.
        (0..self.len).map(|index| unsafe { self.at(index) })
    }
}

// SAFETY: `len` descriptors lie in a row from `first` on, as `Descriptors::run` has seen to.
unsafe impl<'a> Row for Run<'a> {
    type Place = Descriptor<'a>;

    #[inline]
    fn len(&self) -> usize {
        self.len
    }

    #[inline]
    unsafe fn at(&self, index: usize) -> Descriptor<'a> {
        debug_assert!(index < self.len, "a place beyond the run");
        // SAFETY: the caller says that the run has this descriptor, and it has two words.
        Descriptor { words: unsafe { self.first.add(index * 2) }, ring: PhantomData }
    }

    #[inline]
    fn skip_places(&self, count: usize) -> Self {
        let count = count.min(self.len);
        // SAFETY: `count` does not exceed the run's length.
        Run { first: unsafe { self.first.add(count * 2) }, len: self.len - count, ..*self }
    }
}

/// One descriptor of a [`Run`].
#[derive(Clone, Copy, Debug)]
pub struct Descriptor<'a> {
    words: *mut u64,
    ring: PhantomData<&'a Descriptors>,
}

impl Descriptor<'_> {
    /// The first word.
    #[inline]
    pub fn first(self) -> u64 {
        // SAFETY: as in `Descriptors::status`; the pointer is to a descriptor of a ring that is
        // borrowed as long as `self` lives.
        unsafe { self.words.read_volatile() }
    }

    /// The second word, in which every format has its DD bit.
    #[inline]
    pub fn status(self) -> u64 {
        // SAFETY: as in `first`; a descriptor has two words.
        unsafe { self.words.add(1).read_volatile() }
    }

    /// Writes the descriptor.
    ///
    /// # Safety
    /// As for [`Descriptors::write`].
    #[inline]
    pub unsafe fn write(self, descriptor: [u64; 2]) {
        // SAFETY: as in `Descriptors::write`; the pointers are to a descriptor of the ring.
        unsafe {
            self.words.write_volatile(descriptor[0]);
            self.words.add(1).write_volatile(descriptor[1]);
        }
    }
}

/// A small piece of memory for each descriptor of a transmit ring, for headers that the driver has
/// to change for the device: packet memory is shared and stays as it is.
#[derive(Debug)]
pub struct HeaderArea {
    region: Arc<Region>,
    offset: usize,
    mask: u16,
}

impl HeaderArea {
    /// Bytes that an area for `len` descriptors takes.
    pub const fn bytes(len: u16) -> usize {
        len as usize * HEADER_LEN
    }

    /// An area for a ring of `len` descriptors at `offset` of `region`.
    ///
    /// # Panics
    /// If the length is not a ring's or the area does not fit.
    pub fn new(region: &Arc<Region>, offset: usize, len: u16) -> HeaderArea {
        assert!(valid_ring_len(len), "headers for {len} descriptors");
        assert!(offset + Self::bytes(len) <= region.len(), "headers outside of their region");
        HeaderArea { region: Arc::clone(region), offset, mask: len - 1 }
    }

    /// Where in its region the header of descriptor `index` begins.
    pub fn offset_of(&self, index: u16) -> usize {
        self.offset + usize::from(index & self.mask) * HEADER_LEN
    }

    /// Copies at most [`HEADER_LEN`] bytes to the place of descriptor `index`, which the device
    /// must not own.
    pub fn write(&self, index: u16, bytes: &[u8]) {
        let len = bytes.len().min(HEADER_LEN);
        // SAFETY: the destination lies inside the mapping (the masked index is below the length
        // that `new` checked) and `len` does not exceed its slot. It cannot overlap `bytes`: no
        // reference to this region's memory is ever made.
        unsafe {
            let to = self.region.base().add(self.offset_of(index));
            std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, len);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_lie_where_the_device_looks_for_them() {
        let region = Arc::new(Region::new(8192, false).unwrap());
        let ring = Descriptors::new(&region, 4096, 32);
        // SAFETY: there is no device.
        unsafe {
            ring.write(1, [0x1111, 0x2222]);
            ring.write(33, [0x3333, 0x4444]);
        }
        assert_eq!(ring.read(1), [0x3333, 0x4444], "an index past the end wraps around");
        assert_eq!((ring.read(0), ring.status(1)), ([0; 2], 0x4444));
        let mut bytes = [0; 16];
        region.device_read(4096 + 16, &mut bytes).unwrap();
        assert_eq!(u64::from_ne_bytes(bytes[..8].try_into().unwrap()), 0x3333);
    }

    #[test]
    fn a_run_ends_where_the_ring_does() {
        let region = Arc::new(Region::new(8192, false).unwrap());
        let ring = Descriptors::new(&region, 128, 32);
        assert_eq!((ring.run(62, 9).len(), ring.run(32, 9).len()), (2, 9));
        for (n, descriptor) in ring.run(30, 9).iter().enumerate() {
            // SAFETY: there is no device.
            unsafe { descriptor.write([n as u64, 7]) };
            assert_eq!((descriptor.first(), descriptor.status()), (n as u64, 7));
        }
        assert_eq!((ring.read(30), ring.read(31)), ([0, 7], [1, 7]));
        assert_eq!((ring.read(29), ring.read(0)), ([0, 0], [0, 0]), "no neighbour is written");
        let mut behind = [1; 16];
        region.device_read(128 + 32 * 16, &mut behind).unwrap();
        assert_eq!(behind, [0; 16]);
    }

    #[test]
    fn headers_are_cut_to_their_place() {
        let region = Arc::new(Region::new(16384, false).unwrap());
        let area = HeaderArea::new(&region, 0, 32);
        area.write(0, &[7; HEADER_LEN + 9]);
        let mut bytes = [0; HEADER_LEN + 1];
        region.device_read(0, &mut bytes).unwrap();
        assert_eq!((bytes[HEADER_LEN - 1], bytes[HEADER_LEN]), (7, 0));
        assert_eq!(area.offset_of(33), HEADER_LEN);
    }

    #[test]
    fn ring_lengths_are_powers_of_two_in_range() {
        let valid: Vec<u16> = (0..=8192).filter(|&len| valid_ring_len(len)).collect();
        assert_eq!(valid, [32, 64, 128, 256, 512, 1024, 2048, 4096]);
    }

    #[test]
    #[should_panic(expected = "outside of its region")]
    fn a_ring_outside_of_its_region_is_refused() {
        Descriptors::new(&Arc::new(Region::new(4096, false).unwrap()), 3968, 32);
    }
}
