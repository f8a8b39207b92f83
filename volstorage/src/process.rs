//! The one door for child processes.
//!
//! Absolute program paths, argv vectors, a deadline, the process group killed when the deadline
//! passes or the caller is dropped, and an error with argv, ending and the end of stderr.
//! `clippy.toml` bars `Command::new` everywhere else. Called by the drivers; must not know what the
//! programs do. Whoever reads a program's output reads JSON, in a pure function of the bytes.
//!
//! Children get a small environment (`PATH` and `LC_ALL=C`, and what the caller adds), `/` as working
//! folder so that they keep no mount busy, and a process group of their own.

mod child;
mod freeze;
mod service;
mod write;

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

pub use freeze::{Freeze, freeze, thaw};
pub use service::Service;
pub use write::{Key, LAST_BREATH, WriteError, write};

/// How much of what a child wrote on stderr is kept: the last bytes of it.
pub const STDERR_TAIL: usize = 2048;

/// Folders that are searched after those of `PATH`: daemons and sudo often lack them.
const MORE_FOLDERS: [&str; 6] =
    ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// A program of this machine and the Debian package it comes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Program {
    name: &'static str,
    package: &'static str,
    path: Option<PathBuf>,
}

impl Program {
    /// Looks a program up, in `PATH` and the usual folders. Made once, at start. That it is missing
    /// is an error only when it is needed; then it is looked for again, so that installing the
    /// package is enough.
    pub fn find(name: &'static str, package: &'static str) -> Program {
        Program { name, package, path: search(name) }
    }

    /// A program whose path is known, such as our own.
    pub fn at(name: &'static str, package: &'static str, path: PathBuf) -> Program {
        Program { name, package, path: Some(path) }
    }

    /// Its absolute path.
    ///
    /// # Errors
    /// [`ProcessError::NotInstalled`].
    pub fn path(&self) -> Result<PathBuf, ProcessError> {
        self.path
            .clone()
            .or_else(|| search(self.name))
            .ok_or(ProcessError::NotInstalled { program: self.name, package: self.package })
    }
}

fn folders() -> Vec<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> =
        std::env::split_paths(&path).filter(|folder| folder.is_absolute()).collect();
    for more in MORE_FOLDERS.map(PathBuf::from) {
        if !folders.contains(&more) {
            folders.push(more);
        }
    }
    folders
}

fn search(name: &str) -> Option<PathBuf> {
    folders().into_iter().map(|folder| folder.join(name)).find(|path| is_program(path))
}

