//! `barewire serve`: a directory over HTTP/1.1, on the engines' own cores.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;
use std::rc::Rc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use barewire::http::{Counters, Figures, Limits, Site, serve_connection};
use barewire::{AsyncTcpListener, Barewire, Core};

use super::start::{BACKLOG, PAUSE, drain, run_until, start, wait_until_ready};
use super::stats;
use super::transport::StreamTransport;
use crate::cli::ServeArgs;
use crate::output::{self, Advice, LiveLine, Rates};
use crate::signals::Stop;

/// Longest time for answers that are under way when the end is asked for.
const GRACE: Duration = Duration::from_secs(5);

/// What all cores share.
struct Shared {
    dir: PathBuf,
    address: SocketAddr,
    stopping: Arc<AtomicBool>,
    /// One for each core, added as it starts.
    counters: Mutex<Vec<Arc<Counters>>>,
    ready: Sender<io::Result<()>>,
}

impl Shared {
    fn add_counters(&self) -> Arc<Counters> {
        let counters = Arc::<Counters>::default();
        let mut all = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        all.push(Arc::clone(&counters));
        counters
    }

    fn figures(&self) -> Figures {
        let all = self.counters.lock().unwrap_or_else(PoisonError::into_inner);
        all.iter().map(|c| c.figures()).fold(Figures::default(), Figures::plus)
    }
}

