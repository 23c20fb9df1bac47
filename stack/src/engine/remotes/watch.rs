//! Sockets that the engine looks at in each of its turns, whether it has been told of them or not.
//!
//! A thread that posts to its engine writes to the portal's flag and to the queue of posts, and both
//! are in the engine's cache. Who talks all the time is watched: its flag alone tells. The few places go
//! to those who have posted last, and are kept for as long as they are made use of.

use std::sync::Arc;

use arrayvec::ArrayVec;

use crate::engine::portal::Portal;

/// Sockets that are watched: a look at one costs a nanosecond, in every turn.
const PLACES: usize = 8;

/// Looks in vain after which a place may be another's.
const PATIENCE: u32 = 4096;

struct Place {
    portal: Arc<Portal>,
    /// Looks in vain since the last one that was not.
    quiet: u32,
}

/// The sockets that are watched.
#[derive(Default)]
pub(super) struct Watch {
    places: ArrayVec<Place, PLACES>,
    /// Whose place is asked for next.
    next: usize,
}

impl Watch {
    /// Takes over from the queue of posts; the engine is about to look at the socket. Whoever had to
    /// make room and has something as well is told to `mark`.
    pub(super) fn take_in(&mut self, portal: &Arc<Portal>, mut mark: impl FnMut(u32)) {
        if self.places.is_full() {
            self.next = (self.next + 1) % PLACES;
            match self.places.get(self.next) {
                Some(place) if place.quiet >= PATIENCE => {
                    let place = self.places.swap_remove(self.next);
                    if place.portal.taken() {
                        mark(place.portal.key);
                    }
                }
                Some(_) | None => {
                    portal.taken();
                    return;
                }
            }
        }
        portal.watched();
        self.places.push(Place { portal: portal.clone(), quiet: 0 });
    }

    /// Tells all that have something to `mark`.
    pub(super) fn look(&mut self, mut mark: impl FnMut(u32)) {
        for place in &mut self.places {
            place.quiet = place.quiet.saturating_add(1);
            if place.portal.look() {
                place.quiet = 0;
                mark(place.portal.key);
            }
        }
    }

    /// True if one of them has something.
    pub(super) fn has_work(&self) -> bool {
        self.places.iter().any(|place| place.portal.is_posted())
    }

    /// Watches this one no more; true if it did.
    pub(super) fn forget(&mut self, portal: &Arc<Portal>) -> bool {
        let place = self.places.iter().position(|place| Arc::ptr_eq(&place.portal, portal));
        place.map(|place| self.places.swap_remove(place)).is_some()
    }

    /// Watches nobody any more.
    pub(super) fn clear(&mut self) {
        self.places.clear();
    }
}
