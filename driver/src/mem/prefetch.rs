//! Asking the processor to fetch a cache line before it is needed.

/// Bytes of a cache line.
const LINE_BYTES: usize = 64;

/// Hints that `bytes` will be read soon: fetches the line at its start into every cache level.
/// Harmless on an empty slice; a no-op on processors other than x86-64.
#[inline]
pub fn prefetch_read(bytes: &[u8]) {
    prefetch_address(bytes.as_ptr());
}

/// The same for all lines of a value.
#[inline]
pub fn prefetch_value<T>(value: &T) {
    let address: *const u8 = std::ptr::from_ref(value).cast();
    for offset in (0..size_of::<T>()).step_by(LINE_BYTES) {
        prefetch_address(address.wrapping_add(offset));
    }
}

/// The same by address, which need not be a valid one.
#[inline]
pub(super) fn prefetch_address(address: *const u8) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: a prefetch never faults, whatever the address; and SSE is part of x86-64.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = address;
}
