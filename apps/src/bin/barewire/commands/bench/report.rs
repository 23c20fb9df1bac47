//! How results are told: to people on standard output, to programs as JSON.

use std::fs::File;
use std::io::Write;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Value, json};

use super::hello::Mode;
use super::tally::Tally;
use super::work::{Pace, Plan};
use crate::cli::Direction;
use crate::output;

/// The part of all requests that are no slower, with the name of each.
const QUANTILES: [(&str, f64); 6] = [
    ("p50", 0.5),
    ("p75", 0.75),
    ("p90", 0.9),
    ("p99", 0.99),
    ("p99_9", 0.999),
    ("p99_99", 0.9999),
];

/// A client's run, and what came of it.
pub(super) struct Run<'a> {
    /// The device, or `kernel`.
    pub(super) side: &'a str,
    pub(super) server: SocketAddr,
    pub(super) plan: &'a Plan,
    pub(super) tally: &'a Tally,
    /// It was ended before its time.
    pub(super) cut: bool,
}

impl Run<'_> {
    /// Prints the result, and writes it to `json`.
    ///
    /// # Errors
    /// When standard output is closed or the file cannot be written.
    pub(super) fn tell(&self, json: Option<JsonFile>) -> anyhow::Result<()> {
        output::line(self.text())?;
        json.map_or(Ok(()), |file| file.write(&self.json()))
    }

    /// The time that counts. Bytes of a stream are carried when the last connection has ended. Of
    /// exchanges only those count that were due, or have ended, in the time that was asked for: the
    /// last answers may come later, or be waited for in vain.
    fn seconds(&self) -> f64 {
        let (ran, asked) = (self.tally.seconds(), self.plan.time.as_secs_f64());
        match (self.plan.hello.mode, self.plan.pace) {
            (Mode::Stream(_), _) => ran,
            (Mode::Requests | Mode::Once, Pace::Closed { .. }) if self.cut => ran.min(asked),
            (Mode::Requests | Mode::Once, Pace::Open { .. }) if self.cut => ran,
            (Mode::Requests | Mode::Once, Pace::Closed { .. } | Pace::Open { .. }) => asked,
        }
    }

    fn mode(&self) -> &'static str {
        match self.plan.hello.mode {
            Mode::Stream(Direction::Up) => "stream up",
            Mode::Stream(Direction::Down) => "stream down",
            Mode::Stream(Direction::Both) => "stream both",
            Mode::Requests => "rr",
            Mode::Once => "conn",
        }
    }

    fn is_stream(&self) -> bool {
        match self.plan.hello.mode {
            Mode::Stream(_) => true,
            Mode::Requests | Mode::Once => false,
        }
    }

    fn per_second(&self, number: u64) -> f64 {
        let seconds = self.seconds();
        if seconds > 0.0 { number as f64 / seconds } else { 0.0 }
    }

    fn text(&self) -> String {
        let Run { side, server, plan, tally, cut: _ } = *self;
        let mut text = format!(
            "{} on {side} with {server}: {} connections at a time, {:.2} s\n",
            self.mode(),
            plan.connections,
            self.seconds()
        );
        if self.is_stream() {
            for (name, bytes) in [("sent", tally.sent_bytes), ("received", tally.received_bytes)] {
                if bytes > 0 {
                    let rate = output::bits(self.per_second(bytes));
                    text += &format!("  {name:9} {}, {rate}\n", output::bytes(bytes));
                }
            }
        } else {
            let rate = self.per_second(tally.exchanges);
            let what = if plan.hello.mode == Mode::Once { "connections" } else { "requests" };
            text += &format!("  {rate:.0} {what}/s, {} in all\n", output::count(tally.exchanges));
            text += &self.latencies();
        }
        if let (Pace::Open { rate }, unsent) = (plan.pace, tally.unsent) {
            let unsent = output::count(unsent);
            text += &format!("  {rate} requests/s were due; {unsent} could not be sent\n");
        }
        if tally.open_at_end > 0 {
            let open = output::count(tally.open_at_end);
            text += &format!("  {open} open at the end, in no rate\n");
        }
        if tally.unanswered > 0 {
            let unanswered = output::count(tally.unanswered);
            text += &format!("  {unanswered} sent, never answered, and timed all the same\n");
        }
        text + &errors(tally)
    }

    fn latencies(&self) -> String {
        let histogram = &self.tally.latency;
        let mut text = "  latency  ".to_owned();
        for (name, quantile) in QUANTILES {
            let name = name.replace('_', ".");
            text += &format!(" {name} {}", micros(histogram.value_at_quantile(quantile)));
        }
        text + &format!(" max {}\n", micros(histogram.max()))
    }

    fn json(&self) -> Value {
        let Run { side, server, plan, tally, cut } = *self;
        let (pipeline, rate) = match plan.pace {
            Pace::Closed { pipeline } => (Some(pipeline), None),
            Pace::Open { rate } => (None, Some(rate)),
        };
        let mut value = json!({
            "mode": self.mode(),
            "side": side,
            "server": server.to_string(),
            "connections": plan.connections,
            "seconds": self.seconds(),
            "complete": !cut,
            "connected": tally.connections,
            "sent_bytes": tally.sent_bytes,
            "received_bytes": tally.received_bytes,
            "sent_bytes_per_s": self.per_second(tally.sent_bytes),
            "received_bytes_per_s": self.per_second(tally.received_bytes),
            "errors": tally.errors,
            "first_error": tally.first_error.as_ref().map(ToString::to_string),
        });
        if self.is_stream() {
            value["owned"] = plan.hello.owned.into();
        } else {
            value["size"] = plan.hello.size.into();
            value["answer"] = plan.hello.answer.into();
            value["pipeline"] = pipeline.into();
            value["rate"] = rate.into();
            value["exchanges"] = tally.exchanges.into();
            value["exchanges_per_s"] = self.per_second(tally.exchanges).into();
            // At a fixed rate all that were due count, whenever they are answered.
            value["open_at_end"] = pipeline.map(|_| tally.open_at_end).into();
            value["unsent"] = tally.unsent.into();
            value["unanswered"] = tally.unanswered.into();
            value["latency_ns"] = self.latencies_json();
        }
        value
    }

    fn latencies_json(&self) -> Value {
        let histogram = &self.tally.latency;
        let mut value = json!({
            "min": histogram.min(),
            "mean": histogram.mean(),
            "max": histogram.max(),
        });
        for (name, quantile) in QUANTILES {
            value[name] = histogram.value_at_quantile(quantile).into();
        }
        value
    }
}

