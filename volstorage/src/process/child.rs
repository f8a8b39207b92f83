//! A child from start to end: started in a group of its own, read, timed, killed, reaped.
//!
//! Serves [`Run`] and nobody else.

use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::{FromRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use tokio::io::unix::AsyncFd;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, Interest};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::{Ending, Output, ProcessError, Run, STDERR_TAIL, folders};

/// Reading stdout ends here: nothing that is read for a purpose comes near it.
const STDOUT_LIMIT: usize = 16 << 20;

/// How long to wait for the end of a child that was killed: one in the middle of a disk access ends
/// only after it.
const LAST_BREATH: Duration = Duration::from_secs(5);

/// How long to read on after the end of a child whose pipes are held open by a process that left
/// its group. What the child itself wrote is in the pipe already, and read without waiting.
const LAST_WORDS: Duration = Duration::from_millis(200);

/// What is to be run, in a small environment and the root folder.
pub(super) fn command(
    run: &Run,
    [stdin, stdout, stderr]: [Stdio; 3],
) -> Result<Command, ProcessError> {
    let path = std::env::join_paths(folders()).unwrap_or_default();
    #[expect(clippy::disallowed_methods, reason = "this is the one door for children")]
    let mut command = Command::new(run.program.path()?);
    command
        .args(&run.args)
        .env_clear()
        .env("PATH", path)
        .env("LC_ALL", "C")
        .envs(run.env.iter().map(|(key, value)| (key, value)))
        .current_dir("/")
        .stdin(stdin)
        .stdout(stdout)
        .stderr(stderr);
    Ok(command)
}

/// A child and its process group. Dropped before its end, both are killed.
struct Group {
    child: Child,
    ended: AsyncFd<OwnedFd>,
}

impl Group {
    fn start(run: &Run, stdio: [Stdio; 3]) -> Result<Group, ProcessError> {
        let io = |source| ProcessError::Io { argv: run.argv(), source };
        let mut command = command(run, stdio)?;
        command.process_group(0).kill_on_drop(true);
        let child = command.spawn().map_err(io)?;
        let ended = child.id().ok_or_else(|| io::ErrorKind::NotFound.into()).and_then(pidfd);
        match ended {
            Ok(ended) => Ok(Group { child, ended }),
            Err(source) => {
                kill_group(&child);
                Err(io(source))
            }
        }
    }

    /// Waits for the end of the child and reaps it; `before` is done while it is a zombie.
    ///
    /// Until it is reaped its number, which is the group's too, belongs to nobody else.
    async fn end(&mut self, before: impl FnOnce(&Child)) -> io::Result<ExitStatus> {
        drop(self.ended.readable().await?);
        before(&self.child);
        self.child.wait().await
    }

    /// Kills the group and waits until the child is gone.
    async fn kill(&mut self) {
        kill_group(&self.child);
        timeout(LAST_BREATH, self.child.wait()).await.ok();
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // After that, tokio reaps the child in the background.
        kill_group(&self.child);
    }
}

/// Kills the group of a child that was not reaped yet; does nothing for one that was.
fn kill_group(child: &Child) {
    let Some(id) = child.id().and_then(|id| i32::try_from(id).ok()) else { return };
    // It fails when all of the group are gone, which is what was wanted.
    killpg(Pid::from_raw(id), Signal::SIGKILL).ok();
}

/// A descriptor that becomes readable when the process ends (Linux 5.3).
pub(super) fn pidfd(id: u32) -> io::Result<AsyncFd<OwnedFd>> {
    let id = libc::pid_t::try_from(id).map_err(io::Error::other)?;
    // SAFETY: takes numbers only.
    let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, id, 0) };
    let fd = i32::try_from(fd).map_err(io::Error::other)?;
    if fd < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the call has just made this descriptor, and nobody else has it. It is close-on-exec.
    let fd = unsafe { OwnedFd::from_raw_fd(fd) };
    // SAFETY: the value owns its descriptor, and always names the same one.
    unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) }.map_err(io::Error::from)
}

pub(super) async fn output(run: Run) -> Result<Output, ProcessError> {
    let stdin = if run.stdin.is_empty() { Stdio::null() } else { Stdio::piped() };
    let mut group = Group::start(&run, [stdin, Stdio::piped(), Stdio::piped()])?;
    let (mut stdout, mut stderr) = (Head::default(), Tail::default());
    let talk = talk(&mut group, &run, &mut stdout, &mut stderr);
    let ended = timeout(run.deadline, talk).await;
    let argv = || run.argv();
    if stdout.overflown {
        return Err(ProcessError::TooMuch { argv: argv(), limit: STDOUT_LIMIT });
    }
    let status = match ended {
        Ok(ended) => ended.map_err(|source| ProcessError::Io { argv: argv(), source })?,
        Err(_elapsed) => {
            group.kill().await;
            let ending = Ending::Deadline(run.deadline);
            return Err(ProcessError::Failed { argv: argv(), ending, stderr: stderr.text() });
        }
    };
    match ending(status) {
        Ending::Exit(code) if run.is_good(code) => {
            Ok(Output { code, stdout: stdout.bytes, stderr: stderr.text() })
        }
        ending => {
            let mut stderr = stderr.text();
            if stderr.is_empty() {
                stderr = Tail::of(&stdout.bytes).text();
            }
            Err(ProcessError::Failed { argv: argv(), ending, stderr })
        }
    }
}

