//! A function's configuration space, through sysfs or through VFIO's region: the same bytes.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use thiserror::Error;

use super::{PciAddress, System};

/// Offsets in the header (PCI Local Bus 3.0 §6.1) and in capabilities.
const COMMAND: u16 = 0x04;
const STATUS: u16 = 0x06;
const CAPABILITIES: u16 = 0x34;
const MSIX_CONTROL: u16 = 2;
const EXPRESS_DEVICE: u16 = 4;

const COMMAND_MEMORY: u16 = 1 << 1;
const COMMAND_BUS_MASTER: u16 = 1 << 2;
const STATUS_CAPABILITIES: u16 = 1 << 4;
/// Table size in MSI-X message control, less one (§6.8.2.3).
const MSIX_TABLE_SIZE: u16 = 0x07ff;
/// Function-level reset, in the PCI Express device capabilities (Base §7.5.3.3).
const EXPRESS_FLR: u32 = 1 << 28;

/// The header ends here, and capabilities begin.
const HEADER_LEN: u16 = 0x40;

/// Most capabilities that are looked at: more do not fit 256 bytes, so a longer chain is a circle.
const MAX_CAPABILITIES: usize = 48;

/// Capability ids.
pub mod capability {
    /// PCI Express.
    pub const EXPRESS: u8 = 0x10;
    /// MSI-X.
    pub const MSIX: u8 = 0x11;
}

/// Why configuration space could not be used.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// It could not be opened, read or written.
    #[error("configuration space at {offset:#x}: {source}")]
    Io {
        /// Which byte.
        offset: u16,
        /// The kernel's reason. Only root reads beyond the header through sysfs.
        source: io::Error,
    },
}

/// The first 256 bytes of configuration space.
#[derive(Clone, Debug)]
pub struct Config {
    file: Arc<File>,
    base: u64,
}

impl Config {
    /// Opens a function's configuration space through sysfs.
    ///
    /// # Errors
    /// [`ConfigError::Io`].
    pub fn open(system: &System, address: PciAddress) -> Result<Config, ConfigError> {
        let path = super::function::directory(system, address).join("config");
        let file = File::open(path).map_err(|source| ConfigError::Io { offset: 0, source })?;
        Ok(Config::at(Arc::new(file), 0))
    }

    /// Configuration space that begins at byte `base` of a file.
    pub(crate) fn at(file: Arc<File>, base: u64) -> Config {
        Config { file, base }
    }

    fn read<const N: usize>(&self, offset: u16) -> Result<[u8; N], ConfigError> {
        let mut bytes = [0; N];
        self.file
            .read_exact_at(&mut bytes, self.base + u64::from(offset))
            .map_err(|source| ConfigError::Io { offset, source })?;
        Ok(bytes)
    }

    /// Reads 8 bits.
    ///
    /// # Errors
    /// [`ConfigError::Io`].
    pub fn u8(&self, offset: u16) -> Result<u8, ConfigError> {
        Ok(u8::from_le_bytes(self.read(offset)?))
    }

    /// Reads 16 bits.
    ///
    /// # Errors
    /// [`ConfigError::Io`].
    pub fn u16(&self, offset: u16) -> Result<u16, ConfigError> {
        Ok(u16::from_le_bytes(self.read(offset)?))
    }

    /// Reads 32 bits.
    ///
    /// # Errors
    /// [`ConfigError::Io`].
    pub fn u32(&self, offset: u16) -> Result<u32, ConfigError> {
        Ok(u32::from_le_bytes(self.read(offset)?))
    }

    /// Where the first capability of this id lies, if the function has one.
    ///
    /// # Errors
    /// [`ConfigError::Io`].
    pub fn capability(&self, id: u8) -> Result<Option<u16>, ConfigError> {
        if self.u16(STATUS)? & STATUS_CAPABILITIES == 0 {
            return Ok(None);
        }
        // The two lowest bits of a pointer are reserved (§6.7).
        let mut at = u16::from(self.u8(CAPABILITIES)? & !3);
        for _ in 0..MAX_CAPABILITIES {
            if at < HEADER_LEN {
                break;
            }
            let [found, next] = self.read(at)?;
            if found == id {
                return Ok(Some(at));
            }
            at = u16::from(next & !3);
        }
        Ok(None)
    }

