//! Flow control: windows, silly windows, zero-window probes.

use super::*;

#[test]
fn a_closed_window_is_probed_at_growing_intervals_for_as_long_as_the_peer_answers() {
    // RFC 9293 §3.8.6.1.
    let mut t = Trace::established(TcpConfig { data_retries: 3, ..plain() });
    t.write(200);
    t.tx("PA 1:201 ack 1");
    t.rx("A 1 ack 201 win 0");
    t.write(100);
    t.quiet();
    let mut waits = vec![];
    for _ in 0..12 {
        waits.push(t.wait_for_timer());
        t.tx("A 201:202 ack 1");
        t.quiet();
        t.rx("A 1 ack 201 win 0");
    }
    // An answer tells that the peer lives; the interval doubles all the same (SHLD-30).
    let doubled = (0..12).map(|n| (200u64 << n).min(120_000));
    assert!(waits.iter().copied().eq(doubled), "{waits:?}");
    t.state("ESTABLISHED");
    t.rx("A 1 ack 201 win 1000");
    t.tx("PA 201:301 ack 1");
    t.end();
}

#[test]
fn probes_back_off_and_a_silent_peer_is_given_up() {
    let mut t = Trace::established(TcpConfig { data_retries: 4, ..plain() });
    t.rx("A 1 ack 1 win 0");
    t.write(100);
    t.quiet();
    for expected in [200, 400, 800, 1600] {
        assert_eq!(t.wait_for_timer(), expected);
        t.tx("A 1:2 ack 1");
    }
    assert_eq!(t.wait_outcome(3200), Outcome::Closed);
    assert_eq!(t.tcb.take_error(), Some(SocketError::TimedOut));
    t.end();
}

#[test]
fn a_probe_byte_that_is_taken_counts() {
    let mut t = Trace::established(plain());
    t.rx("A 1 ack 1 win 0");
    t.write(100);
    t.quiet();
    t.wait_for_timer();
    t.tx("A 1:2 ack 1");
    t.rx("A 1 ack 2 win 500");
    t.tx("PA 2:101 ack 1");
    t.rx("A 1 ack 101");
    assert_eq!((t.tcb.bytes_unacked(), t.tcb.bytes_unsent()), (0, 0));
    t.end();
}

#[test]
fn a_small_window_waits_for_half_the_largest_or_the_override() {
    // RFC 9293 §3.8.6.2.1.
    let mut t = Trace::established(plain());
    t.rx("A 1 ack 1 win 100");
    t.write(3000);
    t.quiet();
    t.wait_for_timer();
    t.tx("A 1:101 ack 1");
    t.quiet();
    t.end();
}

#[test]
fn a_peer_with_a_tiny_buffer_still_gets_data() {
    let mut t = Trace::connecting(plain());
    t.tx("S 0");
    t.rx("SA 0 ack 1 win 400 mss 1460");
    t.tx("A 1 ack 1");
    t.write(1000);
    t.tx("A 1:401 ack 1");
    t.rx("A 1 ack 401 win 400");
    t.tx("A 401:801 ack 1");
    t.rx("A 1 ack 801 win 400");
    t.tx("PA 801:1001 ack 1");
    t.end();
}

#[test]
fn the_window_shrinks_with_unread_data_and_reopens_in_worthwhile_steps() {
    // RFC 9293 §3.8.6.2.2.
    let mut t = Trace::established(TcpConfig { recv_buffer_bytes: 8000, ..plain() });
    t.rx("PA 1:5841 ack 1");
    t.tx("A 1 ack 5841 win 2160");
    t.read(1000);
    t.quiet();
    t.read(1920);
    t.tx("A 1 ack 5841 win 5080");
    t.end();
}

#[test]
fn a_full_window_is_closed_and_probes_are_answered() {
    let mut t = Trace::established(TcpConfig { recv_buffer_bytes: 2000, ..plain() });
    t.rx("PA 1:2001 ack 1");
    t.tx("A 1 ack 2001 win 0");
    t.rx("A 2001:2002 ack 1");
    assert_eq!(t.tcb.take_drop(), Some(DropReason::ZeroWindow));
    t.tx("A 1 ack 2001 win 0");
    t.read(2000);
    t.tx("A 1 ack 2001 win 2000");
    t.end();
}

#[test]
fn a_closed_window_still_takes_acks_and_fin() {
    let mut t = Trace::established(TcpConfig { recv_buffer_bytes: 2000, ..plain() });
    t.write(10);
    t.tx("PA 1:11 ack 1");
    t.rx("PA 1:2001 ack 1");
    t.tx("A 11 ack 2001 win 0");
    t.rx("FA 2001 ack 11");
    assert_eq!(t.tcb.bytes_unacked(), 0);
    t.tx("A 11 ack 2002");
    t.state("CLOSE-WAIT");
    t.read(2000);
    t.read_is(Ok(0));
    t.end();
}

#[test]
fn the_right_edge_never_moves_back() {
    let mut t = Trace::established(TcpConfig { recv_buffer_bytes: 10_000, ..plain() });
    t.tcb.update_config(|c| c.recv_buffer_bytes = 1_000);
    t.rx("PA 1:1461 ack 1");
    t.tx("A 1 ack 1461 win 8540");
    t.end();
}

