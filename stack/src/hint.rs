//! What hardly ever happens, told to the compiler, so that it lies apart from what happens each time.
//!
//! A short conversation runs through more code than a first-level cache holds: how densely the code of
//! the usual way lies decides how much of it has to be fetched.

use std::hint::cold_path;

/// `found`, which is hardly ever nothing.
#[inline(always)]
pub(crate) fn usually<T>(found: Option<T>) -> Option<T> {
    match found {
        Some(found) => Some(found),
        None => {
            cold_path();
            None
        }
    }
}

/// `condition`, which is hardly ever true.
#[inline(always)]
pub(crate) fn rarely(condition: bool) -> bool {
    // By constants: a branch that decides nothing would be gone before its hint is of use.
    if condition {
        cold_path();
        true
    } else {
        false
    }
}
