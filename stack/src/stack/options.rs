//! Setting and reading socket options.

use std::rc::Rc;
use std::time::Duration;

use super::{Socket, Stack};
use crate::error::SocketError;
use crate::socket::conn::Connection;
use crate::socket::listener::Template;
use crate::socket::udp::DatagramSocket;
use crate::socket::{OptionName, SocketId, SocketOption};
use crate::tcp::{Keepalive, Linger, Outcome, TcpConfig};

/// Smallest buffers that may be asked for, in bytes.
const MIN_BUFFER_BYTES: u32 = 2048;

/// Largest buffers that may be asked for: what a scaled window can express (RFC 7323 §2.3).
const MAX_BUFFER_BYTES: u32 = 1 << 30;

/// Most connections of a listener that may be open by a fast open cookie alone.
const MAX_FAST_OPEN_QUEUE: u32 = 65_536;

impl Stack {
    /// Sets an option; on a connection it takes effect at once.
    ///
    /// # Errors
    /// [`SocketError::NoProtocolOption`] if the socket's kind does not have the option,
    /// [`SocketError::InvalidInput`] for a value out of range.
    pub fn set_option(&mut self, id: SocketId, option: SocketOption) -> Result<(), SocketError> {
        match self.get_mut(id).ok_or(SocketError::BadSocket)? {
            Socket::Fresh(fresh) => set_template(&mut fresh.template, option),
            Socket::Listener(listener) => set_template(&mut listener.template, option),
            Socket::Datagram(socket) => set_datagram(socket, option),
            Socket::Connection(connection) => {
                let result = set_connection(connection, option);
                self.settle(id.index, Outcome::Continue);
                result
            }
        }
    }

    /// Reads an option.
    ///
    /// # Errors
    /// [`SocketError::NoProtocolOption`] if the socket's kind does not have it.
    pub fn option(&self, id: SocketId, name: OptionName) -> Result<SocketOption, SocketError> {
        match self.get(id).ok_or(SocketError::BadSocket)? {
            Socket::Fresh(fresh) => get_template(&fresh.template, name),
            Socket::Listener(listener) => get_template(&listener.template, name),
            Socket::Datagram(socket) => get_datagram(socket, name),
            Socket::Connection(connection) => match name {
                OptionName::Ttl => Ok(SocketOption::Ttl(connection.ttl)),
                OptionName::Tos => Ok(SocketOption::Tos(connection.tos)),
                OptionName::MaxSeg => {
                    Ok(SocketOption::MaxSeg(connection.tcb.look(|tcb| tcb.info().mss)))
                }
                name => get_tcp(connection.tcb.config(), name),
            },
        }
    }
}

fn set_connection(connection: &mut Connection, option: SocketOption) -> Result<(), SocketError> {
    match option {
        SocketOption::Ttl(ttl) => {
            connection.ttl = check_ttl(ttl)?;
            connection.forget_headers();
        }
        SocketOption::Tos(tos) => {
            connection.tos = tos;
            connection.forget_headers();
        }
        // The 4-tuple is taken already; as on Linux the flags are accepted and change nothing.
        SocketOption::ReuseAddr(_) | SocketOption::ReusePort(_) => {}
        option => {
            let mut changed = connection.tcb.config().clone();
            set_tcp(&mut changed, option)?;
            let tcb = connection.tcb.wake();
            tcb.update_config(|config| *config = changed);
            if option == SocketOption::NoDelay(true) {
                tcb.push();
            }
        }
    }
    Ok(())
}

fn set_template(template: &mut Template, option: SocketOption) -> Result<(), SocketError> {
    match option {
        SocketOption::ReuseAddr(on) => template.reuse.addr = on,
        SocketOption::ReusePort(on) => template.reuse.port = on,
        SocketOption::Ttl(ttl) => template.ttl = check_ttl(ttl)?,
        SocketOption::Tos(tos) => template.tos = tos,
        SocketOption::Priority(priority) => template.priority = priority,
        option => return set_tcp(Rc::make_mut(&mut template.config), option),
    }
    Ok(())
}

fn get_template(template: &Template, name: OptionName) -> Result<SocketOption, SocketError> {
    Ok(match name {
        OptionName::ReuseAddr => SocketOption::ReuseAddr(template.reuse.addr),
        OptionName::ReusePort => SocketOption::ReusePort(template.reuse.port),
        OptionName::Ttl => SocketOption::Ttl(template.ttl),
        OptionName::Tos => SocketOption::Tos(template.tos),
        OptionName::Priority => SocketOption::Priority(template.priority),
        name => return get_tcp(&template.config, name),
    })
}

fn check_ttl(ttl: u8) -> Result<u8, SocketError> {
    if ttl == 0 { Err(SocketError::InvalidInput) } else { Ok(ttl) }
}

