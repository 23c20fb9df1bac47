//! Half-close, graceful and abortive close, orphans, TIME-WAIT.

use super::*;

#[test]
fn a_half_closed_connection_goes_on_receiving() {
    let mut t = Trace::settled(plain());
    t.write(100);
    assert_eq!(t.tcb.shutdown_write(t.now), Ok(Outcome::Continue));
    t.state("FIN-WAIT-1");
    t.tx("FPA 1:101 ack 1");
    t.rx("A 1 ack 102");
    t.state("FIN-WAIT-2");
    t.rx("PA 1:3001 ack 102");
    t.tx("A 102 ack 3001");
    t.read(3000);
    assert_eq!(t.tcb.write(&t.pool, b"x"), Err(SocketError::BrokenPipe));
    assert_eq!(t.rx_outcome("FA 3001 ack 102"), Outcome::TimeWait);
    t.tx("A 102 ack 3002");
    t.end();
}

#[test]
fn everything_written_is_sent_before_the_fin() {
    let mut t = Trace::established(plain());
    t.write(20_000);
    assert_eq!(t.tcb.close(t.now), Outcome::Continue);
    t.tx("A 1:14601 ack 1");
    t.rx("A 1 ack 14601");
    t.tx("FPA 14601:20001 ack 1");
    t.rx("A 1 ack 20002");
    t.state("FIN-WAIT-2");
    t.end();
}

#[test]
fn close_with_unread_data_resets() {
    // RFC 2525 §2.17.
    let mut t = Trace::established(plain());
    t.rx("PA 1:11 ack 1");
    assert_eq!(t.tcb.close(t.now), Outcome::Closed);
    t.tx("RA 1 ack 11");
    t.quiet();
    t.end();
}

#[test]
fn linger_zero_aborts_and_drops_what_is_queued() {
    let mut t = Trace::established(TcpConfig { linger: Linger::Abort, ..plain() });
    t.write(100);
    assert_eq!(t.tcb.close(t.now), Outcome::Closed);
    t.tx("RA 1 ack 1");
    t.quiet();
    t.end();
}

#[test]
fn linger_aborts_when_its_time_is_over() {
    let linger = Linger::For(Duration::from_millis(500));
    let mut t = Trace::established(TcpConfig { linger, ..plain() });
    assert_eq!(t.tcb.close(t.now), Outcome::Continue);
    t.tx("FA 1 ack 1");
    t.wait(400);
    t.tx("FA 1 ack 1");
    assert_eq!(t.wait_outcome(300), Outcome::Closed);
    t.tx("RA 2 ack 1");
    t.end();
}

#[test]
fn data_for_an_orphan_is_answered_by_rst() {
    // RFC 1122 §4.2.2.13.
    let mut t = Trace::established(plain());
    assert_eq!(t.tcb.close(t.now), Outcome::Continue);
    t.tx("FA 1 ack 1");
    t.rx("A 1 ack 2");
    assert_eq!(t.rx_outcome("PA 1:11 ack 2"), Outcome::Closed);
    t.tx("RA 2 ack 1");
    t.end();
}

#[test]
fn an_orphan_does_not_stay_in_fin_wait_2() {
    let mut t = Trace::established(plain());
    let _ = t.tcb.close(t.now);
    t.tx("FA 1 ack 1");
    t.rx("A 1 ack 2");
    assert_eq!(t.wait_outcome(59_999), Outcome::Continue);
    assert_eq!(t.wait_outcome(1), Outcome::Closed);
    t.quiet();
    t.end();
}

#[test]
fn a_socket_that_was_only_shut_down_may_stay_in_fin_wait_2() {
    let mut t = Trace::established(plain());
    assert_eq!(t.tcb.shutdown_write(t.now), Ok(Outcome::Continue));
    t.tx("FA 1 ack 1");
    t.rx("A 1 ack 2");
    assert_eq!(t.wait_outcome(600_000), Outcome::Continue);
    t.state("FIN-WAIT-2");
    t.end();
}

