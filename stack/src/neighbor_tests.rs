use super::*;
use barewire_driver::{PacketSlice, Pool, PoolConfig};
use proptest::prelude::*;
use std::net::Ipv4Addr;

fn ip(host: u32) -> IpAddr {
    Ipv4Addr::from(0x0a00_0000 + host).into()
}

fn mac(host: u32) -> MacAddr {
    MacAddr::local(host.into())
}

/// A cache with a clock, whose messages read like a trace.
struct Host {
    cache: Cache<u32>,
    now: Instant,
}

impl Host {
    fn new(change: impl FnOnce(&mut NeighborConfig)) -> Host {
        let mut config = NeighborConfig::default();
        change(&mut config);
        Host { cache: Cache::new(config), now: Instant::from_millis(1_000) }
    }

    fn lookup(&mut self, host: u32) -> Lookup {
        self.cache.lookup(self.now, ip(host))
    }

    fn hear(&mut self, host: u32, mac: MacAddr, for_us: bool) -> Vec<u32> {
        let mut sendable = Vec::new();
        self.cache.handle_reply(self.now, ip(host), mac, for_us, &mut sendable);
        sendable
    }

    fn requests(&mut self) -> Vec<Request> {
        std::iter::from_fn(|| self.cache.poll_request()).collect()
    }

    /// Lets time pass, from one deadline to the next; gives the requests sent and the packets that
    /// failed.
    fn pass(&mut self, time: Duration) -> (Vec<Request>, Vec<(IpAddr, Vec<u32>)>) {
        let end = self.now + time;
        let (mut requests, mut failed) = (self.requests(), Vec::new());
        self.cache.handle_timeout(self.now, &mut failed);
        while let Some(at) = self.cache.poll_at().filter(|&at| at <= end) {
            assert!(at > self.now, "a deadline that does not move: {at} at {}", self.now);
            self.now = at;
            self.cache.handle_timeout(at, &mut failed);
            requests.extend(self.requests());
        }
        self.now = end;
        (requests, failed)
    }
}

fn everyone(host: u32) -> Request {
    Request { ip: ip(host), to: None }
}

const SECOND: Duration = Duration::from_secs(1);

#[test]
fn packets_wait_for_the_answer_and_leave_in_order() {
    let mut host = Host::new(|_| {});
    assert_eq!(host.lookup(1), Lookup::Pending);
    assert_eq!(host.lookup(1), Lookup::Pending);
    for packet in 0..3 {
        host.cache.enqueue(ip(1), packet).unwrap();
    }
    assert_eq!(host.requests(), [everyone(1)], "asked once");
    assert_eq!(host.hear(1, mac(1), true), [0, 1, 2]);
    assert_eq!(host.lookup(1), Lookup::Found(mac(1)));
    assert_eq!(host.cache.enqueue(ip(1), 9), Err(9), "nothing to wait for");
    assert_eq!(host.cache.enqueue(ip(2), 9), Err(9), "nobody asked");
    assert_eq!(host.cache.queued(), 0);
}

#[test]
fn silence_fails_after_three_requests_a_second_apart() {
    let mut host = Host::new(|_| {});
    host.lookup(1);
    host.cache.enqueue(ip(1), 7).unwrap();
    let (requests, failed) = host.pass(SECOND / 2);
    assert_eq!((requests.len(), failed.len()), (1, 0));
    let (requests, failed) = host.pass(2 * SECOND);
    assert_eq!((requests.len(), failed.len()), (2, 0));
    let (requests, failed) = host.pass(SECOND);
    assert_eq!((requests.len(), failed), (0, vec![(ip(1), vec![7])]));
    assert_eq!(host.cache.counters().failed, 1);
    assert_eq!(host.cache.counters().queue_failed, 1);
}

#[test]
fn a_failed_address_is_not_asked_for_until_the_hold_down_ends() {
    let mut host = Host::new(|_| {});
    host.lookup(1);
    host.pass(3 * SECOND + SECOND / 2);
    assert_eq!(host.lookup(1), Lookup::Failed);
    assert_eq!(host.cache.enqueue(ip(1), 7), Err(7));
    assert_eq!(host.pass(SECOND).0, []);
    host.pass(SECOND);
    assert_eq!(host.lookup(1), Lookup::Pending, "asked for anew");
    assert_eq!(host.requests(), [everyone(1)]);
}

#[test]
fn a_failed_neighbour_that_speaks_is_found() {
    let mut host = Host::new(|_| {});
    host.lookup(1);
    host.pass(3 * SECOND + SECOND / 2);
    host.hear(1, mac(1), false);
    assert_eq!(host.lookup(1), Lookup::Found(mac(1)));
}