fn micros(ns: u64) -> String {
    format!("{:.1} us", ns as f64 / 1000.0)
}

fn errors(tally: &Tally) -> String {
    match &tally.first_error {
        Some(first) => format!("  {} errors, first: {first}", output::count(tally.errors)),
        None => "  no errors".to_owned(),
    }
}

/// What a server has done.
pub(super) fn server(tally: &Tally) -> String {
    format!(
        "served {} connections: {} requests, {} received, {} sent\n{}",
        output::count(tally.connections),
        output::count(tally.exchanges),
        output::bytes(tally.received_bytes),
        output::bytes(tally.sent_bytes),
        errors(tally),
    )
}

/// Where a result for programs goes: opened before anything is measured that could not be written.
pub(super) struct JsonFile {
    file: File,
    path: PathBuf,
}

impl JsonFile {
    /// The file of `--json`, if it was given.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub(super) fn create(path: Option<&Path>) -> anyhow::Result<Option<JsonFile>> {
        let create = |path: &Path| {
            let file = File::create(path)
                .with_context(|| format!("{} cannot be written", path.display()))?;
            Ok(JsonFile { file, path: path.to_owned() })
        };
        path.map(create).transpose()
    }

    /// # Errors
    /// When the file cannot be written.
    pub(super) fn write(mut self, value: &Value) -> anyhow::Result<()> {
        self.file
            .write_all(format!("{value:#}\n").as_bytes())
            .with_context(|| format!("{} cannot be written", self.path.display()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::bench::gate::Gate;
    use crate::commands::bench::hello::Hello;
    use crate::commands::bench::tally::Failure;
    use std::time::{Duration, Instant};

    fn tally() -> Tally {
        let mut tally = Tally::new();
        let begin = Instant::now();
        tally.ran(begin, begin + Duration::from_secs(2));
        (1..=1000).for_each(|us| tally.answered(Duration::from_micros(us)));
        (tally.connections, tally.sent_bytes) = (3, 2_500_000_000);
        tally
    }

    fn plan(mode: Mode, pace: Pace) -> Plan {
        let hello = Hello { mode, owned: true, size: 64, answer: 8, millis: 2000 };
        Plan { hello, time: Duration::from_secs(2), connections: 3, pace, gate: Gate::new(3) }
    }

    #[test]
    fn rates_and_latencies_are_told_both_ways() {
        let (tally, plan) = (tally(), plan(Mode::Requests, Pace::Open { rate: 600 }));
        let server = "10.77.0.1:7777".parse().unwrap();
        let run = Run { side: "kernel", server, plan: &plan, tally: &tally, cut: false };
        let text = run.text();
        for says in [
            "rr on kernel with 10.77.0.1:7777: 3 connections at a time, 2.00 s",
            "500 requests/s, 1,000 in all",
            "p50 500.",
            "p99.99 1000.",
            "600 requests/s were due; 0 could not be sent",
            "no errors",
        ] {
            assert!(text.contains(says), "{says}: {text}");
        }
        let value = run.json();
        assert_eq!(value["exchanges_per_s"], 500.0);
        assert_eq!((&value["rate"], &value["pipeline"]), (&json!(600), &Value::Null));
        // Three digits are kept.
        let p99 = value["latency_ns"]["p99"].as_u64().unwrap();
        assert!((989_000..=991_000).contains(&p99), "{p99}");
    }

    #[test]
    fn requests_without_an_answer_are_told_and_their_wait_is_not_the_runs_time() {
        let (mut tally, plan) = (tally(), plan(Mode::Requests, Pace::Open { rate: 600 }));
        tally.unanswered(Duration::from_secs(11));
        // Ten seconds were waited for it.
        let begin = Instant::now();
        tally.ran(begin, begin + Duration::from_secs(12));
        let server = "10.77.0.1:7777".parse().unwrap();
        let run = Run { side: "kernel", server, plan: &plan, tally: &tally, cut: false };
        let text = run.text();
        for says in ["2.00 s\n", "500 requests/s, 1,000 in all", "1 sent, never answered"] {
            assert!(text.contains(says), "{says}: {text}");
        }
        let value = run.json();
        assert_eq!((&value["unanswered"], &value["complete"]), (&json!(1), &json!(true)));
        assert!(value["latency_ns"]["max"].as_u64().unwrap() > 10_900_000_000, "{value}");
        let cut = Run { cut: true, ..run };
        assert!(cut.seconds() >= 12.0);
        assert_eq!(cut.json()["complete"], false);
    }

    #[test]
    fn one_that_is_late_does_not_stretch_the_time_of_all() {
        for mode in [Mode::Once, Mode::Requests] {
            let (mut tally, plan) = (tally(), plan(mode, Pace::Closed { pipeline: 1 }));
            let begin = Instant::now();
            tally.ran(begin, begin + Duration::from_secs(12));
            tally.late(Duration::from_secs(11));
            tally.fail(Failure::TimedOut);
            let server = "10.77.0.1:7777".parse().unwrap();
            let run = Run { side: "kernel", server, plan: &plan, tally: &tally, cut: false };
            let text = run.text();
            for says in ["2.00 s\n", "  500 ", "1 open at the end, in no rate", "1 errors, first"] {
                assert!(text.contains(says), "{says}: {text}");
            }
            let value = run.json();
            assert_eq!(
                (&value["seconds"], &value["exchanges_per_s"]),
                (&json!(2.0), &json!(500.0))
            );
            assert_eq!((&value["open_at_end"], &value["errors"]), (&json!(1), &json!(1)));
            // The user has asked for the end while the last were waited for.
            let cut = Run { cut: true, ..run };
            assert_eq!(cut.seconds(), 2.0);
        }
    }

    #[test]
    fn a_stream_tells_what_went_which_way_and_what_failed() {
        let (mut tally, plan) =
            (tally(), plan(Mode::Stream(Direction::Up), Pace::Closed { pipeline: 1 }));
        tally.fail(Failure::Ended);
        let server = "10.77.0.1:7777".parse().unwrap();
        let run = Run { side: "tap:bw0", server, plan: &plan, tally: &tally, cut: false };
        let text = run.text();
        assert!(text.contains("sent      2.33 GiB, 10.00 Gbit/s\n"), "{text}");
        assert!(!text.contains("received") && !text.contains("latency"), "{text}");
        assert!(text.ends_with("1 errors, first: the other side ended a connection early"));
        let value = run.json();
        assert_eq!((&value["owned"], &value["errors"]), (&json!(true), &json!(1)));
        assert!(value.get("latency_ns").is_none());
    }
}
