//! The lines of a trace, one after another.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use barewire_stack::wire::protocol;
use barewire_stack::{Instant, Settings};

use super::bench::{Bench, Flow, Waiting, apart, local_address};
use super::packet::Segment;
use super::script::{Line, When, duration};
use super::{Failure, assert, calls, icmp};

/// The flow of segments that name none.
const MAIN: &str = "main";

/// How far from its time a packet may be sent: the timer wheel's tick, rounded up.
const TOLERANCE: Duration = Duration::from_millis(2);

/// A trace on its way.
pub(crate) struct Run {
    lines: Vec<Line>,
    settings: Settings,
    flows: HashMap<String, Flow>,
    tolerance: Duration,
}

impl Run {
    pub(crate) fn new(lines: Vec<Line>) -> Result<Run, Failure> {
        let settings = Settings::new();
        let flow = Flow {
            peer: Ipv4Addr::new(10, 0, 0, 2),
            peer_port: 4000,
            local: local_address(&settings),
            local_port: Some(80),
            peer_isn: 1000,
            iss: None,
            ts_base: None,
            ts_last: 0,
            cookie: None,
        };
        let flows = HashMap::from([(MAIN.to_owned(), flow)]);
        Ok(Run { lines, settings, flows, tolerance: TOLERANCE })
    }

    /// Plays the trace to its end.
    pub(crate) fn play(mut self) -> Result<(), Failure> {
        let lines = std::mem::take(&mut self.lines);
        let acts = |line: &&Line| !matches!(line.words[0].as_str(), "set" | "tolerance");
        let setup = lines.iter().take_while(|line| !acts(line)).count();
        for line in &lines[..setup] {
            self.set_up(line)?;
        }
        let local = local_address(&self.settings);
        for flow in self.flows.values_mut() {
            flow.local = local;
        }
        let mut bench = Bench::new(&self.settings, std::mem::take(&mut self.flows))
            .map_err(|why| Failure(format!("the stack cannot be made: {why}")))?;
        for line in &lines[setup..] {
            self.act(&mut bench, line)
                .map_err(|why| line.fails(format!("at {}: {why}", bench.now)))?;
        }
        bench.collect().map_err(Failure)?;
        match bench.sent.front() {
            None => Ok(()),
            Some(left) => {
                let last = lines.last().map_or("", |line| &line.place);
                Err(Failure(format!(
                    "{last}: the trace ends, and nothing has looked at\n    sent: {}",
                    bench.describe(left)
                )))
            }
        }
    }

    fn set_up(&mut self, line: &Line) -> Result<(), Failure> {
        let words: Vec<_> = line.words.iter().map(String::as_str).collect();
        match words[..] {
            ["set", name, value] => {
                self.settings.set(name, value).map_err(|error| line.fails(error))
            }
            ["tolerance", time] => {
                self.tolerance = duration(time).ok_or_else(|| line.fails("this is no time"))?;
                Ok(())
            }
            _ => Err(line.fails("set NAME VALUE, or tolerance TIME")),
        }
    }

    fn act(&self, bench: &mut Bench, line: &Line) -> Result<(), String> {
        let words = &line.words;
        match words[0].as_str() {
            "expect" => return self.expect(bench, line),
            "skip" => {
                self.pass(bench, line.when, true)?;
                bench.collect()?;
                bench.sent.clear();
                return Ok(());
            }
            _ => {}
        }
        self.pass(bench, line.when, false)?;
        match words[0].as_str() {
            "flow" => define_flow(bench, &words[1..]),
            "inject" => inject(bench, &words[1..]),
            "call" => calls::call(bench, &words[1..]),
            "assert" => assert::check(bench, &words[1..]),
            "set" | "tolerance" => Err("settings stand before everything else".to_owned()),
            _ => Err("no line begins with this word".to_owned()),
        }?;
        bench.collect()
    }

    /// Lets time pass before a line; nothing may be sent meanwhile, unless it is `skip`ped.
    fn pass(&self, bench: &mut Bench, when: When, skip: bool) -> Result<(), String> {
        let until = match when {
            When::Now => return Ok(()),
            When::After(span) => bench.now + span,
            When::At(time) => Instant::ZERO + time,
            When::Within(_) => return Err("`within` is for expect".to_owned()),
        };
        if until < bench.now {
            return Err(format!("{until} has passed"));
        }
        self.quiet_until(bench, until, skip)
    }

    fn quiet_until(&self, bench: &mut Bench, until: Instant, skip: bool) -> Result<(), String> {
        loop {
            bench.advance(until)?;
            match bench.sent.front() {
                None => return Ok(()),
                Some(_) if skip => bench.sent.clear(),
                Some(sent) => {
                    return Err(format!("nothing expects it\n    sent: {}", bench.describe(sent)));
                }
            }
        }
    }

    fn expect(&self, bench: &mut Bench, line: &Line) -> Result<(), String> {
        let words = &line.words[1..];
        if words.first().is_some_and(|word| word == "nothing") {
            return self.expect_nothing(bench, line.when, &words[1..]);
        }
        let (count, words) = match words {
            [count, star, rest @ ..] if star == "*" => {
                (count.parse().map_err(|_| "expect COUNT * PACKET")?, rest)
            }
            words => (1u32, words),
        };
        for i in 0..count {
            let when = if i == 0 { line.when } else { When::Now };
            let waiting = self.next_packet(bench, when)?;
            expect_packet(bench, words, &waiting, i)?;
        }
        Ok(())
    }

