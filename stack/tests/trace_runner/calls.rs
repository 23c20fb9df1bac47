//! `call`: the socket calls of a trace, and what they must answer.

use std::net::{Ipv4Addr, Shutdown, SocketAddr};

use barewire_stack::tcp::UnknownAlgorithm;
use barewire_stack::{Family, OptionName, PollFlags, SocketError, SocketKind, SocketOption};

use super::bench::{Bench, Socket};
use super::packet::pattern;
use super::script::duration;

/// What a call answered: a word, to be compared with the trace's, and perhaps a new socket.
struct Answer {
    word: String,
    socket: Option<Socket>,
}

impl Answer {
    fn word(word: impl ToString) -> Answer {
        Answer { word: word.to_string(), socket: None }
    }
}

type Called = Result<Answer, SocketError>;

/// `VERB ARGUMENTS [-> name] [= answer]`; without an answer the call has to succeed.
pub(super) fn call(bench: &mut Bench, words: &[String]) -> Result<(), String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (words, wanted) = match words.iter().position(|word| *word == "=") {
        Some(at) => (&words[..at], Some(words[at + 1..].join(" "))),
        None => (&words[..], None),
    };
    let (words, name) = match words.iter().position(|word| *word == "->") {
        Some(at) => (&words[..at], words.get(at + 1).map(|name| (*name).to_owned())),
        None => (words, None),
    };
    let (verb, arguments) = words.split_first().ok_or("call what?")?;
    let called = dispatch(bench, verb, arguments)?;
    let word = match &called {
        Ok(answer) => answer.word.clone(),
        Err(error) => errno_name(*error),
    };
    match wanted {
        Some(wanted) if wanted != word => return Err(format!("it answered {word}")),
        None if called.is_err() => return Err(format!("it answered {word}")),
        Some(_) | None => {}
    }
    if let (Ok(Answer { socket: Some(socket), .. }), Some(name)) = (called, name) {
        bench.sockets.insert(name, socket);
    }
    Ok(())
}

fn dispatch(bench: &mut Bench, verb: &str, arguments: &[&str]) -> Result<Called, String> {
    match (verb, arguments) {
        ("socket", [kind]) => Ok(make(bench, kind_named(kind)?)),
        ("listen", [port, "backlog", backlog]) if port.parse::<u16>().is_ok() => {
            Ok(make_listener(bench, number(port)?, number(backlog)?))
        }
        (verb, [name, rest @ ..]) => {
            let socket =
                *bench.sockets.get(*name).ok_or_else(|| format!("no socket is called `{name}`"))?;
            let called = on_socket(bench, verb, name, socket, rest)?;
            Ok(called)
        }
        _ => Err("no such call".to_owned()),
    }
}

fn make(bench: &mut Bench, kind: SocketKind) -> Called {
    let id = bench.stack.socket(kind, Family::V4)?;
    Ok(Answer { word: "ok".to_owned(), socket: Some(Socket { id, written: 0, read: 0 }) })
}

fn make_listener(bench: &mut Bench, port: u16, backlog: usize) -> Called {
    let answer = make(bench, SocketKind::Tcp)?;
    if let Some(socket) = &answer.socket {
        bench.stack.bind(socket.id, SocketAddr::from((Ipv4Addr::UNSPECIFIED, port)))?;
        bench.stack.listen(socket.id, backlog)?;
    }
    Ok(answer)
}

fn ok(result: Result<(), SocketError>) -> Called {
    result.map(|()| Answer::word("ok"))
}

