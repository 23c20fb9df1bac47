//! Where a connection's control block is: whole while something happens, or what remains of it at
//! rest.

use crate::tcp::{AtRest, Tcb, TcpConfig};
use crate::time::Instant;

/// The control block of a connection. Whole, it lies beside the socket table, so that the table is
/// as small as connections at rest are; at rest it lies in the table.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "that is the point: most are at rest")]
pub(crate) enum Block {
    Whole(Box<Tcb>),
    AtRest(AtRest),
}

impl Block {
    pub(crate) fn new(tcb: Tcb) -> Block {
        Block::Whole(Box::new(tcb))
    }

    /// The whole block, for something happens.
    #[inline]
    pub(crate) fn wake(&mut self) -> &mut Tcb {
        loop {
            match self {
                Block::Whole(tcb) => return tcb,
                Block::AtRest(rest) => *self = Block::Whole(wake(rest)),
            }
        }
    }

    /// The whole block, unless the connection is at rest: then nothing is to be done.
    #[inline]
    pub(crate) fn whole(&self) -> Option<&Tcb> {
        match self {
            Block::Whole(tcb) => Some(tcb),
            Block::AtRest(_) => None,
        }
    }

    /// Answers a question; the connection stays at rest if it is.
    #[inline]
    pub(crate) fn look<R>(&self, question: impl FnOnce(&Tcb) -> R) -> R {
        match self {
            Block::Whole(tcb) => question(tcb),
            Block::AtRest(rest) => question(&wake(rest)),
        }
    }

    /// The settings.
    pub(crate) fn config(&self) -> &TcpConfig {
        match self {
            Block::Whole(tcb) => tcb.config(),
            Block::AtRest(rest) => rest.config(),
        }
    }

    /// Puts the connection to rest if nothing happens.
    pub(crate) fn rest(&mut self, now: Instant) {
        if let Block::Whole(tcb) = self
            && tcb.may_rest(now)
            && let Some(rest) = tcb.to_rest()
        {
            *self = Block::AtRest(rest);
        }
    }
}

#[cold]
fn wake(rest: &AtRest) -> Box<Tcb> {
    Box::new(Tcb::from_rest(rest.clone()))
}
