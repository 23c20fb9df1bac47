//! Who waits for a socket.

use std::task::Waker;

/// What a task waits for at a socket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// Data, a connection to accept, the end of the stream, or an error.
    Read,
    /// Room to send, the end of the handshake, or an error.
    Write,
}

/// Tasks that wait for a socket: one in each direction, most often.
#[derive(Default)]
pub(super) struct Waiters {
    read: Place,
    write: Place,
    others: Option<Box<Others>>,
}

/// Tasks that wait beside the first of their direction.
#[derive(Default)]
struct Others(Vec<(Direction, Waker)>);

impl Waiters {
    fn place(&mut self, direction: Direction) -> &mut Place {
        match direction {
            Direction::Read => &mut self.read,
            Direction::Write => &mut self.write,
        }
    }

    /// Has the task behind `waker` woken once by the next [`Waiters::wake`] of this direction.
    pub(super) fn add(&mut self, direction: Direction, waker: &Waker) {
        if !self.place(direction).take_in(waker) {
            self.others.get_or_insert_default().add(direction, waker);
        }
    }

    /// Wakes who waits in this direction.
    pub(super) fn wake(&mut self, direction: Direction) {
        self.place(direction).wake();
        if let Some(others) = &mut self.others {
            others.wake(direction);
        }
    }

    /// Wakes who waits in any direction.
    pub(super) fn wake_all(&mut self) {
        self.wake(Direction::Read);
        self.wake(Direction::Write);
    }
}

impl Others {
    #[cold]
    fn add(&mut self, direction: Direction, waker: &Waker) {
        let is_here = |(of, other): &(_, Waker)| *of == direction && other.will_wake(waker);
        if !self.0.iter().any(is_here) {
            self.0.push((direction, waker.clone()));
        }
    }

    #[cold]
    fn wake(&mut self, direction: Direction) {
        self.0.retain(|(of, waker)| {
            let stays = *of != direction;
            if !stays {
                waker.wake_by_ref();
            }
            stays
        });
    }
}

/// Where one task waits.
#[derive(Default)]
struct Place {
    /// Kept when it has been woken: most often the same task waits next, and then it is not cloned.
    waker: Option<Waker>,
    waits: bool,
}

impl Place {
    /// Takes the task in; false if another waits here.
    fn take_in(&mut self, waker: &Waker) -> bool {
        if !self.waker.as_ref().is_some_and(|own| own.will_wake(waker)) {
            if self.waits {
                return false;
            }
            self.waker = Some(waker.clone());
        }
        self.waits = true;
        true
    }

    fn wake(&mut self) {
        if std::mem::take(&mut self.waits)
            && let Some(waker) = &self.waker
        {
            waker.wake_by_ref();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    use super::*;

    #[derive(Default)]
    struct Task(AtomicUsize);

    impl Wake for Task {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Tasks, and how often each has been woken.
    fn tasks<const N: usize>() -> ([Waker; N], impl Fn() -> [usize; N]) {
        let tasks: [Arc<Task>; N] = std::array::from_fn(|_| Arc::default());
        let wakers = tasks.each_ref().map(|task| Waker::from(task.clone()));
        (wakers, move || tasks.each_ref().map(|task| task.0.load(Ordering::Relaxed)))
    }

    #[test]
    fn a_wait_is_woken_once_and_in_its_own_direction() {
        let ([reader, writer], woken) = tasks();
        let mut waiters = Waiters::default();
        for _ in 0..2 {
            waiters.add(Direction::Read, &reader);
            waiters.add(Direction::Write, &writer);
        }
        waiters.wake(Direction::Read);
        waiters.wake(Direction::Read);
        assert_eq!(woken(), [1, 0]);
        waiters.add(Direction::Read, &reader);
        waiters.wake_all();
        waiters.wake_all();
        assert_eq!(woken(), [2, 1]);
    }

    #[test]
    fn all_who_wait_are_woken_and_who_has_been_is_not_again() {
        let ([a, b, c], woken) = tasks();
        let mut waiters = Waiters::default();
        for waker in [&a, &b, &c, &b, &a] {
            waiters.add(Direction::Read, waker);
        }
        waiters.add(Direction::Write, &c);
        waiters.wake(Direction::Read);
        assert_eq!(woken(), [1, 1, 1]);
        // Another takes the place of one that has gone on.
        waiters.add(Direction::Read, &b);
        waiters.wake(Direction::Read);
        assert_eq!(woken(), [1, 2, 1]);
        waiters.wake_all();
        assert_eq!(woken(), [1, 2, 2], "who waited to write");
    }

    #[test]
    fn a_task_that_waits_again_is_not_cloned() {
        let task = Arc::new(Task::default());
        let waker = Waker::from(task.clone());
        let mut waiters = Waiters::default();
        waiters.add(Direction::Read, &waker);
        let holders = Arc::strong_count(&task);
        for _ in 0..3 {
            waiters.wake(Direction::Read);
            waiters.add(Direction::Read, &waker);
            assert_eq!(Arc::strong_count(&task), holders);
        }
        drop(waiters);
        assert_eq!(Arc::strong_count(&task), 2);
    }
}
