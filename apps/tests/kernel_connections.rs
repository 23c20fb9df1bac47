//! Many connections with the Linux kernel: a thousand at once, thousands one after the other, more
//! than a backlog holds, some that are refused, and all that on two engines.

mod interop;

use std::io::{ErrorKind, Read};
use std::net::{self, Shutdown};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use barewire::{AsyncTcpListener, Core, TcpListener, TcpStream};
use interop::conn::{Conn, Listen};
use interop::stream::{Known, echo, echo_async, exchange, exchange_async, receive_some};
use interop::{
    Host, KERNEL, OURS, in_namespace, join, kernel, ours, set_kernel, start, wait_until,
};

/// Connections open at the same time.
const MANY: usize = 1000;
/// Threads that open them.
const THREADS: usize = 8;
/// Bytes that each carries there and back.
const EACH: usize = 8000;

/// Echoes on each core of the host; says when all listen.
fn serve_on_cores(host: &Host, port: u16, backlog: usize) {
    let (ready, is_ready) = channel();
    let begin = move |core: Core| {
        let ready = ready.clone();
        async move {
            let listener = core.tcp_listen(ours(port), backlog).unwrap();
            ready.send(()).unwrap();
            accept_all(core, listener).await;
        }
    };
    host.bw().on_core(begin).unwrap();
    (0..host.bw().cores()).for_each(|_| is_ready.recv().unwrap());
}

async fn accept_all(core: Core, listener: AsyncTcpListener) {
    while let Ok((stream, _peer)) = listener.accept().await {
        core.spawn(async move {
            echo_async(stream).await.unwrap();
        });
    }
}

/// Echoes on threads of its own, as many connections as are told.
fn serve_on_threads<L: Listen>(listener: L, connections: usize) -> JoinHandle<()> {
    start(move || {
        let one = |_| {
            let conn = listener.take();
            start(move || echo(conn).map(|_| ()).unwrap())
        };
        (0..connections).map(one).collect::<Vec<_>>().into_iter().for_each(join);
    })
}

/// Opens [`MANY`] connections, then uses all of them, then ends all of them.
fn use_many<C: Conn>(connect: impl Fn() -> C + Clone + Send + 'static) {
    let open = Arc::new(AtomicUsize::new(0));
    let client = |thread: usize| {
        let (open, connect) = (open.clone(), connect.clone());
        start(move || {
            let conns: Vec<C> = (0..MANY / THREADS).map(|_| connect()).collect();
            open.fetch_add(conns.len(), Ordering::SeqCst);
            wait_until("all connections are open", || open.load(Ordering::SeqCst) == MANY);
            let conns = conns.into_iter().enumerate();
            let send = conns.map(|(i, mut conn)| {
                let seed = (thread * MANY + i) as u64;
                conn.write_all(&Known::new(seed).take(EACH)).unwrap();
                (seed, conn)
            });
            // All are under way before the first is read.
            for (seed, mut conn) in send.collect::<Vec<_>>() {
                let mut known = Known::new(seed);
                conn.end(Shutdown::Write).unwrap();
                receive_some(&mut conn, &mut known, u64::MAX);
                assert_eq!(known.sum().bytes, EACH as u64);
            }
        })
    };
    (0..THREADS).map(client).collect::<Vec<_>>().into_iter().for_each(join);
}

fn connect_kernel_socket(port: u16) -> net::TcpStream {
    net::TcpStream::connect(ours(port)).unwrap().patiently()
}

#[test]
fn a_thousand_connections_are_served_at_once() {
    in_namespace("a_thousand_connections_are_served_at_once", || {
        let host = Host::start();
        serve_on_cores(&host, 7001, 1024);
        use_many(|| connect_kernel_socket(7001));
        let listener = TcpListener::bind_with_backlog(host.bw(), ours(7002), 1024).unwrap();
        let server = serve_on_threads(listener, MANY);
        use_many(|| connect_kernel_socket(7002));
        join(server);
        host.stop();
    });
}

#[test]
fn a_thousand_connections_of_ours_are_open_at_once() {
    in_namespace("a_thousand_connections_of_ours_are_open_at_once", || {
        // With cookies the kernel forgets connections that its full backlog has no room for, and then
        // resets those whose next segment is not their first: a tail probe, for one.
        set_kernel("ipv4/tcp_syncookies", "0");
        let host = Host::start();
        let server = serve_on_threads(net::TcpListener::bind((KERNEL, 7001)).unwrap(), MANY);
        let bw = host.bw().clone();
        use_many(move || TcpStream::connect_on(&bw, kernel(7001)).unwrap().patiently());
        join(server);

        let server = serve_on_threads(net::TcpListener::bind((KERNEL, 7002)).unwrap(), MANY);
        let (done, is_done) = channel();
        host.spawn(move |core| async move {
            let open = std::rc::Rc::new(std::cell::Cell::new(0));
            for seed in 0..MANY as u64 {
                let (core, open, done) = (core.clone(), open.clone(), done.clone());
                core.clone().spawn(async move {
                    let stream = core.tcp_connect(kernel(7002)).await.unwrap();
                    open.set(open.get() + 1);
                    while open.get() < MANY {
                        core.sleep(Duration::from_millis(5)).await;
                    }
                    exchange_async(&stream, seed, EACH).await;
                    stream.close().await.unwrap();
                    done.send(()).unwrap();
                });
            }
        })
        .join();
        (0..MANY).for_each(|_| is_done.recv_timeout(interop::PATIENCE).unwrap());
        join(server);
        host.stop();
    });
}

