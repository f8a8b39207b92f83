//! The one door for processes in tests: output captured, with a deadline, ended as a group.
#![expect(
    clippy::disallowed_methods,
    reason = "the door of the tests; volstorage's own is among what they test"
)]

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

/// Longer than anything that Docker waits for.
const DEADLINE: Duration = Duration::from_secs(130);
/// Whoever still holds the output so long after its process has ended was left behind by it.
const OUTPUT: Duration = Duration::from_secs(10);

/// A command to be run.
#[derive(Clone, Debug)]
pub struct Cmd {
    pub(crate) argv: Vec<OsString>,
    pub(crate) env: Vec<(OsString, OsString)>,
    stdin: Vec<u8>,
    deadline: Duration,
}

impl Cmd {
    /// A program, by path or by name.
    pub fn new(program: impl AsRef<OsStr>) -> Self {
        let argv = vec![program.as_ref().to_owned()];
        Cmd { argv, env: Vec::new(), stdin: Vec::new(), deadline: DEADLINE }
    }

    /// One of the scripts that start servers.
    pub fn script(name: &str) -> Self {
        Cmd::new(scripts().join(name))
    }

    /// One of the suite's binaries.
    pub fn suite(name: &str) -> Self {
        Cmd::new(binary(name))
    }

    /// One more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Self {
        self.argv.push(arg.as_ref().to_owned());
        self
    }

    /// More arguments.
    #[must_use]
    pub fn args<S: AsRef<OsStr>>(mut self, args: impl IntoIterator<Item = S>) -> Self {
        self.argv.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// More arguments in one text, apart from each other by white space.
    #[must_use]
    pub fn words(self, line: &str) -> Self {
        self.args(line.split_whitespace())
    }

    /// A variable of the environment.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<OsStr>) -> Self {
        self.env.push((name.into(), value.as_ref().to_owned()));
        self
    }

    /// The process sees a clock that is so many seconds ahead of the machine's, or behind it; its timers go as they should.
    /// What it starts sees it too, but for a process that was started by [`crate::supervisor`].
    #[must_use]
    #[track_caller]
    pub fn clock_off_by(self, seconds: i64) -> Self {
        self.env("LD_PRELOAD", faketime())
            .env("FAKETIME", format!("{seconds:+}"))
            .env("FAKETIME_DONT_FAKE_MONOTONIC", "1")
    }

    /// To be said of `env`: what it runs sees a clock that is as far off as a file says, looked at each second.
    #[must_use]
    #[track_caller]
    pub fn clock_in(self, file: &Path) -> Self {
        crate::master::set_clock(file, 0);
        self.arg(format!("LD_PRELOAD={}", faketime().display()))
            .arg(format!("FAKETIME_TIMESTAMP_FILE={}", file.display()))
            .args(["FAKETIME_CACHE_DURATION=1", "FAKETIME_DONT_FAKE_MONOTONIC=1"])
    }

    /// What the command reads; nothing, unless this is said.
    #[must_use]
    pub fn stdin(mut self, text: impl Into<Vec<u8>>) -> Self {
        self.stdin = text.into();
        self
    }

    /// How long the command may take.
    #[must_use]
    pub fn deadline(mut self, deadline: Duration) -> Self {
        self.deadline = deadline;
        self
    }

    fn line(&self) -> String {
        self.argv.iter().map(|arg| arg.to_string_lossy()).collect::<Vec<_>>().join(" ")
    }

    pub(crate) fn spawn(&self, stdin: Stdio, stdout: Stdio, stderr: Stdio) -> Child {
        let mut command = Command::new(&self.argv[0]);
        command.args(&self.argv[1..]).envs(self.env.iter().map(|(name, value)| (name, value)));
        command.stdin(stdin).stdout(stdout).stderr(stderr).process_group(0);
        let spawned = command.spawn();
        spawned.unwrap_or_else(|error| panic!("could not start {:?}: {error}", self.argv[0]))
    }

    /// Runs it to its end. Panics when that does not come in time.
    #[track_caller]
    pub fn run(self) -> Outcome {
        let started = Instant::now();
        let mut child = self.spawn(Stdio::piped(), Stdio::piped(), Stdio::piped());
        let stdout = read_all(child.stdout.take().expect("stdout was piped"));
        let stderr = read_all(child.stderr.take().expect("stderr was piped"));
        let mut input = child.stdin.take().expect("stdin was piped");
        let text = self.stdin.clone();
        // A command that does not read is no error.
        std::thread::spawn(move || drop(input.write_all(&text)));
        let group = Pid::from_raw(child.id().cast_signed());
        let (sender, ended) = channel();
        std::thread::spawn(move || sender.send(child.wait()));
        let status = ended.recv_timeout(self.deadline);
        let took = started.elapsed();
        if status.is_err() {
            let _ = killpg(group, Signal::SIGKILL);
        }
        let text = |output: Receiver<Vec<u8>>| {
            let bytes = output.recv_timeout(OUTPUT).unwrap_or_else(|_| {
                b"(the output was cut off: a process that was left behind holds it)".to_vec()
            });
            String::from_utf8_lossy(&bytes).into_owned()
        };
        let (stdout, stderr) = (text(stdout), text(stderr));
        let line = self.line();
        let Ok(status) = status else {
            panic!(
                "{line}\n  did not end within {} s\n{stdout}{stderr}",
                self.deadline.as_secs_f32()
            );
        };
        let status = status.unwrap_or_else(|error| panic!("could not wait for {line}: {error}"));
        Outcome { line, status, stdout, stderr, took }
    }
}

