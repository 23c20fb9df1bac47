//! What the stack says over ICMP and when it keeps silent (RFC 1122 §3.2.2, RFC 1812 §4.3.2), and
//! what it tells sockets of what it hears.
//!
//! ```text
//!   packet nobody wants ─▶ may_answer_with_error ─▶ Limits::allow_error ─▶ error with quote_len bytes
//!   echo request        ─▶ may_answer_echo       ─▶ Limits::allow_echo  ─▶ echo reply
//!   error message       ─▶ Report::of            ─▶ the socket that sent the quoted datagram
//! ```

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::error::SocketError;
use crate::time::Instant;
use crate::wire::icmpv4::{self, Icmpv4Message, Quoted, TimeExceeded, Unreachable};
use crate::wire::ipv4::{self, Ipv4Header};
use crate::wire::protocol;

/// Largest error message, IP header included (RFC 1812 §4.3.2.3).
const MAX_ERROR_LEN: usize = 576;

/// ICMP type of a parameter problem (RFC 792).
const PARAMETER_PROBLEM: u8 = 12;

/// How a packet came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// It was sent to a link-layer broadcast or multicast address.
    pub link_group: bool,
    /// Its IP destination is a broadcast address of the interface that it came in through.
    pub ip_broadcast: bool,
}

/// True if an ICMP error may be sent about a packet (RFC 1122 §3.2.2). `payload` is the beginning
/// of what follows its header.
pub fn may_answer_with_error(header: &Ipv4Header, payload: &[u8], arrival: Arrival) -> bool {
    // "An ICMP error message MUST NOT be sent as the result of receiving …" a datagram destined to
    // a broadcast or multicast address, or sent as a link-layer broadcast,
    let to_many = arrival.link_group
        || arrival.ip_broadcast
        || header.dst.is_broadcast()
        || header.dst.is_multicast();
    // a non-initial fragment,
    let later_fragment = header.fragment_offset != 0;
    // an ICMP error message; one of unknown length or type is taken for an error, to be safe,
    let about_error = header.protocol == protocol::ICMP
        && payload.first().is_none_or(|&kind| icmpv4::is_error_type(kind));
    // a datagram whose source address does not define a single host.
    !(to_many || later_fragment || about_error) && is_one_host(header.src)
}

/// True if an echo request is answered. RFC 1122 §3.2.2.6 leaves requests to broadcast and
/// multicast addresses to choice: they are not answered, for they amplify attacks (RFC 2644). One
/// to a single host that was broadcast on the link is none (RFC 1122 §3.3.6).
pub fn may_answer_echo(header: &Ipv4Header, arrival: Arrival) -> bool {
    !arrival.link_group
        && !arrival.ip_broadcast
        && !header.dst.is_broadcast()
        && !header.dst.is_multicast()
        && is_one_host(header.src)
}

/// True for addresses that a single other host can have: not zero, loopback, broadcast, multicast
/// or class E (RFC 1122 §3.2.2 and §3.2.1.3).
fn is_one_host(addr: Ipv4Addr) -> bool {
    let [first, ..] = addr.octets();
    (1..224).contains(&first) && first != 127
}

/// Bytes of an offending packet of `packet_len` bytes, header included, that an error message
/// quotes: as many as fit 576 bytes (RFC 1812 §4.3.2.3), which is more than the header and 8 bytes
/// that RFC 1122 §3.2.2 asks for.
pub fn quote_len(packet_len: usize) -> usize {
    packet_len.min(MAX_ERROR_LEN - ipv4::LEN - icmpv4::LEN)
}

/// Lets through a number of messages a second, and short bursts.
#[derive(Clone, Copy, Debug)]
pub struct TokenBucket {
    /// Time that one message costs.
    cost_ns: u64,
    /// Most time that can be saved up.
    capacity_ns: u64,
    saved_ns: u64,
    last: Instant,
}

impl TokenBucket {
    /// A full bucket: `per_second` messages on average and `burst` at once. None at all if one of
    /// them is zero.
    pub fn new(per_second: u32, burst: u32) -> TokenBucket {
        let cost_ns = match per_second {
            0 => u64::MAX,
            n => Duration::from_secs(1).as_nanos() as u64 / u64::from(n),
        };
        let capacity_ns = if per_second == 0 { 0 } else { cost_ns.saturating_mul(burst.into()) };
        TokenBucket { cost_ns, capacity_ns, saved_ns: capacity_ns, last: Instant::ZERO }
    }