/// Short connections, and the threads or tasks that make them.
const SHORT: usize = 2000;
const AT_ONCE: usize = 4;

fn make_short_ones<C: Conn>(connect: impl Fn() -> C + Clone + Send + 'static) {
    let client = |thread: usize| {
        let connect = connect.clone();
        start(move || {
            for i in 0..SHORT / AT_ONCE {
                exchange(connect(), (thread * SHORT + i) as u64, 100);
            }
        })
    };
    (0..AT_ONCE).map(client).collect::<Vec<_>>().into_iter().for_each(join);
}

#[test]
fn thousands_of_short_connections_from_the_kernel_succeed() {
    in_namespace("thousands_of_short_connections_from_the_kernel_succeed", || {
        let host = Host::start();
        serve_on_cores(&host, 7001, 128);
        make_short_ones(|| connect_kernel_socket(7001));
        let server = serve_on_threads(TcpListener::bind_on(host.bw(), ours(7002)).unwrap(), SHORT);
        make_short_ones(|| connect_kernel_socket(7002));
        join(server);
        host.stop();
    });
}

#[test]
fn thousands_of_short_connections_of_ours_succeed() {
    in_namespace("thousands_of_short_connections_of_ours_succeed", || {
        let host = Host::start();
        let server = serve_on_threads(net::TcpListener::bind((KERNEL, 7001)).unwrap(), SHORT);
        let bw = host.bw().clone();
        make_short_ones(move || TcpStream::connect_on(&bw, kernel(7001)).unwrap().patiently());
        join(server);

        let server = serve_on_threads(net::TcpListener::bind((KERNEL, 7002)).unwrap(), SHORT);
        let (done, is_done) = channel();
        host.spawn(move |core| async move {
            for task in 0..AT_ONCE {
                let (core, done) = (core.clone(), done.clone());
                core.clone().spawn(async move {
                    for i in 0..SHORT / AT_ONCE {
                        let stream = core.tcp_connect(kernel(7002)).await.unwrap();
                        exchange_async(&stream, (task * SHORT + i) as u64, 100).await;
                    }
                    done.send(()).unwrap();
                });
            }
        })
        .join();
        (0..AT_ONCE).for_each(|_| is_done.recv_timeout(interop::PATIENCE).unwrap());
        join(server);
        host.stop();
    });
}

#[test]
fn a_port_where_nobody_listens_refuses_both_ways() {
    in_namespace("a_port_where_nobody_listens_refuses_both_ways", || {
        let host = Host::start();
        let refused =
            |error: std::io::Error| assert_eq!(error.kind(), ErrorKind::ConnectionRefused);
        refused(net::TcpStream::connect(ours(9)).unwrap_err());
        refused(TcpStream::connect_on(host.bw(), kernel(9)).unwrap_err());
        let on_core = host.spawn(|core| async move { core.tcp_connect(kernel(9)).await.err() });
        refused(on_core.join().expect("nobody listens"));
        // A listener that has gone is as good as none, once the engine has heard of it: a thread
        // that drops one does not wait for that.
        drop(TcpListener::bind_on(host.bw(), ours(7001)).unwrap());
        let end = Instant::now() + Duration::from_secs(5);
        let error = loop {
            match net::TcpStream::connect(ours(7001)) {
                Ok(_) => assert!(Instant::now() < end, "the listener is still there"),
                Err(error) => break error,
            }
        };
        refused(error);
        host.stop();
    });
}

/// Connections that want in where few may wait. Those who believe that they are connected try again
/// after 0.2, 0.4, 0.8 … seconds, all at the same moment, so that each round lets in no more than the
/// backlog, or half of it where the other half is the queue between the engine and threads: three
/// rounds for the crowd at worst.
const CROWD: usize = 20;
const FEW: usize = 8;

/// Starts the crowd; the counter says how many have been served.
fn crowd<C: Conn>(
    connect: impl Fn() -> C + Clone + Send + 'static,
) -> (Arc<AtomicUsize>, Vec<JoinHandle<()>>) {
    let served = Arc::new(AtomicUsize::new(0));
    let client = |seed: usize| {
        let (served, connect) = (served.clone(), connect.clone());
        start(move || {
            exchange(connect(), seed as u64, 1000);
            served.fetch_add(1, Ordering::SeqCst);
        })
    };
    let threads = (0..CROWD).map(client).collect();
    (served, threads)
}

