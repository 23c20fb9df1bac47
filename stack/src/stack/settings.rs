//! Settings of a stack on raw IP packets, by name.
//!
//! ```text
//!   set("rto_min", 200 ms) ─▶ kind: parse, range ─▶ StackConfig, InterfaceConfig, PoolConfig
//!   Settings::all()        ─▶ name, kind, default, what it is
//! ```
//!
//! For whoever configures a stack from text or from another project's names: test benches, fuzzers,
//! command lines. Code that knows the types sets the fields of [`StackConfig`] itself.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use barewire_driver::PoolConfig;
use thiserror::Error;

use super::StackConfig;
use crate::addr::Cidr;
use crate::tcp::{Algorithm, EcnMode};

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
    /// An IPv4 address with a prefix: `10.0.0.1/24`.
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
            Kind::Network => f.write_str("an IPv4 address with a prefix, like 10.0.0.1/24"),
            Kind::Choice(names) => write!(f, "one of: {}", names.join(", ")),
        }
    }
}

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
        Value::Text(text) => parse(wanted, text.trim()),
        value => convert(wanted, value),
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

/// A value that is not text, where the setting takes one of its kind.
fn convert(wanted: Kind, value: &Value) -> Option<Value> {
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
        (Kind::Network, Value::Address(addr)) => {
            Cidr::new(IpAddr::V4(*addr), 24).map(Value::Network)
        }
        _ => None,
    }
}

fn parse(wanted: Kind, text: &str) -> Option<Value> {
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
        Kind::Network => {
            let cidr: Cidr = text.parse().ok()?;
            cidr.addr().is_ipv4().then_some(Value::Network(cidr))
        }
        Kind::Choice(names) => names.contains(&text).then(|| Value::Text(text.to_owned())),
    }
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
pub(super) fn parse_time(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let units = [("us", 1e-6), ("ms", 1e-3), ("s", 1.0)];
    let (number, unit) =
        units.iter().find_map(|&(suffix, unit)| Some((text.strip_suffix(suffix)?, unit)))?;
    // A float that is no time is refused, not rounded to one.
    Duration::try_from_secs_f64(number.trim().parse::<f64>().ok()? * unit).ok()
}

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);
const MS: Duration = Duration::from_millis(1);
const BUFFER: Kind = Kind::Bytes { min: 2048, max: 1 << 30 };

/// Reads a number that [`check`] has found in range.
fn number<T: TryFrom<i128>>(value: &Value) -> Option<T> {
    match value {
        Value::Number(number) => T::try_from(*number).ok(),
        _ => None,
    }
}

fn time(value: &Value) -> Option<Duration> {
    match value {
        Value::Time(time) => Some(*time),
        _ => None,
    }
}

/// Writes one row of [`TABLE`]: how the field is read, and how a checked value is put into it.
macro_rules! setting {
    ($name:literal, number $kind:expr, $s:ident => $field:expr, $about:literal) => {
        Setting {
            name: $name,
            kind: $kind,
            about: $about,
            get: |$s| Value::Number($field as i128),
            set: |$s, value| {
                if let Some(value) = number(value) {
                    $field = value;
                }
            },
        }
    };
    ($name:literal, time $min:expr, $max:expr, $s:ident => $field:expr, $about:literal) => {
        Setting {
            name: $name,
            kind: Kind::Time { min: $min, max: $max },
            about: $about,
            get: |$s| Value::Time($field),
            set: |$s, value| {
                if let Some(value) = time(value) {
                    $field = value;
                }
            },
        }
    };
    ($name:literal, switch, $s:ident => $field:expr, $about:literal) => {
        Setting {
            name: $name,
            kind: Kind::Switch,
            about: $about,
            get: |$s| Value::Switch($field),
            set: |$s, value| $field = matches!(value, Value::Switch(true)),
        }
    };
}

/// Names of the congestion controllers.
const CONTROLLERS: [&str; 3] =
    [Algorithm::NewReno.name(), Algorithm::Cubic.name(), Algorithm::Bbr.name()];

/// Names of the ways to use explicit congestion notification.
const ECN_MODES: [(&str, EcnMode); 3] =
    [("off", EcnMode::Off), ("when-asked", EcnMode::WhenAsked), ("request", EcnMode::Request)];

