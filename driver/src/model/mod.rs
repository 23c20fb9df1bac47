//! NICs in software, for tests and benchmarks without hardware.
//!
//! ```text
//!   driver ──Function──▶ NicModel ── registers ─▶ rings ─▶ Memory ─▶ the driver's own regions
//!                            │ frames                        └ an IOMMU: what is not mapped faults
//!                            ▼
//!                        another model (wire), or a list that the test reads
//! ```
//!
//! A model does what the data sheet says a device does, and nothing on its own account: it moves
//! when a register is written or a frame arrives, in the thread that does it. It was written from
//! the data sheets' text, not from the driver, and it judges: what a driver must not do is kept in
//! [`NicModel::violations`]. With [`Faults`] it breaks the contract on purpose.
//!
//! There is an 82576, a virtual function of one, an 82575, and an 82574 ([`Kind`]). Memory, filters, the wire and the gathering of frames
//! are one code; where they differ (interrupts, how a queue is turned on, the fields of transmit
//! descriptors) each match names all.

mod context;
mod interrupt;
mod mailbox;
mod memory;
mod nic;
mod packet;
mod phy;
mod receive;
mod registers;
mod transmit;

pub use mailbox::Mail;
pub use nic::{Access, Faults, NicModel, RxFault, wire};
pub use registers::Kind;
