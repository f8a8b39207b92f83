//! A child that goes on serving after its parent: started, spoken with line by line, left alone.
//!
//! Serves [`Run`] and nobody else.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::Stdio;

use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::process::{ChildStdin, ChildStdout};

use super::child::command;
use super::{ProcessError, Run};

/// The other end of a service's standard input and output. Dropped, both are closed, and the service goes on or ends as it
/// sees fit; its end is taken note of for as long as the runtime lives.
#[derive(Debug)]
pub struct Service {
    pid: i32,
    stdin: ChildStdin,
    stdout: Lines<BufReader<ChildStdout>>,
}

impl Service {
    /// The number of the process.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// The next line that it says; `None` when it will say no more. Cancel-safe.
    ///
    /// # Errors
    /// When the pipe cannot be read, or the line is no text.
    pub async fn hear(&mut self) -> io::Result<Option<String>> {
        self.stdout.next_line().await
    }

    /// Says a line to it.
    ///
    /// # Errors
    /// When it does not listen any more.
    pub async fn say(&mut self, line: &str) -> io::Result<()> {
        self.stdin.write_all(format!("{line}\n").as_bytes()).await
    }
}

pub(super) fn start(run: &Run, log: &Path) -> Result<Service, ProcessError> {
    let io = |source| ProcessError::Io { argv: run.argv(), source };
    let log = File::create(log).map_err(io)?;
    let mut command = command(run, [Stdio::piped(), Stdio::piped(), log.into()])?;
    command.arg0(run.program.name);
    // SAFETY: the closure makes two system calls, and touches no memory of the parent's.
    unsafe { command.pre_exec(become_a_session) };
    let mut child = command.spawn().map_err(io)?;
    let pid = child.id().and_then(|id| i32::try_from(id).ok());
    match (pid, child.stdin.take(), child.stdout.take()) {
        (Some(pid), Some(stdin), Some(stdout)) => {
            Ok(Service { pid, stdin, stdout: BufReader::new(stdout).lines() })
        }
        _ => Err(io(io::ErrorKind::NotFound.into())),
    }
}

/// Signals to the parent's group or terminal do not reach it, and no lock or socket of the parent's lives on in it.
fn become_a_session() -> io::Result<()> {
    const FIRST_OTHER: libc::c_uint = 3;
    // SAFETY: takes nothing.
    if unsafe { libc::setsid() } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: takes numbers; nothing is closed before the program is executed. Where the kernel does not know it (before
    // 5.11), what was opened by Rust has the mark already.
    unsafe {
        libc::syscall(
            libc::SYS_close_range,
            FIRST_OTHER,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC,
        )
    };
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsRawFd;
    use std::time::Duration;

    use super::super::Program;
    use super::*;

    fn shell(script: &str) -> Run {
        let program = Program::at("a-service", "any", "/bin/sh".into());
        Run::new(&program, Duration::from_secs(10)).args(["-c", script])
    }

    #[tokio::test]
    async fn it_is_spoken_with_in_a_session_of_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let log = folder.path().join("log");
        // One that a child would have, if nobody took care.
        let open = File::open("/dev/null").unwrap();
        nix::fcntl::fcntl(&open, nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty()))
            .unwrap();
        let script = format!(
            "echo $$; ls /proc/self/fd | grep -cx {}; read word; echo heard $word; echo said >&2",
            open.as_raw_fd()
        );
        let mut service = shell(&script).service(&log).unwrap();
        assert_eq!(service.hear().await.unwrap().unwrap(), service.pid().to_string());
        let pid = nix::unistd::Pid::from_raw(service.pid());
        assert_eq!(nix::unistd::getsid(Some(pid)).unwrap(), pid);
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
        assert!(line.starts_with(b"a-service\0"), "{line:?}");
        assert_eq!(service.hear().await.unwrap().unwrap(), "0");
        service.say("this").await.unwrap();
        assert_eq!(service.hear().await.unwrap().unwrap(), "heard this");
        assert_eq!(service.hear().await.unwrap(), None);
        assert_eq!(std::fs::read_to_string(log).unwrap(), "said\n");
    }

    #[tokio::test]
    async fn it_hears_that_nobody_speaks_any_more_and_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        let sign = folder.path().join("sign");
        let script = format!("read word || : > {}", sign.display());
        drop(shell(&script).service(&folder.path().join("log")).unwrap());
        let begin = std::time::Instant::now();
        while !sign.exists() {
            assert!(begin.elapsed() < Duration::from_secs(10), "it did not go on");
            tokio::task::yield_now().await;
        }
    }
}
