//! Pacing of one connection.

use super::*;
use crate::tcp::timers::Timer;

const MSS: u32 = 1460;

/// An open connection whose round trip is 100 ms.
fn paced(config: TcpConfig) -> Trace {
    let mut t = Trace::connecting(config);
    t.tx("S 0");
    t.now += Duration::from_millis(100);
    t.rx("SA 0 ack 1 win 65535 mss 1460");
    t.tx("A 1 ack 1");
    t
}

/// Everything that leaves until `span` has passed: when, in microseconds from now, and how much.
fn leaves(t: &mut Trace, span: Duration) -> Vec<(u64, u32)> {
    let (start, until) = (t.now, t.now + span);
    let mut sent = Vec::new();
    loop {
        while let Some((transmit, _)) = t.poll() {
            sent.push(((t.now - start).as_micros() as u64, transmit.payload_len));
        }
        match t.tcb.poll_at().filter(|&at| at <= until) {
            Some(at) => {
                t.now = at;
                assert_eq!(t.tcb.handle_timeout(t.now), Outcome::Continue);
            }
            None => return sent,
        }
    }
}

#[test]
fn a_window_leaves_spread_over_half_the_round_trip() {
    // Slow start: two windows of ten segments a round trip, two segments at a time.
    let mut t = paced(TcpConfig { pacing: true, ..plain() });
    t.write(30 * MSS);
    let gap = 2 * 100_000 / 20;
    let expected: Vec<_> = (0..5).map(|i| (i * gap, 2 * MSS)).collect();
    assert_eq!(leaves(&mut t, Duration::from_millis(90)), expected);
    t.end();
}

#[test]
fn without_pacing_a_window_leaves_at_once() {
    let mut t = paced(plain());
    t.write(30 * MSS);
    assert_eq!(leaves(&mut t, Duration::from_millis(90)), [(0, 10 * MSS)]);
    assert!(!t.tcb.timers.is_set(Timer::Pacing));
    t.end();
}

#[test]
fn acks_are_not_paced() {
    let mut t = paced(TcpConfig { pacing: true, ..plain() });
    t.write(30 * MSS);
    t.tx(&format!("A 1:{} ack 1", 1 + 2 * MSS));
    t.quiet();
    t.rx("A 1:1461 ack 1");
    t.tx(&format!("A {} ack 1461", 1 + 2 * MSS));
    t.quiet();
    t.end();
}

#[test]
fn bbr_paces_whatever_the_configuration_says() {
    let mut t = paced(TcpConfig { congestion: Algorithm::Bbr, ..plain() });
    t.write(30 * MSS);
    let sent = leaves(&mut t, Duration::from_millis(90));
    // 2.885 windows a round trip: ten segments within 35 ms.
    assert_eq!(sent.len(), 5);
    assert!((24_000..=32_000).contains(&sent[4].0), "{sent:?}");
    t.end();
}

#[test]
fn a_change_of_controller_while_paced_data_waits_sends_on() {
    let mut t = paced(TcpConfig { congestion: Algorithm::Bbr, ..plain() });
    t.write(30 * MSS);
    t.tx(&format!("A 1:{} ack 1", 1 + 2 * MSS));
    t.quiet();
    t.tcb.update_config(|c| c.congestion = Algorithm::Cubic);
    assert_eq!(t.tcb.info().congestion, Algorithm::Cubic);
    t.tx(&format!("A {}:{} ack 1", 1 + 2 * MSS, 1 + 10 * MSS));
    t.quiet();
    t.end();
}

#[test]
fn a_timeout_is_repaired_under_pacing() {
    let mut t = paced(TcpConfig { congestion: Algorithm::Bbr, ..plain() });
    t.write(5 * MSS);
    leaves(&mut t, Duration::from_millis(100));
    t.wait_for_timer();
    t.tx(&format!("A 1:{} ack 1", 1 + MSS));
    t.rx(&format!("A 1 ack {}", 1 + 5 * MSS));
    t.quiet();
    t.end();
}
