use super::*;
use crate::wire::tcp::TcpOptions;

const PORTS: (u16, u16) = (80, 40_000);

fn segment(flags: TcpFlags, seq: u32, ack: u32, payload_len: u32, from_server: bool) -> Parsed {
    let server = (Ipv4Addr::new(10, 0, 0, 3), PORTS.0);
    let client = (Ipv4Addr::new(10, 0, 0, 1), PORTS.1);
    let (src, dst) = if from_server { (server, client) } else { (client, server) };
    let header = TcpHeader { seq, ack, flags, window: 60_000, ..TcpHeader::default() };
    Parsed { src, dst, at: 34, header, header_len: 20, payload_len }
}

fn syn(irs: u32, mss: u16) -> Parsed {
    let mut syn = segment(TcpFlags::SYN, irs, 0, 0, false);
    syn.header.options = TcpOptions { mss: Some(mss), ..TcpOptions::default() };
    syn
}

fn check_sends(check: &mut WireCheck, segment: &Parsed) {
    check.sent_segment(Instant::ZERO, 0, 0, segment);
}

/// The server has a connection with segments of 900 bytes, has sent FIN, and gets a SYN of another
/// connection with an MSS of 100.
fn knocked() -> WireCheck {
    let mut check = WireCheck::default();
    let ack = TcpFlags::ACK;
    check.received_segment(0, &syn(1000, 900));
    check_sends(&mut check, &segment(TcpFlags::SYN | ack, 5000, 1001, 0, true));
    check.received_segment(0, &segment(ack, 1001, 5001, 0, false));
    check_sends(&mut check, &segment(ack, 5001, 1001, 900, true));
    check_sends(&mut check, &segment(ack | TcpFlags::FIN, 5901, 1001, 900, true));
    check.received_segment(0, &syn(9000, 100));
    assert_eq!(check.violations(), &[] as &[String]);
    check
}

#[test]
fn a_connection_goes_on_as_it_was_while_another_one_knocks() {
    let mut check = knocked();
    check_sends(&mut check, &segment(TcpFlags::ACK, 5001, 1001, 900, true));
    assert_eq!(check.violations(), &[] as &[String]);
    check_sends(&mut check, &segment(TcpFlags::ACK, 5001, 1001, 901, true));
    assert_eq!(check.violations().len(), 1, "its own limits still hold");
}

#[test]
fn the_answer_to_a_syn_is_bound_by_what_that_syn_said() {
    for (irs, most) in [(9000, 100), (1000, 900)] {
        let mut check = knocked();
        check_sends(&mut check, &segment(TcpFlags::SYN | TcpFlags::ACK, 7000, irs + 1, 0, true));
        check.received_segment(0, &segment(TcpFlags::ACK, irs + 1, 7001, 0, false));
        check_sends(&mut check, &segment(TcpFlags::ACK, 7001, irs + 1, most, true));
        assert_eq!(check.violations(), &[] as &[String]);
        check_sends(&mut check, &segment(TcpFlags::ACK, 7001, irs + 1, most + 1, true));
        assert_eq!(check.violations().len(), 1);
    }
}

#[test]
fn a_segment_may_leave_without_a_right_checksum_only_where_a_card_makes_it() {
    let pool = barewire_driver::Pool::new(barewire_driver::PoolConfig::default()).unwrap();
    let tcp_at = EthernetHeader::LEN + Ipv4Header::LEN;
    let addr = |host| Ipv4Addr::new(10, 0, 0, host);
    let header = TcpHeader { flags: TcpFlags::ACK, ..TcpHeader::default() };
    let mut bytes = [0; EthernetHeader::LEN + Ipv4Header::LEN + 20 + 4];
    let len = bytes.len();
    bytes[12..14].copy_from_slice(&ethertype::IPV4.to_be_bytes());
    let ip = Ipv4Header::new(addr(1), addr(2), protocol::TCP, len - tcp_at);
    ip.emit(&mut bytes[EthernetHeader::LEN..]);
    header.emit(&mut bytes[tcp_at..]);
    let mut sum = wire::pseudo_header(addr(1).into(), addr(2).into(), protocol::TCP, 24);
    sum.add(&bytes[tcp_at..]);
    wire::put_u16(&mut bytes, tcp_at + 16, sum.finish());
    let complaints = |bytes: &[u8], checksum| {
        let mut check = WireCheck::default();
        let frame = TxFrame { checksum, ..TxFrame::default() };
        check.sent(Instant::ZERO, 0, &frame, &[pool.copy_from(bytes).unwrap().freeze()]);
        check.violations().len()
    };
    let card = TxChecksum::Partial { start: tcp_at as u16, offset: 16 };
    assert_eq!(complaints(&bytes, TxChecksum::Complete), 0);
    bytes[len - 1] ^= 1;
    assert_eq!(complaints(&bytes, TxChecksum::Complete), 1);
    assert_eq!(complaints(&bytes, card), 0);
}
