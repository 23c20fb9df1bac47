//! Tests of the executor.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize};
use std::task::Poll;
use std::time::{Duration, Instant};

use super::*;

fn executor(limit: usize) -> Executor {
    Executor::new(limit, Arc::new(Doorbell::new().unwrap()))
}

fn pending_forever() -> impl Future<Output = ()> {
    std::future::pending()
}

/// Runs until nothing is ready.
fn settle(executor: &Executor) {
    while executor.run(16) > 0 {}
}

#[test]
fn a_woken_task_is_polled_once_for_many_wakes() {
    let executor = executor(4);
    let _entered = executor.enter();
    let kept: Rc<RefCell<Option<Waker>>> = Rc::default();
    let polls = Rc::new(Cell::new(0));
    let (keep, count) = (kept.clone(), polls.clone());
    assert!(executor.spawn(std::future::poll_fn(move |cx| {
        *keep.borrow_mut() = Some(cx.waker().clone());
        count.set(count.get() + 1);
        Poll::Pending
    })));
    settle(&executor);
    assert_eq!(polls.get(), 1);
    let waker = kept.borrow().clone().unwrap();
    for _ in 0..10 {
        waker.wake_by_ref();
    }
    assert!(executor.has_ready());
    settle(&executor);
    assert_eq!(polls.get(), 2);
    assert!(!executor.has_ready());
}

#[test]
fn the_budget_leaves_the_rest_for_the_next_turn() {
    let executor = executor(10);
    let _entered = executor.enter();
    for _ in 0..10 {
        executor.spawn(async {});
    }
    assert_eq!(executor.run(4), 4);
    assert_eq!(executor.counters().finished, 4);
    assert_eq!(executor.run(100), 6);
    assert_eq!(executor.tasks(), 0);
}

#[test]
fn tasks_over_the_limit_are_refused_and_counted() {
    let executor = executor(2);
    let _entered = executor.enter();
    assert!(executor.spawn(pending_forever()));
    assert!(executor.spawn(pending_forever()));
    assert!(!executor.spawn(pending_forever()));
    assert_eq!(executor.counters().refused, 1);
    executor.drop_all();
    assert_eq!(executor.tasks(), 0);
    assert!(!executor.spawn(async {}), "a stopped executor takes no task");
}

#[test]
fn what_a_task_starts_begins_in_the_same_run_and_what_wakes_itself_in_the_next() {
    let executor = Rc::new(executor(8));
    let _entered = executor.enter();
    let polls: Rc<RefCell<Vec<&str>>> = Rc::default();
    let (weak, note) = (Rc::downgrade(&executor), polls.clone());
    // A task that asks for its next turn at once, each time.
    let restless = move |name: &'static str, note: Rc<RefCell<Vec<&'static str>>>| {
        std::future::poll_fn(move |cx| {
            note.borrow_mut().push(name);
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        })
    };
    executor.spawn(async move {
        let executor = weak.upgrade().unwrap();
        executor.spawn(restless("second", note.clone()));
        drop(executor);
        restless("first", note).await;
    });
    assert_eq!(executor.run(16), 2);
    assert_eq!(*polls.borrow(), ["first", "second"]);
    assert_eq!(executor.run(16), 2);
    assert_eq!(executor.run(1), 1);
    assert_eq!(*polls.borrow(), ["first", "second", "first", "second", "first"]);
    executor.drop_all();
    assert!(!executor.has_ready());
}

struct OnDrop<F: FnMut()>(F);

impl<F: FnMut()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test]
fn a_panic_ends_its_own_task_only() {
    let executor = Rc::new(executor(8));
    let _entered = executor.enter();
    let dropped = Rc::new(Cell::new(None));
    let (weak, note) = (Rc::downgrade(&executor), dropped.clone());
    executor.spawn(async move {
        let _guard = OnDrop(move || {
            let failing = weak.upgrade().is_some_and(|e| e.is_failing());
            note.set(Some(failing || std::thread::panicking()));
        });
        panic!("a handler's own fault (expected by this test)");
    });
    let reached = Rc::new(Cell::new(false));
    let reach = reached.clone();
    executor.spawn(async move { reach.set(true) });
    settle(&executor);
    assert!(reached.get());
    assert_eq!(dropped.get(), Some(true), "what it owned could see that it failed");
    let counters = executor.counters();
    assert_eq!((counters.panicked, counters.finished), (1, 1));
    assert_eq!(executor.tasks(), 0);
    assert!(!executor.is_failing());
}

