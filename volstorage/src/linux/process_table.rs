//! The processes of this machine, from `/proc`: which server serves a FUSE mount, who holds a mount
//! or a device, who else has a file system mounted.
//!
//! Processes come and go while they are looked at; what has gone is left out. Nothing here follows a
//! link into a file system, so that one that hangs cannot hold it up.

use std::collections::HashSet;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

use super::{loops, mountinfo};

/// How many holders are named in an error.
const NAMED: usize = 8;

/// A process, known again after its number was used again by another.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ProcessId {
    pid: i32,
    /// When it was started, in clock ticks after the boot.
    started: u64,
}

impl ProcessId {
    /// The process that has this number now, unless it has ended.
    pub fn running(pid: i32) -> Option<ProcessId> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // The name may contain anything, so count from its end (proc_pid_stat(5): 3 is the state).
        let mut fields = stat.rsplit_once(')')?.1.split_ascii_whitespace();
        let ended = matches!(fields.next()?, "Z" | "X");
        let started = fields.nth(18)?.parse().ok()?;
        (!ended).then_some(ProcessId { pid, started })
    }

    /// Its number; another process may have it by now.
    pub fn pid(self) -> i32 {
        self.pid
    }

    /// Whether it was started with this argument.
    pub fn has_argument(self, argument: &str) -> bool {
        let line = std::fs::read(format!("/proc/{}/cmdline", self.pid)).unwrap_or_default();
        let has = line.split(|byte| *byte == 0).any(|word| word == argument.as_bytes());
        has && ProcessId::running(self.pid) == Some(self)
    }

    /// A handle on it, if it still runs.
    pub fn open(self) -> Option<Handle> {
        // SAFETY: takes numbers only.
        let fd = unsafe { libc::syscall(libc::SYS_pidfd_open, self.pid, 0) };
        let fd = i32::try_from(fd).ok().filter(|fd| *fd >= 0)?;
        // SAFETY: the call has just made this descriptor, and nobody else has it.
        let handle = Handle(unsafe { OwnedFd::from_raw_fd(fd) });
        // Looked at with the handle open: it cannot become another process any more.
        (ProcessId::running(self.pid) == Some(self)).then_some(handle)
    }
}

/// A descriptor that names one process for good (pidfd_open(2), Linux 5.3).
pub(super) struct Handle(OwnedFd);

impl Handle {
    /// Waits until it has ended; says whether it has.
    pub async fn wait(&self, at_most: Duration) -> io::Result<bool> {
        let fd = self.0.as_raw_fd();
        // SAFETY: the descriptor stays open for as long as `self` is borrowed, which is longer.
        let ended = unsafe { AsyncFd::register_with_interest(fd, Interest::READABLE) };
        let ended = ended.map_err(io::Error::from)?;
        match tokio::time::timeout(at_most, ended.readable()).await {
            Ok(ready) => ready.map(|_| true),
            Err(_elapsed) => Ok(false),
        }
    }

    /// Kills it. One that has ended is left alone.
    pub fn kill(&self) {
        self.send(libc::SIGKILL);
    }

    /// Asks it to end. One that has ended is left alone.
    pub fn terminate(&self) {
        self.send(libc::SIGTERM);
    }

    fn send(&self, signal: libc::c_int) {
        let (fd, none) = (self.0.as_raw_fd(), std::ptr::null::<libc::siginfo_t>());
        // SAFETY: the descriptor is open, and no signal information is allowed here.
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, fd, signal, none, 0) };
    }
}

/// All process numbers, the highest (mostly the youngest) first.
fn pids() -> Vec<i32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().filter_map(Result::ok);
    let mut pids: Vec<i32> =
        entries.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).collect();
    pids.sort_unstable_by_key(|pid| std::cmp::Reverse(*pid));
    pids
}

fn link(pid: i32, name: &str) -> Option<PathBuf> {
    std::fs::read_link(format!("/proc/{pid}/{name}")).ok()
}

fn our_namespace() -> Option<PathBuf> {
    std::fs::read_link("/proc/self/ns/mnt").ok()
}

/// `name (pid)`.
fn title(pid: i32) -> String {
    let name = std::fs::read_to_string(format!("/proc/{pid}/comm")).unwrap_or_default();
    format!("{} ({pid})", name.trim())
}

/// The running process of our mount namespace with this program name and this last argument.
/// Other hosts on the same kernel may use the same folders.
pub(super) fn server(program: &str, last: &Path) -> Option<ProcessId> {
    let namespace = our_namespace();
    pids().into_iter().find_map(|pid| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let mut words = line.strip_suffix(&[0])?.split(|byte| *byte == 0);
        let called = Path::new(std::ffi::OsStr::from_bytes(words.next()?)).file_name()?;
        let fits = called == program && words.next_back()? == last.as_os_str().as_bytes();
        let ours = fits && link(pid, "ns/mnt") == namespace;
        ours.then(|| ProcessId::running(pid)).flatten()
    })
}

