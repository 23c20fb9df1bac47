//! NICs in software, for tests and benchmarks without hardware.
//!
//! ```text
//!   driver ──Function──▶ IgbModel ── registers ─▶ rings ─▶ Memory ─▶ the driver's own regions
//!                            │ frames                        └ an IOMMU: what is not mapped faults
//!                            ▼
//!                        another model (wire), or a list that the test reads
//! ```
//!
//! A model does what the data sheet says a device does, and nothing on its own account: it moves
//! when a register is written or a frame arrives, in the thread that does it. It was written from
//! the data sheet's text, not from the driver, and it judges: what a driver must not do is kept in
//! [`IgbModel::violations`]. With [`Faults`] it breaks the contract on purpose.

mod igb;
mod memory;
mod packet;
mod receive;
mod registers;
mod transmit;

pub use igb::{Access, Faults, IgbModel, RxFault, wire};
