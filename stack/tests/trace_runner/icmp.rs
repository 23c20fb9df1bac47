//! UDP datagrams and ICMP messages in the words of a trace.

use std::net::Ipv4Addr;

use barewire_stack::wire::icmpv4::{Icmpv4Message, Unreachable};
use barewire_stack::wire::ipv4::Ipv4Header;
use barewire_stack::wire::protocol;
use barewire_stack::wire::udp::UdpHeader;

use super::bench::Bench;
use super::packet::{datagram, packet, pattern};
use super::run::{TCP, flow_named};

/// Words as pairs of name and value.
fn pairs(words: &[String]) -> Result<Vec<(&str, &str)>, String> {
    words
        .chunks(2)
        .map(|pair| match pair {
            [name, value] => Ok((name.as_str(), value.as_str())),
            _ => Err(format!("`{}` needs a value", pair[0])),
        })
        .collect()
}

fn parse<T: std::str::FromStr>(word: &str) -> Result<T, String> {
    word.parse().map_err(|_| format!("`{word}` is not understood"))
}

/// `SRC>DST`; `any` is 0.
fn ports(word: Option<&String>) -> Result<(u16, u16), String> {
    let (src, dst) = word.and_then(|word| word.split_once('>')).ok_or("udp SRC>DST …")?;
    let port = |word| if word == "any" { Ok(0) } else { parse(word) };
    Ok((port(src)?, port(dst)?))
}

/// `udp SRC>DST len N [from ADDRESS] [to ADDRESS] [sum zero|bad]` from the peer.
pub(super) fn build_udp(bench: &Bench, words: &[String]) -> Result<Vec<u8>, String> {
    let (src, dst) = ports(words.first())?;
    let (mut from, mut to, mut len, mut sum) = (flow_named(bench, None)?.peer, bench.local, 0, "");
    for (name, value) in pairs(&words[1..])? {
        match name {
            "len" => len = parse(value)?,
            "from" => from = parse(value)?,
            "to" => to = parse(value)?,
            "sum" => sum = value,
            _ => return Err(format!("`{name}` is not understood")),
        }
    }
    let mut bytes = datagram((from, src), (to, dst), len);
    let field = Ipv4Header::LEN + 6;
    match sum {
        "zero" => bytes[field..field + 2].fill(0),
        "bad" => bytes[field] ^= 1,
        _ => {}
    }
    Ok(bytes)
}

/// `udp SRC>DST len N` from the stack.
pub(super) fn expect_udp(words: &[String], bytes: &[u8]) -> Result<(), String> {
    let (src, dst) = ports(words.first())?;
    let ip = Ipv4Header::parse(bytes, bytes.len()).map_err(|error| error.to_string())?;
    if ip.protocol != protocol::UDP {
        return Err("expected UDP".to_owned());
    }
    let udp = &bytes[usize::from(ip.header_len)..];
    let header = UdpHeader::parse(udp, udp.len()).map_err(|error| error.to_string())?;
    if (src != 0 && src != header.src_port) || (dst != 0 && dst != header.dst_port) {
        return Err("differs in: ports".to_owned());
    }
    for (name, value) in pairs(&words[1..])? {
        let right = match name {
            "len" => header.payload_len() == parse::<usize>(value)?,
            "ttl" => ip.ttl == parse::<u8>(value)?,
            "tos" => ip.tos == parse::<u8>(value)?,
            _ => return Err(format!("`{name}` is not understood")),
        };
        if !right {
            return Err(format!("differs in: {name}"));
        }
    }
    let payload = &udp[UdpHeader::LEN..];
    let expected = |(i, byte): (usize, &u8)| *byte == pattern(i as u32);
    if payload.iter().enumerate().all(expected) {
        Ok(())
    } else {
        Err("differs in: payload".to_owned())
    }
}