static TABLE: &[Setting] = &[
    Setting {
        name: "address",
        kind: Kind::Network,
        about: "The address of the stack, with the prefix of its network.",
        get: |s| Value::Network(s.address),
        set: |s, value| {
            if let Value::Network(cidr) = value {
                s.address = *cidr;
            }
        },
    },
    Setting {
        name: "gateway",
        kind: Kind::OptionalAddress,
        about: "Where packets to other networks go; without one they have no route.",
        get: |s| s.gateway.map_or(Value::Unset, Value::Address),
        set: |s, value| {
            s.gateway = match value {
                Value::Address(addr) => Some(*addr),
                _ => None,
            }
        },
    },
    setting!("mtu", number Kind::Bytes { min: 576, max: 65_535 }, s => s.mtu,
        "Largest IP packet that is sent; larger ones are taken in all the same."),
    setting!("recv_buffer", number BUFFER, s => s.stack.tcp.recv_buffer_bytes,
        "Received bytes that may wait for the application (SO_RCVBUF)."),
    setting!("send_buffer", number BUFFER, s => s.stack.tcp.send_buffer_bytes,
        "Written bytes that may wait to be sent and acknowledged (SO_SNDBUF)."),
    setting!("initial_window", number Kind::Number { min: 1, max: 255 },
        s => s.stack.tcp.initial_window_segments,
        "Initial congestion window in segments (RFC 6928)."),
    setting!("rto_min", time MS, HOUR, s => s.stack.tcp.rto_min,
        "Lower bound of the retransmission timeout."),
    setting!("rto_initial", time MS, HOUR, s => s.stack.tcp.rto_initial,
        "Retransmission timeout before the first measurement (RFC 6298 §2.1)."),
    setting!("rto_max", time MS, DAY, s => s.stack.tcp.rto_max,
        "Upper bound of the retransmission timeout and of the zero-window probe timer."),
    setting!("syn_retries", number Kind::Number { min: 0, max: 255 }, s => s.stack.tcp.syn_retries,
        "Times that a SYN is sent again before connect gives up."),
    setting!("syn_ack_retries", number Kind::Number { min: 0, max: 255 },
        s => s.stack.tcp.syn_ack_retries,
        "Times that a SYN-ACK is sent again before the half-open connection is dropped."),
    setting!("data_retries", number Kind::Number { min: 1, max: 255 },
        s => s.stack.tcp.data_retries,
        "Times that data is sent again before the connection times out (RFC 9293 §3.8.3)."),
    setting!("delayed_ack", time Duration::ZERO, Duration::from_millis(500),
        s => s.stack.tcp.delayed_ack,
        "How long an ACK may wait for company; zero acknowledges every segment."),
    setting!("quick_acks", number Kind::Number { min: 0, max: 255 }, s => s.stack.tcp.quick_acks,
        "Data segments at the start of a connection that are acknowledged at once."),
    Setting {
        name: "congestion",
        kind: Kind::Choice(&CONTROLLERS),
        about: "The congestion controller (TCP_CONGESTION).",
        get: |s| Value::from(s.stack.tcp.congestion.name()),
        set: |s, value| {
            if let Value::Text(name) = value
                && let Ok(algorithm) = name.parse()
            {
                s.stack.tcp.congestion = algorithm;
            }
        },
    },
    Setting {
        name: "ecn",
        kind: Kind::Choice(&["off", "when-asked", "request"]),
        about: "Explicit congestion notification (RFC 3168).",
        get: |s| {
            let name = ECN_MODES.iter().find(|(_, mode)| *mode == s.stack.tcp.ecn);
            name.map_or(Value::Unset, |(name, _)| Value::from(*name))
        },
        set: |s, value| {
            let named = |(name, _): &&(&str, _)| matches!(value, Value::Text(t) if t == name);
            if let Some((_, mode)) = ECN_MODES.iter().find(named) {
                s.stack.tcp.ecn = *mode;
            }
        },
    },
    setting!("pacing", switch, s => s.stack.tcp.pacing,
        "Data leaves spread over the round trip, whatever the controller; BBR always paces."),
    setting!("slow_start_after_idle", switch, s => s.stack.tcp.slow_start_after_idle,
        "An idle connection begins again with the initial window (RFC 5681 §4.1)."),
    setting!("timestamps", switch, s => s.stack.tcp.timestamps,
        "Offer and accept timestamps (RFC 7323 §3)."),
    setting!("window_scale", switch, s => s.stack.tcp.window_scale,
        "Offer and accept window scaling (RFC 7323 §2)."),
    setting!("nodelay", switch, s => s.stack.tcp.nodelay,
        "Turns Nagle's algorithm off (TCP_NODELAY)."),
    setting!("cork", switch, s => s.stack.tcp.cork,
        "Holds partial segments back for at most 200 ms (TCP_CORK)."),
    Setting {
        name: "mss_max",
        kind: Kind::Number { min: 64, max: 65_535 },
        about: "Upper bound of the MSS, both ways (TCP_MAXSEG); 65535 is none.",
        get: |s| Value::from(s.stack.tcp.mss_max.unwrap_or(u16::MAX)),
        set: |s, value| s.stack.tcp.mss_max = number(value).filter(|&mss| mss != u16::MAX),
    },
    Setting {
        name: "keepalive",
        kind: Kind::Switch,
        about: "Probes idle connections (SO_KEEPALIVE).",
        get: |s| Value::Switch(s.stack.tcp.keepalive.is_some()),
        set: |s, value| {
            let times = s.stack.tcp.keepalive_times;
            s.stack.tcp.keepalive = matches!(value, Value::Switch(true)).then_some(times);
        },
    },
    setting!("keepalive_idle", time SECOND, MONTH,
        s => s.stack.tcp.keepalive_times.idle,
        "Silence before the first keepalive probe (TCP_KEEPIDLE)."),
    setting!("keepalive_interval", time SECOND, DAY,
        s => s.stack.tcp.keepalive_times.interval,
        "Time between keepalive probes (TCP_KEEPINTVL)."),
    setting!("keepalive_count", number Kind::Number { min: 1, max: 255 }, 
        s => s.stack.tcp.keepalive_times.count,
        "Unanswered keepalive probes that end a connection (TCP_KEEPCNT)."),
    Setting {
        name: "user_timeout",
        kind: Kind::OptionalTime { min: MS, max: MONTH },
        about: "Longest time that data may stay unacknowledged (TCP_USER_TIMEOUT).",
        get: |s| s.stack.tcp.user_timeout.map_or(Value::Unset, Value::Time),
        set: |s, value| s.stack.tcp.user_timeout = time(value),
    },
    setting!("tso", switch, s => s.tso,
        "Sent packets may be larger than the MTU: what a card would cut into segments."),
    setting!("challenge_acks", number Kind::Number { min: 0, max: 65_535 },
        s => s.stack.tcp.challenge_acks_per_s,
        "Challenge ACKs that a connection sends in a second at most (RFC 5961 §7)."),
    setting!("fin_wait_2", time Duration::ZERO, DAY, s => s.stack.tcp.fin_wait_2,
        "How long a closed socket may stay in FIN-WAIT-2 (TCP_LINGER2)."),
    setting!("time_wait", time Duration::ZERO, HOUR, s => s.stack.tcp.time_wait,
        "2 MSL: the length of TIME-WAIT."),
    setting!("sockets", number Kind::Number { min: 1, max: 1 << 30 }, s => s.stack.limits.sockets,
        "Most entries in the socket table."),
    setting!("half_open", number Kind::Number { min: 0, max: 1 << 30 },
        s => s.stack.limits.half_open,
        "Most half-open connections of all listeners; beyond them SYN cookies take over."),
    setting!("time_wait_entries", number Kind::Number { min: 0, max: 1 << 30 },
        s => s.stack.limits.time_wait,
        "Most connections in TIME-WAIT; beyond them they are closed at once."),
    setting!("orphans", number Kind::Number { min: 0, max: 1 << 30 }, s => s.stack.limits.orphans,
        "Most closed connections that end in the background; beyond them they are reset."),
    setting!("packet_slots", number Kind::Number { min: 64, max: 1 << 22 }, s => s.pool.slots,
        "Packet memory, in slots of 2 KiB."),
    Setting {
        name: "seed",
        kind: Kind::Number { min: 0, max: i128::MAX },
        about: "Everything random follows from it.",
        get: |s| Value::Number(s.stack.seed as i128),
        set: |s, value| {
            if let Some(seed) = number::<u128>(value) {
                s.stack.reseed(seed);
            }
        },
    },
];
