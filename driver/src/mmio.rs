//! Device registers mapped into the address space: volatile, 32 bits wide, bounds checked.
//!
//! Registers are written to ring a doorbell once a burst and otherwise only by the control plane;
//! the hot path reads none. So a compare and a branch for the bounds cost nothing that shows, and
//! no offset, however it was computed, reaches outside of the BAR.

use memmap2::MmapRaw;

use crate::bus::Registers;

/// What a read gives where no register answers, as on the bus itself (PCI Express Base §2.3.2).
pub const ALL_ONES: u32 = u32::MAX;

/// A memory BAR of a device, mapped uncached.
///
/// Accesses are volatile: each happens once, as wide as it says, in program order with the other
/// volatile ones. Their order against *ordinary* memory is [`crate::barrier`]'s affair.
#[derive(Debug)]
pub struct Bar {
    map: MmapRaw,
}

impl Bar {
    /// Takes over a shared, writable mapping of a BAR.
    ///
    /// In tests the mapping of any file will do: nothing else is asked of it than its length.
    pub fn new(map: MmapRaw) -> Bar {
        Bar { map }
    }

    /// Bytes in the BAR.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Always false: an empty range cannot be mapped.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The register at `offset`, if it lies in the BAR as a whole and at its natural alignment.
    fn register(&self, offset: u32) -> Option<*mut u32> {
        let offset = offset as usize;
        let fits = offset.checked_add(size_of::<u32>())? <= self.map.len();
        // A mapping begins at a page, so an aligned offset is an aligned address.
        (fits && offset.is_multiple_of(align_of::<u32>())).then(|| {
            // `wrapping_add` needs no proof; the offset was checked above.
            self.map.as_mut_ptr().wrapping_add(offset).cast()
        })
    }
}

impl Registers for Bar {
    #[inline]
    fn read(&self, offset: u32) -> u32 {
        match self.register(offset) {
            // SAFETY: the pointer is aligned and lies in the mapping, which `self` keeps alive. The
            // memory belongs to a device: no Rust reference to it exists, and a volatile read
            // assumes nothing about its content, which is a value of u32 whatever it is.
            Some(register) => unsafe { register.read_volatile() },
            None => ALL_ONES,
        }
    }

    #[inline]
    fn write(&self, offset: u32, value: u32) {
        if let Some(register) = self.register(offset) {
            // SAFETY: as in `read`; the mapping was made writable, and two threads that write to
            // the same register race on the bus, as the device's documentation allows or forbids,
            // not in Rust's memory.
            unsafe { register.write_volatile(value) };
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use memmap2::MmapOptions;

    fn bar() -> (Bar, std::fs::File) {
        let file = crate::sys::memfd("bar", false).unwrap();
        file.set_len(4096).unwrap();
        (Bar::new(MmapOptions::new().len(4096).map_raw(&file).unwrap()), file)
    }

    #[test]
    fn a_register_is_four_little_endian_bytes_at_its_offset() {
        use std::os::unix::fs::FileExt;
        let (bar, file) = bar();
        bar.write(0x18, 0x1234_5678);
        assert_eq!(bar.read(0x18), 0x1234_5678);
        let mut bytes = [0; 12];
        file.read_exact_at(&mut bytes, 0x14).unwrap();
        assert_eq!(u32::from_ne_bytes(bytes[4..8].try_into().unwrap()), 0x1234_5678);
        assert_eq!(
            (&bytes[..4], &bytes[8..]),
            (&[0; 4][..], &[0; 4][..]),
            "no neighbour is written"
        );
    }

    #[test]
    fn outside_of_the_bar_there_is_nothing() {
        let (bar, _file) = bar();
        for offset in [4096, 4094, u32::MAX, u32::MAX - 3, 2] {
            bar.write(offset, 7);
            assert_eq!(bar.read(offset), ALL_ONES, "offset {offset:#x}");
        }
        bar.write(4092, 7);
        assert_eq!(bar.read(4092), 7, "the last register is inside");
        assert_eq!(bar.read(0), 0, "nothing wrapped around");
    }
}