/// Who keeps a mount of our namespace busy, by name, as far as it can be found.
pub(super) fn mount_holders(target: &Path) -> Vec<String> {
    let mounts = mountinfo::read().unwrap_or_default();
    let ids: Vec<String> =
        mounts.iter().filter(|m| m.target == target).map(|m| m.id.to_string()).collect();
    let below = |path: &Path| path.starts_with(target) && path != target;
    let mut holders: Vec<String> = mounts
        .iter()
        .filter(|mount| below(&mount.target))
        .map(|mount| format!("the mount {}", mount.target.display()))
        .collect();
    let devices = loops::all().unwrap_or_default().into_iter();
    let over = devices.filter(|(_, file)| below(file));
    holders.extend(over.map(|(number, _)| format!("/dev/loop{number}")));
    let namespace = our_namespace();
    let inside = |path: Option<PathBuf>| path.is_some_and(|path| path.starts_with(target));
    let holds = |pid: &i32| {
        let stands = || ["cwd", "root", "exe"].iter().any(|name| inside(link(*pid, name)));
        (stands() && link(*pid, "ns/mnt") == namespace)
            || open_files(*pid).any(|(fd, path)| {
                path.starts_with(target) && mount_id(*pid, &fd).is_some_and(|id| ids.contains(&id))
            })
    };
    holders.extend(pids().into_iter().filter(holds).take(NAMED).map(title));
    holders.truncate(NAMED);
    holders
}

/// Who keeps a block device open, by name, as far as it can be found.
pub(super) fn device_holders(device: &Path) -> Vec<String> {
    let mounts = mountinfo::read().unwrap_or_default().into_iter();
    let mounted = mounts.filter(|mount| mount.source == device);
    let mut holders: Vec<String> =
        mounted.map(|mount| format!("the mount {}", mount.target.display())).collect();
    holders.extend(namespaces_with(device, None));
    let own = i32::try_from(std::process::id()).unwrap_or_default();
    let holds = |pid: &i32| *pid != own && open_files(*pid).any(|(_, path)| path == device);
    holders.extend(pids().into_iter().filter(holds).take(NAMED).map(title));
    holders.truncate(NAMED);
    holders
}

fn open_files(pid: i32) -> impl Iterator<Item = (String, PathBuf)> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
    entries.filter_map(Result::ok).filter_map(|entry| {
        let path = std::fs::read_link(entry.path()).ok()?;
        Some((entry.file_name().to_str()?.to_owned(), path))
    })
}

fn mount_id(pid: i32, fd: &str) -> Option<String> {
    let info = std::fs::read_to_string(format!("/proc/{pid}/fdinfo/{fd}")).ok()?;
    info.lines().find_map(|line| Some(line.strip_prefix("mnt_id:")?.trim().to_owned()))
}

/// One process of each other mount namespace in which this device is mounted elsewhere than at
/// `target`: clones of our own namespace show it there, and only because we do.
pub(super) fn namespaces_with(device: &Path, target: Option<&Path>) -> Vec<String> {
    let numbers = device_numbers(device);
    let mut seen: HashSet<PathBuf> = our_namespace().into_iter().collect();
    let mut users = Vec::new();
    for pid in pids().into_iter().rev() {
        let Some(namespace) = link(pid, "ns/mnt").filter(|found| !seen.contains(found)) else {
            continue;
        };
        let Ok(text) = std::fs::read(format!("/proc/{pid}/mountinfo")) else { continue };
        seen.insert(namespace);
        // The numbers of a btrfs are not its device's, the path in the source column is.
        let uses = |mount: &mountinfo::Mount| {
            (Some(mount.device) == numbers || mount.source == device)
                && target != Some(mount.target.as_path())
        };
        if mountinfo::parse(&text).iter().any(uses) {
            users.push(title(pid));
        }
    }
    users
}

/// Major and minor number of a block device, from sysfs.
fn device_numbers(device: &Path) -> Option<(u32, u32)> {
    let name = device.file_name()?.to_str()?;
    let text = std::fs::read_to_string(format!("/sys/class/block/{name}/dev")).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn processes_are_known_again() {
        let own = i32::try_from(std::process::id()).unwrap();
        let id = ProcessId::running(own).unwrap();
        assert!(id.open().is_some());
        assert!(ProcessId { started: id.started + 1, ..id }.open().is_none());
        assert!(pids().contains(&own));
        assert!(title(own).ends_with(&format!("({own})")));
    }

    #[test]
    fn nobody_serves_what_is_not_there() {
        assert_eq!(server("volplugin-serve", Path::new("/nonexistent")), None);
        assert_eq!(device_numbers(Path::new("/dev/nonexistent")), None);
        assert_eq!(mount_holders(Path::new("/nonexistent")), [""; 0]);
    }
}