fn on_socket(
    bench: &mut Bench,
    verb: &str,
    name: &str,
    socket: Socket,
    rest: &[&str],
) -> Result<Called, String> {
    let Socket { id, .. } = socket;
    let peer = bench.flows.get("main").map_or(Ipv4Addr::UNSPECIFIED, |flow| flow.peer);
    let stack = &mut bench.stack;
    Ok(match (verb, rest) {
        ("bind", [to]) => ok(stack.bind(id, address(to, Ipv4Addr::UNSPECIFIED)?)),
        ("listen", [backlog]) => ok(stack.listen(id, number(backlog)?)),
        ("accept", []) => stack.accept(id).map(|(id, _)| Answer {
            word: "ok".to_owned(),
            socket: Some(Socket { id, written: 0, read: 0 }),
        }),
        ("connect", [to]) => ok(stack.connect(id, address(to, peer)?)),
        ("connect", [to, "with", len]) => connect_with(bench, name, socket, to, number(len)?)?,
        ("write", [len, rest @ ..]) => write(bench, name, socket, number(len)?, rest)?,
        ("read" | "peek", [len]) => read(bench, name, socket, number(len)?, verb == "peek")?,
        ("sendto", [to, len]) => {
            let data: Vec<u8> = (0..number(len)?).map(pattern).collect();
            let to = if *to == "-" { None } else { Some(address(to, peer)?) };
            stack.send_to(id, &data, to).map(Answer::word)
        }
        ("recvfrom" | "peekfrom", [len]) => receive(bench, socket, number(len)?, verb)?,
        ("shutdown", [how]) => ok(stack.shutdown(id, direction(how)?)),
        ("close", []) => ok(stack.close(id)),
        ("abort", []) => ok(stack.abort(id)),
        ("error", []) => stack
            .take_error(id)
            .map(|error| Answer::word(error.map_or_else(|| "none".to_owned(), errno_name))),
        ("inq", []) => stack.bytes_readable(id).map(Answer::word),
        ("outq", []) => stack.bytes_unacked(id).map(Answer::word),
        ("outqnsd", []) => stack.bytes_unsent(id).map(Answer::word),
        ("poll", []) => Ok(Answer::word(poll_words(stack.poll_flags(id)))),
        ("name", []) => stack.local_addr(id).map(Answer::word),
        ("peer", []) => stack.peer_addr(id).map(Answer::word),
        ("set", [option, value]) => ok(stack.set_option(id, option_value(option, value)?)),
        ("get", [option]) => {
            stack.option(id, option_name(option)?).map(|option| Answer::word(option_word(option)))
        }
        _ => return Err("no such call".to_owned()),
    })
}

fn write(
    bench: &mut Bench,
    name: &str,
    socket: Socket,
    len: u32,
    rest: &[&str],
) -> Result<Called, String> {
    let data: Vec<u8> = (0..len).map(|i| pattern(socket.written.wrapping_add(i))).collect();
    let written = match rest {
        [] => bench.stack.write(socket.id, &data),
        ["more"] => bench.stack.write_more(socket.id, &data),
        _ => return Err("write SOCKET LENGTH [more]".to_owned()),
    };
    if let (Ok(len), Some(socket)) = (written, bench.sockets.get_mut(name)) {
        socket.written = socket.written.wrapping_add(len as u32);
    }
    Ok(written.map(Answer::word))
}

/// `sendto` with `MSG_FASTOPEN`: what is taken of the data begins the stream.
fn connect_with(
    bench: &mut Bench,
    name: &str,
    socket: Socket,
    to: &str,
    len: u32,
) -> Result<Called, String> {
    let peer = bench.flows.get("main").map_or(Ipv4Addr::UNSPECIFIED, |flow| flow.peer);
    let data: Vec<u8> = (0..len).map(|i| pattern(socket.written.wrapping_add(i))).collect();
    let taken = bench.stack.connect_with(socket.id, address(to, peer)?, &data);
    if let (Ok(len), Some(socket)) = (taken, bench.sockets.get_mut(name)) {
        socket.written = socket.written.wrapping_add(len as u32);
    }
    Ok(taken.map(Answer::word))
}

fn read(
    bench: &mut Bench,
    name: &str,
    socket: Socket,
    len: u32,
    peek: bool,
) -> Result<Called, String> {
    let mut out = vec![0; len as usize];
    let read = match peek {
        true => bench.stack.peek(socket.id, &mut out),
        false => bench.stack.read(socket.id, &mut out),
    };
    let Ok(len) = read else { return Ok(read.map(Answer::word)) };
    let expected = |(i, byte): (usize, &u8)| *byte == pattern(socket.read.wrapping_add(i as u32));
    if !out[..len].iter().enumerate().all(expected) {
        return Err(format!("the {len} bytes read are not those that the peer sent"));
    }
    if let (false, Some(socket)) = (peek, bench.sockets.get_mut(name)) {
        socket.read = socket.read.wrapping_add(len as u32);
    }
    Ok(Ok(Answer::word(len)))
}

/// Answers with the bytes read, and `of N` if the datagram was cut.
fn receive(bench: &mut Bench, socket: Socket, len: u32, verb: &str) -> Result<Called, String> {
    let mut out = vec![0; len as usize];
    let received = match verb {
        "peekfrom" => bench.stack.peek_from(socket.id, &mut out),
        _ => bench.stack.recv_from(socket.id, &mut out),
    };
    let Ok(received) = received else { return Ok(received.map(|_| Answer::word(""))) };
    let expected = |(i, byte): (usize, &u8)| *byte == pattern(i as u32);
    if !out[..received.len].iter().enumerate().all(expected) {
        return Err("the bytes read are not those that the peer sent".to_owned());
    }
    Ok(Ok(Answer::word(match received.full_len == received.len {
        true => received.len.to_string(),
        false => format!("{} of {}", received.len, received.full_len),
    })))
}

