//! `barewire ping`: ICMP echo requests from our own stack.

use std::net::{IpAddr, ToSocketAddrs};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::Context;

use super::start::{start, watch};
use crate::cli::PingArgs;
use crate::output::{self, Advice};
use crate::signals::Stop;

/// Exit status when nothing answered, as the system's own ping has it.
const NO_ANSWER: u8 = 1;

/// What the answers add up to.
#[derive(Debug, Default)]
struct Tally {
    sent: u64,
    received: u64,
    min: Option<Duration>,
    max: Duration,
    sum: Duration,
}

impl Tally {
    fn answer(&mut self, time: Duration) {
        self.received += 1;
        self.min = Some(self.min.map_or(time, |min| min.min(time)));
        self.max = self.max.max(time);
        self.sum += time;
    }

    fn summary(&self) -> String {
        let lost = 100.0 * (self.sent - self.received) as f64 / self.sent.max(1) as f64;
        let mut text = format!("{} sent, {} received, {lost:.0}% lost", self.sent, self.received);
        if let Some(min) = self.min {
            let mean = self.sum.as_secs_f64() / self.received as f64;
            text.push_str(&format!(
                "; round trip min {} mean {} max {}",
                millis(min.as_secs_f64()),
                millis(mean),
                millis(self.max.as_secs_f64()),
            ));
        }
        text
    }
}

pub(crate) fn run(args: PingArgs) -> anyhow::Result<ExitCode> {
    let host = resolve(&args.host)?;
    let stop = Stop::install().context("signals cannot be received")?;
    let bw = start(&args.device)?;
    output::line(format_args!(
        "ping {host} from {}: {} bytes",
        args.device.address.addr, args.size
    ))?;
    let mut tally = Tally::default();
    while args.count == 0 || tally.sent < args.count {
        let begin = Instant::now();
        tally.sent += 1;
        match bw.ping(host, usize::from(args.size), args.timeout.duration()) {
            Ok(time) => {
                tally.answer(time);
                let time = millis(time.as_secs_f64());
                output::line(format_args!(
                    "{} bytes from {host}: seq={} time={time}",
                    args.size, tally.sent
                ))?;
            }
            Err(error) => output::line(format_args!("seq={}: {error}", tally.sent))?,
        }
        watch(&bw)?;
        let last = args.count != 0 && tally.sent == args.count;
        if last || stop.wait(args.interval.duration().saturating_sub(begin.elapsed())) {
            break;
        }
    }
    bw.stop().check().context("the engines did not stop cleanly")?;
    output::line(tally.summary())?;
    Ok(if tally.received > 0 { ExitCode::SUCCESS } else { ExitCode::from(NO_ANSWER) })
}

/// The host's IPv4 address, by the machine's own resolver if it is a name.
pub(super) fn resolve(host: &str) -> anyhow::Result<IpAddr> {
    let next = "give an IPv4 address, or a name that `getent ahostsv4` finds";
    let found = (host, 0)
        .to_socket_addrs()
        .map_err(|error| Advice::new(format!("`{host}` is not known: {error}"), next))?;
    let address = found.map(|address| address.ip()).find(IpAddr::is_ipv4);
    address.ok_or_else(|| Advice::new(format!("`{host}` has no IPv4 address"), next).into())
}

fn millis(seconds: f64) -> String {
    format!("{:.3} ms", seconds * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tally_counts_losses_and_times() {
        let mut tally = Tally { sent: 4, ..Tally::default() };
        assert_eq!(tally.summary(), "4 sent, 0 received, 100% lost");
        for ms in [3, 1, 2] {
            tally.answer(Duration::from_millis(ms));
        }
        assert_eq!(
            tally.summary(),
            "4 sent, 3 received, 25% lost; round trip min 1.000 ms mean 2.000 ms max 3.000 ms"
        );
    }

    #[test]
    fn hosts_are_addresses_or_known_names() {
        assert_eq!(resolve("10.77.0.1").unwrap(), IpAddr::from([10, 77, 0, 1]));
        assert!(resolve("::1").unwrap_err().to_string().contains("no IPv4 address"));
    }
}
