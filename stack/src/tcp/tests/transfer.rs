//! Segmentation, Nagle's algorithm, cork, acknowledgments.

use super::*;
use crate::tcp::congestion::Controller;

#[test]
fn five_thousand_bytes_leave_as_one_super_segment() {
    // 1460, 1460, 1460, 620 on the wire; Nagle's algorithm on.
    let mut t = Trace::established(TcpConfig { nodelay: false, ..plain() });
    t.write(5000);
    t.tx("PA 1:5001 ack 1 step 1460");
    t.quiet();
    t.rx("A 1 ack 5001");
    assert_eq!(t.tcb.bytes_unacked(), 0);
    t.end();
}

#[test]
fn a_super_segment_ends_on_a_segment_border_when_more_follows() {
    let mut t = Trace::established(plain());
    t.limits.max_bytes = 4000;
    t.write(5000);
    t.tx("A 1:2921 ack 1");
    t.tx("PA 2921:5001 ack 1");
    t.end();
}

#[test]
fn few_pieces_make_small_super_segments() {
    let mut t = Trace::established(plain());
    t.limits.max_pieces = 2;
    t.write(6000);
    // Slots have 2048 bytes: two pieces hold 4096, of which 2920 are whole segments.
    t.tx("A 1:2921 ack 1");
    t.tx("PA 2921:6001 ack 1");
    t.end();
}

#[test]
fn small_writes_share_a_slot_and_leave_as_one_piece() {
    let mut t = Trace::established(TcpConfig { cork: true, ..plain() });
    t.limits.max_pieces = 1;
    for _ in 0..146 {
        t.write(10);
    }
    t.tx("PA 1:1461 ack 1");
    assert_eq!(t.pool.counters().bytes_copied, 1460);
    t.end();
}

#[test]
fn owned_slices_are_sent_without_a_copy() {
    let mut t = Trace::established(plain());
    let slice = t.pool.copy_from(&bytes(1, 1001)).unwrap().freeze();
    let before = t.pool.counters().bytes_copied;
    t.tcb.write_owned(slice).unwrap();
    t.tx("PA 1:1001 ack 1");
    assert_eq!(t.pool.counters().bytes_copied, before);
    t.rx("A 1 ack 501");
    t.rx("A 1 ack 1001");
    assert_eq!(t.pool.audit().held, 0, "an acknowledged slice is free");
    t.end();
}

#[test]
fn nagle_holds_a_small_segment_until_the_last_one_is_acknowledged() {
    // RFC 9293 §3.7.4.
    let mut t = Trace::established(TcpConfig { nodelay: false, ..plain() });
    t.write(10);
    t.tx("PA 1:11 ack 1");
    t.write(10);
    t.write(10);
    t.quiet();
    t.rx("A 1 ack 11");
    t.tx("PA 11:31 ack 1");
    // A full segment never waits.
    t.write(1470);
    t.tx("A 31:1491 ack 1");
    t.quiet();
    // FIN says that no more will come to wait for.
    assert_eq!(t.tcb.shutdown_write(t.now), Ok(Outcome::Continue));
    t.tx("FPA 1491:1501 ack 1");
    t.end();
}

#[test]
fn nagle_is_what_holds_what_both_windows_just_take() {
    let mut t = Trace::settled(TcpConfig { nodelay: false, ..plain() });
    t.write(100);
    t.tx("PA 1:101 ack 1");
    t.write(50);
    t.quiet();
    for window in [151, 150] {
        t.tcb.controller = Controller::new(Algorithm::NewReno, window);
        assert_eq!(t.tcb.send_limit(), SendLimit::Nagle);
        t.tcb.snd.wnd = window;
        assert_eq!(t.tcb.send_limit(), SendLimit::Nagle);
    }
    t.tcb.controller = Controller::new(Algorithm::NewReno, 149);
    assert_eq!(t.tcb.send_limit(), SendLimit::CongestionWindow);
    t.tcb.snd.wnd = 149;
    assert_eq!(t.tcb.send_limit(), SendLimit::PeerWindow);
}

