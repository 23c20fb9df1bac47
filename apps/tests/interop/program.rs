//! `barewire` as a process of its own in the test's namespace.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};

use serde_json::Value;

use super::{DEVICE, PREFIX};

/// A folder that goes when the test ends.
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new(name: &str) -> Folder {
        let path = std::env::temp_dir().join(format!("barewire-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }

    pub(crate) fn make(&self, below: &str) -> PathBuf {
        let path = self.0.join(below);
        fs::create_dir_all(&path).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// `barewire COMMAND`, to be started.
pub(crate) fn barewire(command: &str) -> Command {
    let mut barewire = Command::new(env!("CARGO_BIN_EXE_barewire"));
    barewire.args(command.split_whitespace()).stdin(Stdio::null());
    barewire
}

/// A whole number in what it has written as JSON.
pub(crate) fn number(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap_or_else(|| panic!("{name} is missing: {value}"))
}

/// A running command, killed if the test fails.
pub(crate) struct Program {
    child: Child,
    stdout: BufReader<ChildStdout>,
    log: PathBuf,
}

impl Program {
    /// Starts `barewire COMMAND --device … --address … MORE` and waits for its ready line.
    pub(crate) fn start(folder: &Folder, command: &str, more: &[&str]) -> Program {
        let device = ["--device", DEVICE, "--address", PREFIX];
        let words: Vec<_> = command.split(' ').chain(device).chain(more.iter().copied()).collect();
        Program::start_with(folder, &words)
    }

    /// Starts `barewire ARGUMENTS` and waits for its ready line.
    pub(crate) fn start_with(folder: &Folder, arguments: &[&str]) -> Program {
        let log = folder.path().join("log");
        let mut child = Command::new(env!("CARGO_BIN_EXE_barewire"))
            .args(arguments)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(fs::File::create(&log).unwrap())
            .spawn()
            .unwrap();
        let mut stdout = BufReader::new(child.stdout.take().unwrap());
        let mut line = String::new();
        stdout.read_line(&mut line).unwrap();
        let program = Program { child, stdout, log };
        assert!(line.starts_with("listening on "), "{line}\n{}", program.log());
        program
    }

    fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Processor time used so far, in the system's ticks.
    pub(crate) fn ticks(&self) -> u64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // The name, in parentheses, may have spaces. What follows begins with field 3; utime and
        // stime are fields 14 and 15 (proc(5)).
        let after = stat.rsplit_once(')').unwrap().1;
        let fields: Vec<_> = after.split_whitespace().collect();
        fields[11..13].iter().map(|ticks| ticks.parse::<u64>().unwrap()).sum()
    }

    /// Ends it as Ctrl-C does. It must end well and have nothing to complain about. Gives its
    /// summary.
    #[track_caller]
    pub(crate) fn stop(mut self) -> String {
        let pid = self.pid().to_string();
        assert!(Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
        let mut summary = String::new();
        self.stdout.read_to_string(&mut summary).unwrap();
        let status = self.child.wait().unwrap();
        let log = self.log();
        assert!(status.success(), "{status}: {summary}\n{log}");
        assert_eq!(log, "", "it has complained");
        summary
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // Fails if it has ended, as it should have.
        let _ = self.child.kill();
        let _ = self.child.wait();
        if std::thread::panicking() {
            super::tell(&self.log());
        }
    }
}
