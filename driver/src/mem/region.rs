//! One contiguous piece of memory that devices and other processes can share.

use std::fs::File;
use std::io;

use memmap2::{MmapOptions, MmapRaw};
use thiserror::Error;

use crate::sys;

/// What kind of pages back a [`Region`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PageKind {
    /// Hugepages of the system's default size: one TLB entry covers many slots.
    Huge,
    /// Ordinary 4 KiB pages.
    Ordinary,
}

/// Why a [`Region`] could not be made.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RegionError {
    /// The length was zero or does not fit the address space.
    #[error("a memory region of {0} bytes is not possible")]
    Length(usize),
    /// The kernel refused the memory.
    #[error(
        "cannot get {len} bytes of packet memory: {source}; use smaller pools or free some memory"
    )]
    Memory {
        /// Bytes asked for.
        len: usize,
        /// The kernel's reason.
        source: io::Error,
    },
}

/// A contiguous shared mapping of an anonymous memory file.
///
/// A file descriptor stands behind it, so that it can be handed to another process (vhost-user, a
/// daemon, a hot restart) and mapped for a device; a private anonymous mapping could not be.
#[derive(Debug)]
pub struct Region {
    map: MmapRaw,
    file: File,
    pages: PageKind,
}

impl Region {
    /// Maps `len` bytes, rounded up to whole pages, zeroed. With `try_huge`, hugepages are used
    /// where the system has enough of them free; [`Region::pages`] says which it became.
    ///
    /// # Errors
    /// [`RegionError::Length`] for a zero or impossible length, [`RegionError::Memory`] when the
    /// kernel refuses.
    pub fn new(len: usize, try_huge: bool) -> Result<Region, RegionError> {
        if len == 0 || len > isize::MAX as usize / 2 {
            return Err(RegionError::Length(len));
        }
        #[cfg(test)]
        if try_huge && tests::PRETEND_HUGE.get() {
            let mut region = Region::new(len, false)?;
            region.claim_huge();
            return Ok(region);
        }
        if try_huge
            && let Some(huge) = sys::hugepage_size()
            && let Ok(region) = Self::map(len.next_multiple_of(huge), PageKind::Huge)
        {
            return Ok(region);
        }
        Self::map(len.next_multiple_of(sys::page_size()), PageKind::Ordinary)
            .map_err(|source| RegionError::Memory { len, source })
    }

    fn map(len: usize, pages: PageKind) -> io::Result<Region> {
        let file = sys::memfd("barewire-packets", pages == PageKind::Huge)?;
        file.set_len(len as u64)?;
        let map = MmapOptions::new().len(len).map_raw(&file)?;
        Ok(Region { map, file, pages })
    }

    /// Length in bytes, a multiple of the page size.
    pub fn len(&self) -> usize {
        self.map.len()
    }

    /// Always false: a region has at least one page.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The kind of pages it was given.
    pub fn pages(&self) -> PageKind {
        self.pages
    }

    /// The memory file behind the mapping, for passing it to another process or device.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Where the mapping begins, as a number for the kernel: pinning, page tables, IOMMU.
    pub(crate) fn address(&self) -> u64 {
        self.base() as u64
    }

    /// Gives every page its memory now instead of at the first access.
    pub(crate) fn populate(&self) -> io::Result<()> {
        self.map.advise(memmap2::Advice::PopulateWrite)
    }

    /// For tests of what only hugepages are good for, on machines without them.
    #[cfg(test)]
    pub(crate) fn claim_huge(&mut self) {
        self.pages = PageKind::Huge;
    }

    /// From now on every region that this thread wants in hugepages claims to be so.
    #[cfg(test)]
    pub(crate) fn pretend_huge() {
        tests::PRETEND_HUGE.set(true);
    }

    /// Start of the mapping. Packet memory is reached through the owner of a slot, see
    /// [`super::Pool`]; descriptor rings through [`crate::ring`].
    pub(crate) fn base(&self) -> *mut u8 {
        self.map.as_mut_ptr()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    thread_local! {
        pub(super) static PRETEND_HUGE: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
    }

    #[test]
    fn a_region_is_zeroed_and_page_aligned() {
        let region = Region::new(10_000, false).unwrap();
        assert_eq!(region.pages(), PageKind::Ordinary);
        assert_eq!(region.len() % sys::page_size(), 0);
        assert!(region.len() >= 10_000);
        assert_eq!(region.base() as usize % sys::page_size(), 0);
        assert_eq!(region.file().metadata().unwrap().len(), region.len() as u64);
    }

    #[test]
    fn hugepages_fall_back_to_ordinary_pages() {
        // Passes on machines with and without hugepages; the kind says which it was.
        let region = Region::new(1 << 20, true).unwrap();
        assert!(region.len() >= 1 << 20);
    }

    #[test]
    fn impossible_lengths_are_refused() {
        assert!(matches!(Region::new(0, false), Err(RegionError::Length(0))));
        assert!(matches!(Region::new(usize::MAX, false), Err(RegionError::Length(_))));
    }
}
