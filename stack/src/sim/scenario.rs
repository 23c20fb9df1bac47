//! From a seed to a network, and from the network to a verdict.

use std::fmt;
use std::io::Write;
use std::time::Duration;

use super::app::{App, Context};
use super::draw;
use super::host::Host;
use super::oracle::{Figures, Oracle, states_fit};
use super::window::WireCheck;
use super::world::World;
use crate::rng::Rng;
use crate::stack::Limits;
use crate::time::Instant;

/// Longest run in virtual time: two hours of work and the ends of all connections.
const MAX_VIRTUAL_TIME: Duration = Duration::from_secs(4 * 3600);

/// Most rounds of a run, and most at one moment of it.
const MAX_ROUNDS: u64 = 3_000_000;
const MAX_ROUNDS_AT_ONCE: u32 = 20_000;

/// Frames that the hosts may send in a run, and those after which the applications come to an end.
/// Between them lies what is in buffers then, and the ends of all connections.
pub const MAX_FRAMES: u64 = 30_000;
const ENOUGH_FRAMES: u64 = 20_000;

/// Rounds between two looks at the states of all connections.
const STATE_CHECK_ROUNDS: u64 = 64;

/// How long after the last application's end everything must be gone: orphans, FIN-WAIT-2 and
/// TIME-WAIT after the longest series of retransmissions.
const END_TIME: Duration = Duration::from_secs(3600);

/// What the wire does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weather {
    /// Frames arrive at once, in order and whole.
    Calm,
    /// Every fault, to a degree that depends on the seed.
    Foul,
}

/// A network made from a seed.
#[derive(Clone, Debug)]
pub struct Scenario {
    seed: u64,
    weather: Weather,
    rude: bool,
    hosts: u8,
    capture: Option<std::path::PathBuf>,
}

/// What a run was like.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Report {
    /// A hash of every frame with its time: two runs of one seed have the same.
    pub digest: u64,
    /// What the applications did.
    pub figures: Figures,
    /// Segments that were sent again, by all connections together.
    pub retransmissions: u64,
    /// Frames that the hosts sent.
    pub frames: u64,
    /// Rounds of the simulation.
    pub rounds: u64,
    /// Virtual time that passed.
    pub time: Duration,
}

/// Why a run failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure(pub String);

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Failure {}

impl Scenario {
    /// The network of `seed`: two to ten hosts in foul weather, some of them rude.
    pub fn foul(seed: u64) -> Scenario {
        let mut rng = Rng::new(u128::from(seed));
        let hosts = 2 + rng.below(9) as u8;
        let rude = rng.chance(0.5);
        Scenario { seed, weather: Weather::Foul, rude, hosts, capture: None }
    }

    /// Two hosts that finish what they begin, on a wire without faults.
    pub fn calm(seed: u64) -> Scenario {
        Scenario { seed, weather: Weather::Calm, rude: false, hosts: 2, capture: None }
    }

    /// Writes what every card sends and receives to a pcapng file.
    pub fn capture(mut self, path: std::path::PathBuf) -> Scenario {
        self.capture = Some(path);
        self
    }

    /// Runs it to its end.
    ///
    /// # Errors
    /// [`Failure`] says what was wrong first.
    pub fn run(&self) -> Result<Report, Failure> {
        Run::new(self)?.run()
    }
}

/// A network while it runs.
struct Run {
    world: World,
    /// Each host's applications, and the bounds of its tables.
    apps: Vec<Vec<Box<dyn App>>>,
    limits: Vec<Limits>,
    oracle: Oracle,
    check: WireCheck,
    rng: Rng,
    scratch: Vec<u8>,
    /// When an application of each host wants to act next.
    wakes: Vec<Option<Instant>>,
    calm: bool,
    rounds: u64,
}

impl Run {
    fn new(scenario: &Scenario) -> Result<Run, Failure> {
        let calm = scenario.weather == Weather::Calm;
        let (mut network, rng) = draw::network(scenario.seed, calm, scenario.hosts, scenario.rude);
        let limits: Vec<_> = network.hosts.iter().map(|(config, _)| config.stack.limits).collect();
        let mut oracle = Oracle::new(scenario.seed);
        for (host, _) in limits.iter().enumerate().filter(|(_, l)| l.orphans < draw::MANY_ORPHANS) {
            oracle.excuse_orphans(host);
        }
        let apps = std::mem::take(&mut network.apps);
        let file = scenario.capture.as_deref().map(std::fs::File::create).transpose();
        let file = file.map_err(|error| Failure(format!("cannot capture: {error}")))?;
        let capture = file.map(|file| Box::new(file) as Box<dyn Write + Send>);
        let world = World::switched(network.hosts, &network.cable, capture)
            .map_err(|error| Failure(format!("no network: {error}")))?;
        Ok(Run {
            wakes: vec![Some(Instant::ZERO); apps.len()],
            world,
            apps,
            limits,
            oracle,
            check: WireCheck::default(),
            rng,
            scratch: Vec::new(),
            calm,
            rounds: 0,
        })
    }

