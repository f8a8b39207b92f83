//! The folder of a test process, and the janitor that takes down what was started in it.
//!
//! The janitor is a process that waits for the end of a pipe whose other end this process
//! holds. However this process ends, by SIGKILL too, the pipe ends with it; then the janitor
//! runs `scripts/clean`. When the process ends by itself it waits for that, and fails if
//! something could not be taken down. Where `TESTKIT_LOGS` names a folder, the logs are copied
//! there first.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::{Mutex, OnceLock, PoisonError};

use crate::command::{Cmd, scripts};

static BED: OnceLock<Testbed> = OnceLock::new();

/// The folder. There is one in each process.
#[derive(Debug)]
pub struct Testbed {
    dir: PathBuf,
    janitor: Mutex<Option<(ChildStdin, Child)>>,
}

impl Testbed {
    /// The folder of this process, made at the first call.
    pub fn here() -> &'static Testbed {
        BED.get_or_init(Testbed::make)
    }

    fn make() -> Testbed {
        // Short, because the sockets below it may have 107 bytes.
        let folder = tempfile::Builder::new().prefix("vp-").rand_bytes(6).tempdir_in("/tmp");
        let dir = folder.expect("a folder in /tmp").keep();
        fs::write(dir.join(".volplugin-testbed"), "testkit\n").expect("the marker is written");
        let script = concat!(
            "trap '' INT TERM HUP; read -r _; ",
            "[ -z \"$TESTKIT_LOGS\" ] || find \"$1\" -name '*.log' -size -9M ",
            "-exec cp --parents {} \"$TESTKIT_LOGS\" \\; ; exec \"$0\" \"$1\"",
        );
        let cmd = Cmd::new("bash").args(["-c", script]).arg(scripts().join("clean")).arg(&dir);
        let mut janitor = cmd.spawn(Stdio::piped(), Stdio::null(), Stdio::inherit());
        let pipe = janitor.stdin.take().expect("stdin was piped");
        // SAFETY: the function lives as long as the program, and may be called at its end: it
        // takes a lock that nobody holds for long, closes a descriptor and waits for a child.
        unsafe { libc::atexit(at_exit) };
        Testbed { dir, janitor: Mutex::new(Some((pipe, janitor))) }
    }

    /// Where it is.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Its name, which is unique on the machine and made of letters, digits and `-`.
    pub fn id(&self) -> String {
        self.dir.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// A folder in it, made if need be.
    pub fn folder(&self, name: &str) -> PathBuf {
        let path = self.dir.join(name);
        fs::create_dir_all(&path).expect("a folder in the testbed");
        path
    }

    fn take_down(&self) -> bool {
        let janitor = self.janitor.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some((pipe, mut janitor)) = janitor else { return true };
        drop(pipe);
        janitor.wait().is_ok_and(|status| status.success())
    }
}

extern "C" fn at_exit() {
    let Some(bed) = BED.get() else { return };
    if !bed.take_down() {
        eprintln!("what was started in {} could not be taken down", bed.dir.display());
        // SAFETY: ends the process at once; nothing of it is needed any more.
        unsafe { libc::_exit(99) };
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::daemon::Daemon;
    use crate::poll;

    #[test]
    fn the_janitor_ends_what_was_started() {
        let bed = Testbed::make();
        let mut daemon = Daemon::spawn(
            &Cmd::new("bash").args(["-c", "sleep 1000; :"]).arg(bed.dir().join("x")),
            bed.dir(),
            "sleeper",
        );
        daemon.must_run();
        assert!(bed.take_down(), "it was taken down");
        poll::until("the end of the daemon", Duration::from_secs(30), || {
            daemon.ended().ok_or("it runs")
        });
        assert!(!bed.dir().exists(), "the folder is gone");
    }
}