/// Long enough for every client to have asked more than once.
const UNATTENDED: Duration = Duration::from_millis(2500);

#[test]
fn clients_beyond_the_backlog_wait_and_are_served_when_accept_runs() {
    in_namespace("clients_beyond_the_backlog_wait_and_are_served_when_accept_runs", || {
        let host = Host::start();
        let listener = TcpListener::bind_with_backlog(host.bw(), ours(7001), FEW).unwrap();
        let open = Arc::new(AtomicBool::new(false));
        let may_accept = open.clone();
        let (ready, is_ready) = channel();
        host.bw()
            .on_core(move |core| {
                let (may_accept, ready) = (may_accept.clone(), ready.clone());
                async move {
                    let listener = core.tcp_listen(ours(7002), FEW).unwrap();
                    ready.send(()).unwrap();
                    while !may_accept.load(Ordering::SeqCst) {
                        core.sleep(Duration::from_millis(5)).await;
                    }
                    accept_all(core, listener).await;
                }
            })
            .unwrap();
        is_ready.recv().unwrap();
        let on_threads = crowd(|| connect_kernel_socket(7001));
        let on_core = crowd(|| connect_kernel_socket(7002));
        std::thread::sleep(UNATTENDED);
        let stack = host.bw().stats().stack();
        assert!(stack.listen_overflow + stack.accept_overflow > 0, "nobody waited: {stack:?}");
        for (served, _) in [&on_threads, &on_core] {
            assert_eq!(served.load(Ordering::SeqCst), 0, "served without accept");
        }
        open.store(true, Ordering::SeqCst);
        let server = serve_on_threads(listener, CROWD);
        on_threads.1.into_iter().chain(on_core.1).for_each(join);
        join(server);
        let stack = host.bw().stats().stack();
        assert_eq!((stack.tcp_resets_sent, stack.tcp_no_socket), (0, 0), "{stack:?}");
        host.stop();
    });
}

#[test]
fn we_wait_for_a_kernel_whose_backlog_is_full() {
    in_namespace("we_wait_for_a_kernel_whose_backlog_is_full", || {
        let host = Host::start();
        set_kernel("core/somaxconn", &FEW.to_string());
        let listener = net::TcpListener::bind((KERNEL, 7001)).unwrap();
        let bw = host.bw().clone();
        let (served, threads) =
            crowd(move || TcpStream::connect_on(&bw, kernel(7001)).unwrap().patiently());
        std::thread::sleep(UNATTENDED);
        assert_eq!(served.load(Ordering::SeqCst), 0);
        let server = serve_on_threads(listener, CROWD);
        threads.into_iter().for_each(join);
        join(server);
        host.stop();
    });
}

#[test]
fn two_engines_share_one_tap() {
    in_namespace("two_engines_share_one_tap", || {
        let host = Host::with(|builder| builder.cores(2));
        serve_on_cores(&host, 7001, 1024);
        use_many(|| connect_kernel_socket(7001));
        let listener = TcpListener::bind_with_backlog(host.bw(), ours(7002), 1024).unwrap();
        let server = serve_on_threads(listener, MANY);
        use_many(|| connect_kernel_socket(7002));
        join(server);
        let server = serve_on_threads(net::TcpListener::bind((KERNEL, 7003)).unwrap(), MANY);
        let bw = host.bw().clone();
        use_many(move || TcpStream::connect_on(&bw, kernel(7003)).unwrap().patiently());
        join(server);

        let stats = host.bw().stats();
        let sum = |f: fn(&barewire::EngineStats) -> u64| stats.engines.iter().map(f).sum::<u64>();
        // The kernel does not know whose flow is whose before it has heard from it.
        let handed_on = sum(|engine| engine.run.forwarded_out);
        assert!(handed_on > 0, "{stats:#?}");
        assert_eq!(sum(|engine| engine.run.forward_dropped), 0, "{stats:#?}");
        for engine in &stats.engines {
            assert!(engine.stack.tcp_segments_sent > MANY as u64, "{stats:#?}");
        }
        interop::tell(&format!("  {handed_on} frames were handed to the engine of their flow"));
        host.stop();
    });
}

#[test]
fn a_listener_that_closes_resets_what_waits() {
    in_namespace("a_listener_that_closes_resets_what_waits", || {
        let host = Host::start();
        let listener = TcpListener::bind_on(host.bw(), ours(7001)).unwrap();
        let mut waiting = connect_kernel_socket(7001);
        wait_until("the connection is there", || host.bw().stats().sockets() >= 2);
        drop(listener);
        let error = waiting.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
        // Its port is free again.
        TcpListener::bind_on(host.bw(), (OURS, 7001)).unwrap();
        host.stop();
    });
}
