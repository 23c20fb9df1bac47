//! `scripts/demo --once`, as root and as nobody in particular, and what it leaves behind.

use std::fs::{self, Permissions};
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// The device node that a user without rights needs, open to all.
const TUN: &str = "/dev/net/tun";

/// Who has no rights anywhere: `nobody` and `nogroup`, by number.
const NOBODY: u32 = 65_534;

fn is_root() -> bool {
    fs::metadata("/proc/self").is_ok_and(|meta| meta.uid() == 0)
}

/// Says by name that a test cannot run here; true if it can.
fn can_run(test: &str, needed: bool, what: &str) -> bool {
    if !needed {
        // Written, not printed: the harness swallows what passing tests print.
        let _ = writeln!(std::io::stderr(), "SKIPPED {test}: {what}");
    }
    needed
}

/// A folder that everybody may read, with the script and the program in it.
struct Kit(PathBuf);

impl Kit {
    fn new(name: &str) -> Kit {
        let top = std::env::temp_dir().join(format!("barewire-{name}-{}", std::process::id()));
        fs::create_dir_all(top.join("scripts")).unwrap();
        fs::create_dir_all(top.join("tmp")).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/demo");
        fs::copy(script, top.join("scripts/demo")).unwrap();
        fs::copy(env!("CARGO_BIN_EXE_barewire"), top.join("barewire")).unwrap();
        for (path, mode) in [("", 0o755), ("scripts", 0o755), ("barewire", 0o755), ("tmp", 0o1777)]
        {
            fs::set_permissions(top.join(path), Permissions::from_mode(mode)).unwrap();
        }
        Kit(top)
    }

    fn demo(&self, command: &mut Command) -> Output {
        command
            .arg(self.0.join("scripts/demo"))
            .args(["--once", "--binary"])
            .arg(self.0.join("barewire"))
            .env("TMPDIR", self.0.join("tmp"))
            .current_dir(&self.0)
            .output()
            .unwrap()
    }

    #[track_caller]
    fn assert_good(&self, output: &Output) {
        let text = String::from_utf8_lossy(&output.stdout);
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{text}\n{errors}");
        let sums = |side: &str| {
            let lines = text.lines().filter(|line| line.ends_with(side));
            let sums: Vec<_> =
                lines.flat_map(str::split_whitespace).filter(|w| w.len() == 64).collect();
            sums.into_iter().map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(sums(" served").len(), 2, "{text}");
        assert_eq!(sums(" served"), sums(" received"), "{text}");
        assert!(text.contains("Gbit/s") && text.contains("all checks passed"), "{text}");
        let left: Vec<_> = fs::read_dir(self.0.join("tmp")).unwrap().flatten().collect();
        assert!(left.is_empty(), "left behind: {left:?}");
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap();
        assert!(!mounts.contains(&*self.0.to_string_lossy()), "{mounts}");
        assert!(!Path::new("/sys/class/net/bw0/tun_flags").exists(), "a tap was left behind");
    }
}

impl Drop for Kit {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Opens the tun device to all, and puts its mode back.
struct OpenTun(u32);

impl OpenTun {
    fn new() -> OpenTun {
        let before = fs::metadata(TUN).unwrap().permissions().mode();
        fs::set_permissions(TUN, Permissions::from_mode(0o666)).unwrap();
        OpenTun(before)
    }
}

impl Drop for OpenTun {
    fn drop(&mut self) {
        let _ = fs::set_permissions(TUN, Permissions::from_mode(self.0 & 0o7777));
    }
}

#[test]
fn the_demo_runs_as_root() {
    let able = is_root() && Path::new(TUN).exists();
    if can_run("the_demo_runs_as_root", able, "it needs root and /dev/net/tun") {
        let kit = Kit::new("demo-root");
        kit.assert_good(&kit.demo(&mut Command::new("bash")));
    }
}

#[test]
fn the_demo_runs_without_rights_where_tun_is_open() {
    let able = is_root() && Path::new(TUN).exists();
    let name = "the_demo_runs_without_rights_where_tun_is_open";
    if can_run(name, able, "it needs root to set the mode of /dev/net/tun and to give rights up") {
        let kit = Kit::new("demo-user");
        let before = fs::metadata(TUN).unwrap().permissions().mode();
        let open = OpenTun::new();
        let id = NOBODY.to_string();
        let mut user = Command::new("setpriv");
        user.args(["--reuid", &id, "--regid", &id, "--clear-groups", "bash"]);
        user.env("HOME", "/nonexistent");
        let output = kit.demo(&mut user);
        drop(open);
        kit.assert_good(&output);
        assert_eq!(fs::metadata(TUN).unwrap().permissions().mode(), before);
    }
}
