//! Settings of a stack on raw IP packets, by name.
//!
//! ```text
//!   set("rto_min", 200 ms) ─▶ kind: parse, range ─▶ StackConfig, InterfaceConfig, PoolConfig
//!   Settings::all()        ─▶ name, kind, default, what it is
//! ```
//!
//! For whoever configures a stack from text or from another project's names: test benches, fuzzers,
//! command lines. Code that knows the types sets the fields of [`StackConfig`] itself.

mod table;
mod value;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};

use barewire_driver::PoolConfig;
use thiserror::Error;

use super::StackConfig;
use crate::addr::Cidr;
use table::TABLE;
pub use value::{Kind, Value};

/// Why a setting was refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SettingError {
    /// There is no setting of this name.
    #[error("no setting is called `{name}`; Settings::all() lists them")]
    Unknown {
        /// The name.
        name: String,
    },
    /// The value is of another kind, or its text cannot be read as one.
    #[error("`{name}` takes {wanted}, not `{value}`")]
    Kind {
        /// The setting.
        name: &'static str,
        /// What it takes.
        wanted: Kind,
        /// What it was given.
        value: Value,
    },
    /// The value lies outside the setting's range.
    #[error("`{name}` takes {wanted}; {value} is outside of it")]
    Range {
        /// The setting.
        name: &'static str,
        /// What it takes.
        wanted: Kind,
        /// What it was given.
        value: Value,
    },
    /// Two settings contradict each other.
    #[error("`{low}` is larger than `{high}`")]
    Contradiction {
        /// The one that has to be the smaller.
        low: &'static str,
        /// The other.
        high: &'static str,
    },
}

/// One setting: what it is called, takes and means.
pub struct Setting {
    /// Its name.
    pub name: &'static str,
    /// What it takes, with its unit and range.
    pub kind: Kind,
    /// What it is, in a sentence.
    pub about: &'static str,
    get: fn(&Settings) -> Value,
    set: fn(&mut Settings, &Value),
}

impl fmt::Debug for Setting {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.name, self.kind, self.about)
    }
}

impl Setting {
    /// The value that it has unless it is set.
    pub fn default_value(&self) -> Value {
        (self.get)(&Settings::default())
    }
}

/// Everything that [`Stack::raw`](super::Stack::raw) has to know, with its defaults.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The stack's configuration, for what has no name here.
    pub stack: StackConfig,
    /// Packet memory.
    pub pool: PoolConfig,
    pub(super) address: Cidr,
    pub(super) gateway: Option<Ipv4Addr>,
    pub(super) mtu: u16,
    pub(super) tso: bool,
}

impl Default for Settings {
    fn default() -> Settings {
        let host = IpAddr::V4(Ipv4Addr::new(10, 0, 0, 1));
        Settings {
            stack: StackConfig::new(1),
            pool: PoolConfig { try_huge: false, ..PoolConfig::default() },
            address: Cidr::new(host, 24).unwrap_or(Cidr::everything(host)),
            gateway: None,
            mtu: 1500,
            tso: false,
        }
    }
}

impl Settings {
    /// The defaults: what the RFCs say, and what Linux does where they leave the choice.
    pub fn new() -> Settings {
        Settings::default()
    }

    /// All settings, in the order of the documentation.
    pub fn all() -> &'static [Setting] {
        TABLE
    }

    /// Changes one setting.
    ///
    /// # Errors
    /// [`SettingError`]: no such name, a value of another kind, or one out of range. Nothing has
    /// changed then.
    pub fn set(&mut self, name: &str, value: impl Into<Value>) -> Result<(), SettingError> {
        let setting = find(name)?;
        let value = check(setting, value.into())?;
        (setting.set)(self, &value);
        let tcp = &mut self.stack.tcp;
        // The times in force and those kept for later are the same here.
        tcp.keepalive = tcp.keepalive.map(|_| tcp.keepalive_times);
        Ok(())
    }

    /// As [`Settings::set`], for setting several in one expression.
    ///
    /// # Errors
    /// As [`Settings::set`].
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Result<Settings, SettingError> {
        self.set(name, value)?;
        Ok(self)
    }

    /// What a setting is now.
    ///
    /// # Errors
    /// [`SettingError::Unknown`].
    pub fn get(&self, name: &str) -> Result<Value, SettingError> {
        Ok((find(name)?.get)(self))
    }

    /// Where the gateway leads.
    pub(super) fn default_network(&self) -> Cidr {
        Cidr::everything(self.address.addr())
    }

    /// Settings that are fine alone and not together.
    pub(super) fn check(&self) -> Result<(), SettingError> {
        let tcp = &self.stack.tcp;
        let ordered = [
            ("rto_min", tcp.rto_min, "rto_max", tcp.rto_max),
            ("rto_initial", tcp.rto_initial, "rto_max", tcp.rto_max),
        ];
        for (low, low_value, high, high_value) in ordered {
            if low_value > high_value {
                return Err(SettingError::Contradiction { low, high });
            }
        }
        Ok(())
    }
}

