//! The one kind of buffer that crosses threads.

use std::fmt;
use std::mem::ManuallyDrop;
use std::ops::{Deref, DerefMut};
use std::sync::Arc;

use super::inner::Shared;

/// A slot on loan to another thread: exclusive, writable and `Send`.
///
/// Dropping it pushes the slot onto its pool's return queue, which is as large as the pool, so
/// that this cannot fail; the pool takes it home on its own thread. It keeps the memory mapped, so
/// it may outlive the pool.
pub struct RemoteBuf {
    shared: Arc<Shared>,
    slot: u32,
    off: u16,
    len: u16,
}

// SAFETY: a `RemoteBuf` is the only reference to its slot (checked when it is made), and `Shared`
// consists of a mapping and a concurrent queue. The pointer into the mapping is derived from
// `Arc<Shared>` at each use.
unsafe impl Send for RemoteBuf {}

// SAFETY: `Shared` is reached from several threads only for its queue (`Sync`) and for slot
// addresses, which are plain arithmetic; bytes are reached only through the slot's exclusive owner.
unsafe impl Sync for Shared {}
// SAFETY: the mapping may be unmapped from any thread.
unsafe impl Send for Shared {}

impl RemoteBuf {
    pub(super) fn from_parts(shared: Arc<Shared>, slot: u32, off: u16, len: u16) -> RemoteBuf {
        RemoteBuf { shared, slot, off, len }
    }

    pub(super) fn belongs_to(&self, shared: &Arc<Shared>) -> bool {
        Arc::ptr_eq(&self.shared, shared)
    }

    /// Gives up the slot without returning it; the pool goes on to own it.
    pub(super) fn forget(self) -> (u32, u16, u16) {
        let mut this = ManuallyDrop::new(self);
        let parts = (this.slot, this.off, this.len);
        // SAFETY: `this` is never dropped or used again, so the Arc is dropped exactly once.
        unsafe { std::ptr::drop_in_place(&mut this.shared) };
        parts
    }

    /// Cuts the buffer to its first `len` bytes; does nothing if it is not longer.
    pub fn truncate(&mut self, len: usize) {
        self.len = self.len.min(u16::try_from(len).unwrap_or(u16::MAX));
    }

    /// Cuts `bytes` off the front.
    ///
    /// # Panics
    /// If the buffer has fewer.
    pub fn advance(&mut self, bytes: usize) {
        assert!(bytes <= self.len as usize, "advance past the end of a buffer");
        self.off += bytes as u16;
        self.len -= bytes as u16;
    }

    fn ptr(&self) -> *mut u8 {
        // SAFETY: `off + len` lies in the slot: it did when this was made, and is only ever cut.
        unsafe { self.shared.slot_base(self.slot).add(self.off as usize) }
    }
}

impl Deref for RemoteBuf {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: the range lies in a zero-initialised mapping that `shared` keeps alive, and this
        // is the only reference to it.
        unsafe { std::slice::from_raw_parts(self.ptr(), self.len as usize) }
    }
}

impl DerefMut for RemoteBuf {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.ptr(), self.len as usize) }
    }
}

impl Drop for RemoteBuf {
    fn drop(&mut self) {
        let pushed = self.shared.returns.push(self.slot);
        debug_assert!(pushed.is_ok(), "the return queue has a place for every slot");
    }
}

impl fmt::Debug for RemoteBuf {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RemoteBuf(slot {}, {}+{})", self.slot, self.off, self.len)
    }
}
