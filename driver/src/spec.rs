//! How a user names a device on a command line.

use thiserror::Error;

/// A device as a user names it, such as `tap:bw0`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeviceSpec {
    /// A tap interface of the kernel, by name.
    Tap(String),
    /// One end of an in-memory cable, by name.
    Cable(String),
}

/// Why a string names no device.
#[derive(Debug, Error, PartialEq, Eq)]
#[error("{0}")]
pub struct SpecError(String);
