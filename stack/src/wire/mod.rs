//! Packets as bytes: one file a protocol.

pub mod tcp;
