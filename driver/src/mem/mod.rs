//! Packet memory: who owns a packet's bytes, and how they come back.
//!
//! ```text
//!   Region   one contiguous shared mapping (memfd, hugepages where there are any)
//!     └─ Pool   one per core, not atomic: slots of 2, 4 or 9 KiB and header cells of 256 bytes
//!          ├─ PacketBuf    unique, writable range of one slot      (as `BytesMut`)
//!          ├─ PacketSlice  shared, immutable range of one slot     (as `Bytes`)
//!          ├─ PostedSlots  slots that a device may write (receive): nobody holds their bytes
//!          ├─ QueuedSlots  slices that a device is reading (transmit)
//!          └─ RemoteBuf    exclusive and `Send`: the only thing that crosses threads
//! ```
//!
//! Every slot is in exactly one of the states that [`Pool::audit`] counts:
//! `free + posted + queued + held + remote = total`. A pool that is dropped or audited with a slot
//! in the wrong state shows a leak by name.
//!
//! Metadata lies beside the memory, never in it: a device that writes where it should not cannot
//! corrupt the allocator. Ranges of one slot that are alive at the same time never overlap while
//! one of them is writable, so the unused tail of a slot whose front is in flight can be filled.

mod buf;
mod checksum;
#[cfg(any(test, feature = "model"))]
mod device_view;
mod inner;
mod pool;
mod prefetch;
mod region;
mod remote;
mod row;
mod tables;

pub use buf::{PacketBuf, PacketSlice};
pub use checksum::Checksum;
pub use pool::{Audit, CELL_LEN, MAX_SLOTS, Pool, PoolConfig, PoolCounters, PoolError, SLOT_LENS};
pub use prefetch::{prefetch_read, prefetch_value};
pub use region::{PageKind, Region, RegionError};
pub use remote::RemoteBuf;
pub use row::Row;
pub(crate) use row::describe;
pub use tables::{PostedSlots, QueuedSlots};

/// Bytes at the front of a slot that can be left for headers: enough for Ethernet's, IPv4's and TCP's
/// with all options, and a whole number of cache lines: what lies behind them is then read and written
/// without a vector across two lines, which takes a third longer.
pub const HEADROOM: usize = 128;