#[test]
fn only_messages_for_this_host_make_entries_and_any_renews_them() {
    let mut host = Host::new(|_| {});
    host.hear(1, mac(1), false);
    assert!(host.cache.is_empty(), "RFC 826: not the target, no entry");
    assert_eq!(host.cache.counters().unsolicited_ignored, 1);
    host.hear(1, mac(1), true);
    assert_eq!(host.lookup(1), Lookup::Found(mac(1)));
    host.hear(1, mac(2), false);
    assert_eq!(host.lookup(1), Lookup::Found(mac(2)), "RFC 826: a known sender has moved");
}

#[test]
fn group_and_zero_addresses_are_not_believed() {
    let mut host = Host::new(|_| {});
    host.lookup(1);
    for claim in [MacAddr::BROADCAST, MacAddr([1, 0, 0x5e, 0, 0, 1]), MacAddr([0; 6])] {
        host.hear(1, claim, true);
    }
    let sendable = &mut Vec::new();
    for group in [Ipv4Addr::new(224, 0, 0, 1), Ipv4Addr::UNSPECIFIED] {
        host.cache.handle_reply(host.now, group.into(), mac(1), true, sendable);
    }
    assert_eq!(host.lookup(1), Lookup::Pending);
    assert_eq!(host.cache.counters().bad_address_ignored, 5);
}

#[test]
fn a_used_entry_is_refreshed_at_its_neighbour_while_traffic_flows() {
    let mut host = Host::new(|_| {});
    host.hear(1, mac(1), true);
    host.lookup(1);
    let (requests, _) = host.pass(60 * SECOND + SECOND / 2);
    assert_eq!(requests, [Request { ip: ip(1), to: Some(mac(1)) }]);
    assert_eq!(host.lookup(1), Lookup::Found(mac(1)), "still in use");
    host.hear(1, mac(1), true);
    let (requests, failed) = host.pass(10 * SECOND);
    assert_eq!((requests, failed), (vec![], vec![]));
    host.lookup(1);
    assert_eq!(host.pass(50 * SECOND + SECOND / 2).0.len(), 1, "and refreshed again");
}

#[test]
fn a_neighbour_that_speaks_on_its_own_stays_in_use() {
    let mut host = Host::new(|_| {});
    host.hear(1, mac(1), true);
    host.lookup(1);
    host.pass(30 * SECOND);
    host.hear(1, mac(1), false);
    assert_eq!(host.pass(40 * SECOND).0, [], "believed anew");
    assert_eq!(host.pass(20 * SECOND + SECOND / 2).0.len(), 1, "and refreshed, not dropped");
}

#[test]
fn a_refresh_that_nobody_answers_asks_everyone_and_fails() {
    let mut host = Host::new(|_| {});
    host.hear(1, mac(1), true);
    host.lookup(1);
    let (requests, failed) = host.pass(64 * SECOND);
    let poll = Request { ip: ip(1), to: Some(mac(1)) };
    assert_eq!(requests, [poll, poll, everyone(1)]);
    assert_eq!(failed, [(ip(1), vec![])]);
    assert_eq!(host.lookup(1), Lookup::Failed);
}

#[test]
fn an_unused_entry_leaves_without_a_request() {
    let mut host = Host::new(|_| {});
    host.hear(1, mac(1), true);
    assert_eq!(host.pass(61 * SECOND), (vec![], vec![]));
    assert!(host.cache.is_empty());
    assert_eq!(host.cache.poll_at(), None, "nothing left to wake for");
}

#[test]
fn the_oldest_waiting_packet_gives_way() {
    let mut host =
        Host::new(|config| (config.max_queued_per_entry, config.max_queued_total) = (2, 3));
    host.lookup(1);
    host.lookup(2);
    host.lookup(3);
    for packet in 0..3 {
        host.cache.enqueue(ip(1), packet).unwrap();
    }
    assert_eq!((host.cache.queued(), host.cache.counters().queue_dropped), (2, 1));
    host.cache.enqueue(ip(2), 10).unwrap();
    host.cache.enqueue(ip(2), 11).unwrap();
    assert_eq!((host.cache.queued(), host.cache.counters().queue_dropped), (3, 2));
    assert_eq!(host.cache.enqueue(ip(3), 20), Err(20), "nothing of its own to give way");
    assert_eq!(host.hear(1, mac(1), true), [1, 2]);
    assert_eq!(host.hear(2, mac(2), true), [11]);
}

