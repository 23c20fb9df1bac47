//! Socket options, by their POSIX and Linux names.

use std::time::Duration;

use crate::tcp::Algorithm;

/// The least `SO_PRIORITY` of listeners that an operator reaches an overloaded host by: Linux's
/// `TC_PRIO_INTERACTIVE`.
pub const OPERATOR_PRIORITY: u8 = 6;

/// An option and its value. Setting takes effect on live sockets; sockets that a listener accepts
/// inherit its options.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub enum SocketOption {
    /// `SO_REUSEADDR`: bind to a port that lingering connections still use.
    ReuseAddr(bool),
    /// `SO_REUSEPORT`: several listeners on one port, or several UDP sockets.
    ReusePort(bool),
    /// `SO_KEEPALIVE`.
    KeepAlive(bool),
    /// `TCP_KEEPIDLE`.
    KeepIdle(Duration),
    /// `TCP_KEEPINTVL`.
    KeepInterval(Duration),
    /// `TCP_KEEPCNT`.
    KeepCount(u8),
    /// `SO_LINGER`: `None` closes in the background, zero aborts, else how long until it aborts.
    Linger(Option<Duration>),
    /// `SO_SNDBUF`, in bytes of payload.
    SendBuffer(u32),
    /// `SO_RCVBUF`, in bytes of payload.
    RecvBuffer(u32),
    /// `SO_RCVTIMEO`: how long a call that reads or accepts waits; `None` for ever. A stack never
    /// waits: it keeps the value for whoever waits in the socket's name.
    RecvTimeout(Option<Duration>),
    /// `SO_SNDTIMEO`: the same for calls that write or connect.
    SendTimeout(Option<Duration>),
    /// `SO_BROADCAST`.
    Broadcast(bool),
    /// `SO_PRIORITY`: a listener's new connections are heard even while the stack is
    /// [behind](crate::Stack::note_turn) if it is [`OPERATOR_PRIORITY`] or more.
    Priority(u8),
    /// `TCP_NODELAY`.
    NoDelay(bool),
    /// `TCP_CORK`.
    Cork(bool),
    /// `TCP_QUICKACK`: acknowledge every segment at once, beginning with what waits. Unlike on Linux
    /// it stays so until it is turned off.
    QuickAck(bool),
    /// `TCP_MAXSEG`: upper bound of the MSS. On an open connection it can only lower the size of
    /// segments, and reading gives the size in use.
    MaxSeg(u16),
    /// `TCP_USER_TIMEOUT`: `None` is off.
    UserTimeout(Option<Duration>),
    /// `TCP_LINGER2`: longest FIN-WAIT-2 of a closed socket.
    Linger2(Duration),
    /// `TCP_DEFER_ACCEPT`: how long a listener keeps a connection from `accept` until its first data
    /// is there; zero does not wait.
    DeferAccept(Duration),
    /// `TCP_FASTOPEN`: how many connections of a listener may be open by a cookie alone (RFC 7413);
    /// zero turns fast open off.
    FastOpen(u32),
    /// `TCP_FASTOPEN_CONNECT`: `connect` waits for the first write, which goes with the SYN, if the
    /// server has given a cookie before.
    FastOpenConnect(bool),
    /// `TCP_CONGESTION`.
    Congestion(Algorithm),
    /// `IP_TTL`, 1 to 255.
    Ttl(u8),
    /// `IP_TOS`.
    Tos(u8),
    /// `IP_MTU_DISCOVER` = `IP_PMTUDISC_DO`: datagrams are refused rather than fragmented.
    DontFragment(bool),
}

/// The names of the options, for reading one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[allow(missing_docs, reason = "each is the option of the same name in SocketOption")]
pub enum OptionName {
    ReuseAddr,
    ReusePort,
    KeepAlive,
    KeepIdle,
    KeepInterval,
    KeepCount,
    Linger,
    SendBuffer,
    RecvBuffer,
    RecvTimeout,
    SendTimeout,
    Broadcast,
    Priority,
    NoDelay,
    Cork,
    QuickAck,
    MaxSeg,
    UserTimeout,
    Linger2,
    DeferAccept,
    FastOpen,
    FastOpenConnect,
    Congestion,
    Ttl,
    Tos,
    DontFragment,
}