fn find(name: &str) -> Result<&'static Setting, SettingError> {
    TABLE
        .iter()
        .find(|setting| setting.name == name)
        .ok_or_else(|| SettingError::Unknown { name: name.to_owned() })
}

/// The value as the setting stores it.
fn check(setting: &'static Setting, value: Value) -> Result<Value, SettingError> {
    let wanted = setting.kind;
    let read = match &value {
        Value::Text(text) => value::parse(wanted, text.trim()),
        value => value::convert(wanted, value),
    };
    let name = setting.name;
    let Some(read) = read else { return Err(SettingError::Kind { name, wanted, value }) };
    let inside = match (wanted, &read) {
        (Kind::Number { min, max } | Kind::Bytes { min, max }, Value::Number(number)) => {
            (min..=max).contains(number)
        }
        (Kind::Time { min, max } | Kind::OptionalTime { min, max }, Value::Time(time)) => {
            (min..=max).contains(time)
        }
        _ => true,
    };
    if inside { Ok(read) } else { Err(SettingError::Range { name, wanted, value }) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn every_setting_takes_its_own_value_back_as_text() {
        for setting in Settings::all() {
            let mut settings = Settings::default();
            let value = setting.default_value();
            let text = value.to_string();
            assert_eq!(settings.set(setting.name, text.as_str()), Ok(()), "{}", setting.name);
            assert_eq!(settings.get(setting.name), Ok(value), "{}", setting.name);
        }
    }

    #[test]
    fn names_are_unique() {
        let mut names: Vec<_> = Settings::all().iter().map(|setting| setting.name).collect();
        names.sort_unstable();
        assert!(names.windows(2).all(|pair| pair[0] != pair[1]), "{names:?}");
    }

    #[test]
    fn what_is_wrong_is_told_and_changes_nothing() {
        let mut settings = Settings::default();
        let unknown = settings.set("mtuu", 1400);
        assert_eq!(unknown, Err(SettingError::Unknown { name: "mtuu".to_owned() }));
        let range = settings.set("mtu", 70_000);
        assert!(matches!(range, Err(SettingError::Range { name: "mtu", .. })), "{range:?}");
        for text in ["fast", "10", "-1s", "NaNs", ""] {
            let kind = settings.set("rto_min", text);
            assert!(matches!(kind, Err(SettingError::Kind { .. })), "{text}: {kind:?}");
        }
        assert!(settings.set("timestamps", 2).is_err());
        assert!(settings.set("congestion", "vegas").is_err());
        assert_eq!(settings.get("mtu"), Ok(Value::Number(1500)));
        assert_eq!(settings.get("rto_min"), Ok(Value::Time(Duration::from_millis(200))));
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused_together() {
        let mut settings = Settings::default();
        settings.set("rto_min", "200s").unwrap();
        let told = settings.check();
        assert_eq!(told, Err(SettingError::Contradiction { low: "rto_min", high: "rto_max" }));
        settings.set("rto_max", "300s").unwrap();
        assert_eq!(settings.check(), Ok(()));
    }

    #[test]
    fn text_numbers_and_types_mean_the_same() {
        let mut settings = Settings::default();
        for value in [Value::from("64KiB"), Value::from(65_536), Value::from(65_536u64)] {
            settings.set("recv_buffer", value).unwrap();
            assert_eq!(settings.stack.tcp.recv_buffer_bytes, 65_536);
        }
        for value in [Value::from("off"), Value::from(false), Value::from(0)] {
            settings.set("sack", value).unwrap();
            assert!(!settings.stack.tcp.sack);
        }
        for value in [Value::from("1.5s"), Value::from(Duration::from_millis(1500))] {
            settings.set("rto_initial", value).unwrap();
            assert_eq!(settings.stack.tcp.rto_initial, Duration::from_millis(1500));
        }
    }
}