pub(crate) fn run(args: ServeArgs) -> anyhow::Result<ExitCode> {
    let dir = directory(&args.dir)?;
    let stop = Stop::install().context("signals cannot be received")?;
    let bw = start(&args.device)?;
    let address = SocketAddr::from((args.device.address.addr, args.port));
    let (ready, started) = channel();
    let stopping = Arc::<AtomicBool>::default();
    let shared = Arc::new(Shared { dir, address, stopping, counters: Mutex::default(), ready });
    let on_core = Arc::clone(&shared);
    bw.on_core(move |core| serve_core(core, Arc::clone(&on_core)))?;
    wait_until_ready(&started, args.device.cores)
        .with_context(|| format!("{address} cannot be listened on"))?;
    output::line(format_args!(
        "listening on {address}  http://{address}/  serving {} on {}",
        shared.dir.display(),
        args.device.device,
    ))?;
    let begin = Instant::now();
    show_until(&stop, &bw, &shared)?;
    shared.stopping.store(true, Ordering::Relaxed);
    let drained = drain(GRACE, || shared.figures().under_way() == 0);
    let report = bw.stop();
    report.check().context("the engines did not stop cleanly")?;
    output::line(summary(&shared.figures(), begin.elapsed(), drained))?;
    if args.stats {
        stats::print(&report, &**bw.device())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The directory, checked before a device is touched.
fn directory(dir: &std::path::Path) -> anyhow::Result<PathBuf> {
    let path = dir.canonicalize().map_err(|error| {
        Advice::new(
            format!("{} cannot be served: {error}", dir.display()),
            "give a directory that exists and that this user may read",
        )
    })?;
    if let Err(error) = std::fs::read_dir(&path)
        && path.is_dir()
    {
        let what = format!("{} cannot be read: {error}", path.display());
        return Err(Advice::new(what, "give a directory that this user may read").into());
    }
    if !path.is_dir() {
        let what = format!("{} is no directory", path.display());
        return Err(Advice::new(what, "give the directory that the file is in").into());
    }
    Ok(path)
}

/// Runs on each core: listens, and serves each connection in a task of its own.
async fn serve_core(core: Core, shared: Arc<Shared>) {
    let counters = shared.add_counters();
    let site = Site::open(&shared.dir, counters, Arc::clone(&shared.stopping));
    let listener = core.tcp_listen(shared.address, BACKLOG);
    let (site, listener) = match site.and_then(|site| Ok((site, listener?))) {
        Ok(both) => both,
        Err(error) => {
            // The command may have given up on this core already.
            let _ = shared.ready.send(Err(error));
            return;
        }
    };
    let _ = shared.ready.send(Ok(()));
    accept(core, listener, Rc::new(site), shared).await;
}

async fn accept(core: Core, listener: AsyncTcpListener, site: Rc<Site>, shared: Arc<Shared>) {
    let limits = Rc::new(Limits::default());
    while !shared.stopping.load(Ordering::Relaxed) {
        let (stream, peer) = match listener.accept().await {
            Ok(accepted) => accepted,
            // An engine that is asked to stop accepts no more: that is no failure.
            Err(_) if core.is_stopping() => return,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                core.sleep(PAUSE).await;
                continue;
            }
        };
        let (site, limits) = (Rc::clone(&site), Rc::clone(&limits));
        let mut transport = StreamTransport::new(stream, core.clone());
        core.spawn(async move {
            if let Err(error) = serve_connection(&mut transport, &site, &limits).await {
                tracing::debug!(%peer, %error, "connection aborted");
            }
        });
    }
}

/// Shows figures once a second until the end is asked for.
fn show_until(stop: &Stop, bw: &Barewire, shared: &Shared) -> anyhow::Result<()> {
    let mut line = LiveLine::new();
    let mut rates = Rates::new([0, 0], Instant::now());
    run_until(stop, bw, || {
        let figures = shared.figures();
        let now = Instant::now();
        let per_second = rates.per_second([figures.requests, figures.bytes_sent], now);
        line.show(&live(&figures, per_second));
    })
}

fn live(figures: &Figures, [requests, sent]: [f64; 2]) -> String {
    format!(
        "{} connections  {} requests/s  {} out  {} requests in all",
        output::count(figures.open()),
        output::count(requests as u64),
        output::bits(sent),
        output::count(figures.requests),
    )
}

fn summary(figures: &Figures, time: Duration, drained: bool) -> String {
    let mut text = format!(
        "served {} requests, {} over {} connections in {:.1} s\n\
         {} client errors, {} server errors, {} timeouts, {} aborted; \
         files: {} from memory or open, {} opened, {} put out of the cache",
        output::count(figures.requests),
        output::bytes(figures.bytes_sent),
        output::count(figures.connections),
        time.as_secs_f64(),
        figures.client_errors,
        figures.server_errors,
        figures.timeouts,
        figures.aborted,
        output::count(figures.cache_hits),
        output::count(figures.cache_misses),
        output::count(figures.cache_evictions),
    );
    if !drained {
        let left = figures.under_way();
        text.push_str(&format!("\n{left} answers were cut short after {} s", GRACE.as_secs()));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_summary_tells_of_answers_that_were_cut_short() {
        let figures = Figures { requests: 1500, answered: 1498, ..Figures::default() };
        let time = Duration::from_millis(2500);
        let text = summary(&figures, time, true);
        assert!(text.starts_with("served 1,500 requests, 0 B over 0 connections in 2.5 s\n"));
        assert!(!text.contains("cut short"));
        assert!(summary(&figures, time, false).ends_with("\n2 answers were cut short after 5 s"));
    }

    #[test]
    fn the_live_line_shows_what_is_open_now() {
        let figures = Figures { connections: 12, closed: 2, requests: 99, ..Figures::default() };
        let text = live(&figures, [88_123.4, 1.25e8]);
        assert_eq!(text, "10 connections  88,123 requests/s  1.00 Gbit/s out  99 requests in all");
    }

    #[test]
    fn a_directory_that_cannot_be_served_is_refused_before_a_device_is_touched() {
        let text = directory(std::path::Path::new("/nowhere/at/all")).unwrap_err().to_string();
        assert!(text.contains("/nowhere/at/all") && text.contains("next: "));
        let file = directory(std::path::Path::new("/proc/self/status")).unwrap_err().to_string();
        assert!(file.contains("is no directory"));
    }
}
