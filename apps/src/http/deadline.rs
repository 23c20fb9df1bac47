//! Deadlines for the calls of a transport, at hardly any cost while nothing is late.
//!
//! A deadline that moves with every request would mean a timer set and taken back per request.
//! Here a timer is only looked at when a call has to wait, and one that runs already is left
//! running: when it fires too early it is set again for the rest.

use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

/// Where time comes from.
pub trait Timer {
    /// What [`Timer::sleep`] returns.
    type Sleep: Future<Output = ()>;

    /// Ends after `duration`.
    fn sleep(&self, duration: Duration) -> Self::Sleep;

    /// The time now.
    fn now(&self) -> Instant;
}

/// A point in time by which calls must have ended; see [`super::Transport::set_deadline`].
#[derive(Debug)]
pub struct Deadline<T: Timer> {
    timer: T,
    at: Option<Instant>,
    /// A running timer and when it fires: never later than `at` once a call waits.
    running: Option<(Instant, Pin<Box<T::Sleep>>)>,
}

impl<T: Timer> Deadline<T> {
    /// No deadline yet.
    pub fn new(timer: T) -> Deadline<T> {
        Deadline { timer, at: None, running: None }
    }

    /// Moves the deadline to `timeout` from now, or takes it away.
    pub fn set(&mut self, timeout: Option<Duration>) {
        self.at = timeout.and_then(|timeout| self.timer.now().checked_add(timeout));
    }

    /// Runs `call`, but not beyond the deadline.
    ///
    /// # Errors
    /// The call's own, or `TimedOut`.
    pub async fn run<R>(&mut self, call: impl Future<Output = io::Result<R>>) -> io::Result<R> {
        let mut call = pin!(call);
        poll_fn(|cx| match call.as_mut().poll(cx) {
            Poll::Ready(result) => Poll::Ready(result),
            Poll::Pending => self.poll_late(cx).map(|()| Err(io::ErrorKind::TimedOut.into())),
        })
        .await
    }

    fn poll_late(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        let Some(at) = self.at else { return Poll::Pending };
        if self.running.as_ref().is_some_and(|(fires, _)| *fires > at) {
            self.running = None;
        }
        loop {
            let (_, sleep) = match &mut self.running {
                Some(running) => running,
                None => {
                    let now = self.timer.now();
                    if now >= at {
                        return Poll::Ready(());
                    }
                    let sleep = self.timer.sleep(at.duration_since(now));
                    self.running.insert((at, Box::pin(sleep)))
                }
            };
            match sleep.as_mut().poll(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(()) => self.running = None,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::{Cell, RefCell};
    use std::rc::Rc;
    use std::task::Waker;

    /// A clock that the test moves.
    #[derive(Clone)]
    struct Manual(Rc<(Instant, Cell<u64>, RefCell<Vec<u64>>)>);

    impl Manual {
        fn new() -> Manual {
            Manual(Rc::new((Instant::now(), Cell::new(0), RefCell::default())))
        }

        fn go_to(&self, seconds: u64) {
            self.0.1.set(seconds);
        }

        /// How long each sleep was asked to be.
        fn sleeps(&self) -> Vec<u64> {
            self.0.2.borrow().clone()
        }
    }

    struct Sleep(Manual, Instant);

    impl Future for Sleep {
        type Output = ();
        fn poll(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
            if self.0.now() >= self.1 { Poll::Ready(()) } else { Poll::Pending }
        }
    }

    impl Timer for Manual {
        type Sleep = Sleep;
        fn sleep(&self, duration: Duration) -> Sleep {
            self.0.2.borrow_mut().push(duration.as_secs());
            Sleep(self.clone(), self.now() + duration)
        }
        fn now(&self) -> Instant {
            self.0.0 + Duration::from_secs(self.0.1.get())
        }
    }

    /// Polls a call that never ends; true if the deadline ended it.
    fn late(deadline: &mut Deadline<Manual>) -> bool {
        let call = deadline.run(std::future::pending::<io::Result<()>>());
        match pin!(call).poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(Err(e)) => e.kind() == io::ErrorKind::TimedOut,
            Poll::Ready(Ok(())) => unreachable!("the call never ends"),
            Poll::Pending => false,
        }
    }

    #[test]
    fn a_call_ends_at_the_deadline_and_not_before() {
        let clock = Manual::new();
        let mut deadline = Deadline::new(clock.clone());
        assert!(!late(&mut deadline));
        deadline.set(Some(Duration::from_secs(10)));
        clock.go_to(9);
        assert!(!late(&mut deadline));
        clock.go_to(10);
        assert!(late(&mut deadline) && late(&mut deadline));
        deadline.set(None);
        assert!(!late(&mut deadline));
    }

    #[test]
    fn a_deadline_that_moves_away_needs_no_new_timer() {
        let clock = Manual::new();
        let mut deadline = Deadline::new(clock.clone());
        for second in 0..50 {
            clock.go_to(second);
            deadline.set(Some(Duration::from_secs(60)));
            assert!(!late(&mut deadline));
        }
        assert_eq!(clock.sleeps(), [60]);
        clock.go_to(60);
        assert!(!late(&mut deadline), "the last deadline is at 109");
        assert_eq!(clock.sleeps(), [60, 49]);
        deadline.set(Some(Duration::from_secs(5)));
        assert!(!late(&mut deadline));
        assert_eq!(clock.sleeps(), [60, 49, 5], "an earlier deadline does");
    }
}