fn is_program(path: &Path) -> bool {
    path.metadata().is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

/// What is to be run.
#[derive(Clone, Debug)]
pub struct Run {
    program: Program,
    args: Vec<OsString>,
    env: Vec<(OsString, OsString)>,
    stdin: Vec<u8>,
    good: Good,
    deadline: Duration,
}

/// Which exit statuses are success.
#[derive(Clone, Debug)]
enum Good {
    These(Vec<i32>),
    All,
}

impl Run {
    /// A program without arguments, to be finished within `deadline`.
    pub fn new(program: &Program, deadline: Duration) -> Run {
        Run {
            program: program.clone(),
            args: Vec::new(),
            env: Vec::new(),
            stdin: Vec::new(),
            good: Good::These(vec![0]),
            deadline,
        }
    }

    /// With one more argument.
    #[must_use]
    pub fn arg(mut self, arg: impl AsRef<OsStr>) -> Run {
        self.args.push(arg.as_ref().to_owned());
        self
    }

    /// With more arguments.
    #[must_use]
    pub fn args(mut self, args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Run {
        self.args.extend(args.into_iter().map(|arg| arg.as_ref().to_owned()));
        self
    }

    /// With one more environment variable.
    #[must_use]
    pub fn env(mut self, key: impl AsRef<OsStr>, value: impl AsRef<OsStr>) -> Run {
        self.env.push((key.as_ref().to_owned(), value.as_ref().to_owned()));
        self
    }

    /// With this on its standard input, which is `/dev/null` otherwise.
    #[must_use]
    pub fn stdin(mut self, bytes: impl Into<Vec<u8>>) -> Run {
        self.stdin = bytes.into();
        self
    }

    /// These exit statuses are success too (`fsck` exits with 1 when it has repaired something).
    #[must_use]
    pub fn or_exit(mut self, codes: &[i32]) -> Run {
        if let Good::These(good) = &mut self.good {
            good.extend_from_slice(codes);
        }
        self
    }

    /// Every exit status is success: the caller reads [`Output::code`]. A signal never is.
    #[must_use]
    pub fn any_exit(mut self) -> Run {
        self.good = Good::All;
        self
    }

    /// Runs it to its end and gathers its output. What it has left in the background in its own
    /// process group is killed then.
    ///
    /// # Errors
    /// See [`ProcessError`]. When it failed, ran out of time or this future was dropped, nothing of
    /// its process group is left.
    pub async fn output(self) -> Result<Output, ProcessError> {
        child::output(self).await
    }

    /// Starts a program that is spoken with and serves on, whatever becomes of this process: in a session of its own, with
    /// pipes to it as standard input and output, no other descriptor of ours, and what it writes on stderr in the file `log`,
    /// which is made anew. It is called what [`Program`] calls it. The deadline is not used.
    ///
    /// # Errors
    /// See [`ProcessError`].
    pub fn service(self, log: &Path) -> Result<Service, ProcessError> {
        service::start(&self, log)
    }

    /// Runs a program that puts itself into the background (`rbd-nbd`), until it has done so: the
    /// first process ends, and what it leaves running is kept. It gets `/dev/null` as standard input
    /// and output, and a nameless file as stderr, so that nobody waits for a pipe that the daemon
    /// holds.
    ///
    /// # Errors
    /// See [`ProcessError`]. When it failed, ran out of time or this future was dropped, nothing of
    /// its process group is left; a daemon that has made itself a session of its own has left it.
    pub async fn daemon(self) -> Result<(), ProcessError> {
        child::daemon(self).await
    }

    fn is_good(&self, code: i32) -> bool {
        match &self.good {
            Good::These(codes) => codes.contains(&code),
            Good::All => true,
        }
    }

    /// The command line as it could be typed into a shell.
    fn argv(&self) -> String {
        let mut words = vec![quoted(OsStr::new(self.program.name))];
        words.extend(self.args.iter().map(|arg| quoted(arg)));
        words.join(" ")
    }
}

fn quoted(word: &OsStr) -> String {
    let word = word.to_string_lossy();
    let plain = |c: char| c.is_ascii_alphanumeric() || "_-./=:,@%+".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        word.into_owned()
    } else {
        format!("'{}'", word.replace('\'', r"'\''"))
    }
}

/// What a child has said and how it ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Output {
    /// The exit status.
    pub code: i32,
    /// All that it wrote on stdout; at most 16 MiB, more is an error.
    pub stdout: Vec<u8>,
    /// The end of what it wrote on stderr, at most [`STDERR_TAIL`] bytes.
    pub stderr: String,
}

/// How a child ended that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ending {
    /// By itself.
    Exit(i32),
    /// By a signal.
    Signal(i32),
    /// It was killed because it did not finish in time.
    Deadline(Duration),
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Ending::Exit(code) => write!(f, "exit status {code}"),
            Ending::Signal(number) => match nix::sys::signal::Signal::try_from(*number) {
                Ok(signal) => write!(f, "signal {number} ({signal})"),
                Err(_) => write!(f, "signal {number}"),
            },
            Ending::Deadline(deadline) => write!(f, "deadline of {deadline:?}"),
        }
    }
}

/// Why a program did not do what it was run for.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// The program is not on this machine.
    #[error("program {program} is not installed; the Debian package {package} has it")]
    NotInstalled {
        /// Its name.
        program: &'static str,
        /// Where it comes from.
        package: &'static str,
    },
    /// It could not be started, or its output not be read.
    #[error("could not run `{argv}`")]
    Io {
        /// The command line.
        argv: String,
        /// What the kernel said.
        source: io::Error,
    },
    /// It ran and failed.
    #[error("`{argv}` failed with {ending}{}", said(stderr))]
    Failed {
        /// The command line.
        argv: String,
        /// How it ended.
        ending: Ending,
        /// The end of what it wrote on stderr, or on stdout if there is nothing on stderr;
        /// at most [`STDERR_TAIL`] bytes.
        stderr: String,
    },
    /// It wrote more on stdout than anybody wants to read, and was killed.
    #[error("`{argv}` wrote more than {limit} bytes of output")]
    TooMuch {
        /// The command line.
        argv: String,
        /// How much is read.
        limit: usize,
    },
}

fn said(stderr: &str) -> String {
    if stderr.is_empty() { String::new() } else { format!(": {stderr}") }
}