/// A call that waits for no time at all is asked for by other means, as in `std::net`.
fn check_timeout(timeout: Option<Duration>) -> Result<Option<Duration>, SocketError> {
    if timeout == Some(Duration::ZERO) { Err(SocketError::InvalidInput) } else { Ok(timeout) }
}

/// The options that live in a connection's [`TcpConfig`].
fn set_tcp(config: &mut TcpConfig, option: SocketOption) -> Result<(), SocketError> {
    match option {
        SocketOption::KeepAlive(on) => config.keepalive = on.then_some(config.keepalive_times),
        SocketOption::KeepIdle(idle) => set_keepalive(config, |k| k.idle = idle, !idle.is_zero())?,
        SocketOption::KeepInterval(interval) => {
            set_keepalive(config, |k| k.interval = interval, !interval.is_zero())?;
        }
        SocketOption::KeepCount(count) => set_keepalive(config, |k| k.count = count, count > 0)?,
        SocketOption::Linger(linger) => {
            config.linger = match linger {
                None => Linger::Background,
                Some(Duration::ZERO) => Linger::Abort,
                Some(time) => Linger::For(time),
            };
        }
        SocketOption::SendBuffer(bytes) => {
            config.send_buffer_bytes = bytes.clamp(MIN_BUFFER_BYTES, MAX_BUFFER_BYTES);
            config.send_autotune = false;
        }
        SocketOption::RecvBuffer(bytes) => {
            config.recv_buffer_bytes = bytes.clamp(MIN_BUFFER_BYTES, MAX_BUFFER_BYTES);
            config.recv_autotune = false;
        }
        SocketOption::NoDelay(on) => config.nodelay = on,
        SocketOption::Cork(on) => config.cork = on,
        SocketOption::RecvTimeout(timeout) => config.recv_timeout = check_timeout(timeout)?,
        SocketOption::SendTimeout(timeout) => config.send_timeout = check_timeout(timeout)?,
        SocketOption::QuickAck(on) => config.quick_ack = on,
        SocketOption::MaxSeg(mss) if mss >= 64 => config.mss_max = Some(mss),
        SocketOption::MaxSeg(_) => return Err(SocketError::InvalidInput),
        SocketOption::UserTimeout(timeout) => {
            config.user_timeout = timeout.filter(|timeout| !timeout.is_zero());
        }
        SocketOption::Linger2(time) => config.fin_wait_2 = time,
        SocketOption::DeferAccept(time) => config.defer_accept = time,
        SocketOption::FastOpen(queue) => config.fast_open_queue = queue.min(MAX_FAST_OPEN_QUEUE),
        SocketOption::FastOpenConnect(on) => config.fast_open_connect = on,
        SocketOption::Congestion(algorithm) => config.congestion = algorithm,
        SocketOption::ReuseAddr(_)
        | SocketOption::ReusePort(_)
        | SocketOption::Ttl(_)
        | SocketOption::Tos(_)
        | SocketOption::Priority(_)
        | SocketOption::Broadcast(_)
        | SocketOption::DontFragment(_) => return Err(SocketError::NoProtocolOption),
    }
    Ok(())
}

/// Changes the keepalive times, in force or kept for when keepalive is turned on.
fn set_keepalive(
    config: &mut TcpConfig,
    change: impl Fn(&mut Keepalive),
    valid: bool,
) -> Result<(), SocketError> {
    if !valid {
        return Err(SocketError::InvalidInput);
    }
    change(&mut config.keepalive_times);
    if config.keepalive.is_some() {
        config.keepalive = Some(config.keepalive_times);
    }
    Ok(())
}

