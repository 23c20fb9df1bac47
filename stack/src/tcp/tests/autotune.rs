//! Buffers that grow with the path, and stop growing where memory is scarce.

use super::super::autotune::START_BYTES;
use super::*;

const LIMIT: u32 = 1 << 20;

fn tuned() -> TcpConfig {
    TcpConfig {
        recv_buffer_bytes: LIMIT,
        recv_autotune: true,
        send_buffer_bytes: LIMIT,
        send_autotune: true,
        window_scale: true,
        ..plain()
    }
}

/// A connection whose round trip was measured as 20 ms.
fn measured() -> Trace {
    let mut t = Trace::connecting(tuned());
    t.tx("S 0 ws 5");
    t.now += Duration::from_millis(20);
    t.rx("SA 0 ack 1 win 65535 mss 1460 ws 7");
    t.tx("A 1 ack 1");
    t.rx("A 1 ack 1 win 65535");
    t
}

/// A whole window arrives within `ms`, is acknowledged, and is read if `read`.
fn window(t: &mut Trace, at: &mut u32, ms: u64, memory: Memory, read: bool) {
    let end = *at + t.tcb.info().rcv_wnd_bytes;
    let segments = (end - *at).div_ceil(1460);
    while *at < end {
        let next = end.min(*at + 1460);
        t.now += Duration::from_nanos(ms * 1_000_000 / u64::from(segments));
        let slice = t.pool.copy_from(&bytes(*at, next)).expect("a slot").freeze();
        t.rx_slices(*at, vec![slice], next - *at, memory);
        if read {
            t.read(next - *at);
        }
        t.drain();
        *at = next;
    }
}

#[test]
fn a_window_that_limits_doubles_up_to_the_limit() {
    let mut t = measured();
    assert_eq!(t.tcb.recv_buffer_bytes(), START_BYTES);
    let mut at = 1;
    for _ in 0..10 {
        window(&mut t, &mut at, 20, Memory::Plenty, true);
    }
    assert_eq!(t.tcb.recv_buffer_bytes(), LIMIT);
    assert!(t.tcb.info().rcv_wnd_bytes > LIMIT - (64 << 10), "and the peer was told");
    t.end();
}

#[test]
fn a_slow_sender_gets_no_more_window() {
    let mut t = measured();
    let mut at = 1;
    for _ in 0..8 {
        window(&mut t, &mut at, 100, Memory::Plenty, true);
    }
    assert_eq!(t.tcb.recv_buffer_bytes(), START_BYTES);
    t.end();
}

#[test]
fn a_reader_that_does_not_keep_up_gets_no_more_window() {
    let mut t = measured();
    let mut at = 1;
    window(&mut t, &mut at, 20, Memory::Plenty, false);
    assert_eq!(t.tcb.recv_buffer_bytes(), START_BYTES);
    t.end();
}

#[test]
fn scarce_memory_takes_growth_back_but_never_the_right_edge() {
    let mut t = measured();
    let mut at = 1;
    for _ in 0..10 {
        window(&mut t, &mut at, 20, Memory::Plenty, true);
    }
    let mut edge = at + t.tcb.info().rcv_wnd_bytes;
    for _ in 0..8 {
        window(&mut t, &mut at, 20, Memory::Scarce, true);
        let now = at + t.tcb.info().rcv_wnd_bytes;
        assert!(now >= edge);
        edge = now;
    }
    assert_eq!(t.tcb.recv_buffer_bytes(), START_BYTES);
    t.end();
}

#[test]
fn an_explicit_size_is_fixed_from_then_on() {
    let mut t = measured();
    t.tcb.update_config(|c| (c.recv_buffer_bytes, c.recv_autotune) = (LIMIT / 2, false));
    assert_eq!(t.tcb.recv_buffer_bytes(), LIMIT / 2);
    let mut at = 1;
    for _ in 0..4 {
        window(&mut t, &mut at, 20, Memory::Plenty, true);
    }
    assert_eq!(t.tcb.recv_buffer_bytes(), LIMIT / 2);
    t.end();
}

#[test]
fn the_send_buffer_holds_two_congestion_windows() {
    let mut t = measured();
    let mut acked = 1;
    while t.tcb.info().cwnd_bytes < LIMIT / 2 {
        let room = t.tcb.write_room().min(LIMIT as usize) as u32;
        assert!(room > 0);
        t.write(room);
        t.now += Duration::from_millis(10);
        for (_, to) in t.drain() {
            acked = acked.max(to);
        }
        t.now += Duration::from_millis(10);
        t.rx(&format!("A 1 ack {acked} win 65535"));
    }
    let (buffer, cwnd) = (t.tcb.send_buffer_bytes(), t.tcb.info().cwnd_bytes);
    assert!(buffer >= 2 * cwnd.min(LIMIT / 2), "{buffer} for a window of {cwnd}");
    assert!(buffer <= LIMIT);
    t.end();
}
