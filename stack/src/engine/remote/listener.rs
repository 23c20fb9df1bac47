//! TCP listeners of threads.

use std::net::SocketAddr;
use std::sync::Arc;

use super::{RemoteStream, Wait, option, set_option};
use crate::engine::portal::{AcceptQueue, Portal, Status, Wishes};
use crate::error::SocketError;
use crate::socket::{OptionName, SocketOption};

/// A TCP listener that threads share; it exists on every engine. Dropping it closes it.
#[derive(Debug)]
pub struct RemoteListener {
    accepts: Arc<AcceptQueue>,
    portals: Vec<Arc<Portal>>,
    local: SocketAddr,
}

impl RemoteListener {
    pub(crate) fn new(
        accepts: Arc<AcceptQueue>,
        portals: Vec<Arc<Portal>>,
        local: SocketAddr,
    ) -> RemoteListener {
        RemoteListener { accepts, portals, local }
    }

    /// Takes a connection that is open, with the peer's address.
    ///
    /// # Errors
    /// [`SocketError::WouldBlock`] when the wait ended first; [`SocketError::EngineStopped`].
    pub fn accept(&self, wait: Wait) -> Result<(RemoteStream, SocketAddr), SocketError> {
        let endpoint = &self.accepts.endpoint;
        let attempt = || {
            let status = endpoint.status();
            if let Some(stream) = self.accepts.take() {
                if endpoint.made_room() {
                    self.portals.iter().for_each(|portal| portal.post());
                }
                let peer = stream.peer_addr()?;
                return Some(Ok((stream, peer)));
            }
            if let Some(error) = endpoint.take_error() {
                return Some(Err(error));
            }
            status.contains(Status::STOPPED).then_some(Err(SocketError::EngineStopped))
        };
        wait.retry(attempt, |deadline| {
            endpoint.readable.wait_until(deadline, || self.accepts.has_news())
        })
    }

    /// The address it listens on.
    pub fn local_addr(&self) -> SocketAddr {
        self.local
    }

    /// True if `accept` would not have to wait.
    pub fn is_ready(&self) -> bool {
        self.accepts.has_news()
    }

    /// The error that waits to be told, told once (`SO_ERROR`).
    pub fn take_error(&self) -> Option<SocketError> {
        self.accepts.endpoint.take_error()
    }

    /// Sets an option; accepted connections inherit it.
    ///
    /// # Errors
    /// What the stack answers; [`SocketError::EngineStopped`].
    pub fn set_option(&self, value: SocketOption) -> Result<(), SocketError> {
        self.portals.iter().try_for_each(|portal| set_option(portal, value))
    }

    /// Reads an option.
    ///
    /// # Errors
    /// What the stack answers; [`SocketError::EngineStopped`].
    pub fn option(&self, name: OptionName) -> Result<SocketOption, SocketError> {
        option(self.portals.first().ok_or(SocketError::BadSocket)?, name)
    }
}

impl Drop for RemoteListener {
    fn drop(&mut self) {
        self.portals.iter().for_each(|portal| portal.wish(Wishes::CLOSE));
        self.accepts.clear();
    }
}