#[test]
fn a_panicking_destructor_is_contained() {
    let executor = executor(8);
    let _entered = executor.enter();
    executor.spawn(async {
        let _guard = OnDrop(|| panic!("a destructor's fault (expected by this test)"));
        pending_forever().await;
    });
    settle(&executor);
    executor.drop_all();
    assert_eq!(executor.counters().panicked, 1);
}

#[test]
fn a_late_wake_of_a_finished_task_reaches_nobody() {
    let executor = executor(8);
    let _entered = executor.enter();
    let kept: Rc<RefCell<Option<Waker>>> = Rc::default();
    let keep = kept.clone();
    executor.spawn(std::future::poll_fn(move |cx| {
        *keep.borrow_mut() = Some(cx.waker().clone());
        Poll::Ready(())
    }));
    settle(&executor);
    let polls = Rc::new(Cell::new(0));
    let count = polls.clone();
    // Takes the slot, and the key, of the one before.
    executor.spawn(std::future::poll_fn(move |_| {
        count.set(count.get() + 1);
        Poll::<()>::Pending
    }));
    settle(&executor);
    kept.borrow().as_ref().unwrap().wake_by_ref();
    settle(&executor);
    assert_eq!(polls.get(), 1);
}

#[test]
fn a_task_may_spawn_others_while_it_runs() {
    let executor = Rc::new(executor(8));
    let _entered = executor.enter();
    let done = Rc::new(Cell::new(0));
    let (weak, count) = (Rc::downgrade(&executor), done.clone());
    executor.spawn(async move {
        let executor = weak.upgrade().unwrap();
        for _ in 0..3 {
            let count = count.clone();
            executor.spawn(async move { count.set(count.get() + 1) });
        }
    });
    settle(&executor);
    assert_eq!(done.get(), 3);
}

/// A future that waits for a token put into a shared slot by another thread.
struct Mail(Mutex<(Option<u64>, Option<Waker>)>);

#[test]
fn no_wake_from_another_thread_is_lost() {
    const ROUNDS: u64 = 20_000;
    let doorbell = Arc::new(Doorbell::new().unwrap());
    let executor = Executor::new(4, doorbell.clone());
    let _entered = executor.enter();
    let mail = Arc::new(Mail(Mutex::default()));
    let (got, stop) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
    let (inbox, count, end) = (mail.clone(), got.clone(), stop.clone());
    executor.spawn(async move {
        for round in 0..ROUNDS {
            let token = std::future::poll_fn(|cx| {
                let mut slot = inbox.0.lock().unwrap();
                slot.0.take().map_or_else(
                    || {
                        slot.1 = Some(cx.waker().clone());
                        Poll::Pending
                    },
                    Poll::Ready,
                )
            });
            assert_eq!(token.await, round);
            count.fetch_add(1, Ordering::Release);
        }
        end.store(true, Ordering::Release);
    });
    let (outbox, seen) = (mail.clone(), got.clone());
    let sender = std::thread::spawn(move || {
        for round in 0..ROUNDS {
            let waker = {
                let mut slot = outbox.0.lock().unwrap();
                slot.0 = Some(round);
                slot.1.take()
            };
            waker.into_iter().for_each(Waker::wake);
            while seen.load(Ordering::Acquire) as u64 <= round {
                std::thread::yield_now();
            }
        }
    });
    let deadline = Instant::now() + Duration::from_secs(60);
    while !stop.load(Ordering::Acquire) {
        if executor.run(16) == 0 {
            // Sleeps as an engine does; a lost wake would leave it here.
            doorbell.announce();
            if !executor.has_ready() {
                doorbell.sleep_at_most(Duration::from_secs(5));
                assert!(Instant::now() < deadline, "a wake was lost");
            }
            doorbell.awake();
        }
    }
    sender.join().unwrap();
    assert_eq!(got.load(Ordering::Acquire) as u64, ROUNDS);
}

#[test]
fn new_tasks_begin_although_as_many_are_always_ready_as_a_turn_polls() {
    const BUDGET: usize = 4;
    let executor = executor(100);
    let _entered = executor.enter();
    for _ in 0..2 * BUDGET {
        executor.spawn(std::future::poll_fn(|cx| {
            cx.waker().wake_by_ref();
            Poll::Pending
        }));
    }
    for _ in 0..4 {
        executor.run(BUDGET);
    }
    let began = Rc::new(Cell::new(0));
    for _ in 0..BUDGET {
        let began = began.clone();
        executor.spawn(async move { began.set(began.get() + 1) });
    }
    for turn in 1..=2 {
        assert_eq!(executor.run(BUDGET), BUDGET);
        assert_eq!(began.get(), turn * BUDGET / 2, "after {turn} turns");
    }
}
