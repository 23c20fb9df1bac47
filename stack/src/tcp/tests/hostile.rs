//! Segments that should not be: RFC 5961, PAWS, ICMP, overlaps, memory.

use super::*;

#[test]
fn only_an_exact_rst_resets() {
    // RFC 5961 §3.2.
    let mut t = Trace::established(plain());
    t.rx("R 100");
    assert_eq!(t.tcb.take_drop(), Some(DropReason::BadReset));
    t.tx("A 1 ack 1");
    t.rx("R 70000");
    assert_eq!(t.tcb.take_drop(), Some(DropReason::OutsideWindow));
    t.quiet();
    assert_eq!(t.rx_outcome("R 1"), Outcome::Closed);
    assert_eq!(t.tcb.take_error(), Some(SocketError::ConnectionReset));
    t.end();
}

#[test]
fn a_syn_is_challenged_wherever_it_lies() {
    // RFC 5961 §4.2.
    let mut t = Trace::established(plain());
    for line in ["S 1", "S 100", "SA 0 ack 1", "S 3000000"] {
        t.rx(line);
        assert!(t.tcb.take_drop().is_some());
        t.tx("A 1 ack 1");
        t.state("ESTABLISHED");
    }
    t.end();
}

#[test]
fn challenge_acks_are_limited() {
    // RFC 5961 §7.
    let mut t = Trace::established(TcpConfig { challenge_acks_per_s: 3, ..plain() });
    for _ in 0..3 {
        t.rx("R 100");
        t.tx("A 1 ack 1");
    }
    t.rx("R 100");
    t.quiet();
    t.now += Duration::from_secs(1);
    t.rx("R 100");
    t.tx("A 1 ack 1");
    t.end();
}

#[test]
fn acks_of_the_future_and_of_long_ago_are_refused() {
    // RFC 5961 §5.2.
    let mut t = Trace::established(plain());
    t.write(100);
    t.tx("PA 1:101 ack 1");
    t.rx("A 1 ack 102");
    assert_eq!(t.tcb.take_drop(), Some(DropReason::BadAck));
    t.tx("A 101 ack 1");
    t.rx("A 1 ack -70000");
    assert_eq!(t.tcb.take_drop(), Some(DropReason::BadAck));
    t.tx("A 101 ack 1");
    t.rx("A 1 ack 101");
    assert_eq!(t.tcb.bytes_unacked(), 0);
    // An ACK within the window of the past is old, not hostile.
    t.rx("A 1 ack 1");
    assert_eq!(t.tcb.take_drop(), None);
    t.quiet();
    t.end();
}

#[test]
fn a_segment_without_ack_is_dropped() {
    let mut t = Trace::established(plain());
    t.rx("P 1:11");
    assert_eq!(t.tcb.take_drop(), Some(DropReason::NoAck));
    t.read_is(Err(SocketError::WouldBlock));
    t.end();
}

#[test]
fn a_bad_ack_in_syn_sent_is_answered_by_rst() {
    // RFC 9293 §3.10.7.3, first step; and an RST counts only with the right ACK.
    let mut t = Trace::connecting(plain());
    t.tx("S 0");
    let Outcome::Reset(rst) = t.rx_outcome("SA 0 ack 7") else { panic!("no RST") };
    assert_eq!((rst.seq, rst.flags), (ISS + 7, TcpFlags::RST));
    // Whoever answered is gone then; but nobody makes us send SYNs one by one.
    t.tx("S 0");
    let Outcome::Reset(_) = t.rx_outcome("A 0 ack 7") else { panic!("no RST") };
    t.quiet();
    t.rx("R 0");
    assert_eq!(t.tcb.take_drop(), Some(DropReason::BadReset));
    t.rx("RA 0 ack 7");
    t.rx("A 0 ack 1");
    t.state("SYN-SENT");
    t.end();
}

#[test]
fn a_bad_ack_in_syn_received_is_answered_by_rst() {
    let mut t = Trace::connecting(plain());
    t.tx("S 0");
    t.rx("S 0");
    t.tx("SA 0 ack 1");
    let Outcome::Reset(rst) = t.rx_outcome("A 1 ack 9") else { panic!("no RST") };
    assert_eq!(rst.seq, ISS + 9);
    t.rx("S 0");
    t.tx("SA 0 ack 1");
    t.end();
}

