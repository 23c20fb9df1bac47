//! Memory from the kernel: page sizes and anonymous memory files.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::FromRawFd;

/// Bytes in an ordinary page.
pub fn page_size() -> usize {
    // SAFETY: sysconf takes no pointer.
    let size = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(size).unwrap_or(4096)
}

/// Bytes in a hugepage of the default size, or `None` where the kernel has none configured.
pub fn hugepage_size() -> Option<usize> {
    let meminfo = std::fs::read_to_string("/proc/meminfo").ok()?;
    let field = |name: &str| -> Option<usize> {
        let line = meminfo.lines().find(|line| line.starts_with(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    (field("HugePages_Free:")? > 0).then_some(field("Hugepagesize:")? * 1024)
}

/// An anonymous memory file, in hugepages of the default size if `huge`.
///
/// # Errors
/// What `memfd_create(2)` answers.
pub fn memfd(name: &str, huge: bool) -> io::Result<File> {
    let name = CString::new(name).map_err(|_| io::ErrorKind::InvalidInput)?;
    let flags = libc::MFD_CLOEXEC | if huge { libc::MFD_HUGETLB } else { 0 };
    // SAFETY: `name` is a NUL-terminated string that lives over the call.
    let fd = unsafe { libc::memfd_create(name.as_ptr(), flags) };
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned this descriptor and nobody else knows it.
    Ok(unsafe { File::from_raw_fd(fd) })
}