fn kind_named(word: &str) -> Result<SocketKind, String> {
    match word {
        "tcp" => Ok(SocketKind::Tcp),
        "udp" => Ok(SocketKind::Udp),
        "ping" => Ok(SocketKind::Ping),
        _ => Err(format!("no socket is of kind `{word}`")),
    }
}

fn number<T: std::str::FromStr>(word: &str) -> Result<T, String> {
    word.parse().map_err(|_| format!("`{word}` is no number here"))
}

/// A port, or an address with one.
fn address(word: &str, default: Ipv4Addr) -> Result<SocketAddr, String> {
    match word.parse::<u16>() {
        Ok(port) => Ok(SocketAddr::from((default, port))),
        Err(_) => word.parse().map_err(|_| format!("`{word}` is no address")),
    }
}

fn direction(word: &str) -> Result<Shutdown, String> {
    match word {
        "read" => Ok(Shutdown::Read),
        "write" => Ok(Shutdown::Write),
        "both" => Ok(Shutdown::Both),
        _ => Err(format!("`{word}` is not read, write or both")),
    }
}

fn poll_words(flags: PollFlags) -> String {
    let names = flags.iter_names().map(|(name, _)| name).collect::<Vec<_>>().join("+");
    if names.is_empty() { "none".to_owned() } else { names }
}

/// The name of an errno, as the manual pages have it.
fn errno_name(error: SocketError) -> String {
    let names = [
        (9, "EBADF"),
        (11, "EAGAIN"),
        (13, "EACCES"),
        (22, "EINVAL"),
        (24, "EMFILE"),
        (32, "EPIPE"),
        (89, "EDESTADDRREQ"),
        (90, "EMSGSIZE"),
        (92, "ENOPROTOOPT"),
        (95, "EOPNOTSUPP"),
        (97, "EAFNOSUPPORT"),
        (98, "EADDRINUSE"),
        (99, "EADDRNOTAVAIL"),
        (101, "ENETUNREACH"),
        (103, "ECONNABORTED"),
        (104, "ECONNRESET"),
        (105, "ENOBUFS"),
        (106, "EISCONN"),
        (107, "ENOTCONN"),
        (110, "ETIMEDOUT"),
        (111, "ECONNREFUSED"),
        (113, "EHOSTUNREACH"),
        (114, "EALREADY"),
        (115, "EINPROGRESS"),
    ];
    let errno = error.errno();
    names
        .iter()
        .find(|(number, _)| *number == errno)
        .map_or_else(|| format!("errno {errno}"), |(_, name)| (*name).to_owned())
}

fn option_value(name: &str, value: &str) -> Result<SocketOption, String> {
    let on = || match value {
        "1" | "on" => Ok(true),
        "0" | "off" => Ok(false),
        _ => Err(format!("`{value}` is not on or off")),
    };
    let time = || duration(value).ok_or_else(|| format!("`{value}` is no time"));
    Ok(match name {
        "SO_REUSEADDR" => SocketOption::ReuseAddr(on()?),
        "SO_REUSEPORT" => SocketOption::ReusePort(on()?),
        "SO_KEEPALIVE" => SocketOption::KeepAlive(on()?),
        "TCP_KEEPIDLE" => SocketOption::KeepIdle(time()?),
        "TCP_KEEPINTVL" => SocketOption::KeepInterval(time()?),
        "TCP_KEEPCNT" => SocketOption::KeepCount(number(value)?),
        "SO_LINGER" if value == "off" => SocketOption::Linger(None),
        "SO_LINGER" => SocketOption::Linger(Some(time()?)),
        "SO_SNDBUF" => SocketOption::SendBuffer(number(value)?),
        "SO_RCVBUF" => SocketOption::RecvBuffer(number(value)?),
        "SO_BROADCAST" => SocketOption::Broadcast(on()?),
        "TCP_NODELAY" => SocketOption::NoDelay(on()?),
        "TCP_CORK" => SocketOption::Cork(on()?),
        "TCP_QUICKACK" => SocketOption::QuickAck(on()?),
        "TCP_MAXSEG" => SocketOption::MaxSeg(number(value)?),
        "TCP_USER_TIMEOUT" if value == "off" => SocketOption::UserTimeout(None),
        "TCP_USER_TIMEOUT" => SocketOption::UserTimeout(Some(time()?)),
        "TCP_LINGER2" => SocketOption::Linger2(time()?),
        "TCP_DEFER_ACCEPT" => SocketOption::DeferAccept(time()?),
        "TCP_FASTOPEN" => SocketOption::FastOpen(number(value)?),
        "TCP_FASTOPEN_CONNECT" => SocketOption::FastOpenConnect(on()?),
        "SO_RCVTIMEO" if value == "off" => SocketOption::RecvTimeout(None),
        "SO_RCVTIMEO" => SocketOption::RecvTimeout(Some(time()?)),
        "SO_SNDTIMEO" if value == "off" => SocketOption::SendTimeout(None),
        "SO_SNDTIMEO" => SocketOption::SendTimeout(Some(time()?)),
        "SO_PRIORITY" => SocketOption::Priority(number(value)?),
        "TCP_CONGESTION" => SocketOption::Congestion(
            value.parse().map_err(|error: UnknownAlgorithm| error.to_string())?,
        ),
        "IP_TTL" => SocketOption::Ttl(number(value)?),
        "IP_TOS" => SocketOption::Tos(number(value)?),
        "IP_MTU_DISCOVER" => SocketOption::DontFragment(on()?),
        _ => return Err(format!("no option is called `{name}`, or not with this value")),
    })
}