#[test]
fn nodelay_sends_at_once() {
    let mut t = Trace::established(plain());
    for i in 0..3 {
        t.write(10);
        t.tx(&format!("PA {}:{} ack 1", 10 * i + 1, 10 * i + 11));
    }
    t.end();
}

#[test]
fn nodelay_set_on_a_live_connection_releases_what_waits() {
    let mut t = Trace::established(TcpConfig { nodelay: false, ..plain() });
    t.write(10);
    t.tx("PA 1:11 ack 1");
    t.write(10);
    t.quiet();
    t.tcb.update_config(|c| c.nodelay = true);
    t.tx("PA 11:21 ack 1");
    t.end();
}

#[test]
fn cork_holds_partial_segments_for_200_ms() {
    let mut t = Trace::established(TcpConfig { cork: true, ..plain() });
    t.write(1500);
    t.tx("A 1:1461 ack 1");
    t.quiet();
    t.rx("A 1 ack 1461");
    t.quiet();
    assert_eq!(t.wait_for_timer(), 200);
    t.tx("PA 1461:1501 ack 1");
    t.write(10);
    t.quiet();
    t.tcb.update_config(|c| c.cork = false);
    t.tx("PA 1501:1511 ack 1");
    t.end();
}

#[test]
fn an_ack_waits_40_ms_for_company() {
    let mut t = Trace::settled(plain());
    t.rx("PA 1:101 ack 1");
    t.quiet();
    assert_eq!(t.wait_for_timer(), 40);
    t.tx("A 1 ack 101");
    t.end();
}

#[test]
fn data_carries_the_ack() {
    let mut t = Trace::settled(plain());
    t.rx("PA 1:101 ack 1");
    t.write(5);
    t.tx("PA 1:6 ack 101");
    t.quiet();
    t.rx("A 101 ack 6");
    assert_eq!(t.tcb.poll_at().map(|at| at - t.now), Some(tcb::TRIM_AFTER), "no ACK is due");
    t.end();
}

#[test]
fn every_second_full_segment_is_acknowledged_at_once() {
    // RFC 9293 §3.8.6.3, RFC 5681 §4.2.
    let mut t = Trace::settled(plain());
    t.rx("A 1:1461 ack 1");
    t.quiet();
    t.rx("A 1461:2921 ack 1");
    t.tx("A 1 ack 2921");
    // Joined segments count as many.
    t.rx("A 2921:32121 ack 1");
    t.tx("A 1 ack 32121");
    t.end();
}

#[test]
fn the_first_segments_are_acknowledged_at_once() {
    let mut t = Trace::established(plain());
    for i in 0..u32::from(t.tcb.config.quick_acks) {
        t.rx(&format!("PA {}:{} ack 1", i + 1, i + 2));
        t.tx(&format!("A 1 ack {}", i + 2));
    }
    t.rx("PA 17:18 ack 1");
    t.quiet();
    t.end();
}

#[test]
fn delaying_can_be_turned_off() {
    let mut t = Trace::settled(TcpConfig { delayed_ack: Duration::ZERO, ..plain() });
    t.rx("PA 1:2 ack 1");
    t.tx("A 1 ack 2");
    t.end();
}

#[test]
fn segments_out_of_sequence_are_acknowledged_one_by_one() {
    // RFC 5681 §4.2.
    let mut t = Trace::settled(plain());
    t.rx("A 101:201 ack 1");
    t.rx("A 201:301 ack 1");
    t.rx("A 401:501 ack 1");
    for _ in 0..3 {
        t.tx("A 1 ack 1");
    }
    t.quiet();
    t.rx("A 1:101 ack 1");
    t.tx("A 1 ack 301");
    t.rx("A 301:401 ack 1");
    t.tx("A 1 ack 501");
    t.read(500);
    t.end();
}

#[test]
fn a_repeated_segment_is_acknowledged_and_dropped() {
    let mut t = Trace::settled(plain());
    t.rx("PA 1:101 ack 1");
    t.rx("PA 1:101 ack 1");
    assert_eq!(t.tcb.take_drop(), Some(DropReason::OutsideWindow));
    t.tx("A 1 ack 101");
    t.rx("PA 51:151 ack 1");
    t.read(150);
    t.end();
}

