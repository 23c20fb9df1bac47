//! The IOMMU of a model: which addresses of the device are which memory.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use crate::bus::{DmaMapping, Iova};
use crate::mem::Region;

/// Where the first region appears: not at 0, so that a null pointer of the device faults, and above
/// 4 GiB, so that a forgotten upper half does.
const FIRST_IOVA: u64 = 0x1_0000_0000;

/// Unmapped addresses between two regions, so that an overrun faults.
const GAP: u64 = 0x10_0000;

#[derive(Debug, Default)]
struct Ranges {
    /// Regions by their first address.
    by_start: BTreeMap<u64, Arc<Region>>,
    next: u64,
}

/// What the device can reach.
#[derive(Clone, Debug, Default)]
pub(super) struct Memory(Arc<Mutex<Ranges>>);

/// An access to an address that is not mapped, in part or as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Fault(pub(super) u64);

impl Memory {
    fn ranges(&self) -> MutexGuard<'_, Ranges> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn map(&self, region: &Arc<Region>) -> Box<dyn DmaMapping> {
        let mut ranges = self.ranges();
        let start = ranges.next.max(FIRST_IOVA);
        ranges.next = start + region.len() as u64 + GAP;
        ranges.by_start.insert(start, Arc::clone(region));
        Box::new(Mapping { memory: self.clone(), start })
    }

    /// Regions that are mapped now.
    pub(super) fn mapped(&self) -> usize {
        self.ranges().by_start.len()
    }

    fn find(&self, iova: u64) -> Result<(Arc<Region>, usize), Fault> {
        let ranges = self.ranges();
        let (start, region) = ranges.by_start.range(..=iova).next_back().ok_or(Fault(iova))?;
        Ok((Arc::clone(region), (iova - start) as usize))
    }

    pub(super) fn read(&self, iova: u64, bytes: &mut [u8]) -> Result<(), Fault> {
        let (region, offset) = self.find(iova)?;
        region.device_read(offset, bytes).map_err(|_| Fault(iova))
    }

    pub(super) fn write(&self, iova: u64, bytes: &[u8]) -> Result<(), Fault> {
        let (region, offset) = self.find(iova)?;
        region.device_write(offset, bytes).map_err(|_| Fault(iova))
    }

    /// Writes a word whose bytes become visible together.
    pub(super) fn write_u64(&self, iova: u64, word: u64) -> Result<(), Fault> {
        let (region, offset) = self.find(iova)?;
        region.device_write_u64(offset, word.to_le()).map_err(|_| Fault(iova))
    }

    pub(super) fn read_descriptor(&self, iova: u64) -> Result<[u64; 2], Fault> {
        let mut bytes = [0; 16];
        self.read(iova, &mut bytes)?;
        let word =
            |at: usize| bytes[at..at + 8].iter().rev().fold(0, |w, b| w << 8 | u64::from(*b));
        Ok([word(0), word(8)])
    }
}

#[derive(Debug)]
struct Mapping {
    memory: Memory,
    start: u64,
}

impl DmaMapping for Mapping {
    fn iova(&self) -> Iova {
        Iova(self.start)
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        self.memory.ranges().by_start.remove(&self.start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_mapped_faults() {
        let memory = Memory::default();
        let region = Arc::new(Region::new(4096, false).unwrap());
        let mapping = memory.map(&region);
        let start = mapping.iova().0;
        memory.write(start + 4090, b"abcdef").unwrap();
        assert_eq!(memory.write(start + 4091, b"abcdef"), Err(Fault(start + 4091)));
        assert_eq!(memory.read(start - 1, &mut [0]), Err(Fault(start - 1)));
        assert_eq!(memory.read(0, &mut [0]), Err(Fault(0)));
        memory.write_u64(start + 8, 7).unwrap();
        assert_eq!(memory.read_descriptor(start), Ok([0, 7]));
        drop(mapping);
        assert_eq!((memory.read(start, &mut [0]), memory.mapped()), (Err(Fault(start)), 0));
    }
}