/// The library that gives a process a clock of its own.
#[track_caller]
fn faketime() -> PathBuf {
    let folders = fs::read_dir("/usr/lib").expect("/usr/lib").flatten();
    let mut libraries = folders.map(|folder| folder.path().join("faketime/libfaketimeMT.so.1"));
    let library = libraries.find(|library| library.is_file());
    library.expect("libfaketime: run scripts/install faketime first")
}

fn read_all(mut pipe: impl Read + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        let _ = sender.send(bytes);
    });
    receiver
}

/// How a command ended.
#[derive(Clone, Debug)]
pub struct Outcome {
    line: String,
    status: ExitStatus,
    /// What it printed.
    pub stdout: String,
    /// What it said.
    pub stderr: String,
    /// How long it took.
    pub took: Duration,
}

impl Outcome {
    /// Its exit code; a signal counts as 128 and its number, as in the shell.
    pub fn code(&self) -> i32 {
        self.status.code().or(self.status.signal().map(|number| 128 + number)).unwrap_or(-1)
    }

    /// Whether it ended with 0.
    pub fn is_ok(&self) -> bool {
        self.status.success()
    }

    /// What it printed, without white space around it. Panics if it failed.
    #[track_caller]
    pub fn ok(&self) -> &str {
        assert!(self.is_ok(), "should have worked: {self}");
        self.stdout.trim()
    }

    /// What it said when it failed. Panics if it did not.
    #[track_caller]
    pub fn refused(&self) -> &str {
        assert!(!self.is_ok(), "should have failed: {self}");
        self.stderr.trim()
    }

    /// The same, and every one of these words must be in it.
    #[track_caller]
    pub fn refused_with(&self, words: &[&str]) {
        let said = self.refused();
        for word in words {
            assert!(said.contains(word), "should say {word:?}: {self}");
        }
    }

    /// What it printed, as JSON.
    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        let text = self.ok();
        serde_json::from_str(text).unwrap_or_else(|error| panic!("no JSON ({error}): {self}"))
    }

    /// What it printed, line by line.
    #[track_caller]
    pub fn lines(&self) -> Vec<&str> {
        self.ok().lines().collect()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome { line, status, stdout, stderr, took } = self;
        write!(f, "{line}\n  {status} after {} ms", took.as_millis())?;
        for (name, text) in [("stdout", stdout), ("stderr", stderr)] {
            if !text.trim().is_empty() {
                write!(f, "\n  {name}: {}", text.trim())?;
            }
        }
        Ok(())
    }
}

/// The folder of the workspace.
pub fn workspace() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate is in the workspace")
}

/// The folder of the scripts that start servers.
pub fn scripts() -> PathBuf {
    workspace().join("scripts")
}

/// A binary of the suite, built in the same profile as the running test.
#[track_caller]
pub fn binary(name: &str) -> PathBuf {
    let running = std::env::current_exe().expect("this program has a path");
    // target/<profile>/deps/<test>, or target/<profile>/<bench>.
    let mut folders = running.ancestors().skip(1).take(2);
    let found = folders.find_map(|folder| Some(folder.join(name)).filter(|path| path.is_file()));
    found.unwrap_or_else(|| {
        panic!(
            "the binary {name} is not beside {}: run `cargo build --workspace --bins` first, \
             as `make test` does",
            running.display()
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn output_and_exit_code_are_captured() {
        let cmd = Cmd::new("sh").args(["-c", "cat; echo no >&2; exit 3"]).stdin("yes");
        let outcome = cmd.run();
        assert_eq!((outcome.code(), &*outcome.stdout, &*outcome.stderr), (3, "yes", "no\n"));
        outcome.refused_with(&["no"]);
    }

    #[test]
    fn a_command_that_does_not_end_is_killed_with_its_children() {
        let cmd = Cmd::new("sh").args(["-c", "sleep 1000 & echo $!; wait"]);
        let cmd = cmd.deadline(Duration::from_secs(3));
        let panic = std::panic::catch_unwind(|| cmd.run()).expect_err("it takes 1000 s");
        let text = panic.downcast_ref::<String>().expect("a text");
        let pid = text.lines().nth(2).and_then(|line| line.parse().ok()).expect("the child's id");
        crate::poll::until("the child's end", Duration::from_secs(30), || {
            let state = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            if state.is_empty() || state.contains(") Z ") { Ok(()) } else { Err(state) }
        });
        let pid: i32 = pid;
        assert!(pid > 1);
    }
}