#[test]
fn data_before_a_reset_is_read_before_the_error() {
    let mut t = Trace::established(plain());
    t.rx("PA 1:11 ack 1");
    t.tx("A 1 ack 11");
    assert_eq!(t.rx_outcome("R 11"), Outcome::Closed);
    assert!(t.tcb.readiness().contains(Readiness::ERROR | Readiness::READABLE));
    t.read(10);
    t.read_is(Err(SocketError::ConnectionReset));
    t.read_is(Ok(0));
    assert_eq!(t.tcb.write(&t.pool, b"x"), Err(SocketError::BrokenPipe));
    t.end();
}

#[test]
fn writing_after_a_reset_tells_it_once_and_then_is_a_broken_pipe() {
    let mut t = Trace::established(plain());
    assert_eq!(t.rx_outcome("R 1"), Outcome::Closed);
    assert_eq!(t.tcb.write(&t.pool, b"x"), Err(SocketError::ConnectionReset));
    assert_eq!(t.tcb.write(&t.pool, b"x"), Err(SocketError::BrokenPipe));
    t.end();
}

#[test]
fn a_lost_fin_is_sent_again() {
    let mut t = Trace::established(plain());
    let _ = t.tcb.close(t.now);
    t.tx("FA 1 ack 1");
    t.wait_for_timer();
    t.tx("FA 1 ack 1");
    t.quiet();
    t.rx("A 1 ack 2");
    t.state("FIN-WAIT-2");
    t.end();
}

#[test]
fn a_fin_out_of_sequence_waits_for_the_gap() {
    let mut t = Trace::established(plain());
    t.rx("FA 101 ack 1");
    t.state("ESTABLISHED");
    t.tx("A 1 ack 1");
    t.rx("PA 1:101 ack 1");
    t.state("CLOSE-WAIT");
    t.tx("A 1 ack 102");
    t.read(100);
    t.read_is(Ok(0));
    t.end();
}

#[test]
fn data_after_the_fin_is_ignored() {
    let mut t = Trace::established(plain());
    t.rx("FA 1 ack 1");
    t.tx("A 1 ack 2");
    t.rx("PA 2:12 ack 1");
    assert_eq!(t.tcb.take_drop(), Some(DropReason::AfterFin));
    t.quiet();
    t.read_is(Ok(0));
    t.end();
}

#[test]
fn a_reader_that_shut_down_acknowledges_and_discards() {
    let mut t = Trace::established(plain());
    t.rx("PA 1:11 ack 1");
    t.tx("A 1 ack 11");
    t.tcb.shutdown_read();
    t.read_is(Ok(0));
    t.rx("PA 11:21 ack 1");
    assert_eq!(t.tcb.take_drop(), Some(DropReason::ReadShut));
    t.tx("A 1 ack 21");
    assert_eq!(t.tcb.bytes_readable(), 0);
    t.end();
}

fn in_time_wait(config: TcpConfig) -> Trace {
    let mut t = Trace::established(config);
    assert_eq!(t.tcb.shutdown_write(t.now), Ok(Outcome::Continue));
    t.tx("FA 1 ack 1");
    assert_eq!(t.rx_outcome("FA 1 ack 2"), Outcome::TimeWait);
    t.tx("A 2 ack 2");
    t
}

fn segment(flags: TcpFlags, seq: u32) -> TcpHeader {
    TcpHeader { seq: IRS + seq, ack: ISS + 2, flags, ..TcpHeader::default() }
}