fn with_timestamps() -> Trace {
    let mut t = Trace::connecting(TcpConfig { timestamps: true, ..plain() });
    t.tx("S 0 ts 100000/0");
    t.rx("SA 0 ack 1 mss 1460 ts 500/100000");
    t.tx("A 1 ack 1 ts 100000/500");
    t
}

#[test]
fn an_old_timestamp_is_refused_and_answered() {
    // RFC 7323 §5.3, R1.
    let mut t = with_timestamps();
    t.rx("PA 1:11 ack 1 ts 501/100000");
    t.tx("A 1 ack 11 ts 100000/501");
    t.rx("PA 11:21 ack 1 ts 500/100000");
    assert_eq!(t.tcb.take_drop(), Some(DropReason::OldTimestamp));
    t.tx("A 1 ack 11 ts 100000/501");
    assert_eq!(t.tcb.bytes_readable(), 10);
    t.end();
}

#[test]
fn ts_recent_becomes_invalid_after_24_days() {
    // RFC 7323 §5.5.
    let mut t = with_timestamps();
    t.now += Duration::from_secs(25 * 24 * 3600);
    t.rx("PA 1:11 ack 1 ts 400/100000");
    assert_eq!(t.tcb.bytes_readable(), 10);
    t.end();
}

#[test]
fn a_missing_timestamp_is_refused_except_on_rst() {
    // RFC 7323 §3.2.
    let mut t = with_timestamps();
    t.rx("PA 1:11 ack 1");
    assert_eq!(t.tcb.take_drop(), Some(DropReason::MissingTimestamp));
    assert_eq!(t.rx_outcome("R 1"), Outcome::Closed);
    t.end();
}

#[test]
fn ts_recent_follows_the_last_ack_sent() {
    // RFC 7323 §4.3: the echo is of the earliest segment that the ACK covers.
    let mut t = with_timestamps();
    t.tcb.rcv.quick_acks = 0;
    t.rx("PA 1:11 ack 1 ts 510/100000");
    t.rx("PA 11:21 ack 1 ts 520/100000");
    t.wait(40);
    t.tx("A 1 ack 21 ts 100040/510");
    t.end();
}

#[test]
fn the_bytes_received_first_win() {
    let mut t = Trace::established(plain());
    t.rx("PA 11:21 ack 1");
    let mut forged = bytes(1, 31);
    forged[10..20].fill(0xee);
    assert_eq!(t.rx_data("PA 1:31 ack 1", &forged), Outcome::Continue);
    t.read(30);
    t.end();
}

#[test]
fn bytes_beyond_the_window_are_cut_off() {
    let mut t = Trace::established(TcpConfig { recv_buffer_bytes: 100, ..plain() });
    t.rx("PA 1:151 ack 1");
    t.tx("A 1 ack 101 win 0");
    t.rx("PA 91:131 ack 1");
    t.tx("A 1 ack 101 win 0");
    t.read(100);
    t.tx("A 1 ack 101 win 100");
    t.end();
}

#[test]
fn single_bytes_that_wait_share_slots() {
    let mut t = Trace::established(TcpConfig { recv_buffer_bytes: 16_000, ..plain() });
    for i in 1..1000u32 {
        t.rx(&format!("PA {i}:{} ack 1", i + 1));
        assert_eq!(t.tcb.take_drop(), None);
    }
    let pinned = t.tcb.info().pinned_bytes;
    assert!(pinned <= 64 << 10, "{pinned} bytes of packet memory for 999 bytes");
    t.read(999);
    t.end();
}

#[test]
fn single_bytes_in_shared_slots_cannot_pin_memory_without_bound() {
    let mut t = Trace::established(TcpConfig { recv_buffer_bytes: 16_000, ..plain() });
    // Another reference to a slot forbids to write behind what it holds.
    let mut others = Vec::new();
    let mut refused = 0;
    for i in 1..1000u32 {
        let slice = t.pool.copy_from(&bytes(i, i + 1)).expect("a slot").freeze();
        others.push(slice.clone());
        t.rx_slices(i, vec![slice], 1, Memory::Plenty);
        if t.tcb.take_drop() == Some(DropReason::ReceiveMemory) {
            refused += 1;
            break;
        }
    }
    assert_eq!(refused, 1);
    assert_eq!(t.tcb.info().pinned_bytes, recvq::PINNED_MIN_BYTES);
    // Reading makes room, and the repeated byte is taken.
    let held = t.tcb.bytes_readable() as u32;
    t.read(held);
    t.rx(&format!("PA {}:{} ack 1", held + 1, held + 2));
    t.read(1);
    drop(others);
    t.end();
}

