//! A volsupervisor process.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use nix::sys::signal::Signal;

use crate::command::{Cmd, Outcome};
use crate::daemon::Daemon;
use crate::poll;

/// It says that it has begun within this time.
const START: Duration = Duration::from_secs(20);
/// It ends within this time: it waits ten seconds for what is under way.
const STOP: Duration = Duration::from_secs(13);

/// A volsupervisor that can be stopped and started again.
#[derive(Debug)]
pub struct Supervisor {
    name: String,
    folder: PathBuf,
    cmd: Cmd,
    clock: Clock,
    daemon: Mutex<Option<Daemon>>,
}

/// The clock that a process sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// That of the machine.
    Right,
    /// So many seconds ahead of it, or behind it. Timers go as they should.
    OffBy(i64),
}

impl Supervisor {
    /// Starts one of these masters with more flags.
    #[track_caller]
    pub fn start(
        folder: &Path,
        name: &str,
        masters: &[String],
        flags: &str,
        clock: Clock,
    ) -> Supervisor {
        let config = folder.join(format!("{name}.toml"));
        let urls: Vec<_> = masters.iter().map(|url| format!("{url:?}")).collect();
        fs::write(&config, format!("master = [{}]\n", urls.join(", "))).expect("a configuration");
        // By its configuration the janitor knows the process again.
        let cmd = Cmd::suite("volsupervisor").arg("--config").arg(config).words(flags);
        let cmd = match clock {
            Clock::Right => cmd,
            Clock::OffBy(seconds) => cmd.clock_off_by(seconds),
        };
        let (name, folder) = (name.to_owned(), folder.to_owned());
        let supervisor = Supervisor { name, folder, cmd, clock, daemon: Mutex::new(None) };
        supervisor.start_again();
        supervisor
    }

    /// Does what is due, and ends. With an exit code of 3 a part of it was done.
    #[track_caller]
    pub fn once(masters: &[String]) -> Outcome {
        let flags = masters.iter().flat_map(|url| ["--master", url]);
        Cmd::suite("volsupervisor").arg("--once").args(flags).run()
    }

    fn daemon(&self) -> MutexGuard<'_, Option<Daemon>> {
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its log.
    pub fn log(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.name))
    }

    /// Starts it if it does not run, and waits until it says so.
    #[track_caller]
    pub fn start_again(&self) {
        let mut daemon = self.daemon();
        if daemon.as_mut().is_some_and(|daemon| daemon.ended().is_none()) {
            return;
        }
        let before = self.said().len();
        let mut started = Daemon::spawn(&self.cmd, &self.folder, &self.name);
        poll::until(&format!("{} to begin", self.name), START, || {
            started.must_run();
            let said = self.said();
            if said[before..].contains("begins") { Ok(()) } else { Err(said) }
        });
        if self.clock != Clock::Right {
            forget_shared(started.pid());
        }
        *daemon = Some(started);
    }

    fn said(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.log()).unwrap_or_default()).into_owned()
    }

    /// SIGKILL.
    pub fn kill(&self) {
        self.daemon().take();
    }

    /// SIGTERM; it has to end well.
    #[track_caller]
    pub fn stop(&self) {
        if let Some(mut daemon) = self.daemon().take() {
            let status = daemon.terminate(STOP);
            assert!(status.success(), "{} ended with {status}", self.name);
        }
    }

    /// SIGSTOP.
    pub fn freeze(&self) {
        self.signal(Signal::SIGSTOP);
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        self.signal(Signal::SIGCONT);
    }

    fn signal(&self, signal: Signal) {
        if let Some(daemon) = self.daemon().as_ref() {
            daemon.signal(signal);
        }
    }

    /// Its resident memory in bytes.
    #[track_caller]
    pub fn resident(&self) -> u64 {
        self.daemon().as_ref().expect("it runs").resident()
    }
}

/// Removes the names of what libfaketime shares with children. It leaves them behind when its process is killed; the process
/// itself does not need them any more once it runs.
fn forget_shared(pid: u32) {
    for name in ["faketime_shm_", "sem.faketime_sem_"] {
        let _ = fs::remove_file(format!("/dev/shm/{name}{pid}"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bed::Testbed;

    fn year(supervisor: &Supervisor) -> u32 {
        let said = supervisor.said();
        let year = said.split('-').next().and_then(|year| year.parse().ok());
        year.unwrap_or_else(|| panic!("no year: {said}"))
    }

    #[test]
    fn a_supervisor_lives_and_dies_with_a_clock_of_its_own() {
        let folder = Testbed::here().folder("supervisor");
        let nobody = ["http://127.0.0.1:1".to_owned()];
        let right = Supervisor::start(&folder, "right", &nobody, "", Clock::Right);
        let off = Clock::OffBy(-2 * 366 * 86_400);
        let wrong = Supervisor::start(&folder, "wrong", &nobody, "--debug", off);
        let behind = year(&right) - year(&wrong);
        assert!((2..=3).contains(&behind), "{behind}");
        let waits = |supervisor: &Supervisor| {
            poll::until("a second question", Duration::from_secs(20), || {
                let said = supervisor.said();
                let asked = said.matches("schedule_due").count();
                if asked > 1 { Ok(()) } else { Err(said) }
            });
        };
        waits(&wrong);
        right.stop();
        right.start_again();
        right.kill();
        wrong.stop();
        Supervisor::once(&nobody).refused_with(&["no volmaster can be reached"]);
    }
}
