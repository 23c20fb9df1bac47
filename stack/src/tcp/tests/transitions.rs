//! One trace for each transition of RFC 9293 figure 5.

use super::*;

fn listen(config: &TcpConfig) -> (HalfOpen, Instant) {
    let now = Instant::from_millis(100_000);
    let syn = TcpHeader {
        seq: IRS,
        flags: TcpFlags::SYN,
        window: 65_535,
        options: TcpOptions { mss: Some(1460), ..TcpOptions::default() },
        ..TcpHeader::default()
    };
    let open = Open { iss: ISS, ts_offset: 0, mss: 1460 };
    (HalfOpen::new(now, &syn, config, open), now)
}

fn from_peer(flags: TcpFlags, seq: u32, ack: u32) -> TcpHeader {
    TcpHeader { seq: IRS + seq, ack: ISS + ack, flags, window: 65_535, ..TcpHeader::default() }
}

fn passive(config: TcpConfig) -> Trace {
    let (mut half, now) = listen(&config);
    let ack = from_peer(TcpFlags::ACK, 1, 1);
    assert_eq!(half.handle_segment(now, &ack, 0, &config), HalfOpenOutcome::Establish);
    Trace::with(half.into_tcb(now, Rc::new(config)), Trace::pool(), now)
}

#[test]
fn closed_to_syn_sent_by_active_open() {
    let mut t = Trace::connecting(plain());
    t.state("SYN-SENT");
    t.tx("S 0 mss 1460 win 65535");
    t.quiet();
    t.end();
}

#[test]
fn listen_to_syn_received_by_syn() {
    let config = plain();
    let (half, now) = listen(&config);
    let syn_ack = half.syn_ack(now, &config);
    assert_eq!(syn_ack.flags, TcpFlags::SYN | TcpFlags::ACK);
    assert_eq!((syn_ack.seq, syn_ack.ack), (ISS, IRS + 1));
    assert_eq!(syn_ack.options.mss, Some(1460));
    assert_eq!(half.into_tcb(now, Rc::new(config)).state(), State::SynReceived);
}

#[test]
fn syn_received_to_listen_by_rst() {
    let config = plain();
    let (mut half, now) = listen(&config);
    let rst = from_peer(TcpFlags::RST, 1, 0);
    assert_eq!(half.handle_segment(now, &rst, 0, &config), HalfOpenOutcome::Remove);
}

#[test]
fn syn_received_to_established_by_ack_after_passive_open() {
    let mut t = passive(plain());
    t.state("SYN-RECEIVED");
    assert_eq!(t.rx_outcome("A 1 ack 1"), Outcome::Continue);
    t.state("ESTABLISHED");
    t.quiet();
    t.end();
}

#[test]
fn syn_sent_to_closed_by_close() {
    let mut t = Trace::connecting(plain());
    t.tx("S 0");
    assert_eq!(t.tcb.close(t.now), Outcome::Closed);
    t.state("CLOSED");
    t.quiet();
    t.end();
}

#[test]
fn syn_sent_to_closed_by_timeout() {
    let mut t = Trace::connecting(TcpConfig { syn_retries: 2, ..plain() });
    t.tx("S 0");
    for expected in [1000, 2000] {
        assert_eq!(t.wait_for_timer(), expected);
        t.tx("S 0");
    }
    assert_eq!(t.wait_outcome(4000), Outcome::Closed);
    t.state("CLOSED");
    t.read_is(Err(SocketError::TimedOut));
    t.quiet();
    t.end();
}

#[test]
fn syn_sent_to_established_by_syn_ack() {
    let mut t = Trace::connecting(plain());
    t.tx("S 0");
    t.rx("SA 0 ack 1 win 4000 mss 1460");
    t.state("ESTABLISHED");
    t.tx("A 1 ack 1");
    t.quiet();
    t.end();
}

#[test]
fn syn_sent_to_syn_received_to_established_by_simultaneous_open() {
    // RFC 9293 figure 8.
    let mut t = Trace::connecting(plain());
    t.tx("S 0");
    t.rx("S 0 win 4000 mss 1460");
    t.state("SYN-RECEIVED");
    t.tx("SA 0 ack 1 mss 1460");
    t.rx("SA 0 ack 1 win 4000 mss 1460");
    t.state("ESTABLISHED");
    t.tx("A 1 ack 1");
    t.quiet();
    t.write(10);
    t.tx("PA 1:11 ack 1");
    t.end();
}