#[test]
fn urgent_data_is_data_in_band() {
    // RFC 6093 §4.
    let mut t = Trace::established(plain());
    t.rx("UPA 1:11 ack 1");
    t.read(10);
    t.end();
}

#[test]
fn sequence_numbers_wrap() {
    let now = Instant::from_millis(1);
    let open = Open { iss: u32::MAX - 2000, ts_offset: 0, mss: 1460 };
    let tcb = Tcb::connect(Rc::new(plain()), open, now);
    let mut t = Trace::with(tcb, Trace::pool(), now);
    (t.iss, t.irs) = (u32::MAX - 2000, u32::MAX - 50);
    t.tx("S 0");
    t.rx("SA 0 ack 1 mss 1460");
    t.tx("A 1 ack 1");
    t.write(6000);
    t.tx("PA 1:6001 ack 1");
    t.rx("A 1 ack 2921");
    t.rx("PA 101:201 ack 6001");
    t.tx("A 6001 ack 1");
    t.rx("PA 1:101 ack 6001");
    t.tx("A 6001 ack 201");
    t.read(200);
    assert_eq!(t.tcb.bytes_unacked(), 0);
    t.end();
}

#[test]
fn peek_leaves_data_and_owned_reads_take_it() {
    let mut t = Trace::established(plain());
    t.rx("PA 1:101 ack 1");
    let mut out = [0; 4];
    assert_eq!(t.tcb.peek(&mut out), Ok(4));
    assert_eq!(out[..], bytes(1, 5));
    let slice = t.tcb.read_owned(30).unwrap().unwrap();
    assert_eq!(slice[..], bytes(1, 31));
    let rest = t.tcb.read_owned(1000).unwrap().unwrap();
    assert_eq!(rest[..], bytes(31, 101));
    assert_eq!(t.tcb.read_owned(1).unwrap_err(), SocketError::WouldBlock);
    assert_eq!(t.tcb.read_owned(0).unwrap_err(), SocketError::InvalidInput);
    drop((slice, rest));
    assert_eq!(t.tcb.info().pinned_bytes, 0);
    t.end();
}

#[test]
fn only_who_has_something_to_send_is_asked_what_it_is() {
    let mut t = Trace::settled(plain());
    assert!(!t.tcb.may_want_transmit());
    t.write(100);
    assert!(t.tcb.may_want_transmit());
    t.tx("PA 1:101 ack 1");
    assert!(!t.tcb.may_want_transmit(), "its ACK is waited for");
    t.rx("A 1:11 ack 101");
    assert!(!t.tcb.may_want_transmit(), "the ACK waits for company");
    t.rx("A 21:31 ack 101");
    assert!(t.tcb.may_want_transmit(), "a duplicate ACK");
    t.drain();
    assert!(!t.tcb.may_want_transmit());
    assert_eq!(t.tcb.shutdown_write(t.now), Ok(Outcome::Continue));
    assert!(t.tcb.may_want_transmit(), "FIN");
}

#[test]
fn what_waits_behind_a_gap_is_not_dropped() {
    let mut t = Trace::settled(plain());
    t.rx("A 101:201 ack 1");
    assert_eq!(t.tcb.take_drop(), None);
    t.tcb.shutdown_read();
    t.rx("A 301:401 ack 1");
    assert_eq!(t.tcb.take_drop(), Some(DropReason::ReadShut));
}

#[test]
fn the_shortest_round_trip_is_known_once_there_was_one() {
    assert_eq!(Trace::connecting(plain()).tcb.info().min_rtt, None);
    let t = Trace::with_sack(plain());
    assert_eq!(t.tcb.info().min_rtt, Some(Duration::from_millis(20)));
}

#[test]
fn a_controller_that_asks_is_told_that_the_application_is_the_limit() {
    let mut t = Trace::with_sack(TcpConfig { congestion: Algorithm::Bbr, ..plain() });
    t.write(100);
    t.tx("PA 1:101 ack 1");
    assert!(t.tcb.sendq.records.rate.is_app_limited());
}