fn get_tcp(config: &TcpConfig, name: OptionName) -> Result<SocketOption, SocketError> {
    Ok(match name {
        OptionName::KeepAlive => SocketOption::KeepAlive(config.keepalive.is_some()),
        OptionName::KeepIdle => SocketOption::KeepIdle(config.keepalive_times.idle),
        OptionName::KeepInterval => SocketOption::KeepInterval(config.keepalive_times.interval),
        OptionName::KeepCount => SocketOption::KeepCount(config.keepalive_times.count),
        OptionName::Linger => SocketOption::Linger(match config.linger {
            Linger::Background => None,
            Linger::Abort => Some(Duration::ZERO),
            Linger::For(time) => Some(time),
        }),
        OptionName::SendBuffer => SocketOption::SendBuffer(config.send_buffer_bytes),
        OptionName::RecvBuffer => SocketOption::RecvBuffer(config.recv_buffer_bytes),
        OptionName::NoDelay => SocketOption::NoDelay(config.nodelay),
        OptionName::Cork => SocketOption::Cork(config.cork),
        OptionName::RecvTimeout => SocketOption::RecvTimeout(config.recv_timeout),
        OptionName::SendTimeout => SocketOption::SendTimeout(config.send_timeout),
        OptionName::QuickAck => SocketOption::QuickAck(config.quick_ack),
        OptionName::MaxSeg => SocketOption::MaxSeg(config.mss_max.unwrap_or(u16::MAX)),
        OptionName::UserTimeout => SocketOption::UserTimeout(config.user_timeout),
        OptionName::Linger2 => SocketOption::Linger2(config.fin_wait_2),
        OptionName::DeferAccept => SocketOption::DeferAccept(config.defer_accept),
        OptionName::FastOpen => SocketOption::FastOpen(config.fast_open_queue),
        OptionName::FastOpenConnect => SocketOption::FastOpenConnect(config.fast_open_connect),
        OptionName::Congestion => SocketOption::Congestion(config.congestion),
        OptionName::ReuseAddr
        | OptionName::ReusePort
        | OptionName::Ttl
        | OptionName::Tos
        | OptionName::Priority
        | OptionName::Broadcast
        | OptionName::DontFragment => return Err(SocketError::NoProtocolOption),
    })
}

fn set_datagram(socket: &mut DatagramSocket, option: SocketOption) -> Result<(), SocketError> {
    // Many of them are in its headers.
    socket.front.forget();
    match option {
        SocketOption::ReuseAddr(on) => socket.reuse.addr = on,
        SocketOption::ReusePort(on) => socket.reuse.port = on,
        SocketOption::Broadcast(on) => socket.broadcast = on,
        SocketOption::DontFragment(on) => socket.dont_fragment = on,
        SocketOption::Ttl(ttl) => socket.ttl = check_ttl(ttl)?,
        SocketOption::Tos(tos) => socket.tos = tos,
        SocketOption::RecvBuffer(bytes) => {
            socket.recv_limit_bytes = bytes.clamp(MIN_BUFFER_BYTES, MAX_BUFFER_BYTES) as usize;
        }
        SocketOption::SendBuffer(bytes) => {
            socket.send_limit_bytes = bytes.clamp(MIN_BUFFER_BYTES, MAX_BUFFER_BYTES);
        }
        SocketOption::RecvTimeout(timeout) => socket.recv_timeout = check_timeout(timeout)?,
        SocketOption::SendTimeout(timeout) => socket.send_timeout = check_timeout(timeout)?,
        SocketOption::KeepAlive(_)
        | SocketOption::KeepIdle(_)
        | SocketOption::KeepInterval(_)
        | SocketOption::KeepCount(_)
        | SocketOption::Linger(_)
        | SocketOption::Priority(_)
        | SocketOption::NoDelay(_)
        | SocketOption::Cork(_)
        | SocketOption::QuickAck(_)
        | SocketOption::MaxSeg(_)
        | SocketOption::UserTimeout(_)
        | SocketOption::Linger2(_)
        | SocketOption::DeferAccept(_)
        | SocketOption::FastOpen(_)
        | SocketOption::FastOpenConnect(_)
        | SocketOption::Congestion(_) => return Err(SocketError::NoProtocolOption),
    }
    Ok(())
}

fn get_datagram(socket: &DatagramSocket, name: OptionName) -> Result<SocketOption, SocketError> {
    Ok(match name {
        OptionName::ReuseAddr => SocketOption::ReuseAddr(socket.reuse.addr),
        OptionName::ReusePort => SocketOption::ReusePort(socket.reuse.port),
        OptionName::Broadcast => SocketOption::Broadcast(socket.broadcast),
        OptionName::DontFragment => SocketOption::DontFragment(socket.dont_fragment),
        OptionName::Ttl => SocketOption::Ttl(socket.ttl),
        OptionName::Tos => SocketOption::Tos(socket.tos),
        OptionName::RecvBuffer => SocketOption::RecvBuffer(socket.recv_limit_bytes as u32),
        OptionName::SendBuffer => SocketOption::SendBuffer(socket.send_limit_bytes),
        OptionName::RecvTimeout => SocketOption::RecvTimeout(socket.recv_timeout),
        OptionName::SendTimeout => SocketOption::SendTimeout(socket.send_timeout),
        OptionName::KeepAlive
        | OptionName::KeepIdle
        | OptionName::KeepInterval
        | OptionName::KeepCount
        | OptionName::Priority
        | OptionName::Linger
        | OptionName::NoDelay
        | OptionName::Cork
        | OptionName::QuickAck
        | OptionName::MaxSeg
        | OptionName::UserTimeout
        | OptionName::Linger2
        | OptionName::DeferAccept
        | OptionName::FastOpen
        | OptionName::FastOpenConnect
        | OptionName::Congestion => return Err(SocketError::NoProtocolOption),
    })
}