    /// Number of MSI-X vectors; 0 without MSI-X.
    ///
    /// # Errors
    /// [`ConfigError::Io`].
    pub fn msix_vectors(&self) -> Result<u16, ConfigError> {
        let Some(at) = self.capability(capability::MSIX)? else { return Ok(0) };
        Ok((self.u16(at + MSIX_CONTROL)? & MSIX_TABLE_SIZE) + 1)
    }

    /// True if the function can be reset on its own by a bit of its own (FLR).
    ///
    /// # Errors
    /// [`ConfigError::Io`].
    pub fn has_function_reset(&self) -> Result<bool, ConfigError> {
        let Some(at) = self.capability(capability::EXPRESS)? else { return Ok(false) };
        Ok(self.u32(at + EXPRESS_DEVICE)? & EXPRESS_FLR != 0)
    }

    /// True if the function may read and write memory by itself.
    ///
    /// # Errors
    /// [`ConfigError::Io`].
    pub fn is_bus_master(&self) -> Result<bool, ConfigError> {
        Ok(self.u16(COMMAND)? & COMMAND_BUS_MASTER != 0)
    }

    /// Lets the function read and write memory by itself, or forbids it. Its registers answer in
    /// either case.
    pub(crate) fn set_bus_master(&self, on: bool) -> Result<(), ConfigError> {
        let command = self.u16(COMMAND)? | COMMAND_MEMORY;
        let command = if on { command | COMMAND_BUS_MASTER } else { command & !COMMAND_BUS_MASTER };
        self.file
            .write_all_at(&command.to_le_bytes(), self.base + u64::from(COMMAND))
            .map_err(|source| ConfigError::Io { offset: COMMAND, source })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Configuration space of 256 bytes in memory, at an offset as in a VFIO descriptor.
    fn space(parts: &[(u64, &[u8])]) -> Config {
        let file = crate::sys::memfd("config", false).unwrap();
        file.set_len(4096 + 256).unwrap();
        for (at, bytes) in parts {
            file.write_all_at(bytes, 4096 + at).unwrap();
        }
        Config::at(Arc::new(file), 4096)
    }

    #[test]
    fn capabilities_are_found_along_the_chain() {
        let config = space(&[
            (0x06, &[0x10, 0]),
            (0x34, &[0x43]),
            (0x40, &[0x01, 0x50]),
            (0x50, &[0x11, 0xa0, 0x09, 0x80]),
            (0xa0, &[0x10, 0, 2, 0, 0, 0, 0, 0x10]),
        ]);
        assert_eq!(config.capability(capability::MSIX).unwrap(), Some(0x50));
        assert_eq!(config.msix_vectors().unwrap(), 10);
        assert!(config.has_function_reset().unwrap());
        assert_eq!(config.capability(0x05).unwrap(), None);
        let plain = space(&[(0x34, &[0x40]), (0x40, &[0x11, 0, 9, 0])]);
        assert_eq!(plain.msix_vectors().unwrap(), 0, "without the status bit there is no chain");
    }

    #[test]
    fn a_chain_that_runs_in_a_circle_or_into_the_header_ends() {
        let circle =
            space(&[(0x06, &[0x10, 0]), (0x34, &[0x40]), (0x40, &[1, 0x48]), (0x48, &[2, 0x40])]);
        assert_eq!(circle.capability(capability::MSIX).unwrap(), None);
        let header = space(&[(0x06, &[0x10, 0]), (0x34, &[0x40]), (0x40, &[1, 0x10])]);
        assert_eq!(header.capability(0).unwrap(), None);
    }

    #[test]
    fn bus_mastering_changes_one_bit_and_keeps_the_registers_answering() {
        let config = space(&[(0x04, &[0x46, 0x05])]);
        assert!(config.is_bus_master().unwrap());
        config.set_bus_master(false).unwrap();
        assert_eq!(config.u16(0x04).unwrap(), 0x0542);
        config.set_bus_master(true).unwrap();
        assert_eq!(config.u16(0x04).unwrap(), 0x0546);
        assert_eq!(config.u16(0x06).unwrap(), 0, "status is left alone: its bits clear by writing");
    }

    #[test]
    fn a_space_that_ends_early_is_an_error_with_its_offset() {
        let file = crate::sys::memfd("config", false).unwrap();
        file.set_len(64).unwrap();
        file.write_all_at(&[0x10], 6).unwrap();
        file.write_all_at(&[0x40], 0x34).unwrap();
        let error = Config::at(Arc::new(file), 0).msix_vectors().unwrap_err();
        assert!(error.to_string().starts_with("configuration space at 0x40"), "{error}");
    }
}
