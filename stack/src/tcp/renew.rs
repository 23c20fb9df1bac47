//! The block of a connection that is over, made another's: it changes hands, and nothing is freed or
//! allocated, or moved.

use std::rc::Rc;

use super::autotune::send_start;
use super::congestion::Controller;
use super::ecn::EcnState;
use super::info::Tally;
use super::pacing::Pacer;
use super::recovery::Recovery;
use super::recvq::ReceiveQueue;
use super::rtt::Rtt;
use super::sendq::SendQueue;
use super::seq::SeqNum;
use super::state::State;
use super::tcb::{
    Challenges, MSS_DEFAULT, Pending, Receive, Send, Status, Tcb, ack_delay, announced_mss, forget,
    mirrored,
};
use super::timers::Timers;
use super::{Algorithm, Cut, Open, TcpConfig};
use crate::time::Instant;
use crate::wire::front::Front;

impl Tcb {
    /// Lets go of whatever the block of a connection that is over still holds, except the memory of
    /// its queues.
    pub(crate) fn let_go(&mut self) {
        self.sendq.clear();
        self.sendq.records.rate = Default::default();
        self.recvq.clear();
        forget(&mut self.assembler);
        forget(&mut self.path);
        forget(&mut self.fast_open);
    }

    /// Makes a block that has [let go](Tcb::let_go), or that is [hollow](Tcb::hollow), a new
    /// connection's: in CLOSED with nothing negotiated. The queues keep their memory.
    pub(crate) fn renew(&mut self, with: Rc<TcpConfig>, open: Open, now: Instant) {
        // Field by field: as a whole, the new block would be made elsewhere and copied.
        let Tcb {
            state,
            pending,
            calm,
            status,
            snd,
            rcv,
            ts_recent,
            ts_offset,
            still,
            recovery,
            last_heard,
            controller,
            ecn,
            pacer,
            retries,
            probes,
            persist_backoff,
            more_to_come,
            cut,
            dropped,
            error,
            soft_error,
            recvq: _,
            sendq: _,
            assembler,
            timers,
            rtt,
            ack_delay_ns,
            config,
            ts_recent_at,
            last_sent,
            bytes_acked,
            bytes_received,
            retransmissions,
            undone,
            tally,
            challenges,
            path,
            fast_open,
            front,
        } = self;
        let our_mss = announced_mss(open.mss, &with);
        let (iss, mss) = (SeqNum::new(open.iss), MSS_DEFAULT.min(our_mss));
        controller.renew(with.congestion, u32::from(mss));
        (*state, *pending, *calm) = (State::Closed, Pending::empty(), false);
        *status = mirrored(&with, controller);
        *snd = Send::new(iss, mss, send_start(&with));
        *rcv = Receive::new(&with, our_mss);
        (*ts_recent, *ts_offset, *ts_recent_at) = (0, open.ts_offset, now);
        *still = (0, 0);
        (*last_heard, *last_sent) = (now, now);
        *recovery = Recovery::new(iss);
        (*ecn, *pacer) = (EcnState::default(), Pacer::default());
        (*retries, *probes, *persist_backoff, *more_to_come) = (0, 0, 0, false);
        *cut = Cut::Device;
        (*dropped, *error, *soft_error) = (None, None, None);
        debug_assert!(assembler.is_none() && path.is_none() && fast_open.is_none(), "let go");
        *timers = Timers::default();
        *rtt = Rtt::new(&with);
        *ack_delay_ns = ack_delay(&with);
        front.forget();
        *config = with;
        (*bytes_acked, *bytes_received) = (0, 0);
        (*retransmissions, *undone) = (0, 0);
        (*tally, *challenges) = (Tally::default(), Challenges::default());
    }

    /// A block of no connection.
    #[cold]
    pub(super) fn hollow(config: Rc<TcpConfig>) -> Tcb {
        let iss = SeqNum::default();
        Tcb {
            state: State::Closed,
            pending: Pending::empty(),
            calm: false,
            status: Status::empty(),
            snd: Send::new(iss, MSS_DEFAULT, 0),
            rcv: Receive::new(&config, MSS_DEFAULT),
            ts_recent: 0,
            ts_offset: 0,
            still: (0, 0),
            recovery: Recovery::new(iss),
            last_heard: Instant::ZERO,
            controller: Controller::new(Algorithm::NewReno, 0),
            ecn: EcnState::default(),
            pacer: Pacer::default(),
            retries: 0,
            probes: 0,
            persist_backoff: 0,
            more_to_come: false,
            cut: Cut::Device,
            dropped: None,
            error: None,
            soft_error: None,
            recvq: ReceiveQueue::default(),
            sendq: SendQueue::default(),
            assembler: None,
            timers: Timers::default(),
            rtt: Rtt::new(&config),
            ack_delay_ns: 0,
            config,
            ts_recent_at: Instant::ZERO,
            last_sent: Instant::ZERO,
            bytes_acked: 0,
            bytes_received: 0,
            retransmissions: 0,
            undone: 0,
            tally: Tally::default(),
            challenges: Challenges::default(),
            path: None,
            fast_open: None,
            front: Front::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::*;
    use super::super::*;
    use super::*;

    #[test]
    fn a_renewed_block_is_as_good_as_new() {
        let mut t = Trace::with_sack(TcpConfig::default());
        t.write(100);
        t.drain();
        t.rx("A 1:51 ack 101 win 900");
        t.rx("FA 51 ack 101");
        let open = Open { iss: 7, ts_offset: 9, mss: 1200 };
        let config = Rc::new(TcpConfig { nodelay: true, ..TcpConfig::default() });
        t.tcb.let_go();
        t.tcb.renew(Rc::clone(&config), open, t.now);
        let new = Tcb::new(config, open, t.now);
        assert_eq!(format!("{:?}", t.tcb), format!("{new:?}"));
    }
}
