//! The short ways of ACKs and FINs leave a connection as the long one does. A segment with URG, which means
//! nothing (RFC 6093 §4), is never taken for an expected one: it goes the long way.

use proptest::prelude::*;

use super::*;

#[derive(Clone, Copy, Debug)]
enum Event {
    Write(u32),
    /// Everything that may leave now does.
    Send,
    /// The peer acknowledges so many of the transmissions that are out, and the rest but one byte
    /// or all of it.
    Ack {
        records: usize,
        short: bool,
        text: u32,
        echo: bool,
    },
    /// The peer has the second and not the first.
    Sack,
    /// The peer ends its direction, and acknowledges nothing more, everything, or less than before.
    Fin {
        acks: u8,
    },
    /// Our direction ends behind what is queued; the application lets go as well.
    Shut {
        close: bool,
    },
    Wait(u64),
}

fn event() -> impl Strategy<Value = Event> {
    let ack = (1usize..4, 0u8..8, 0u32..400, 0u8..20);
    prop_oneof![
        6 => (1u32..4000).prop_map(Event::Write),
        6 => Just(Event::Send),
        8 => ack.prop_map(|(records, short, text, echo)| {
            let text = text.saturating_sub(200);
            Event::Ack { records, short: short == 0, text, echo: echo == 0 }
        }),
        1 => Just(Event::Sack),
        1 => (0u8..3).prop_map(|acks| Event::Fin { acks }),
        1 => any::<bool>().prop_map(|close| Event::Shut { close }),
        6 => (1u64..3_000_000).prop_map(Event::Wait),
        1 => (1u64..3_000_000_000).prop_map(Event::Wait),
    ]
}

/// One connection, and the flags of the ACKs that reach it.
struct Side {
    trace: Trace,
    flags: &'static str,
    received: u32,
}

impl Side {
    fn apply(&mut self, event: Event) {
        let t = &mut self.trace;
        match event {
            Event::Write(n) => {
                if t.tcb.state().can_write() && t.tcb.write_room() >= n as usize {
                    t.write(n);
                }
            }
            Event::Fin { acks } => {
                let (una, nxt) = (t.tcb.snd.una, t.tcb.snd.nxt);
                let upto = [una, nxt, una - 1][usize::from(acks)];
                let ack = upto.get().wrapping_sub(t.iss);
                let _ = t.rx_outcome(&format!("F{} {} ack {ack}", self.flags, self.received));
            }
            Event::Shut { close } => {
                let now = t.now;
                let _ = if close { Ok(t.tcb.close(now)) } else { t.tcb.shutdown_write(now) };
            }
            Event::Send => drop(t.drain()),
            Event::Ack { records, short, text, echo } => {
                let ends: Vec<_> = t.tcb.sendq.records.iter().map(|r| r.end()).collect();
                let Some(&end) = ends.get(records - 1) else { return };
                let ack = end.get().wrapping_sub(t.iss) - u32::from(short);
                let (from, to) = (self.received, self.received + text);
                self.received = to;
                let echo = if echo { "E" } else { "" };
                let _ = t.rx_outcome(&format!("{}{echo} {from}:{to} ack {ack}", self.flags));
            }
            Event::Sack => {
                let Some(second) = t.tcb.sendq.records.iter().nth(1) else { return };
                let [from, to] = [second.start, second.end()].map(|s| s.get().wrapping_sub(t.iss));
                let una = t.tcb.snd.una.get().wrapping_sub(t.iss);
                let seq = self.received;
                let _ = t.rx_outcome(&format!("{} {seq} ack {una} sack {from}-{to}", self.flags));
            }
            Event::Wait(us) => {
                t.now += Duration::from_micros(us);
                let _ = t.tcb.handle_timeout(t.now);
            }
        }
    }

    /// All that an ACK may change.
    fn state(&self) -> String {
        let t = &self.trace.tcb;
        format!(
            "{:#?}",
            (
                (t.state, t.pending, t.status, t.dropped, t.poll_at(), t.timers),
                (&t.snd, &t.rcv, t.rtt, t.recovery, &t.controller, &t.sendq.records, t.tally),
                (t.retries, t.probes, t.persist_backoff, t.soft_error, t.bytes_acked),
                (t.bytes_unsent(), t.bytes_unacked(), t.readiness(), t.last_heard, t.undone),
            )
        )
    }
}

fn algorithm() -> impl Strategy<Value = Algorithm> {
    prop_oneof![Just(Algorithm::NewReno), Just(Algorithm::Cubic), Just(Algorithm::Bbr)]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_short_way_of_an_ack_or_fin_is_the_long_one(
        events in proptest::collection::vec(event(), 1..100),
        congestion in algorithm(),
        sack: bool,
        rack_tlp: bool,
        rto_restart: bool,
        ecn: bool,
        limited: bool,
    ) {
        let config = TcpConfig {
            congestion,
            rack_tlp,
            rto_restart,
            user_timeout: limited.then_some(Duration::from_secs(60)),
            ..plain()
        };
        let mut sides = ["A", "AU"].map(|flags| {
            let config = config.clone();
            let mut trace =
                if sack { Trace::with_sack(config) } else { Trace::established(config) };
            trace.tcb.ecn.agreed = ecn;
            Side { trace, flags, received: 1 }
        });
        for event in events {
            for side in &mut sides {
                side.apply(event);
            }
            prop_assert_eq!(sides[0].state(), sides[1].state(), "after {:?}", event);
            if sides[0].trace.tcb.state() == State::Closed {
                break;
            }
        }
    }
}

#[test]
fn the_ack_of_one_message_takes_the_short_way() {
    let mut t = Trace::with_sack(plain());
    t.write(64);
    t.tx("PA 1:65 ack 1");
    t.now += Duration::from_millis(20);
    let ack = t.tcb.snd.nxt;
    assert!(t.tcb.take_plain_ack(t.now, ack, false));
    assert_eq!((t.tcb.snd.una, t.tcb.bytes_unacked()), (ack, 0));
    assert!(!t.tcb.timers.is_set(crate::tcp::timers::Timer::Retransmit));
}

#[test]
fn the_ack_of_a_part_or_of_what_was_sent_again_takes_the_long_way() {
    let mut t = Trace::with_sack(plain());
    t.write(64);
    t.tx("PA 1:65 ack 1");
    let (part, all) = (t.tcb.snd.nxt - 1, t.tcb.snd.nxt);
    assert!(!t.tcb.take_plain_ack(t.now, part, false));
    while t.drain().is_empty() {
        t.wait_for_timer();
    }
    assert!(!t.tcb.take_plain_ack(t.now, all, false), "Karn's algorithm asks which it answers");
}