    fn run(mut self) -> Result<Report, Failure> {
        self.until(|run| run.apps.iter().flatten().all(|app| app.is_done()))?;
        let worked = self.world.now();
        for host in 0..self.apps.len() {
            self.world.activate(host);
            self.each_app(host, |app, cx| app.retire(cx));
        }
        self.until(|run| {
            let gone = run.apps.iter().flatten().all(|app| app.is_gone());
            gone && (run.world.now() > worked + END_TIME || run.is_quiet())
        })?;
        self.oracle.settle(self.calm);
        self.check_end();
        self.verdict()?;
        Ok(Report {
            digest: self.check.digest(),
            figures: self.oracle.figures,
            retransmissions: self.check.retransmissions,
            frames: self.check.frames_sent,
            rounds: self.rounds,
            time: worked.saturating_since(Instant::ZERO),
        })
    }

    /// Goes on until `over`, or until something is wrong.
    fn until(&mut self, over: impl Fn(&Run) -> bool) -> Result<(), Failure> {
        let mut at_once = 0;
        while !over(self) {
            if self.round() {
                at_once += 1;
            } else {
                at_once = 0;
                self.jump()?;
            }
            self.verdict()?;
            if at_once > MAX_ROUNDS_AT_ONCE {
                return Err(self.stuck("time stands still"));
            }
            if self.check.frames_sent > MAX_FRAMES {
                return Err(self.stuck("too many frames"));
            }
            if self.rounds > MAX_ROUNDS || self.world.now() > Instant::ZERO + MAX_VIRTUAL_TIME {
                return Err(self.stuck("the run does not end"));
            }
        }
        Ok(())
    }

    /// One round at the present moment; says whether anything has happened.
    fn round(&mut self) -> bool {
        self.rounds += 1;
        let mut any = self.world.deliver(&mut self.check);
        let now = self.world.now();
        for host in 0..self.apps.len() {
            if self.wakes[host].is_some_and(|at| at <= now) {
                self.world.activate(host);
            }
            if self.world.is_active(host) {
                any |= self.dispatch(host);
            }
        }
        any |= self.world.finish(&mut self.check);
        if self.rounds.is_multiple_of(STATE_CHECK_ROUNDS) {
            self.check_states();
            self.check_limits();
            self.check_deadlines();
        }
        any
    }

    /// Tells the applications of a host what has happened, and wakes those whose time has come; then
    /// they hear what their own calls have brought about.
    fn dispatch(&mut self, host: usize) -> bool {
        let mut any = self.tell_events(host);
        let now = self.world.now();
        self.each_app(host, |app, cx| {
            if app.wake_at().is_some_and(|at| at <= now) {
                any = true;
                app.on_time(cx);
            }
        });
        any |= self.tell_events(host);
        self.wakes[host] = self.apps[host].iter().filter_map(|app| app.wake_at()).min();
        any
    }

    fn tell_events(&mut self, host: usize) -> bool {
        let mut any = false;
        while let Some(event) = self.world.hosts[host].stack.poll_event() {
            any = true;
            let mut taken = false;
            self.each_app(host, |app, cx| taken = taken || app.on_event(cx, event));
            if !taken {
                self.oracle.complain(format!("host {host}: {event:?} is for nobody"));
            }
        }
        any
    }

