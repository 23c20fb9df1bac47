//! Cables by name, within one process.

use std::collections::HashMap;
use std::sync::{LazyLock, Mutex, PoisonError};

use super::CableConfig;
use super::pair::{CableDevice, Watch, pair};
use crate::device::DeviceError;

/// Most names in use at the same time.
pub const MAX_NAMES: usize = 256;

/// A cable that has been asked for by name.
enum Named {
    /// The second end waits for somebody to open it.
    Half(CableDevice),
    /// Both ends have been opened.
    Whole(Watch),
}

impl Named {
    fn in_use(&self) -> bool {
        match self {
            Named::Half(second) => second.other_end_in_use(),
            Named::Whole(watch) => watch.in_use(),
        }
    }
}

static CABLES: LazyLock<Mutex<HashMap<String, Named>>> = LazyLock::new(Mutex::default);

/// One end of the cable called `config.name`: the first caller makes the cable, the second gets the
/// other end. When both have let go of it, the name is free again.
///
/// # Errors
/// [`DeviceError::Config`] for a third caller, for a second one with another configuration, and
/// beyond [`MAX_NAMES`] cables; otherwise as [`pair`].
pub fn open_named(config: CableConfig) -> Result<CableDevice, DeviceError> {
    let mut cables = CABLES.lock().unwrap_or_else(PoisonError::into_inner);
    cables.retain(|_, cable| cable.in_use());
    let name = config.name.clone();
    let refused = |why: String| Err(DeviceError::Config(format!("cable:{name} {why}")));
    match cables.remove(&name) {
        Some(Named::Half(second)) if *second.config() == config => {
            cables.insert(name, Named::Whole(second.watch()));
            Ok(second)
        }
        Some(Named::Half(second)) => {
            let other = refused(format!("was made as {:?}", second.config()));
            cables.insert(name.clone(), Named::Half(second));
            other
        }
        Some(whole @ Named::Whole(_)) => {
            cables.insert(name.clone(), whole);
            refused("has two ends, and both are in use; take another name".into())
        }
        None if cables.len() >= MAX_NAMES => {
            refused(format!("is one too many: {MAX_NAMES} are in use"))
        }
        None => {
            let (first, second) = pair(config)?;
            cables.insert(name, Named::Half(second));
            Ok(first)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::Device;

    #[test]
    fn a_name_has_two_ends_and_is_free_when_both_are_gone() {
        let config = || CableConfig::new("registry-a");
        let first = open_named(config()).unwrap();
        let other = open_named(CableConfig { queues: 2, ..config() }).unwrap_err().to_string();
        assert!(other.contains("was made as"), "{other}");
        let second = open_named(config()).unwrap();
        assert_ne!(first.mac(), second.mac());
        let third = open_named(config()).unwrap_err().to_string();
        assert!(third.contains("both are in use"), "{third}");
        drop(first);
        assert!(open_named(config()).is_err(), "the second end is still there");
        drop(second);
        let again = open_named(config()).unwrap();
        drop(again);
        // The waiting end of a cable whose opener is gone leads nowhere: the name starts afresh.
        let first = open_named(config()).unwrap();
        let second = open_named(config()).unwrap();
        assert_ne!(first.mac(), second.mac());
    }
}
