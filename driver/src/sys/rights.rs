//! What this process may do, and the kernel's random numbers.

use std::io;

/// The effective user id.
pub fn effective_uid() -> u32 {
    // SAFETY: geteuid takes nothing and cannot fail.
    unsafe { libc::geteuid() }
}

/// `CAP_NET_ADMIN` in `linux/capability.h`.
const CAP_NET_ADMIN: u32 = 12;

/// True if this thread holds `CAP_NET_ADMIN` in its user namespace. The kernel has the last word:
/// use it to explain a refusal, not to predict one.
pub fn has_net_admin() -> bool {
    let Ok(status) = std::fs::read_to_string("/proc/thread-self/status") else { return false };
    effective_capabilities(&status).is_some_and(|caps| caps & 1 << CAP_NET_ADMIN != 0)
}

fn effective_capabilities(status: &str) -> Option<u64> {
    let caps = status.lines().find_map(|line| line.strip_prefix("CapEff:"))?;
    u64::from_str_radix(caps.trim(), 16).ok()
}

/// 128 bits that nobody can predict, from `getrandom(2)`. Waits for the kernel's generator in the
/// first moments after boot.
///
/// # Errors
/// What the kernel answers where it has no such call.
pub fn random_u128() -> io::Result<u128> {
    let mut bytes = [0u8; 16];
    let mut filled = 0;
    while filled < bytes.len() {
        let rest = &mut bytes[filled..];
        // SAFETY: `rest` is valid for writes of its length during the call.
        let n = unsafe { libc::getrandom(rest.as_mut_ptr().cast(), rest.len(), 0) };
        match usize::try_from(n) {
            Ok(n) => filled += n,
            Err(_) => {
                let error = io::Error::last_os_error();
                if error.kind() != io::ErrorKind::Interrupted {
                    return Err(error);
                }
            }
        }
    }
    Ok(u128::from_ne_bytes(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_numbers_differ() {
        let (a, b) = (random_u128().unwrap(), random_u128().unwrap());
        assert_ne!(a, b);
        assert!(a >> 64 != 0 && a as u64 != 0);
    }

    #[test]
    fn capabilities_are_read_from_the_effective_set() {
        let status = "Name:\tx\nCapPrm:\t0000000000000000\nCapEff:\t0000000000001000\n";
        assert_eq!(effective_capabilities(status), Some(1 << CAP_NET_ADMIN));
        assert_eq!(effective_capabilities("Name:\tx\n"), None);
    }
}