/// Feeds and reads the child until its end.
async fn talk(
    group: &mut Group,
    run: &Run,
    stdout: &mut Head,
    stderr: &mut Tail,
) -> io::Result<ExitStatus> {
    let (stdin, out, err) =
        (group.child.stdin.take(), group.child.stdout.take(), group.child.stderr.take());
    let write = async {
        if let Some(mut stdin) = stdin {
            // A child that does not read its input to the end is no error by itself.
            stdin.write_all(&run.stdin).await.ok();
        }
    };
    let read = async { tokio::join!(gather(out, stdout), gather(err, stderr)) };
    let mut talk = std::pin::pin!(async { tokio::join!(write, read) });
    let mut end = std::pin::pin!(group.end(kill_group));
    let status = tokio::select! {
        // Cancel safe: both are pinned outside and go on below.
        status = &mut end => status?,
        _ = &mut talk => return end.await,
    };
    timeout(LAST_WORDS, talk).await.ok();
    Ok(status)
}

/// Where output goes; says whether it wants more.
trait Sink {
    fn take(&mut self, bytes: &[u8]) -> bool;
}

/// The whole of it, up to a limit.
#[derive(Default)]
struct Head {
    bytes: Vec<u8>,
    overflown: bool,
}

impl Sink for Head {
    fn take(&mut self, bytes: &[u8]) -> bool {
        self.overflown = self.bytes.len() + bytes.len() > STDOUT_LIMIT;
        if !self.overflown {
            self.bytes.extend_from_slice(bytes);
        }
        !self.overflown
    }
}

/// The end of it.
#[derive(Default)]
struct Tail(Vec<u8>);

impl Tail {
    fn of(bytes: &[u8]) -> Tail {
        let mut tail = Tail::default();
        tail.take(bytes);
        tail
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.0)
            .trim()
            .chars()
            .filter(|c| !c.is_control() || *c == '\n' || *c == '\t')
            .collect()
    }
}

impl Sink for Tail {
    fn take(&mut self, bytes: &[u8]) -> bool {
        self.0.extend_from_slice(&bytes[bytes.len().saturating_sub(STDERR_TAIL)..]);
        let excess = self.0.len().saturating_sub(STDERR_TAIL);
        self.0.drain(..excess);
        true
    }
}

/// Reads a pipe to its end, or until the sink wants no more (the child then gets SIGPIPE).
async fn gather(pipe: Option<impl AsyncRead + Unpin>, sink: &mut impl Sink) {
    let Some(mut pipe) = pipe else { return };
    let mut buffer = vec![0; 16 << 10];
    while let Ok(got @ 1..) = pipe.read(&mut buffer).await {
        if !sink.take(&buffer[..got]) {
            return;
        }
    }
}

pub(super) async fn daemon(run: Run) -> Result<(), ProcessError> {
    let io = |source| ProcessError::Io { argv: run.argv(), source };
    let mut stderr = tempfile::tempfile().map_err(io)?;
    let theirs = stderr.try_clone().map_err(io)?;
    let mut group = Group::start(&run, [Stdio::null(), Stdio::null(), theirs.into()])?;
    let clear_failure = |child: &Child| {
        if !exit_code(child).is_some_and(|code| run.is_good(code)) {
            kill_group(child);
        }
    };
    let ending = match timeout(run.deadline, group.end(clear_failure)).await {
        Ok(status) => ending(status.map_err(io)?),
        Err(_elapsed) => {
            group.kill().await;
            Ending::Deadline(run.deadline)
        }
    };
    match ending {
        Ending::Exit(code) if run.is_good(code) => Ok(()),
        ending => {
            let stderr = tail_of(&mut stderr).unwrap_or_default();
            Err(ProcessError::Failed { argv: run.argv(), ending, stderr })
        }
    }
}

/// With what a child has exited that was not reaped yet, and is not by this.
fn exit_code(child: &Child) -> Option<i32> {
    let id = Pid::from_raw(i32::try_from(child.id()?).ok()?);
    match waitid(Id::Pid(id), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT | WaitPidFlag::WNOHANG) {
        Ok(WaitStatus::Exited(_, code)) => Some(code),
        _ => None,
    }
}

fn tail_of(file: &mut std::fs::File) -> io::Result<String> {
    let end = file.seek(SeekFrom::End(0))?;
    file.seek(SeekFrom::Start(end.saturating_sub(STDERR_TAIL as u64)))?;
    let mut bytes = Vec::new();
    file.take(STDERR_TAIL as u64).read_to_end(&mut bytes)?;
    Ok(Tail::of(&bytes).text())
}

fn ending(status: ExitStatus) -> Ending {
    match (status.code(), status.signal()) {
        (Some(code), _) => Ending::Exit(code),
        (None, signal) => Ending::Signal(signal.unwrap_or_default()),
    }
}

#[cfg(test)]
mod tests;