#[test]
fn rounding_to_the_scale_does_not_move_the_right_edge_back() {
    // RFC 7323 §2.4. A field counts in units of 16,384 bytes here.
    let recv_buffer_bytes = 60_000 * 16_384 + 3_000;
    let config = TcpConfig { recv_buffer_bytes, window_scale: true, ..plain() };
    let mut t = Trace::connecting(config);
    t.tx("S 0 ws 14");
    t.rx("SA 0 ack 1 mss 1460 ws 0");
    t.tx("A 1 ack 1 win 60000");
    t.rx("PA 1:16384 ack 1");
    t.tx("A 1 ack 16384 win 60000");
    t.end();
}

#[test]
fn rounding_to_the_scale_does_not_let_a_full_buffer_grow() {
    // A field counts in units of 16 bytes here; one byte at a time comes when the window closes.
    let recv_buffer_bytes = 1 << 20;
    let mut t = Trace::connecting(TcpConfig { recv_buffer_bytes, window_scale: true, ..plain() });
    t.tx("S 0 ws 5");
    t.rx("SA 0 ack 1 mss 1460 ws 0");
    t.tx("A 1 ack 1");
    let mut at = 1;
    for n in 0..2_000 {
        let room = t.tcb.info().rcv_wnd_bytes;
        let len = if room > 40 { room.min(1460) - 1 } else { 1 };
        let _ = t.rx_data(&format!("A {at}:{} ack 1", at + len), &bytes(at, at + len));
        at += if t.tcb.take_drop().is_none() { len } else { 0 };
        t.drain();
        let waiting = t.tcb.bytes_readable();
        assert!(waiting < (1 << 20) + 32, "{waiting} bytes after {n} segments");
    }
    assert!(t.tcb.bytes_readable() >= 1 << 20);
    t.end();
}

#[test]
fn a_new_ack_in_an_old_segment_does_not_move_the_right_edge() {
    // RFC 9293 §3.10.7.4 takes no window from a segment older than the last that gave one: here a
    // retransmission, overtaken by later segments. With its ACK alone snd.una + snd.wnd would move.
    let mut t = Trace::established(plain());
    t.rx("A 1001 ack 1 win 2000");
    t.write(4000);
    t.tx("A 1:1461 ack 1");
    t.wait_for_timer();
    t.tx("PA 1:1461 ack 1");
    t.rx("PA 1:1001 ack 1461 win 540");
    let sent = t.drain();
    assert!(sent.iter().all(|&(_, to)| to <= 2001), "{sent:?} beyond 2001");
}

#[test]
fn a_peer_that_shrinks_its_window_is_not_given_up() {
    // RFC 9293 §3.8.6: robust against it.
    let mut t = Trace::established(TcpConfig { data_retries: 2, ..plain() });
    t.write(2920);
    t.tx("PA 1:2921 ack 1");
    t.rx("A 1 ack 1 win 0");
    for _ in 0..6 {
        t.wait_for_timer();
        t.tx("A 1:2 ack 1");
        t.rx("A 1 ack 1 win 0");
    }
    t.rx("A 1 ack 2921 win 9000");
    t.state("ESTABLISHED");
    assert_eq!(t.tcb.bytes_unacked(), 0);
    t.end();
}

#[test]
fn an_orphan_does_not_probe_forever() {
    let mut t = Trace::established(plain());
    t.rx("A 1 ack 1 win 0");
    t.write(100);
    assert_eq!(t.tcb.close(t.now), Outcome::Continue);
    t.quiet();
    let mut probes = 0;
    while t.tcb.state() != State::Closed {
        t.wait_for_timer();
        if t.tcb.state() != State::Closed {
            t.tx("A 1:2 ack 1");
            t.rx("A 1 ack 1 win 0");
            probes += 1;
        }
    }
    assert_eq!(probes, 8);
    t.tx("RA 1 ack 1");
    t.end();
}

#[test]
fn an_old_segment_does_not_change_the_window() {
    // RFC 9293 §3.10.7.4: SND.WL1, SND.WL2.
    let mut t = Trace::established(plain());
    t.rx("PA 1:11 ack 1 win 5000");
    t.rx("PA 11:21 ack 1 win 6000");
    assert_eq!(t.tcb.info().snd_wnd_bytes, 6000);
    t.rx("PA 5:31 ack 1 win 100");
    assert_eq!(t.tcb.info().snd_wnd_bytes, 6000);
    t.end();
}

#[test]
fn a_reader_tells_of_room_to_who_waits_for_it_and_when_it_doubles_the_window() {
    // RFC 9293 §3.8.6.2.2. 16,540 bytes wait in a buffer of 20,000, so that the window could grow to
    // 3460.
    for (window, told) in [(1459, true), (1730, true), (1731, false), (2001, false)] {
        let mut t = Trace::settled(plain());
        t.rx("A 1:16541 ack 1");
        t.drain();
        t.tcb.rcv.buffer = 20_000;
        t.tcb.rcv.edge = t.tcb.rcv.nxt + window;
        t.tcb.after_read();
        assert_eq!(t.tcb.wants_transmit(), told, "{window}");
    }
}
