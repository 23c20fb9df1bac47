//! `barewire echo`: RFC 862 over TCP and UDP, without a copy on the way.

use std::io;
use std::net::{Shutdown, SocketAddr};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Sender, channel};
use std::time::Instant;

use anyhow::Context;
use barewire::{AsyncTcpListener, AsyncTcpStream, AsyncUdpSocket, Barewire, Core};

use super::start::{BACKLOG, PAUSE, run_until, start, wait_until_ready};
use super::stats;
use crate::cli::EchoArgs;
use crate::output::{self, LiveLine, Rates};
use crate::signals::Stop;

/// Most bytes taken from a connection before some are sent back.
const READ_BYTES: usize = 64 * 1024;

/// What has been echoed, by all cores.
#[derive(Default)]
struct Totals {
    connections: AtomicU64,
    datagrams: AtomicU64,
    bytes: AtomicU64,
}

pub(crate) fn run(args: EchoArgs) -> anyhow::Result<ExitCode> {
    let stop = Stop::install().context("signals cannot be received")?;
    let bw = start(&args.device)?;
    let address = SocketAddr::from((args.device.address.addr, args.port));
    let totals = Arc::<Totals>::default();
    let (ready, started) = channel();
    let on_core = Arc::clone(&totals);
    bw.on_core(move |core| echo_core(core, address, Arc::clone(&on_core), ready.clone()))?;
    wait_until_ready(&started, args.device.cores)
        .with_context(|| format!("{address} cannot be listened on"))?;
    output::line(format_args!(
        "listening on {address}  TCP and UDP echo on {}",
        args.device.device
    ))?;
    show_until(&stop, &bw, &totals)?;
    let report = bw.stop();
    report.check().context("the engines did not stop cleanly")?;
    output::line(format_args!(
        "echoed {} over {} connections and in {} datagrams",
        output::bytes(totals.bytes.load(Ordering::Relaxed)),
        output::count(totals.connections.load(Ordering::Relaxed)),
        output::count(totals.datagrams.load(Ordering::Relaxed)),
    ))?;
    if args.stats {
        stats::print(&report, &**bw.device())?;
    }
    Ok(ExitCode::SUCCESS)
}

fn show_until(stop: &Stop, bw: &Barewire, totals: &Totals) -> anyhow::Result<()> {
    let mut line = LiveLine::new();
    let mut rates = Rates::new([0], Instant::now());
    run_until(stop, bw, || {
        let bytes = totals.bytes.load(Ordering::Relaxed);
        let [rate] = rates.per_second([bytes], Instant::now());
        line.show(&format!("{} echoed  {} now", output::bytes(bytes), output::bits(rate)));
    })
}

async fn echo_core(
    core: Core,
    address: SocketAddr,
    totals: Arc<Totals>,
    ready: Sender<io::Result<()>>,
) {
    let sockets =
        core.tcp_listen(address, BACKLOG).and_then(|tcp| Ok((tcp, core.udp_bind(address)?)));
    let (listener, socket) = match sockets {
        Ok(sockets) => sockets,
        Err(error) => {
            // The command may have given up on this core already.
            let _ = ready.send(Err(error));
            return;
        }
    };
    let _ = ready.send(Ok(()));
    core.spawn(echo_datagrams(core.clone(), socket, Arc::clone(&totals)));
    accept(core, listener, totals).await;
}

async fn accept(core: Core, listener: AsyncTcpListener, totals: Arc<Totals>) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                totals.connections.fetch_add(1, Ordering::Relaxed);
                let totals = Arc::clone(&totals);
                core.spawn(async move {
                    if let Err(error) = echo_stream(stream, &totals).await {
                        tracing::debug!(%peer, %error, "connection aborted");
                    }
                });
            }
            // An engine that is asked to stop accepts no more: that is no failure.
            Err(_) if core.is_stopping() => return,
            Err(error) => {
                tracing::warn!(%error, "accept failed");
                core.sleep(PAUSE).await;
            }
        }
    }
}

/// Sends back what comes until the peer has sent all, then says so.
async fn echo_stream(stream: AsyncTcpStream, totals: &Totals) -> io::Result<()> {
    while let Some(slice) = stream.read_owned(READ_BYTES).await? {
        totals.bytes.fetch_add(slice.len() as u64, Ordering::Relaxed);
        stream.write_owned(slice).await?;
    }
    stream.shutdown(Shutdown::Write)
}

async fn echo_datagrams(core: Core, socket: AsyncUdpSocket, totals: Arc<Totals>) {
    let mut buffer = vec![0; usize::from(u16::MAX)];
    loop {
        let echoed = match socket.recv_from(&mut buffer).await {
            Ok((len, peer)) => socket.send_to(&buffer[..len], peer).await,
            Err(error) => Err(error),
        };
        match echoed {
            Ok(len) => {
                totals.datagrams.fetch_add(1, Ordering::Relaxed);
                totals.bytes.fetch_add(len as u64, Ordering::Relaxed);
            }
            Err(error) => {
                tracing::debug!(%error, "a datagram was not echoed");
                core.sleep(PAUSE).await;
            }
        }
    }
}
