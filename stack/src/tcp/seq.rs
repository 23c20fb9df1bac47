//! Sequence numbers and window scales: the two kinds of number that are easy to get wrong.

use std::fmt;
use std::ops::{Add, AddAssign, Sub};

/// A sequence number (RFC 9293 §3.4): a point on a circle of 2^32.
///
/// It has no `Ord`: of two points on a circle neither is the greater one. [`SeqNum::before`] and
/// its kin compare two numbers that are less than 2^31 apart, as all those of one connection are:
/// no window is larger than 2^30 bytes (RFC 7323 §2.3).
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct SeqNum(u32);

impl SeqNum {
    /// The sequence number that is `value` on the wire.
    pub const fn new(value: u32) -> SeqNum {
        SeqNum(value)
    }

    /// The number as on the wire.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// `self < other`.
    pub const fn before(self, other: SeqNum) -> bool {
        (self.0.wrapping_sub(other.0) as i32) < 0
    }

    /// `self <= other`.
    pub const fn before_eq(self, other: SeqNum) -> bool {
        self.0 == other.0 || self.before(other)
    }

    /// `self > other`.
    pub const fn after(self, other: SeqNum) -> bool {
        other.before(self)
    }

    /// `self >= other`.
    pub const fn after_eq(self, other: SeqNum) -> bool {
        other.before_eq(self)
    }

    /// Sequence numbers from `earlier` up to this one, or 0 if it lies before `earlier`.
    pub const fn since(self, earlier: SeqNum) -> u32 {
        if self.before(earlier) { 0 } else { self.0.wrapping_sub(earlier.0) }
    }

    /// The later of the two.
    pub const fn later(self, other: SeqNum) -> SeqNum {
        if self.before(other) { other } else { self }
    }

    /// The earlier of the two.
    pub const fn earlier(self, other: SeqNum) -> SeqNum {
        if other.before(self) { other } else { self }
    }
}

impl Add<u32> for SeqNum {
    type Output = SeqNum;
    fn add(self, n: u32) -> SeqNum {
        SeqNum(self.0.wrapping_add(n))
    }
}

impl AddAssign<u32> for SeqNum {
    fn add_assign(&mut self, n: u32) {
        *self = *self + n;
    }
}

impl Sub<u32> for SeqNum {
    type Output = SeqNum;
    fn sub(self, n: u32) -> SeqNum {
        SeqNum(self.0.wrapping_sub(n))
    }
}

impl fmt::Debug for SeqNum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// The shift of a window field (RFC 7323 §2), never over 14.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct WindowScale(u8);

impl WindowScale {
    /// No scaling.
    pub const NONE: WindowScale = WindowScale(0);

    /// The scale that an option asked for. RFC 7323 §2.3: a shift over 14 is used as 14.
    pub const fn from_option(shift: u8) -> WindowScale {
        WindowScale(if shift > 14 { 14 } else { shift })
    }

    /// The smallest scale that lets a window field express `buffer_bytes`.
    pub const fn for_buffer(buffer_bytes: u32) -> WindowScale {
        let mut shift = 0;
        while shift < 14 && (u16::MAX as u32) << shift < buffer_bytes {
            shift += 1;
        }
        WindowScale(shift)
    }

    /// The shift.
    pub const fn shift(self) -> u8 {
        self.0
    }

    /// Bytes that a window field stands for.
    pub const fn bytes(self, field: u16) -> u32 {
        (field as u32) << self.0
    }

    /// The field for a window of at most `bytes`.
    pub fn field_down(self, bytes: u32) -> u16 {
        u16::try_from(bytes >> self.0).unwrap_or(u16::MAX)
    }

    /// The field for a window of at least `bytes`, where a field can say so. RFC 7323 §2.4: rounding
    /// down an unchanged right edge would move it back.
    pub fn field_up(self, bytes: u32) -> u16 {
        u16::try_from(bytes.div_ceil(1 << self.0)).unwrap_or(u16::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn order_holds_across_the_wrap() {
        let (a, b) = (SeqNum::new(u32::MAX - 1), SeqNum::new(3));
        assert!(a.before(b) && b.after(a) && !b.before(a) && a.before_eq(a) && a.after_eq(a));
        assert_eq!((b.since(a), a.since(b)), (5, 0));
        assert_eq!((a.later(b), a.earlier(b)), (b, a));
        assert_eq!(a + 5, b);
        assert_eq!(b - 5, a);
    }

    #[test]
    fn scales_cover_buffers() {
        assert_eq!(WindowScale::for_buffer(65_535).shift(), 0);
        assert_eq!(WindowScale::for_buffer(65_536).shift(), 1);
        assert_eq!(WindowScale::for_buffer(u32::MAX).shift(), 14);
        assert_eq!(WindowScale::from_option(200).shift(), 14);
        let s = WindowScale::from_option(7);
        assert_eq!((s.field_down(129), s.field_up(129), s.field_up(128)), (1, 2, 1));
        assert_eq!(s.bytes(2), 256);
    }

    proptest! {
        #[test]
        fn before_is_distance_on_the_circle(start: u32, distance in 1u32..1 << 31) {
            let (a, b) = (SeqNum::new(start), SeqNum::new(start) + distance);
            prop_assert!(a.before(b) && !b.before(a) && b.since(a) == distance);
        }
    }
}