    fn each_app(&mut self, host: usize, mut f: impl FnMut(&mut dyn App, &mut Context<'_>)) {
        let mut cx = Context {
            now: self.world.now(),
            host,
            stack: &mut self.world.hosts[host].stack,
            oracle: &mut self.oracle,
            rng: &mut self.rng,
            scratch: &mut self.scratch,
            enough: self.check.frames_sent > ENOUGH_FRAMES,
        };
        for app in &mut self.apps[host] {
            f(&mut **app, &mut cx);
        }
    }

    /// Moves time to the next deadline. Without one nothing will ever happen again: an event or a
    /// timer has been lost.
    fn jump(&mut self) -> Result<(), Failure> {
        let apps = self.wakes.iter().copied().flatten().min();
        match self.world.next_deadline().into_iter().chain(apps).min() {
            // A timer that fired early asks for its real time now.
            Some(at) => self.world.advance_to(at.max(self.world.now() + Duration::from_nanos(1))),
            None if self.apps.iter().flatten().all(|app| app.is_gone()) => {
                self.world.advance(END_TIME);
            }
            None => return Err(self.stuck("nothing will ever happen again")),
        }
        Ok(())
    }

    fn stuck(&self, why: &str) -> Failure {
        let waiting = self.apps.iter().enumerate().flat_map(|(host, apps)| {
            let waiting = apps.iter().filter(|app| !app.is_done());
            waiting.map(move |app| format!("\n  host {host}: {}", app.describe()))
        });
        let waiting: String = waiting.collect();
        Failure(format!("{why} at {:?} after {} rounds{waiting}", self.world.now(), self.rounds))
    }

    fn check_states(&mut self) {
        for pair in self.oracle.open_pairs() {
            let state = |(host, socket): (usize, _)| {
                let host: &Host = &self.world.hosts[host];
                host.stack.tcp_info(socket).map(|info| info.state)
            };
            if let [Ok(one), Ok(other)] = pair.map(state)
                && !states_fit(one, other)
            {
                self.oracle.complain(format!("{one} and {other} at once: {pair:?}"));
            }
        }
    }

    /// No table has more entries than its limit.
    fn check_limits(&mut self) {
        for (at, (host, limits)) in self.world.hosts.iter().zip(&self.limits).enumerate() {
            let stack = &host.stack;
            let orphans = match stack.orphans() {
                many if many > limits.orphans => stack.living_orphans(),
                few => few,
            };
            let tables = [
                ("sockets", stack.sockets(), limits.sockets),
                ("half-open connections", stack.half_open(), limits.half_open),
                ("connections in TIME-WAIT", stack.time_wait(), limits.time_wait),
                ("orphans", orphans, limits.orphans),
            ];
            for (what, count, limit) in tables.into_iter().filter(|&(_, n, limit)| n > limit) {
                self.oracle.complain(format!("host {at} has {count} {what} of at most {limit}"));
            }
        }
    }

    /// No stack has forgotten a connection.
    fn check_deadlines(&mut self) {
        for (at, host) in self.world.hosts.iter().enumerate() {
            for line in host.stack.forgotten() {
                self.oracle.complain(format!("host {at} has forgotten {line}"));
            }
        }
    }

    /// Nothing is left of any connection.
    fn is_quiet(&self) -> bool {
        self.world.hosts.iter().all(|host| leftovers(host).iter().all(|&(_, count)| count == 0))
    }

    /// Every table is empty and every slot is back in its pool.
    fn check_end(&mut self) {
        let switch_is_clean = self.world.stop();
        if !switch_is_clean {
            self.oracle.complain("the switch has lost a slot".into());
        }
        for (at, host) in self.world.hosts.iter().enumerate() {
            let left: Vec<_> = leftovers(host).into_iter().filter(|&(_, n)| n > 0).collect();
            if !left.is_empty() {
                self.oracle.complain(format!("host {at} still has {left:?}"));
            }
            let audit = host.pool.audit();
            if !audit.all_free() {
                self.oracle.complain(format!("host {at} has lost memory: {audit:?}"));
            }
        }
    }

    fn verdict(&self) -> Result<(), Failure> {
        let wrong = self.oracle.violations().iter().chain(self.check.violations());
        let wrong: Vec<_> = wrong.map(String::as_str).collect();
        if wrong.is_empty() {
            return Ok(());
        }
        Err(Failure(format!("at {:?}:\n  {}", self.world.now(), wrong.join("\n  "))))
    }
}

/// What a host still has of connections, by name.
fn leftovers(host: &Host) -> [(&'static str, usize); 7] {
    let stack = &host.stack;
    [
        ("sockets", stack.sockets()),
        ("half-open connections", stack.half_open()),
        ("connections in TIME-WAIT", stack.time_wait()),
        ("orphans", stack.orphans()),
        ("timers", stack.timers()),
        ("ports", stack.ports().in_use()),
        ("reassemblies", usize::from(stack.reassembler.poll_at().is_some())),
    ]
}
