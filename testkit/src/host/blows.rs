//! What can happen to a host and to each process on it.

use std::fs;
use std::path::PathBuf;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::{Host, Machine};
use crate::command::{Cmd, Outcome};
use crate::place::End;

impl Host {
    /// Its end of every line.
    #[track_caller]
    pub fn end(&self) -> &End {
        match &self.machine {
            Machine::Wired(end, _) => end,
            Machine::Namespaces | Machine::Guest(_) => {
                panic!("{} has no address of its own", self.label)
            }
        }
    }

    fn host_script(&self, verb: &str) -> Outcome {
        Cmd::script("host").args([verb, &self.name]).arg(&self.dir).run()
    }

    /// Takes the cable out: nothing reaches the host, and nothing leaves it.
    #[track_caller]
    pub fn unplug(&self) {
        self.host_script("cut").ok();
    }

    /// Puts the cable back.
    #[track_caller]
    pub fn plug(&self) {
        self.host_script("heal").ok();
    }

    /// SIGSTOP to everything on the host, containers too.
    #[track_caller]
    pub fn freeze(&self) {
        self.host_script("freeze").ok();
    }

    /// SIGCONT to everything on the host.
    #[track_caller]
    pub fn thaw(&self) {
        self.host_script("thaw").ok();
    }

    /// Sends a signal to volplugin; it need not run.
    pub fn plugin_send(&self, signal: Signal) {
        if let Some(plugin) = self.plugin().as_ref() {
            plugin.signal(signal);
        }
    }

    /// Sends a signal to dockerd; it need not run.
    pub fn docker_send(&self, signal: Signal) {
        let pid = fs::read_to_string(self.dir.join("docker/dockerd.pid")).unwrap_or_default();
        let own = self.pids_of(|args| args.contains("dockerd") && args.contains("--data-root"));
        for pid in pid.trim().parse().into_iter().filter(|pid| own.contains(pid)) {
            send(pid, signal);
        }
    }

    /// The processes that serve images to the host's kernel, each of one volume: those of `rbd-fuse`, and of
    /// volplugin's own. With a part of their command line, such as an image's name, only those.
    pub fn data_paths(&self, of: &str) -> Vec<u32> {
        self.pids_of(|args| {
            let serves = ["rbd-fuse", "volplugin-serve", "volplugin serve"];
            let serves = serves.iter().any(|name| args.contains(name));
            serves && args.contains(of)
        })
    }

    /// Sends a signal to the processes that [`Host::data_paths`] finds.
    pub fn data_path_send(&self, of: &str, signal: Signal) {
        for pid in self.data_paths(of) {
            send(pid, signal);
        }
    }

    /// The processes that see the host's mounts and have such a command line, with blanks between the arguments.
    fn pids_of(&self, is_one: impl Fn(&str) -> bool) -> Vec<u32> {
        let mounts = |pid: &str| fs::read_link(format!("/proc/{pid}/ns/mnt")).ok();
        let holder = self.pid.load(std::sync::atomic::Ordering::Relaxed);
        let Some(ours) = mounts(&holder.to_string()) else { return Vec::new() };
        let mut found = Vec::new();
        for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let name = process.file_name().to_string_lossy().into_owned();
            let Ok(pid) = name.parse() else { continue };
            if mounts(&name).as_ref() != Some(&ours) {
                continue;
            }
            let args = fs::read(process.path().join("cmdline")).unwrap_or_default();
            if is_one(&String::from_utf8_lossy(&args).replace('\0', " ")) {
                found.push(pid);
            }
        }
        found
    }

    /// From within a second on volplugin sees a clock that is so many seconds ahead of the machine's. Only on a wire.
    pub fn step_clock(&self, seconds: i64) {
        crate::master::set_clock(&self.clock_file(), seconds);
    }

    pub(super) fn clock_file(&self) -> PathBuf {
        self.dir.join("plugin.clock")
    }

    /// A file on a volume that is mounted here, as it is now.
    pub fn read_on(&self, image: &str, file: &str) -> std::io::Result<Vec<u8>> {
        fs::read(self.path(&format!("/mnt/volplugin/{}/{image}/{file}", crate::ceph::POOL)))
    }

    /// Where the file system of an image is mounted on the host itself for writing; lines of its mount table.
    #[track_caller]
    pub fn writable(&self, image: &str) -> Vec<String> {
        if !self.is_on() {
            return Vec::new();
        }
        let below = format!("/{image}");
        let writable = |line: &String| {
            let mut words = line.split(' ').skip(4);
            let (point, options) =
                (words.next().unwrap_or_default(), words.next().unwrap_or_default());
            // What shows the image as a file has its name, too.
            let shows = line.contains(" - fuse");
            !shows && point.ends_with(&below) && options.split(',').any(|option| option == "rw")
        };
        self.mounts().into_iter().filter(writable).collect()
    }
}

fn send(pid: u32, signal: Signal) {
    let _ = kill(Pid::from_raw(pid.cast_signed()), signal);
}