    fn expect_nothing(
        &self,
        bench: &mut Bench,
        when: When,
        words: &[String],
    ) -> Result<(), String> {
        self.pass(bench, when, false)?;
        let words: Vec<_> = words.iter().map(String::as_str).collect();
        let until = match words[..] {
            [] => bench.now,
            ["for", span] => bench.now + duration(span).ok_or("this is no time")?,
            ["until", at] => {
                let at = at.strip_prefix('@').and_then(duration).ok_or("until @TIME")?;
                Instant::ZERO + at
            }
            _ => return Err("expect nothing [for TIME | until @TIME]".to_owned()),
        };
        self.quiet_until(bench, until, false)
    }

    /// The next packet, sent at its time.
    fn next_packet(&self, bench: &mut Bench, when: When) -> Result<Waiting, String> {
        let (earliest, latest) = match when {
            When::Now => (bench.now, bench.now),
            When::After(span) => (bench.now + span, bench.now + span),
            When::At(time) => (Instant::ZERO + time, Instant::ZERO + time),
            When::Within(span) => (bench.now, bench.now + span),
        };
        let slack = if when == When::Now { Duration::ZERO } else { self.tolerance };
        bench.advance(latest + slack)?;
        let Some(waiting) = bench.sent.pop_front() else {
            return Err(format!("nothing was sent until {}", latest + slack));
        };
        let at = waiting.packet.at;
        let early = at < earliest && apart(at, earliest) > slack;
        let late = at > latest && apart(at, latest) > slack;
        if early || late {
            let told = bench.describe(&waiting);
            let wanted = match earliest == latest {
                true => format!("at {latest}"),
                false => format!("from {earliest} to {latest}"),
            };
            return Err(format!("expected {wanted}\n    sent: {told}"));
        }
        Ok(waiting)
    }
}

/// Compares packet number `i` of a line with what was sent.
fn expect_packet(bench: &Bench, words: &[String], waiting: &Waiting, i: u32) -> Result<(), String> {
    let told = || format!("\n    sent: {}", bench.describe(waiting));
    let bytes = &waiting.packet.bytes;
    match words.first().map(String::as_str) {
        Some("udp") => {
            return icmp::expect_udp(&words[1..], bytes).map_err(|why| why + &told());
        }
        Some("icmp") => {
            return icmp::expect_icmp(&words[1..], bytes).map_err(|why| why + &told());
        }
        _ => {}
    }
    let wanted = Segment::parse(words)?;
    let name = wanted.flow.as_deref().unwrap_or(MAIN);
    let flow = bench.flows.get(name).ok_or_else(|| format!("no flow is called {name}"))?;
    let Some((found, sent)) = &waiting.segment else {
        return Err(format!("expected TCP{}", told()));
    };
    if found != name {
        return Err(format!("expected on flow {name}{}", told()));
    }
    let wanted = wanted.advanced(i);
    let differences = wanted.differences(sent, flow);
    if differences.is_empty() {
        Ok(())
    } else {
        Err(format!("differs in: {}{}", differences.join(", "), told()))
    }
}

fn inject(bench: &mut Bench, words: &[String]) -> Result<(), String> {
    let (times, words) = match words {
        [count, star, rest @ ..] if star == "*" => {
            (count.parse().map_err(|_| "inject COUNT * PACKET")?, rest)
        }
        words => (1u32, words),
    };
    for i in 0..times {
        let packet = match words.first().map(String::as_str) {
            Some("udp") => icmp::build_udp(bench, &words[1..])?,
            Some("icmp") => icmp::build_icmp(bench, &words[1..])?,
            _ => {
                let segment = Segment::parse(words)?.advanced(i);
                let name = segment.flow.as_deref().unwrap_or(MAIN);
                let flow = bench.flows.get(name);
                segment.build(flow.ok_or_else(|| format!("no flow is called {name}"))?)?
            }
        };
        bench.stack.handle_packet(bench.now, &packet).map_err(|error| error.to_string())?;
        bench.collect()?;
    }
    Ok(())
}

/// `NAME [peer PORT] [local PORT|any] [addr ADDRESS] [isn NUMBER]`.
fn define_flow(bench: &mut Bench, words: &[String]) -> Result<(), String> {
    let (name, rest) = words.split_first().ok_or("flow NAME …")?;
    let mut flow = match bench.flows.get(name) {
        Some(flow) => flow.clone(),
        None => {
            let main = bench.flows.get(MAIN).ok_or("no flow is called main")?;
            Flow { iss: None, ts_base: None, ts_last: 0, local_port: Some(80), ..main.clone() }
        }
    };
    for pair in rest.chunks(2) {
        let [key, value] = pair else { return Err(format!("`{}` needs a value", pair[0])) };
        let bad = || format!("`{key} {value}` is not understood");
        match key.as_str() {
            "peer" => flow.peer_port = value.parse().map_err(|_| bad())?,
            "local" if value == "any" => flow.local_port = None,
            "local" => flow.local_port = Some(value.parse().map_err(|_| bad())?),
            "addr" => flow.peer = value.parse().map_err(|_| bad())?,
            "isn" => flow.peer_isn = value.parse().map_err(|_| bad())?,
            _ => return Err(bad()),
        }
    }
    flow.local = bench.local;
    bench.flows.insert(name.clone(), flow);
    Ok(())
}

/// The protocol that a flow's segments are of, for quotes.
pub(super) const TCP: u8 = protocol::TCP;

/// The flow that words about a packet name, or the main one.
pub(super) fn flow_named<'a>(bench: &'a Bench, name: Option<&str>) -> Result<&'a Flow, String> {
    let name = name.unwrap_or(MAIN);
    bench.flows.get(name).ok_or_else(|| format!("no flow is called {name}"))
}
