//! Files for servers: opened beneath a directory and never outside of it.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path};

/// How often a lookup is repeated that a rename elsewhere in the tree disturbed.
const RACE_RETRIES: usize = 8;

/// A regular open of a served file: never waits for a FIFO's writer, never becomes a terminal.
const OPEN_FLAGS: libc::c_int =
    libc::O_RDONLY | libc::O_CLOEXEC | libc::O_NONBLOCK | libc::O_NOCTTY;

/// Opens `path` for reading, beneath the directory `root` and never outside of it.
///
/// The kernel itself checks every step (`openat2(2)`, `RESOLVE_BENEATH`), so neither `..` nor a
/// symbolic link that leads out, nor one that is swapped during the lookup, gets past the root.
/// Links that stay inside are followed. A kernel without `openat2` gets a walk that follows none.
///
/// # Errors
/// `PermissionDenied` for a path that leaves the root, `InvalidInput` for one that is absolute or
/// contains NUL, else what the kernel answers.
pub fn open_beneath(root: &File, path: &Path) -> io::Result<File> {
    if path.is_absolute() {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let name = CString::new(path.as_os_str().as_bytes())?;
    for _ in 0..RACE_RETRIES {
        match openat2(root.as_raw_fd(), &name) {
            Err(e) if e.raw_os_error() == Some(libc::EAGAIN) => {}
            Err(e) if e.raw_os_error() == Some(libc::ENOSYS) => return walk(root, path),
            other => return other.map_err(hide_escape),
        }
    }
    Err(io::Error::from_raw_os_error(libc::EAGAIN))
}

/// Leaving the root and a loop of links are both the tree's refusal, not a broken server.
fn hide_escape(error: io::Error) -> io::Error {
    match error.raw_os_error() {
        Some(libc::EXDEV | libc::ELOOP) => io::ErrorKind::PermissionDenied.into(),
        _ => error,
    }
}

fn openat2(root: RawFd, name: &CString) -> io::Result<File> {
    // SAFETY: `open_how` is plain data, for which all zero is valid and means "nothing asked".
    let mut how: libc::open_how = unsafe { std::mem::zeroed() };
    how.flags = OPEN_FLAGS as u64;
    how.resolve = libc::RESOLVE_BENEATH | libc::RESOLVE_NO_MAGICLINKS;
    // SAFETY: `name` is NUL-terminated and `how` is a whole `open_how` of the size given; both
    // live over the call, which writes to neither.
    let fd = unsafe {
        libc::syscall(libc::SYS_openat2, root, name.as_ptr(), &raw const how, size_of_val(&how))
    };
    own(fd as libc::c_int)
}

/// The lookup for kernels before 5.6: one component at a time, following no link.
fn walk(root: &File, path: &Path) -> io::Result<File> {
    let mut dir: Option<File> = None;
    for component in path.components() {
        let name = match component {
            Component::Normal(name) => CString::new(name.as_bytes())?,
            Component::CurDir => c".".to_owned(),
            Component::ParentDir | Component::RootDir | Component::Prefix(_) => {
                return Err(io::ErrorKind::PermissionDenied.into());
            }
        };
        let at = dir.as_ref().unwrap_or(root).as_raw_fd();
        // SAFETY: `at` is open for as long as `dir` or `root` is, and `name` is NUL-terminated.
        let fd = unsafe { libc::openat(at, name.as_ptr(), OPEN_FLAGS | libc::O_NOFOLLOW) };
        dir = Some(own(fd).map_err(hide_escape)?);
    }
    dir.ok_or_else(|| io::ErrorKind::NotFound.into())
}

fn own(fd: libc::c_int) -> io::Result<File> {
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just returned this descriptor and nobody else knows it.
    Ok(unsafe { File::from_raw_fd(fd) })
}

/// True if this process, with its effective ids, may open `path` for reading and writing. Nothing is
/// opened: opening some device nodes takes them away from others.
pub fn may_read_and_write(path: &Path) -> bool {
    let Ok(path) = CString::new(path.as_os_str().as_bytes()) else { return false };
    let mode = libc::R_OK | libc::W_OK;
    // SAFETY: `path` is NUL-terminated and lives over the call.
    unsafe { libc::faccessat(libc::AT_FDCWD, path.as_ptr(), mode, libc::AT_EACCESS) == 0 }
}

/// True if `error` says that the process or the system has no descriptor left.
pub fn out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;
    use std::{fs, process};

    struct Tree(PathBuf);

    impl Tree {
        fn new(name: &str) -> Tree {
            let top = std::env::temp_dir().join(format!("barewire-{name}-{}", process::id()));
            let _ = fs::remove_dir_all(&top);
            fs::create_dir_all(top.join("root/sub")).unwrap();
            fs::write(top.join("secret"), "secret").unwrap();
            fs::write(top.join("root/sub/file"), "0123456789").unwrap();
            symlink("sub/file", top.join("root/inside")).unwrap();
            symlink("../secret", top.join("root/out")).unwrap();
            symlink("/etc/passwd", top.join("root/absolute")).unwrap();
            symlink("round", top.join("root/round")).unwrap();
            Tree(top)
        }

        fn root(&self) -> File {
            File::open(self.0.join("root")).unwrap()
        }
    }

    impl Drop for Tree {
        fn drop(&mut self) {
            let _ = fs::remove_dir_all(&self.0);
        }
    }

    fn kind(result: io::Result<File>) -> io::ErrorKind {
        result.unwrap_err().kind()
    }

    #[test]
    fn only_what_lies_beneath_the_root_opens() {
        let tree = Tree::new("beneath");
        let root = tree.root();
        let open = |path: &str| open_beneath(&root, Path::new(path));
        assert!(open("sub/file").is_ok() && open("inside").is_ok() && open("sub/../sub").is_ok());
        for path in ["out", "absolute", "../secret", "round", "sub/../../secret"] {
            assert_eq!(kind(open(path)), io::ErrorKind::PermissionDenied, "{path}");
        }
        assert_eq!(kind(open("/etc/passwd")), io::ErrorKind::InvalidInput);
        assert_eq!(kind(open("sub\0/file")), io::ErrorKind::InvalidInput);
        assert_eq!(kind(open("none")), io::ErrorKind::NotFound);
    }

    #[test]
    fn the_walk_of_old_kernels_follows_no_link() {
        let tree = Tree::new("walk");
        let root = tree.root();
        assert!(walk(&root, Path::new("sub/file")).is_ok());
        for path in ["inside", "out", "absolute", "../secret", "sub/../sub/file"] {
            assert_eq!(
                kind(walk(&root, Path::new(path))),
                io::ErrorKind::PermissionDenied,
                "{path}"
            );
        }
    }
}
