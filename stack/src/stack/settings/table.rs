//! The settings, one row each.

use std::time::Duration;

use super::{Kind, Setting, Value};
use crate::tcp::{Algorithm, EcnMode, SynCookies};

const SECOND: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);
const MONTH: Duration = Duration::from_secs(30 * 24 * 3600);
const MS: Duration = Duration::from_millis(1);
const BUFFER: Kind = Kind::Bytes { min: 2048, max: 1 << 30 };

/// Reads a number that has been found in range.
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

/// Names of the ways to use SYN cookies.
const COOKIES: [(&str, SynCookies); 3] =
    [("off", SynCookies::Off), ("auto", SynCookies::Auto), ("always", SynCookies::Always)];

pub(super) static TABLE: &[Setting] = &[
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
    Setting {
        name: "recv_buffer",
        kind: BUFFER,
        about: "Received bytes that may wait for the application (SO_RCVBUF); \
                turns `recv_autotune` off.",
        get: |s| Value::from(s.stack.tcp.recv_buffer_bytes),
        set: |s, value| {
            if let Some(bytes) = number(value) {
                s.stack.tcp.recv_buffer_bytes = bytes;
                s.stack.tcp.recv_autotune = false;
            }
        },
    },
    setting!("recv_autotune", switch, s => s.stack.tcp.recv_autotune,
        "The receive buffer begins small and grows up to `recv_buffer` as the reader needs it."),
    Setting {
        name: "send_buffer",
        kind: BUFFER,
        about: "Written bytes that may wait to be sent and acknowledged (SO_SNDBUF); \
                turns `send_autotune` off.",
        get: |s| Value::from(s.stack.tcp.send_buffer_bytes),
        set: |s, value| {
            if let Some(bytes) = number(value) {
                s.stack.tcp.send_buffer_bytes = bytes;
                s.stack.tcp.send_autotune = false;
            }
        },
    },
    setting!("send_autotune", switch, s => s.stack.tcp.send_autotune,
        "The send buffer begins small and follows the congestion window up to `send_buffer`."),
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
    setting!("quick_ack", switch, s => s.stack.tcp.quick_ack,
        "Acknowledge every segment at once (TCP_QUICKACK)."),
    setting!("timestamps", switch, s => s.stack.tcp.timestamps,
        "Offer and accept timestamps (RFC 7323 §3)."),
    setting!("window_scale", switch, s => s.stack.tcp.window_scale,
        "Offer and accept window scaling (RFC 7323 §2)."),
    setting!("sack", switch, s => s.stack.tcp.sack,
        "Offer and accept selective acknowledgments (RFC 2018)."),
    setting!("dsack", switch, s => s.stack.tcp.dsack,
        "Report what arrives twice, and learn from the peer's reports (RFC 2883)."),
    setting!("rack_tlp", switch, s => s.stack.tcp.rack_tlp,
        "Find losses by time and probe for lost tails (RFC 8985); otherwise by count (RFC 6675)."),
    setting!("rto_restart", switch, s => s.stack.tcp.rto_restart,
        "Count the retransmission timeout from when the oldest segment left (RFC 7765)."),
    setting!("mtu_probing", switch, s => s.stack.tcp.mtu_probing,
        "Find black holes of the path's MTU, and try larger segments later (RFC 4821)."),
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
    Setting {
        name: "syn_cookies",
        kind: Kind::Choice(&["off", "auto", "always"]),
        about: "When SYNs are answered with cookies: auto is when the half-open queue is full.",
        get: |s| {
            let name = COOKIES.iter().find(|(_, mode)| *mode == s.stack.tcp.syn_cookies);
            name.map_or(Value::Unset, |(name, _)| Value::from(*name))
        },
        set: |s, value| {
            let named = |(name, _): &&(&str, _)| matches!(value, Value::Text(t) if t == name);
            if let Some((_, mode)) = COOKIES.iter().find(named) {
                s.stack.tcp.syn_cookies = *mode;
            }
        },
    },
    setting!("defer_accept", time Duration::ZERO, HOUR, s => s.stack.tcp.defer_accept,
        "How long accept waits for a connection's first data; zero is not at all (TCP_DEFER_ACCEPT)."),
    setting!("fast_open", number Kind::Number { min: 0, max: 65_536 },
        s => s.stack.tcp.fast_open_queue,
        "Connections of a listener that may be open by a cookie alone (TCP_FASTOPEN); 0 is off."),
    setting!("fast_open_connect", switch, s => s.stack.tcp.fast_open_connect,
        "connect waits for the first write and sends it with the SYN (TCP_FASTOPEN_CONNECT)."),
    setting!("resets_per_s", number Kind::Number { min: 0, max: 1 << 30 },
        s => s.stack.limits.resets_per_s,
        "RSTs a second, about, for segments that belong to no connection."),
    setting!("stall_patience", time Duration::ZERO, HOUR, s => s.stack.limits.stall_patience,
        "How long a peer that reads nothing keeps memory once there is none left for others."),
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