/// `icmp echo id N seq N len N`, or an error about a packet of ours:
/// `icmp KIND [mtu N] seq N [on FLOW]`, `icmp KIND udp SRC>DST`.
pub(super) fn build_icmp(bench: &Bench, words: &[String]) -> Result<Vec<u8>, String> {
    let (kind, rest) = words.split_first().ok_or("icmp KIND …")?;
    let peer = flow_named(bench, None)?.peer;
    if kind == "echo" {
        let (mut id, mut seq, mut len) = (0, 0, 0);
        for (name, value) in pairs(rest)? {
            match name {
                "id" => id = parse(value)?,
                "seq" => seq = parse(value)?,
                "len" => len = parse(value)?,
                _ => return Err(format!("`{name}` is not understood")),
            }
        }
        let payload: Vec<u8> = (0..len).map(pattern).collect();
        return Ok(message(peer, bench.local, Icmpv4Message::EchoRequest { id, seq }, &payload));
    }
    let (mut mtu, mut seq, mut flow, mut udp, mut from) = (0, 1i64, None, None, None);
    for (name, value) in pairs(rest)? {
        match name {
            "mtu" => mtu = parse(value)?,
            "seq" => seq = parse(value)?,
            "on" => flow = Some(value),
            "udp" => udp = Some(ports(Some(&value.to_owned()))?),
            "from" => from = Some(parse::<Ipv4Addr>(value)?),
            _ => return Err(format!("`{name}` is not understood")),
        }
    }
    let unreachable = unreachable(kind, mtu)?;
    let flow = flow_named(bench, flow)?;
    let quote = match udp {
        Some((src, dst)) => datagram((bench.local, src), (flow.peer, dst), 0),
        None => {
            let port = flow.local_port.ok_or("the flow's local port is not known yet")?;
            let seq = flow.iss.unwrap_or_default().wrapping_add(seq as u32);
            let mut tcp = Vec::new();
            tcp.extend(port.to_be_bytes());
            tcp.extend(flow.peer_port.to_be_bytes());
            tcp.extend(seq.to_be_bytes());
            let mut ip = Ipv4Header::new(bench.local, flow.peer, TCP, 40);
            ip.dont_fragment = true;
            packet(&ip, &tcp)
        }
    };
    let from = from.unwrap_or(flow.peer);
    Ok(message(from, bench.local, Icmpv4Message::Unreachable(unreachable), &quote))
}

fn unreachable(kind: &str, next_hop_mtu: u16) -> Result<Unreachable, String> {
    match kind {
        "net-unreachable" => Ok(Unreachable::Net),
        "host-unreachable" => Ok(Unreachable::Host),
        "protocol-unreachable" => Ok(Unreachable::Protocol),
        "port-unreachable" => Ok(Unreachable::Port),
        "frag-needed" => Ok(Unreachable::FragmentationNeeded { next_hop_mtu }),
        _ => Err(format!("no ICMP message is called `{kind}`")),
    }
}

fn message(from: Ipv4Addr, to: Ipv4Addr, message: Icmpv4Message, payload: &[u8]) -> Vec<u8> {
    let mut icmp = vec![0; Icmpv4Message::LEN];
    message.emit([payload], &mut icmp);
    icmp.extend_from_slice(payload);
    packet(&Ipv4Header::new(from, to, protocol::ICMP, icmp.len()), &icmp)
}

/// `icmp echo-reply [id N] [seq N] [len N]`, `icmp KIND`.
pub(super) fn expect_icmp(words: &[String], bytes: &[u8]) -> Result<(), String> {
    let (kind, rest) = words.split_first().ok_or("icmp KIND …")?;
    let ip = Ipv4Header::parse(bytes, bytes.len()).map_err(|error| error.to_string())?;
    if ip.protocol != protocol::ICMP {
        return Err("expected ICMP".to_owned());
    }
    let icmp = &bytes[usize::from(ip.header_len)..];
    let found = Icmpv4Message::parse(icmp).map_err(|error| error.to_string())?;
    match (kind.as_str(), found) {
        ("echo-reply", Icmpv4Message::EchoReply { id, seq }) => {
            for (name, value) in pairs(rest)? {
                let right = match name {
                    "id" => id == parse::<u16>(value)?,
                    "seq" => seq == parse::<u16>(value)?,
                    "len" => icmp.len() - Icmpv4Message::LEN == parse::<usize>(value)?,
                    _ => return Err(format!("`{name}` is not understood")),
                };
                if !right {
                    return Err(format!("differs in: {name}"));
                }
            }
            Ok(())
        }
        (kind, Icmpv4Message::Unreachable(found)) if unreachable(kind, 0)? == found => Ok(()),
        (kind, found) => Err(format!("expected {kind}, not {found:?}")),
    }
}
