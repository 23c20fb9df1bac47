//! What a simulation asks a stack beside its calls: has it forgotten a connection, and how many go on
//! in the background?

use super::{Socket, Stack};
use crate::socket::conn::Holder;
use crate::tcp::State;
use crate::time::Instant;

impl Stack {
    /// Connections that nobody would look at in time: the wheel fires later than they need, the queue
    /// of paced ones does not know them, or they have something to send and are not asked for it.
    /// One line for each. Costs a look at every socket.
    pub fn forgotten(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for (index, socket) in self.sockets.iter() {
            // Whoever is asked for something to send is looked at then.
            let Socket::Connection(connection) = socket else { continue };
            let Some(tcb) = connection.tcb.whole().filter(|_| !connection.in_tx_list) else {
                continue;
            };
            let mut complain = |what: &str, at: Option<Instant>| {
                lines.push(format!("{:?}: {what} {at:?}", connection.key));
            };
            let paced = tcb.paced_until();
            let others = tcb.poll_at().filter(|&at| Some(at) != paced);
            if others.is_some_and(|at| at < connection.timer.fires_at()) {
                complain("the wheel does not fire for", others);
            }
            if paced.is_some() && !self.pacing.knows(index, self.sockets.generation(index)) {
                complain("its turn is not known, which comes at", paced);
            }
            if tcb.wants_transmit() {
                complain("is not asked for what it has to send, next deadline", tcb.poll_at());
            }
        }
        lines
    }

    /// Connections in the background that go on: one in CLOSED only waits for a neighbour to send it
    /// its RST, and may be one more than the limit says.
    pub fn living_orphans(&self) -> usize {
        let lives = |socket: &Socket| match socket {
            Socket::Connection(connection) => {
                let closed = connection.tcb.look(|tcb| tcb.state() == State::Closed);
                connection.holder == Holder::Nobody && !closed
            }
            Socket::Fresh(_) | Socket::Listener(_) | Socket::Datagram(_) => false,
        };
        self.sockets.iter().filter(|(_, socket)| lives(socket)).count()
    }
}
