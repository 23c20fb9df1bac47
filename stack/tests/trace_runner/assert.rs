//! `assert`: what must be true of a connection or of the stack.

use std::time::Duration;

use barewire_stack::tcp::{Figures, TcpInfo};

use super::bench::Bench;
use super::script::duration;

/// `SOCKET state == STATE`, `SOCKET limit == REASON`, `SOCKET EXPRESSION OP EXPRESSION`, `counter NAME OP EXPRESSION`,
/// `stack NAME OP EXPRESSION`.
pub(super) fn check(bench: &Bench, words: &[String]) -> Result<(), String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (subject, rest) = words.split_first().ok_or("assert what?")?;
    if let [what @ ("state" | "limit"), op @ ("==" | "!="), wanted] = rest {
        let info = info(bench, subject)?;
        let found = if *what == "state" { info.state.to_string() } else { info.limit.to_string() };
        return verdict((found == *wanted) == (*op == "=="), what, found);
    }
    let at = rest.iter().position(|word| ["==", "!=", "<", "<=", ">", ">="].contains(word));
    let at = at.ok_or("assert SUBJECT EXPRESSION OP EXPRESSION")?;
    let value = |name: &str| value_of(bench, subject, name);
    let left = evaluate(&rest[..at].concat(), &value)?;
    let right = evaluate(&rest[at + 1..].concat(), &value)?;
    let right_is = match rest[at] {
        "==" => left == right,
        "!=" => left != right,
        "<" => left < right,
        "<=" => left <= right,
        ">" => left > right,
        _ => left >= right,
    };
    verdict(right_is, &rest[..at].concat(), format!("{left}, the other side {right}"))
}

fn verdict(right: bool, what: &str, found: String) -> Result<(), String> {
    if right { Ok(()) } else { Err(format!("{what} is {found}")) }
}

fn info(bench: &Bench, name: &str) -> Result<TcpInfo, String> {
    let socket = bench.sockets.get(name).ok_or_else(|| format!("no socket is called `{name}`"))?;
    bench.stack.tcp_info(socket.id).map_err(|error| error.to_string())
}

fn figures(bench: &Bench, name: &str) -> Result<Figures, String> {
    let socket = bench.sockets.get(name).ok_or_else(|| format!("no socket is called `{name}`"))?;
    bench.stack.figures(socket.id).map_err(|error| error.to_string())
}

fn value_of(bench: &Bench, subject: &str, name: &str) -> Result<i128, String> {
    match subject {
        "counter" => bench
            .stack
            .counters()
            .named()
            .find(|(counter, _)| *counter == name)
            .map(|(_, value)| i128::from(value))
            .ok_or_else(|| format!("nothing is counted as `{name}`")),
        "stack" => match name {
            "sockets" => Ok(bench.stack.sockets() as i128),
            "half_open" => Ok(bench.stack.half_open() as i128),
            "time_wait" => Ok(bench.stack.time_wait() as i128),
            "orphans" => Ok(bench.stack.orphans() as i128),
            "timers" => Ok(bench.stack.timers() as i128),
            _ => Err(format!("the stack has no `{name}`")),
        },
        socket if name.starts_with("tcpi_") => info(bench, socket)?
            .named()
            .find(|(field, _)| *field == name)
            .map(|(_, value)| i128::from(value))
            .ok_or_else(|| format!("TCP_INFO has no `{name}`")),
        socket => info_value(&figures(bench, socket)?, name),
    }
}

fn info_value(info: &Figures, name: &str) -> Result<i128, String> {
    let micros = |time: Duration| time.as_micros() as i128;
    Ok(match name {
        "mss" => i128::from(info.mss),
        "cwnd" => i128::from(info.cwnd_bytes),
        "ssthresh" => i128::from(info.ssthresh_bytes),
        "snd_wnd" => i128::from(info.snd_wnd_bytes),
        "rcv_wnd" => i128::from(info.rcv_wnd_bytes),
        "flight" => i128::from(info.in_flight_bytes),
        "retransmissions" => i128::from(info.retransmissions),
        "bytes_acked" => i128::from(info.bytes_acked),
        "bytes_received" => i128::from(info.bytes_received),
        "srtt" => info.srtt.map_or(0, micros),
        "rttvar" => micros(info.rttvar),
        "rto" => micros(info.rto),
        _ => return Err(format!("a connection has no `{name}`")),
    })
}

/// Sums and differences of products of numbers, times (in microseconds) and names.
fn evaluate(text: &str, value: &impl Fn(&str) -> Result<i128, String>) -> Result<i128, String> {
    let mut sum = 0;
    let mut sign = 1;
    let mut rest = text;
    loop {
        let end = rest.find(['+', '-']).unwrap_or(rest.len());
        let mut product = sign;
        for factor in rest[..end].split('*') {
            product *= operand(factor, value)?;
        }
        sum += product;
        if end == rest.len() {
            return Ok(sum);
        }
        sign = if rest[end..].starts_with('+') { 1 } else { -1 };
        rest = &rest[end + 1..];
    }
}

fn operand(word: &str, value: &impl Fn(&str) -> Result<i128, String>) -> Result<i128, String> {
    if let Ok(number) = word.parse() {
        return Ok(number);
    }
    match duration(word) {
        Some(time) => Ok(time.as_micros() as i128),
        None => value(word),
    }
}