    /// True if one more message may be sent at `now`; it then counts as sent.
    pub fn allow(&mut self, now: Instant) -> bool {
        let passed_ns = now.as_nanos().saturating_sub(self.last.as_nanos());
        self.last = self.last.max(now);
        self.saved_ns = self.saved_ns.saturating_add(passed_ns).min(self.capacity_ns);
        if self.saved_ns < self.cost_ns {
            return false;
        }
        self.saved_ns -= self.cost_ns;
        true
    }
}

/// Settings of [`Limits`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IcmpConfig {
    /// Errors sent a second (RFC 1812 §4.3.2.8).
    pub errors_per_second: u32,
    /// Errors sent at once.
    pub errors_burst: u32,
    /// Echo replies sent a second.
    pub echoes_per_second: u32,
    /// Echo replies sent at once.
    pub echoes_burst: u32,
}

impl Default for IcmpConfig {
    fn default() -> Self {
        IcmpConfig {
            errors_per_second: 1_000,
            errors_burst: 50,
            echoes_per_second: 10_000,
            echoes_burst: 1_000,
        }
    }
}

/// What has been sent and suppressed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct IcmpCounters {
    /// Errors that were let through.
    pub errors_sent: u64,
    /// Errors suppressed by the rate limit.
    pub errors_limited: u64,
    /// Echo replies that were let through.
    pub echoes_sent: u64,
    /// Echo replies suppressed by the rate limit.
    pub echoes_limited: u64,
}

/// The rate limits of one stack. Errors and echo replies have one each, so that a flood of pings
/// does not silence errors.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    errors: TokenBucket,
    echoes: TokenBucket,
    counters: IcmpCounters,
}

impl Limits {
    /// Full buckets.
    pub fn new(config: IcmpConfig) -> Limits {
        Limits {
            errors: TokenBucket::new(config.errors_per_second, config.errors_burst),
            echoes: TokenBucket::new(config.echoes_per_second, config.echoes_burst),
            counters: IcmpCounters::default(),
        }
    }

    /// True if an error may be sent now. Ask [`may_answer_with_error`] first.
    pub fn allow_error(&mut self, now: Instant) -> bool {
        let allowed = self.errors.allow(now);
        let counters = &mut self.counters;
        *(if allowed { &mut counters.errors_sent } else { &mut counters.errors_limited }) += 1;
        allowed
    }

    /// True if an echo reply may be sent now. Ask [`may_answer_echo`] first.
    pub fn allow_echo(&mut self, now: Instant) -> bool {
        let allowed = self.echoes.allow(now);
        let counters = &mut self.counters;
        *(if allowed { &mut counters.echoes_sent } else { &mut counters.echoes_limited }) += 1;
        allowed
    }

    /// What has been sent and suppressed.
    pub fn counters(&self) -> IcmpCounters {
        self.counters
    }
}

/// What an error message says, for the socket that sent the quoted datagram.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ReportKind {
    /// The network, or the host in it, cannot be reached, or a router does not let the datagram
    /// through.
    NetUnreachable,
    /// The host cannot be reached, or a router does not let the datagram through.
    HostUnreachable,
    /// The host does not speak the protocol.
    ProtocolUnreachable,
    /// Nothing listens on the port.
    PortUnreachable,
    /// The datagram is too large for a link on its way.
    TooLarge {
        /// The MTU of that link (RFC 1191 §4), or 0 from a router that does not tell. It is not
        /// checked: who uses it sets a lower bound.
        next_hop_mtu: u16,
    },
    /// The time to live ended on the way.
    TimeToLiveExceeded,
    /// The datagram did not become whole at its destination in time.
    ReassemblyTimeExceeded,
    /// A header field is wrong, says a router or the host.
    ParameterProblem,
}

impl ReportKind {
    /// True if RFC 1122 §4.2.3.9 calls the error hard: a connection that is being opened ends. An
    /// established one treats every error as soft (RFC 5461 §4, RFC 5927 §5.2), except that
    /// [`ReportKind::TooLarge`] is for path MTU discovery.
    pub fn is_hard(self) -> bool {
        match self {
            ReportKind::ProtocolUnreachable | ReportKind::PortUnreachable => true,
            ReportKind::NetUnreachable
            | ReportKind::HostUnreachable
            | ReportKind::TooLarge { .. }
            | ReportKind::TimeToLiveExceeded
            | ReportKind::ReassemblyTimeExceeded
            | ReportKind::ParameterProblem => false,
        }
    }