#[test]
fn time_wait_answers_a_repeated_fin_and_starts_again() {
    let mut t = in_time_wait(plain());
    let mut compact = t.tcb.time_wait().unwrap();
    t.now += Duration::from_secs(59);
    let fin = segment(TcpFlags::FIN | TcpFlags::ACK, 1);
    let TimeWaitOutcome::Ack(ack) = compact.handle_segment(t.now, &fin, 0) else { panic!() };
    assert_eq!((ack.seq, ack.ack, ack.flags), (ISS + 2, IRS + 2, TcpFlags::ACK));
    assert_eq!(compact.deadline(t.now) - t.now, Duration::from_secs(60));
    // The full block does the same while the application still holds it.
    t.rx("FA 1 ack 2");
    t.tx("A 2 ack 2");
    assert_eq!(t.tcb.poll_at(), Some(t.now + Duration::from_secs(60)));
    t.end();
}

#[test]
fn only_a_repeated_fin_makes_time_wait_start_again() {
    let t = in_time_wait(plain());
    let later = t.now + Duration::from_secs(59);
    let (ack, syn) = (TcpFlags::ACK, TcpFlags::SYN | TcpFlags::FIN);
    for (what, flags, seq) in
        [("a keepalive probe", ack, 1), ("another FIN", TcpFlags::FIN | ack, 2), ("a SYN", syn, 1)]
    {
        let mut compact = t.tcb.time_wait().unwrap();
        let outcome = compact.handle_segment(later, &segment(flags, seq), 0);
        assert!(matches!(outcome, TimeWaitOutcome::Ack(_)), "{what}");
        assert_eq!(compact.deadline(later) - later, Duration::from_secs(1), "{what}");
    }
    t.end();
}

#[test]
fn time_wait_ignores_resets_and_ends() {
    // RFC 1337 §3.
    let t = in_time_wait(plain());
    let mut compact = t.tcb.time_wait().unwrap();
    let rst = segment(TcpFlags::RST, 2);
    assert_eq!(compact.handle_segment(t.now, &rst, 0), TimeWaitOutcome::Drop);
    let later = t.now + Duration::from_secs(60);
    assert_eq!(compact.handle_segment(later, &rst, 0), TimeWaitOutcome::Remove);
    t.end();
}

#[test]
fn time_wait_gives_way_to_a_newer_syn_only() {
    // RFC 9293 §3.10.7.4 without timestamps.
    let t = in_time_wait(plain());
    let mut compact = t.tcb.time_wait().unwrap();
    let newer = segment(TcpFlags::SYN, 3);
    let reuse = TimeWaitOutcome::Reuse { iss_above: ISS + 2 };
    assert_eq!(compact.handle_segment(t.now, &newer, 0), reuse);
    let older = segment(TcpFlags::SYN, 0);
    assert!(matches!(compact.handle_segment(t.now, &older, 0), TimeWaitOutcome::Ack(_)));
    t.end();
}

#[test]
fn time_wait_judges_a_syn_by_its_timestamp() {
    // RFC 6191 §2.
    let mut t = Trace::connecting(TcpConfig { timestamps: true, ..plain() });
    t.tx("S 0 ts 100000/0");
    t.rx("SA 0 ack 1 mss 1460 ts 500/100000");
    t.tx("A 1 ack 1 ts 100000/500");
    assert_eq!(t.tcb.shutdown_write(t.now), Ok(Outcome::Continue));
    t.tx("FA 1 ack 1");
    assert_eq!(t.rx_outcome("FA 1 ack 2 ts 510/100000"), Outcome::TimeWait);
    let mut compact = t.tcb.time_wait().unwrap();
    let mut syn = |val| {
        let mut syn = segment(TcpFlags::SYN, 0);
        syn.options.timestamps = Some(Timestamps { val, ecr: 0 });
        compact.handle_segment(t.now, &syn, 0)
    };
    assert!(matches!(syn(511), TimeWaitOutcome::Reuse { .. }));
    let TimeWaitOutcome::Ack(ack) = syn(509) else { panic!("an older SYN was let in") };
    assert_eq!(ack.options.timestamps, Some(Timestamps { val: 100_000, ecr: 510 }));
    t.end();
}
