//! Where a connection's control block is: whole while something happens, or what remains of it at
//! rest.
//!
//! ```text
//!   Blocks::take ──▶ Block::Whole ◀──▶ Block::AtRest
//!        ▲                │ the connection is over
//!        └── spare ◀──────┘
//! ```

use std::rc::Rc;

use crate::hint::{rarely, usually};
use crate::tcp::{AtRest, Open, Readiness, Tcb, TcpConfig};
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
    /// The whole block, for something happens that may be unusual.
    #[inline]
    pub(crate) fn wake(&mut self) -> &mut Tcb {
        let tcb = self.wake_calm();
        tcb.stir();
        tcb
    }

    /// The whole block, for something happens that leaves a connection calm if it is: reading,
    /// writing, and sending.
    #[inline]
    pub(crate) fn wake_calm(&mut self) -> &mut Tcb {
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

    /// The same, to be changed as [`Block::wake_calm`] says.
    #[inline(always)]
    pub(crate) fn whole_calm(&mut self) -> Option<&mut Tcb> {
        match self {
            Block::Whole(tcb) => Some(tcb),
            Block::AtRest(_) => None,
        }
    }

    /// What would not block.
    #[inline(always)]
    pub(crate) fn readiness(&self) -> Readiness {
        match self {
            Block::Whole(tcb) => tcb.readiness(),
            Block::AtRest(rest) => wake(rest).readiness(),
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

/// Blocks of connections that are over and kept for new ones; those beyond are freed.
const SPARE_BLOCKS: usize = 64;

/// Where whole blocks come from and go back to: connections that come and go use the same few again,
/// with the memory of their queues.
#[derive(Debug, Default)]
pub(crate) struct Blocks {
    #[allow(
        clippy::vec_box,
        reason = "a box is what a connection holds: it changes hands, nothing moves"
    )]
    spare: Vec<Box<Tcb>>,
}

impl Blocks {
    /// A block in CLOSED with nothing negotiated.
    pub(crate) fn take(&mut self, config: Rc<TcpConfig>, open: Open, now: Instant) -> Box<Tcb> {
        match usually(self.spare.pop()) {
            Some(mut tcb) => {
                tcb.renew(config, open, now);
                tcb
            }
            None => Box::new(Tcb::new(config, open, now)),
        }
    }

    /// Takes back the block of a connection that is over.
    pub(crate) fn put_back(&mut self, mut tcb: Box<Tcb>) {
        if rarely(self.spare.len() >= SPARE_BLOCKS) {
            return;
        }
        tcb.let_go();
        self.spare.push(tcb);
    }
}

#[cold]
fn wake(rest: &AtRest) -> Box<Tcb> {
    Box::new(Tcb::from_rest(rest.clone()))
}