    /// The error of a socket call that the report becomes, as on Linux.
    pub fn error(self) -> SocketError {
        match self {
            ReportKind::NetUnreachable => SocketError::NetworkUnreachable,
            ReportKind::PortUnreachable => SocketError::ConnectionRefused,
            ReportKind::ProtocolUnreachable => SocketError::NoProtocolOption,
            ReportKind::TooLarge { .. } => SocketError::MessageTooLong,
            // Linux says EPROTO, which no error of a socket here stands for.
            ReportKind::ParameterProblem
            | ReportKind::HostUnreachable
            | ReportKind::TimeToLiveExceeded
            | ReportKind::ReassemblyTimeExceeded => SocketError::HostUnreachable,
        }
    }
}

/// An ICMP error, for the socket layer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Report {
    /// What happened.
    pub kind: ReportKind,
    /// To which datagram: what finds the socket. The sender of the message can be anyone, so TCP
    /// checks that the sequence number is in flight (RFC 5927 §4.1).
    pub quoted: Quoted,
}

impl Report {
    /// The report that a message is, given what follows its 8 bytes of header. `None` for messages
    /// that tell sockets nothing: queries, redirects and source quench (RFC 6633 §3), and errors
    /// whose quote names no socket.
    pub fn of(message: &Icmpv4Message, payload: &[u8]) -> Option<Report> {
        let kind = match *message {
            Icmpv4Message::Unreachable(why) => match why {
                Unreachable::Net => ReportKind::NetUnreachable,
                Unreachable::Host => ReportKind::HostUnreachable,
                Unreachable::Protocol => ReportKind::ProtocolUnreachable,
                Unreachable::Port => ReportKind::PortUnreachable,
                Unreachable::FragmentationNeeded { next_hop_mtu } => {
                    ReportKind::TooLarge { next_hop_mtu }
                }
                // RFC 1122 §3.2.2.1 and RFC 1812 §5.2.7.1: network unknown, prohibited, or not for
                // this type of service.
                Unreachable::Other(6 | 9 | 11) => ReportKind::NetUnreachable,
                Unreachable::Other(_) => ReportKind::HostUnreachable,
            },
            Icmpv4Message::TimeExceeded(why) => match why {
                TimeExceeded::TimeToLive | TimeExceeded::Other(_) => ReportKind::TimeToLiveExceeded,
                TimeExceeded::Reassembly => ReportKind::ReassemblyTimeExceeded,
            },
            Icmpv4Message::Other { kind: PARAMETER_PROBLEM, .. } => ReportKind::ParameterProblem,
            Icmpv4Message::EchoRequest { .. }
            | Icmpv4Message::EchoReply { .. }
            | Icmpv4Message::Other { .. } => return None,
        };
        Some(Report { kind, quoted: Quoted::parse(payload).ok()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DIRECT: Arrival = Arrival { link_group: false, ip_broadcast: false };

    fn udp() -> Ipv4Header {
        Ipv4Header::new([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), protocol::UDP, 8)
    }

    #[test]
    fn an_ordinary_datagram_may_be_answered_with_an_error() {
        assert!(may_answer_with_error(&udp(), &[], DIRECT));
        let first = Ipv4Header { more_fragments: true, ..udp() };
        assert!(may_answer_with_error(&first, &[], DIRECT), "a first fragment, too");
    }

    #[test]
    fn no_error_is_sent_to_many_about_many_or_about_later_fragments() {
        let silent = |header: Ipv4Header, arrival| !may_answer_with_error(&header, &[], arrival);
        assert!(silent(udp(), Arrival { link_group: true, ..DIRECT }));
        assert!(silent(udp(), Arrival { ip_broadcast: true, ..DIRECT }));
        assert!(silent(Ipv4Header { fragment_offset: 8, ..udp() }, DIRECT));
        for dst in [[255; 4], [224, 0, 0, 1]] {
            assert!(silent(Ipv4Header { dst: dst.into(), ..udp() }, DIRECT), "to {dst:?}");
        }
        for src in [[0; 4], [0, 1, 2, 3], [127, 0, 0, 1], [224, 0, 0, 1], [240, 0, 0, 1], [255; 4]]
        {
            assert!(silent(Ipv4Header { src: src.into(), ..udp() }, DIRECT), "from {src:?}");
            assert!(!may_answer_echo(&Ipv4Header { src: src.into(), ..udp() }, DIRECT));
        }
    }

    #[test]
    fn no_error_is_sent_about_an_error() {
        let icmp = Ipv4Header { protocol: protocol::ICMP, ..udp() };
        for kind in [3, 4, 5, 11, 12] {
            assert!(!may_answer_with_error(&icmp, &[kind, 0], DIRECT), "type {kind}");
        }
        assert!(may_answer_with_error(&icmp, &[8, 0], DIRECT), "an echo request is no error");
        assert!(!may_answer_with_error(&icmp, &[], DIRECT), "nothing to tell it by");
    }

    #[test]
    fn pings_to_everyone_are_not_answered() {
        assert!(may_answer_echo(&udp(), DIRECT));
        assert!(!may_answer_echo(&udp(), Arrival { ip_broadcast: true, ..DIRECT }));
        assert!(!may_answer_echo(&Ipv4Header { dst: [224, 0, 0, 1].into(), ..udp() }, DIRECT));
        assert!(!may_answer_echo(&udp(), Arrival { link_group: true, ..DIRECT }));
    }

    #[test]
    fn a_message_with_its_quote_fits_576_bytes() {
        assert_eq!(quote_len(28), 28);
        assert_eq!(quote_len(1500) + ipv4::LEN + icmpv4::LEN, 576);
    }

    #[test]
    fn the_rate_is_kept_after_the_burst() {
        let mut bucket = TokenBucket::new(100, 5);
        let mut now = Instant::from_millis(77_000);
        let mut at_once = || (0..20).filter(|_| bucket.allow(now)).count();
        assert_eq!(at_once(), 5);
        assert_eq!(at_once(), 0);
        let mut sent = 0;
        for _ in 0..10_000 {
            now += Duration::from_millis(1);
            sent += usize::from(bucket.allow(now));
        }
        assert_eq!(sent, 1_000, "100 a second for 10 s");
        assert!(!TokenBucket::new(0, 5).allow(now));
        assert!(!TokenBucket::new(5, 0).allow(now));
    }

    #[test]
    fn time_that_stands_still_or_jumps_back_gives_nothing() {
        let mut bucket = TokenBucket::new(1_000, 1);
        assert!(bucket.allow(Instant::from_millis(50)));
        assert!(!bucket.allow(Instant::from_millis(10)));
        assert!(!bucket.allow(Instant::from_millis(50)));
        assert!(bucket.allow(Instant::from_millis(51)));
    }

    #[test]
    fn echoes_do_not_use_up_the_errors() {
        let config = IcmpConfig { errors_burst: 1, echoes_burst: 2, ..IcmpConfig::default() };
        let mut limits = Limits::new(config);
        let now = Instant::from_millis(1);
        assert_eq!([(); 3].map(|()| limits.allow_echo(now)), [true, true, false]);
        assert_eq!([(); 2].map(|()| limits.allow_error(now)), [true, false]);
        let counters = limits.counters();
        assert_eq!((counters.echoes_sent, counters.echoes_limited), (2, 1));
        assert_eq!((counters.errors_sent, counters.errors_limited), (1, 1));
    }

    #[test]
    fn errors_become_reports_and_other_messages_do_not() {
        let mut quote = [0; 28];
        udp().emit(&mut quote);
        quote[20..24].copy_from_slice(&[0, 53, 0x10, 0]);
        let kind = |message| Report::of(&message, &quote).map(|report| report.kind);
        let unreachable = |why| kind(Icmpv4Message::Unreachable(why));
        let other = |kind| Icmpv4Message::Other { kind, code: 0, rest: [0; 4] };

        let report = Report::of(&Icmpv4Message::Unreachable(Unreachable::Port), &quote).unwrap();
        assert_eq!((report.quoted.src_port, report.quoted.dst_port), (53, 4096));
        assert_eq!(report.kind.error(), SocketError::ConnectionRefused);
        assert!(report.kind.is_hard());

        assert_eq!(unreachable(Unreachable::Other(6)), Some(ReportKind::NetUnreachable));
        assert_eq!(unreachable(Unreachable::Other(13)), Some(ReportKind::HostUnreachable));
        let too_large = unreachable(Unreachable::FragmentationNeeded { next_hop_mtu: 1400 });
        assert_eq!(too_large, Some(ReportKind::TooLarge { next_hop_mtu: 1400 }));
        assert_eq!(too_large.map(ReportKind::error), Some(SocketError::MessageTooLong));
        assert_eq!(kind(other(12)), Some(ReportKind::ParameterProblem));
        for silent in [other(4), other(5), Icmpv4Message::EchoReply { id: 0, seq: 0 }] {
            assert_eq!(kind(silent), None);
        }
        let cut = Report::of(&Icmpv4Message::Unreachable(Unreachable::Port), &quote[..27]);
        assert_eq!(cut, None, "a quote without ports names no socket");
    }
}
