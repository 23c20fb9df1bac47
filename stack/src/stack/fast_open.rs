//! Connections that open with data in the SYN (RFC 7413): connecting, and accepting by cookie.

use std::hint::cold_path;
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;

use super::{Socket, Stack};
use crate::error::SocketError;
use crate::socket::SocketId;
use crate::socket::conn::LazyTimer;
use crate::socket::demux::FlowKey;
use crate::tcp::fast_open::{self, FastConnect, FastOpenPlace, Judgement};
use crate::tcp::{HalfOpen, Memory, Outcome, Segment, Tcb, TcpConfig};
use crate::wire::tcp::FastOpenCookie;

impl Stack {
    /// Connects a TCP socket and sends the front of `data` with the SYN, if the server has given a
    /// cookie before (`sendto` with `MSG_FASTOPEN`). Answers how much of `data` was taken; the
    /// connection is still being opened then.
    ///
    /// # Errors
    /// [`SocketError::InProgress`] if there is no cookie yet: none of `data` was taken, and the SYN
    /// asks for one. Otherwise as [`Stack::connect`].
    pub fn connect_with(
        &mut self,
        id: SocketId,
        addr: SocketAddr,
        data: &[u8],
    ) -> Result<usize, SocketError> {
        match self.get(id) {
            Some(Socket::Datagram(_)) => return Err(SocketError::NotSupported),
            Some(Socket::Fresh(_) | Socket::Listener(_) | Socket::Connection(_)) | None => {}
        }
        if !self.connect_as(id, addr, Some(FastConnect::AtOnce))? {
            return Err(SocketError::InProgress);
        }
        match self.write(id, data) {
            // The cookie is sent without data, and the connection is as good as any.
            Err(SocketError::WouldBlock | SocketError::NoBuffers) => Err(SocketError::InProgress),
            written => written,
        }
    }

    /// Servers whose cookie a client of this stack could send.
    pub fn fast_open_cookies(&self) -> usize {
        self.fast_open.borrow().len()
    }

    /// Has a new active open use fast open as asked; true if its SYN can carry data.
    pub(super) fn prepare_fast_open(
        &mut self,
        tcb: &mut Tcb,
        key: &FlowKey,
        how: Option<FastConnect>,
    ) -> bool {
        let wanted = tcb.config().fast_open_connect.then_some(FastConnect::WithData);
        let Some(how) = how.or(wanted) else { return false };
        cold_path();
        tcb.open_fast(&self.fast_open, IpAddr::V4(key.remote), how, self.egress.now)
    }

    /// What a listener thinks of the fast open option in a SYN: a place in its queue if the SYN's
    /// data may be taken, and the cookie that the SYN-ACK is to carry.
    #[cold]
    pub(super) fn judge_fast_open(
        &mut self,
        id: SocketId,
        key: &FlowKey,
        option: Option<FastOpenCookie>,
        config: &TcpConfig,
    ) -> (Option<FastOpenPlace>, Option<FastOpenCookie>) {
        let Some(option) = option.filter(|_| config.fast_open_queue > 0) else {
            return (None, None);
        };
        let (now, secret) = (self.egress.now, self.share.secrets.cookies);
        let (client, server) = (IpAddr::V4(key.remote), IpAddr::V4(key.local));
        let fresh = fast_open::cookie(secret, client, server, now);
        match fast_open::judge(secret, client, server, now, &option) {
            Judgement::Request => (None, Some(fresh)),
            Judgement::Bad => {
                self.egress.counters.fast_open_refused += 1;
                (None, Some(fresh))
            }
            Judgement::Good { aged } => {
                let place = self.fast_open_place(id, config.fast_open_queue);
                if place.is_none() {
                    self.egress.counters.fast_open_full += 1;
                }
                (place, aged.then_some(fresh))
            }
        }
    }

    /// A place among the listener's connections that are not proven yet, if there is one, room for
    /// a socket, and memory that may be kept for it.
    fn fast_open_place(&mut self, id: SocketId, limit: u32) -> Option<FastOpenPlace> {
        if self.memory() == Memory::Exhausted || self.sockets.is_full() {
            return None;
        }
        let now = self.egress.now;
        self.listener_mut(id)?.fast_open.take_place(limit, now)
    }

    /// Makes a connection of a SYN with a good cookie: it can be accepted before its handshake ends.
    #[cold]
    pub(super) fn open_by_cookie(
        &mut self,
        id: SocketId,
        key: FlowKey,
        state: HalfOpen,
        segment: Segment<'_>,
        (place, cookie): (FastOpenPlace, Option<FastOpenCookie>),
    ) {
        let now = self.egress.now;
        let Some(listener) = self.listener_mut(id) else { return };
        let config = Rc::clone(&listener.template.config);
        let (tcb, mut syn_ack) = state.into_fast_open(now, config, segment, place);
        syn_ack.options.fast_open = cookie;
        self.egress.counters.fast_open_accepted += 1;
        let Some(index) = self.enqueue_accepted(id, key, Box::new(tcb), LazyTimer::default())
        else {
            return;
        };
        self.answer_for(id, key, syn_ack);
        self.settle(index, Outcome::Continue);
    }
}