#[test]
fn a_syn_acknowledged_before_it_could_be_repeated_is_not_repeated() {
    let mut t = Trace::connecting(plain());
    t.tx("S 0");
    t.rx("S 0 mss 1460");
    t.rx("A 1 ack 1");
    t.state("ESTABLISHED");
    t.quiet();
    t.write(10);
    t.tx("PA 1:11 ack 1");
    t.end();
}

#[test]
fn syn_received_to_fin_wait_1_by_close() {
    let mut t = Trace::connecting(plain());
    t.tx("S 0");
    t.rx("S 0 mss 1460");
    t.tx("SA 0 ack 1");
    assert_eq!(t.tcb.close(t.now), Outcome::Continue);
    t.state("FIN-WAIT-1");
    t.tx("FA 1 ack 1");
    t.wait_for_timer();
    t.tx("SA 0 ack 1");
    t.rx("A 1 ack 1");
    t.state("FIN-WAIT-1");
    t.wait_for_timer();
    t.tx("FA 1 ack 1");
    t.rx("A 1 ack 2");
    t.state("FIN-WAIT-2");
    t.end();
}

#[test]
fn established_to_fin_wait_1_by_close() {
    let mut t = Trace::established(plain());
    assert_eq!(t.tcb.close(t.now), Outcome::Continue);
    t.state("FIN-WAIT-1");
    t.tx("FA 1 ack 1");
    t.quiet();
    t.end();
}

#[test]
fn fin_wait_1_to_fin_wait_2_by_ack_of_fin() {
    let mut t = Trace::established(plain());
    assert_eq!(t.tcb.shutdown_write(t.now), Ok(Outcome::Continue));
    t.tx("FA 1 ack 1");
    t.rx("A 1 ack 2");
    t.state("FIN-WAIT-2");
    t.quiet();
    t.end();
}

#[test]
fn fin_wait_1_to_closing_to_time_wait_by_simultaneous_close() {
    let mut t = Trace::established(plain());
    assert_eq!(t.tcb.shutdown_write(t.now), Ok(Outcome::Continue));
    t.tx("FA 1 ack 1");
    t.rx("FA 1 ack 1");
    t.state("CLOSING");
    t.tx("A 2 ack 2");
    assert_eq!(t.rx_outcome("A 2 ack 2"), Outcome::TimeWait);
    t.state("TIME-WAIT");
    t.quiet();
    t.end();
}

#[test]
fn fin_wait_1_to_time_wait_by_fin_with_ack_of_fin() {
    let mut t = Trace::established(plain());
    assert_eq!(t.tcb.shutdown_write(t.now), Ok(Outcome::Continue));
    t.tx("FA 1 ack 1");
    assert_eq!(t.rx_outcome("FA 1 ack 2"), Outcome::TimeWait);
    t.state("TIME-WAIT");
    t.tx("A 2 ack 2");
    t.read_is(Ok(0));
    t.end();
}

#[test]
fn fin_wait_2_to_time_wait_by_fin_and_to_closed_after_2_msl() {
    let mut t = Trace::established(plain());
    assert_eq!(t.tcb.shutdown_write(t.now), Ok(Outcome::Continue));
    t.tx("FA 1 ack 1");
    t.rx("A 1 ack 2");
    assert_eq!(t.rx_outcome("FA 1 ack 2"), Outcome::TimeWait);
    t.tx("A 2 ack 2");
    t.state("TIME-WAIT");
    assert_eq!(t.wait_for_timer(), 60_000);
    t.state("CLOSED");
    t.quiet();
    t.end();
}

#[test]
fn established_to_close_wait_by_fin() {
    let mut t = Trace::established(plain());
    assert_eq!(t.rx_outcome("FA 1 ack 1"), Outcome::Continue);
    t.state("CLOSE-WAIT");
    t.tx("A 1 ack 2");
    t.read_is(Ok(0));
    t.end();
}

#[test]
fn close_wait_to_last_ack_by_close_and_to_closed_by_ack_of_fin() {
    let mut t = Trace::established(plain());
    t.rx("FA 1 ack 1");
    t.tx("A 1 ack 2");
    assert_eq!(t.tcb.close(t.now), Outcome::Continue);
    t.state("LAST-ACK");
    t.tx("FA 1 ack 2");
    assert_eq!(t.rx_outcome("A 2 ack 2"), Outcome::Closed);
    t.state("CLOSED");
    t.quiet();
    t.end();
}
