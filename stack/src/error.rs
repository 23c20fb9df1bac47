//! What a socket call can answer instead of a result.

use std::io;

use thiserror::Error;

/// The error of a socket call, named as POSIX names it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum SocketError {
    /// The call would have to wait (`EAGAIN`).
    #[error("the operation would block")]
    WouldBlock,
    /// The connection is being opened (`EINPROGRESS`).
    #[error("the connection is being opened")]
    InProgress,
    /// An earlier `connect` has not ended yet (`EALREADY`).
    #[error("the connection is already being opened")]
    AlreadyInProgress,
    /// The socket is connected already (`EISCONN`).
    #[error("the socket is already connected")]
    AlreadyConnected,
    /// The socket is not connected (`ENOTCONN`).
    #[error("the socket is not connected")]
    NotConnected,
    /// The peer answered that nothing listens there (`ECONNREFUSED`).
    #[error("connection refused")]
    ConnectionRefused,
    /// The peer reset the connection (`ECONNRESET`).
    #[error("connection reset by peer")]
    ConnectionReset,
    /// This side gave the connection up (`ECONNABORTED`).
    #[error("connection aborted")]
    ConnectionAborted,
    /// The peer stopped answering (`ETIMEDOUT`).
    #[error("connection timed out")]
    TimedOut,
    /// The sending direction is closed (`EPIPE`).
    #[error("broken pipe")]
    BrokenPipe,
    /// No answer from the next hop, or an ICMP message that says so (`EHOSTUNREACH`).
    #[error("no route to host")]
    HostUnreachable,
    /// No route to the destination's network (`ENETUNREACH`).
    #[error("network is unreachable")]
    NetworkUnreachable,
    /// The port is taken (`EADDRINUSE`).
    #[error("Address already in use")]
    AddrInUse,
    /// The address is not one of this host's, or no port is free (`EADDRNOTAVAIL`).
    #[error("cannot assign requested address")]
    AddrNotAvailable,
    /// The destination's address family is not the socket's (`EAFNOSUPPORT`).
    #[error("address family not supported")]
    AddressFamily,
    /// The datagram is larger than can be sent (`EMSGSIZE`).
    #[error("message too long")]
    MessageTooLong,
    /// The call does not fit the socket's state or kind (`EINVAL`).
    #[error("invalid argument")]
    InvalidInput,
    /// The option or call does not exist for this socket (`EOPNOTSUPP`).
    #[error("operation not supported")]
    NotSupported,
    /// The option does not exist for this socket (`ENOPROTOOPT`).
    #[error("protocol option not available")]
    NoProtocolOption,
    /// A destination is needed (`EDESTADDRREQ`).
    #[error("destination address required")]
    DestinationRequired,
    /// Sending to a broadcast address was not allowed with `SO_BROADCAST` (`EACCES`).
    #[error("permission denied: set SO_BROADCAST first")]
    PermissionDenied,
    /// The configured number of sockets is reached (`EMFILE`).
    #[error("too many open sockets: raise the limit or close some")]
    TooManySockets,
    /// No packet memory is free (`ENOBUFS`).
    #[error("no packet buffer is free: enlarge the pool")]
    NoBuffers,
    /// The handle names no socket, or one that has been closed (`EBADF`).
    #[error("not an open socket")]
    BadSocket,
    /// The engine that the socket lives on has stopped (`ESHUTDOWN`).
    #[error("the engine has stopped")]
    EngineStopped,
}

impl SocketError {
    /// The number that POSIX and Linux give the error.
    pub fn errno(self) -> i32 {
        match self {
            SocketError::WouldBlock => 11,
            SocketError::InProgress => 115,
            SocketError::AlreadyInProgress => 114,
            SocketError::AlreadyConnected => 106,
            SocketError::NotConnected => 107,
            SocketError::ConnectionRefused => 111,
            SocketError::ConnectionReset => 104,
            SocketError::ConnectionAborted => 103,
            SocketError::TimedOut => 110,
            SocketError::BrokenPipe => 32,
            SocketError::HostUnreachable => 113,
            SocketError::NetworkUnreachable => 101,
            SocketError::AddrInUse => 98,
            SocketError::AddrNotAvailable => 99,
            SocketError::AddressFamily => 97,
            SocketError::MessageTooLong => 90,
            SocketError::InvalidInput => 22,
            SocketError::NotSupported => 95,
            SocketError::NoProtocolOption => 92,
            SocketError::DestinationRequired => 89,
            SocketError::PermissionDenied => 13,
            SocketError::TooManySockets => 24,
            SocketError::NoBuffers => 105,
            SocketError::BadSocket => 9,
            SocketError::EngineStopped => 108,
        }
    }
}

impl From<SocketError> for io::Error {
    /// The same kind that `std::net` would give.
    fn from(error: SocketError) -> io::Error {
        let kind = io::Error::from_raw_os_error(error.errno()).kind();
        io::Error::new(kind, error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kinds_are_those_of_std_net() {
        let kind = |e: SocketError| io::Error::from(e).kind();
        assert_eq!(kind(SocketError::WouldBlock), io::ErrorKind::WouldBlock);
        assert_eq!(kind(SocketError::ConnectionRefused), io::ErrorKind::ConnectionRefused);
        assert_eq!(kind(SocketError::ConnectionReset), io::ErrorKind::ConnectionReset);
        assert_eq!(kind(SocketError::TimedOut), io::ErrorKind::TimedOut);
        assert_eq!(kind(SocketError::BrokenPipe), io::ErrorKind::BrokenPipe);
        assert_eq!(kind(SocketError::AddrInUse), io::ErrorKind::AddrInUse);
        assert_eq!(kind(SocketError::HostUnreachable), io::ErrorKind::HostUnreachable);
        assert_eq!(kind(SocketError::NotConnected), io::ErrorKind::NotConnected);
    }
}
