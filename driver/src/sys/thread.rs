//! Which processors a thread may run on.

use std::io;

/// An affinity mask; 1,024 processors fit, which is what the kernel's fixed-size type holds.
type Mask = libc::cpu_set_t;

fn empty_mask() -> Mask {
    // SAFETY: a cpu_set_t is an array of integers, for which all zeros is a value.
    unsafe { std::mem::zeroed() }
}

/// The processors that this thread may run on, in ascending order: what a container or `taskset`
/// left of the machine.
///
/// # Errors
/// What `sched_getaffinity(2)` answers.
pub fn allowed_cores() -> io::Result<Vec<usize>> {
    let mut mask = empty_mask();
    // SAFETY: `mask` is valid for writes of the size given; thread 0 is the calling one.
    let result = unsafe { libc::sched_getaffinity(0, size_of::<Mask>(), &mut mask) };
    if result < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: every index is below the number of bits in the mask.
    Ok((0..8 * size_of::<Mask>()).filter(|&core| unsafe { libc::CPU_ISSET(core, &mask) }).collect())
}

/// Lets the calling thread run on processor `core` only.
///
/// # Errors
/// `InvalidInput` for a processor that does not exist or that this process may not use.
pub fn pin_to_core(core: usize) -> io::Result<()> {
    if core >= 8 * size_of::<Mask>() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut mask = empty_mask();
    // SAFETY: `core` is below the number of bits in the mask.
    unsafe { libc::CPU_SET(core, &mut mask) };
    // SAFETY: `mask` is valid for reads of the size given; thread 0 is the calling one.
    let result = unsafe { libc::sched_setaffinity(0, size_of::<Mask>(), &mask) };
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_is_allowed_one_core() {
        let pinned = std::thread::spawn(|| {
            let core = *allowed_cores().unwrap().last().unwrap();
            pin_to_core(core).unwrap();
            allowed_cores().unwrap() == [core]
        });
        assert!(pinned.join().unwrap());
        assert!(!allowed_cores().unwrap().is_empty());
    }

    #[test]
    fn impossible_cores_are_refused() {
        for core in [1023, 1024, usize::MAX] {
            assert_eq!(pin_to_core(core).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }
}