#[test]
fn single_bytes_out_of_sequence_cannot_either_and_the_gap_still_closes() {
    let mut t = Trace::established(TcpConfig { recv_buffer_bytes: 16_000, ..plain() });
    let mut refused = false;
    for i in 1..1000u32 {
        t.rx(&format!("PA {}:{} ack 1", 2 * i + 1, 2 * i + 2));
        refused |= t.tcb.take_drop() == Some(DropReason::Reassembly);
    }
    assert!(refused);
    assert!(t.tcb.info().pinned_bytes <= recvq::PINNED_MIN_BYTES);
    t.rx("PA 1:1001 ack 1");
    t.read(1000);
    t.end();
}

#[test]
fn icmp_counts_only_for_what_is_in_flight() {
    // RFC 5927 §4.1 and §5.2.
    let mut t = Trace::connecting(plain());
    t.tx("S 0");
    let port = IcmpError::PortUnreachable;
    assert_eq!(t.tcb.handle_icmp(t.now, port, ISS + 1), Outcome::Continue);
    assert_eq!(t.tcb.handle_icmp(t.now, port, ISS), Outcome::Closed);
    assert_eq!(t.tcb.take_error(), Some(SocketError::ConnectionRefused));
    t.end();

    let mut t = Trace::established(plain());
    t.write(10);
    t.tx("PA 1:11 ack 1");
    assert_eq!(t.tcb.handle_icmp(t.now, port, ISS + 1), Outcome::Continue);
    t.state("ESTABLISHED");
    t.end();
}

#[test]
fn a_timeout_tells_the_soft_error_heard_meanwhile() {
    // RFC 5461 §3.1.
    let mut t = Trace::connecting(TcpConfig { syn_retries: 0, ..plain() });
    t.tx("S 0");
    assert_eq!(t.tcb.handle_icmp(t.now, IcmpError::HostUnreachable, ISS), Outcome::Continue);
    assert_eq!(t.wait_outcome(1000), Outcome::Closed);
    assert_eq!(t.tcb.take_error(), Some(SocketError::HostUnreachable));
    t.end();
}

#[test]
fn a_smaller_path_mtu_sends_smaller_segments_again() {
    // RFC 1191 §6.5; and a forged tiny MTU does little.
    let mut t = Trace::established(plain());
    t.write(2920);
    t.tx("PA 1:2921 ack 1 step 1460");
    let cwnd = t.tcb.info().cwnd_bytes;
    let too_big = IcmpError::FragmentationNeeded { mss: 1000 };
    assert_eq!(t.tcb.handle_icmp(t.now, too_big, ISS + 1), Outcome::Continue);
    t.tx("PA 1:2921 ack 1 step 1000");
    assert_eq!(t.tcb.info().cwnd_bytes, cwnd, "no congestion");
    let tiny = IcmpError::FragmentationNeeded { mss: 1 };
    assert_eq!(t.tcb.handle_icmp(t.now, tiny, ISS + 1), Outcome::Continue);
    assert_eq!(t.tcb.info().mss, 536);
    t.end();
}

#[test]
fn urgent_data_is_data_in_band() {
    // RFC 6093 §4: URG and its pointer, wherever it points, change nothing; every socket behaves
    // as with `SO_OOBINLINE`. §6: nothing urgent is ever sent.
    let mut t = Trace::established(plain());
    t.rx("PAU 1:11 ack 1");
    t.read(10);
    t.tx("A 1 ack 11");
    t.rx("AU 11 ack 1");
    t.quiet();
    t.rx("FAU 11:21 ack 1");
    t.read(10);
    t.read_is(Ok(0));
    t.tx("A 1 ack 22");
    t.end();
}