#[test]
fn a_full_cache_gives_up_the_least_recently_used() {
    let mut host = Host::new(|config| config.max_entries = 3);
    for neighbour in 1..=3 {
        host.hear(neighbour, mac(neighbour), true);
        host.lookup(neighbour);
    }
    host.lookup(1);
    host.lookup(4);
    assert_eq!(host.cache.counters().evicted, 1);
    assert_eq!(host.lookup(1), Lookup::Found(mac(1)));
    assert_eq!(host.lookup(3), Lookup::Found(mac(3)));
    assert_eq!(host.cache.len(), 3);
}

#[test]
fn a_flood_of_strangers_displaces_only_itself() {
    let mut host = Host::new(|config| config.max_entries = 16);
    for neighbour in 1..=8 {
        host.hear(neighbour, mac(neighbour), true);
        host.lookup(neighbour);
    }
    for stranger in 100..1000 {
        host.hear(stranger, mac(stranger), true);
    }
    assert_eq!(host.cache.len(), 16);
    for neighbour in 1..=8 {
        assert_eq!(host.lookup(neighbour), Lookup::Found(mac(neighbour)));
    }
}

#[test]
fn pending_entries_are_not_given_up() {
    let mut host = Host::new(|config| config.max_entries = 2);
    host.lookup(1);
    host.lookup(2);
    host.cache.enqueue(ip(1), 7).unwrap();
    assert_eq!(host.lookup(3), Lookup::Failed, "no room to ask");
    host.hear(4, mac(4), true);
    assert_eq!(host.cache.counters().table_full, 2);
    assert_eq!(host.hear(1, mac(1), true), [7]);
}

#[test]
fn packets_give_their_slots_back() {
    let pool =
        Pool::new(PoolConfig { slots: 8, slot_len: 2048, cells: 2, try_huge: false }).unwrap();
    let packet = || vec![pool.copy_from(b"packet").unwrap().freeze()];
    let mut cache: Cache<Vec<PacketSlice>> =
        Cache::new(NeighborConfig { max_queued_per_entry: 2, ..NeighborConfig::default() });
    let (now, mut sendable, mut failed) = (Instant::ZERO, Vec::new(), Vec::new());
    for host in [1, 2, 3] {
        cache.lookup(now, ip(host));
        for _ in 0..3 {
            cache.enqueue(ip(host), packet()).unwrap();
        }
    }
    assert_eq!(pool.audit().held, 6, "two for each; the third was dropped");
    cache.handle_reply(now, ip(1), mac(1), true, &mut sendable);
    for second in 1..8 {
        cache.handle_timeout(now + second * SECOND + SECOND / 100, &mut failed);
    }
    assert_eq!((sendable.len(), failed.len(), pool.audit().held), (2, 2, 6));
    drop((sendable, failed));
    assert!(pool.audit().all_free());
    cache.lookup(now + 60 * SECOND, ip(4));
    cache.enqueue(ip(4), packet()).unwrap();
    drop(cache);
    assert!(pool.audit().all_free());
}

proptest! {
    /// Whatever is heard, looked up and waited for: the limits hold, no packet is lost or doubled,
    /// and the order of use holds exactly the entries that nobody waits for.
    #[test]
    fn limits_hold_and_packets_are_conserved(
        steps in proptest::collection::vec((0u8..5, 0u32..12, 1u64..5000), 1..300),
    ) {
        let mut host = Host::new(|config| {
            (config.max_entries, config.max_queued_per_entry, config.max_queued_total) = (6, 3, 8);
        });
        let (mut given, mut came_back) = (0u64, 0u64);
        for (step, neighbour, time) in steps {
            match step {
                0 => drop(host.lookup(neighbour)),
                1 => {
                    if host.lookup(neighbour) == Lookup::Pending {
                        given += 1;
                        // A refused packet is counted as dropped.
                        let _ = host.cache.enqueue(ip(neighbour), 0);
                    }
                }
                2 | 3 => came_back += host.hear(neighbour, mac(time as u32), step == 2).len() as u64,
                _ => {
                    let (_, failed) = host.pass(Duration::from_millis(time));
                    came_back += failed.iter().map(|(_, packets)| packets.len() as u64).sum::<u64>();
                }
            }
            let cache = &host.cache;
            prop_assert!(cache.len() <= 6 && cache.queued() <= 8);
            prop_assert!(cache.requests.len() <= cache.len());
            prop_assert_eq!(cache.timers.len(), cache.len());
            prop_assert_eq!(cache.by_ip.len(), cache.len());
            let in_order = std::iter::successors(cache.oldest, |&i| cache.entries[i as usize].newer);
            let pending = cache.entries.iter()
                .filter(|(_, entry)| matches!(entry.state, State::Incomplete { .. }))
                .count();
            prop_assert_eq!(in_order.count() + pending, cache.len());
            let dropped = cache.counters().queue_dropped;
            prop_assert_eq!(given, came_back + dropped + cache.queued() as u64);
        }
    }
}