fn option_name(name: &str) -> Result<OptionName, String> {
    Ok(match name {
        "SO_REUSEADDR" => OptionName::ReuseAddr,
        "SO_REUSEPORT" => OptionName::ReusePort,
        "SO_KEEPALIVE" => OptionName::KeepAlive,
        "TCP_KEEPIDLE" => OptionName::KeepIdle,
        "TCP_KEEPINTVL" => OptionName::KeepInterval,
        "TCP_KEEPCNT" => OptionName::KeepCount,
        "SO_LINGER" => OptionName::Linger,
        "SO_SNDBUF" => OptionName::SendBuffer,
        "SO_RCVBUF" => OptionName::RecvBuffer,
        "SO_BROADCAST" => OptionName::Broadcast,
        "TCP_NODELAY" => OptionName::NoDelay,
        "TCP_CORK" => OptionName::Cork,
        "TCP_QUICKACK" => OptionName::QuickAck,
        "TCP_MAXSEG" => OptionName::MaxSeg,
        "TCP_USER_TIMEOUT" => OptionName::UserTimeout,
        "TCP_LINGER2" => OptionName::Linger2,
        "TCP_DEFER_ACCEPT" => OptionName::DeferAccept,
        "TCP_FASTOPEN" => OptionName::FastOpen,
        "TCP_FASTOPEN_CONNECT" => OptionName::FastOpenConnect,
        "SO_RCVTIMEO" => OptionName::RecvTimeout,
        "SO_SNDTIMEO" => OptionName::SendTimeout,
        "SO_PRIORITY" => OptionName::Priority,
        "TCP_CONGESTION" => OptionName::Congestion,
        "IP_TTL" => OptionName::Ttl,
        "IP_TOS" => OptionName::Tos,
        "IP_MTU_DISCOVER" => OptionName::DontFragment,
        _ => return Err(format!("no option is called `{name}`")),
    })
}

/// The value of an option, as a trace writes it.
fn option_word(option: SocketOption) -> String {
    match option {
        SocketOption::ReuseAddr(on)
        | SocketOption::ReusePort(on)
        | SocketOption::KeepAlive(on)
        | SocketOption::Broadcast(on)
        | SocketOption::NoDelay(on)
        | SocketOption::Cork(on)
        | SocketOption::QuickAck(on)
        | SocketOption::FastOpenConnect(on)
        | SocketOption::DontFragment(on) => if on { "on" } else { "off" }.to_owned(),
        SocketOption::KeepIdle(time)
        | SocketOption::KeepInterval(time)
        | SocketOption::Linger2(time)
        | SocketOption::DeferAccept(time)
        | SocketOption::RecvTimeout(Some(time))
        | SocketOption::SendTimeout(Some(time))
        | SocketOption::Linger(Some(time))
        | SocketOption::UserTimeout(Some(time)) => format!("{time:?}"),
        SocketOption::Linger(None)
        | SocketOption::UserTimeout(None)
        | SocketOption::RecvTimeout(None)
        | SocketOption::SendTimeout(None) => "off".to_owned(),
        SocketOption::KeepCount(n)
        | SocketOption::Priority(n)
        | SocketOption::Ttl(n)
        | SocketOption::Tos(n) => n.to_string(),
        SocketOption::SendBuffer(n) | SocketOption::RecvBuffer(n) | SocketOption::FastOpen(n) => {
            n.to_string()
        }
        SocketOption::MaxSeg(n) => n.to_string(),
        SocketOption::Congestion(algorithm) => algorithm.name().to_owned(),
        option => format!("{option:?}"),
    }
}
