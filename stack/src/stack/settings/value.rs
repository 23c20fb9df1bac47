//! What settings take, and how text becomes it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use crate::addr::Cidr;

/// The prefix of an address that is given without one.
const PREFIX_DEFAULT: u8 = 24;

/// The value of a setting. Most calls never name it: `set` takes whatever converts into one.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Value {
    /// Not set; written `none`.
    Unset,
    /// On or off.
    Switch(bool),
    /// A number, in the setting's unit.
    Number(i128),
    /// A span of time.
    Time(Duration),
    /// An address.
    Address(Ipv4Addr),
    /// An address with the prefix of its network.
    Network(Cidr),
    /// Text, read as the setting wants it: `on`, `200ms`, `64KiB`, `10.0.0.1/24`, `newreno`.
    Text(String),
}

macro_rules! numbers {
    ($($from:ty)*) => {$(
        impl From<$from> for Value {
            fn from(number: $from) -> Value {
                Value::Number(number as i128)
            }
        }
    )*};
}
numbers!(u8 u16 u32 u64 usize i32 i64 i128);

macro_rules! values {
    ($($from:ty => $variant:ident,)*) => {$(
        impl From<$from> for Value {
            fn from(value: $from) -> Value {
                Value::$variant(value.into())
            }
        }
    )*};
}
values! {
    bool => Switch,
    Duration => Time,
    Ipv4Addr => Address,
    Cidr => Network,
    &str => Text,
    String => Text,
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Value::Unset => f.write_str("none"),
            Value::Switch(on) => f.write_str(if *on { "on" } else { "off" }),
            Value::Number(number) => write!(f, "{number}"),
            Value::Time(Duration::ZERO) => f.write_str("0"),
            Value::Time(time) => write!(f, "{time:?}"),
            Value::Address(addr) => write!(f, "{addr}"),
            Value::Network(cidr) => write!(f, "{cidr}"),
            Value::Text(text) => f.write_str(text),
        }
    }
}

/// What a setting takes, with its range, both ends included.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// `on` or `off`.
    Switch,
    /// A plain number.
    Number {
        /// The least.
        min: i128,
        /// The most.
        max: i128,
    },
    /// Bytes.
    Bytes {
        /// The least.
        min: i128,
        /// The most.
        max: i128,
    },
    /// A span of time; text needs a unit: `us`, `ms`, `s`.
    Time {
        /// The least.
        min: Duration,
        /// The most.
        max: Duration,
    },
    /// A time as before, or `none`.
    OptionalTime {
        /// The least.
        min: Duration,
        /// The most.
        max: Duration,
    },
    /// An IPv4 address, or `none`.
    OptionalAddress,
    /// An IPv4 address with a prefix: `10.0.0.1/8`. Without one it has 24 bits.
    Network,
    /// One of these names.
    Choice(&'static [&'static str]),
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Kind::Switch => f.write_str("on or off"),
            Kind::Number { min, max } => write!(f, "a number from {min} to {max}"),
            Kind::Bytes { min, max } => write!(f, "{min} to {max} bytes"),
            Kind::Time { min, max } => write!(f, "a time from {min:?} to {max:?}"),
            Kind::OptionalTime { min, max } => {
                write!(f, "none, or a time from {min:?} to {max:?}")
            }
            Kind::OptionalAddress => f.write_str("none, or an IPv4 address"),
            Kind::Network => {
                f.write_str("an IPv4 address, with its prefix if that is not 24: 10.0.0.1/8")
            }
            Kind::Choice(names) => write!(f, "one of: {}", names.join(", ")),
        }
    }
}

/// A value that is not text, where the setting takes one of its kind.
pub(super) fn convert(wanted: Kind, value: &Value) -> Option<Value> {
    match (wanted, value) {
        (Kind::Switch, Value::Switch(_))
        | (Kind::Number { .. } | Kind::Bytes { .. }, Value::Number(_))
        | (Kind::Time { .. }, Value::Time(_))
        | (Kind::OptionalTime { .. }, Value::Time(_) | Value::Unset)
        | (Kind::OptionalAddress, Value::Address(_) | Value::Unset)
        | (Kind::Network, Value::Network(_)) => Some(value.clone()),
        (Kind::Switch, Value::Number(number @ 0..=1)) => Some(Value::Switch(*number == 1)),
        // Other projects say 0 where no time is meant.
        (Kind::Time { .. }, Value::Number(0)) => Some(Value::Time(Duration::ZERO)),
        (Kind::Network, Value::Address(addr)) => network_of(*addr),
        _ => None,
    }
}

pub(super) fn parse(wanted: Kind, text: &str) -> Option<Value> {
    match wanted {
        Kind::Switch => match text {
            "on" | "true" | "1" => Some(Value::Switch(true)),
            "off" | "false" | "0" => Some(Value::Switch(false)),
            _ => None,
        },
        Kind::Number { .. } => text.parse().ok().map(Value::Number),
        Kind::Bytes { .. } => parse_bytes(text).map(Value::Number),
        Kind::OptionalTime { .. } | Kind::OptionalAddress if text == "none" => Some(Value::Unset),
        Kind::Time { .. } | Kind::OptionalTime { .. } => parse_time(text).map(Value::Time),
        Kind::OptionalAddress => text.parse().ok().map(Value::Address),
        Kind::Network => match text.parse::<Ipv4Addr>() {
            Ok(addr) => network_of(addr),
            Err(_) => {
                let cidr: Cidr = text.parse().ok()?;
                cidr.addr().is_ipv4().then_some(Value::Network(cidr))
            }
        },
        Kind::Choice(names) => names.contains(&text).then(|| Value::Text(text.to_owned())),
    }
}

/// An address without a prefix has one of [`PREFIX_DEFAULT`].
fn network_of(addr: Ipv4Addr) -> Option<Value> {
    Cidr::new(IpAddr::V4(addr), PREFIX_DEFAULT).map(Value::Network)
}

fn parse_bytes(text: &str) -> Option<i128> {
    let units = [("KiB", 1 << 10), ("MiB", 1 << 20), ("GiB", 1 << 30)];
    let (number, unit) = units
        .iter()
        .find_map(|&(suffix, unit)| Some((text.strip_suffix(suffix)?, unit)))
        .unwrap_or((text, 1));
    number.trim().parse::<i128>().ok()?.checked_mul(unit)
}

/// A span of time with its unit: `250us`, `40ms`, `1.5s`; zero needs none.
fn parse_time(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let units = [("us", 1e-6), ("µs", 1e-6), ("ms", 1e-3), ("s", 1.0)];
    let (number, unit) =
        units.iter().find_map(|&(suffix, unit)| Some((text.strip_suffix(suffix)?, unit)))?;
    // A float that is no time is refused, not rounded to one.
    Duration::try_from_secs_f64(number.trim().parse::<f64>().ok()? * unit).ok()
}
