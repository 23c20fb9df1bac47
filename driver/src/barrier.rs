//! The two fences between a driver and a device that share memory.
//!
//! ```text
//!   driver                                   device
//!   write descriptors     (memory)           write buffer     (memory)
//!   publish()                                write descriptor with DD (memory)
//!   write the tail        (register)         ...
//!        └─▶ device reads descriptors             └─▶ driver reads descriptor, finds DD
//!                                                     acquire_descriptor()
//!                                                     driver reads the rest and the buffer
//! ```
//!
//! Neither party can be asked to take part: the device's own order (a doorbell is not passed by the
//! reads that it causes, posted writes arrive in order: PCI Express Base §2.4.1) is a given, and
//! these fences keep the processor and the compiler to theirs. A volatile access orders itself
//! against other volatile accesses only, and only in the compiler, so it does not replace them.
//!
//! | | x86-64 | AArch64 |
//! | --- | --- | --- |
//! | [`publish`] | nothing but the compiler: stores stay in order (SDM vol. 3A §9.2.2) | `dmb oshst` |
//! | [`acquire_descriptor`] | nothing but the compiler: loads stay in order (the same) | `dmb oshld` |
//!
//! On AArch64 the outer-shareable forms are needed: Rust's own fences order the inner domain only,
//! which is the processors without the devices. Elsewhere a full fence stands in for both.

/// Orders every store to a descriptor ring and to packet memory before the store to a tail register
/// that follows: the device, which reads the descriptors because of that store, finds them whole.
///
/// Call it once a burst, between the last descriptor and the doorbell.
#[inline]
pub fn publish() {
    crate::sys::fence_stores_for_device();
}

/// Orders the load of a descriptor's DD bit (or of a used index), which the device stored last,
/// before the loads of the rest of the descriptor and of the buffer, which it stored first.
///
/// Call it after DD was seen set and before anything else of the descriptor is believed. What lies
/// in the word of DD itself (in the write-back of both Intel formats status, errors, length and tag)
/// is ordered by no fence: it is taken by the same load, and the device's write of a descriptor
/// reaches a cache line whole, so that the processor sees an aligned word of it at once. Should a
/// host tear it even so, the length is still the 0 of the descriptor that was posted, which is never
/// believed: a frame is lost and counted, and nothing is read that was not written.
///
/// So one fence does for a run of descriptors: load their words of DD, as many as are set, pass the
/// fence, and then load the rest of all of them.
#[inline]
pub fn acquire_descriptor() {
    crate::sys::fence_loads_from_device();
}
