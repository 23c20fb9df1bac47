//! Packet memory as a device sees it: bytes that both sides may change at any moment.
//!
//! The NIC models are devices in software, and so they need what hardware has and Rust code does
//! not: access to memory that somebody else owns. All of it is here. An access is bounds checked
//! and made byte by byte or word by word with volatile operations, so that it assumes nothing about
//! the content and cannot be merged with the driver's own.

use super::region::Region;

/// An access outside of the region.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OutOfRegion;

impl Region {
    /// Where an access of `len` bytes at `offset` begins, if it lies in the region as a whole.
    fn device_at(&self, offset: usize, len: usize) -> Result<*mut u8, OutOfRegion> {
        let end = offset.checked_add(len).ok_or(OutOfRegion)?;
        if end > self.len() {
            return Err(OutOfRegion);
        }
        // SAFETY: `offset` is at most the mapping's length, as was just checked.
        Ok(unsafe { self.base().add(offset) })
    }

    /// Reads bytes as a device would by DMA. What it finds while the driver writes the same bytes
    /// is any mixture of old and new.
    ///
    /// # Errors
    /// [`OutOfRegion`].
    pub(crate) fn device_read(&self, offset: usize, bytes: &mut [u8]) -> Result<(), OutOfRegion> {
        let from = self.device_at(offset, bytes.len())?;
        for (i, byte) in bytes.iter_mut().enumerate() {
            // SAFETY: `from + i` lies in the mapping (`device_at`), which `self` keeps alive; every
            // value is a u8, and a volatile read makes no assumption about other writers.
            *byte = unsafe { from.add(i).read_volatile() };
        }
        Ok(())
    }

    /// Writes bytes as a device would by DMA. The caller, a model, does so only where a descriptor
    /// says that the memory is the device's: into posted slots, to which no reference exists, and
    /// into descriptors, which are read volatile.
    ///
    /// # Errors
    /// [`OutOfRegion`].
    pub(crate) fn device_write(&self, offset: usize, bytes: &[u8]) -> Result<(), OutOfRegion> {
        let to = self.device_at(offset, bytes.len())?;
        for (i, byte) in bytes.iter().enumerate() {
            // SAFETY: as in `device_read`; the mapping is writable.
            unsafe { to.add(i).write_volatile(*byte) };
        }
        Ok(())
    }

    /// Writes one aligned word as a device would: its bytes become visible together.
    ///
    /// # Errors
    /// [`OutOfRegion`], also for an offset that is not aligned.
    pub(crate) fn device_write_u64(&self, offset: usize, word: u64) -> Result<(), OutOfRegion> {
        let to = self.device_at(offset, size_of::<u64>())?.cast::<u64>();
        if !to.is_aligned() {
            return Err(OutOfRegion);
        }
        // SAFETY: as in `device_write`, and the pointer is aligned.
        unsafe { to.write_volatile(word) };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_reaches_the_region_and_nothing_else() {
        let region = Region::new(4096, false).unwrap();
        region.device_write(4090, b"sixsix").unwrap();
        let mut read = [0; 6];
        region.device_read(4090, &mut read).unwrap();
        assert_eq!(&read, b"sixsix");
        region.device_write_u64(8, 0x0102).unwrap();
        region.device_read(8, &mut read[..2]).unwrap();
        assert_eq!(u16::from_ne_bytes([read[0], read[1]]), 0x0102);
        assert_eq!(region.device_read(4091, &mut read), Err(OutOfRegion));
        assert_eq!(region.device_write(usize::MAX, b"xy"), Err(OutOfRegion));
        assert_eq!(region.device_write_u64(4, 1), Err(OutOfRegion));
        assert_eq!(region.device_write_u64(4096, 1), Err(OutOfRegion));
    }
}
