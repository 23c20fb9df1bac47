//! Fences that reach a device, not only the other processors.

#[cfg(not(target_arch = "aarch64"))]
use std::sync::atomic::{Ordering, fence};

/// Stores before it are visible to a device before stores after it; see [`crate::barrier`].
#[inline]
pub(crate) fn fence_stores_for_device() {
    // Ordinary memory and uncached registers are both stored in program order (Intel SDM vol. 3A
    // §9.2.2); what is left to hold back is the compiler. A write-combining BAR would need SFENCE;
    // VFIO maps uncached.
    #[cfg(target_arch = "x86_64")]
    fence(Ordering::Release);
    // SAFETY: a barrier changes no register, flag or memory. It lacks `nomem`, so that the compiler
    // does not move memory accesses across it either.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!("dmb oshst", options(nostack, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fence(Ordering::SeqCst);
}

/// Loads before it are made before loads after it, of memory that a device writes; see
/// [`crate::barrier`].
#[inline]
pub(crate) fn fence_loads_from_device() {
    #[cfg(target_arch = "x86_64")]
    fence(Ordering::Acquire);
    // SAFETY: as in `fence_stores_for_device`.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        std::arch::asm!("dmb oshld", options(nostack, preserves_flags));
    }
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    fence(Ordering::SeqCst);
}
