//! A process in the background, with its log and its id on disk for the janitor.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::command::Cmd;
use crate::poll;

/// A running process. It is killed when this is dropped.
#[derive(Debug)]
pub struct Daemon {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Starts a command with `<folder>/<name>.log` and `<folder>/<name>.pid`. So that
    /// `scripts/clean` knows the process again, its command line has to name the folder.
    #[track_caller]
    pub fn spawn(cmd: &Cmd, folder: &Path, name: &str) -> Self {
        let log = folder.join(format!("{name}.log"));
        let file = File::options().create(true).append(true).open(&log).expect("the log opens");
        let again = file.try_clone().expect("a descriptor");
        let child = cmd.spawn(Stdio::null(), file.into(), again.into());
        let pid_file = folder.join(format!("{name}.pid"));
        fs::write(pid_file, format!("{}\n", child.id())).expect("the id is written");
        Daemon { name: name.to_owned(), child, log }
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Its log.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// How it ended, if it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().expect("it is our child")
    }

    /// Panics with the end of its log if it has ended.
    #[track_caller]
    pub fn must_run(&mut self) {
        if let Some(status) = self.ended() {
            panic!("{} ended with {status}:\n{}", self.name, tail(&self.log, 30, ""));
        }
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        let _ = kill(Pid::from_raw(self.child.id().cast_signed()), signal);
    }

    /// SIGKILL, and its end.
    pub fn kill(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// SIGTERM, and its end within a time.
    #[track_caller]
    pub fn terminate(&mut self, within: Duration) -> ExitStatus {
        self.signal(Signal::SIGTERM);
        self.await_end(within)
    }

    /// Waits for it to end by itself.
    #[track_caller]
    pub fn await_end(&mut self, within: Duration) -> ExitStatus {
        let what = format!("the end of {}", self.name);
        poll::until(&what, within, || self.ended().ok_or("it still runs"))
    }

    /// Its resident memory in bytes.
    pub fn resident(&self) -> u64 {
        let path = format!("/proc/{}/status", self.pid());
        let status = fs::read_to_string(&path).unwrap_or_default();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
        kib.unwrap_or_else(|| panic!("{path} has no VmRSS")) * 1024
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The last lines of a log, and before them those (at most as many again) with a word in them.
pub fn tail(log: &Path, lines: usize, word: &str) -> String {
    let text = String::from_utf8_lossy(&fs::read(log).unwrap_or_default()).into_owned();
    let all: Vec<&str> = text.lines().collect();
    let cut = all.len().saturating_sub(lines);
    let spoken = |line: &&&str| !word.is_empty() && line.contains(word);
    let mut kept: Vec<&str> = all[..cut].iter().rev().filter(spoken).take(lines).copied().collect();
    kept.reverse();
    kept.extend(&all[cut..]);
    let short = |line: &str| line.chars().take(600).collect::<String>();
    kept.into_iter().map(|line| format!("  {}\n", short(line))).collect()
}
