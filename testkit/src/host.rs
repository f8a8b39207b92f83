//! A Docker host with its own volplugin and its own Docker (`scripts/dockerd`). It is simulated by mounts
//! of its own (`scripts/host`), or a guest with a kernel of its own (`scripts/guest`).

use std::fs;
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::command::{Cmd, Outcome};
use crate::daemon::Daemon;
use crate::http::{self, Answer, Stream};
use crate::place::{End, Node, unique};
use crate::poll;

mod blows;

/// An image that every Docker here has: a static busybox.
pub const IMAGE: &str = "volplugin/busybox";
/// Where volplugin serves Docker.
const SOCKET: &str = "/run/docker/plugins/volplugin.sock";
/// The options of every `docker run` and `docker create` here: no network, and no ten seconds
/// of waiting for a shell that does not listen to SIGTERM.
const RUN: &str = "--network none --stop-signal KILL";

/// What a host is.
#[derive(Clone, Debug)]
enum Machine {
    /// Mounts of its own on this machine's kernel.
    Namespaces,
    /// The same with an address of its own, joined to a hub.
    Wired(End, String),
    /// A kernel of its own; these ports of this machine are on its loopback, too.
    Guest(Vec<u16>),
}

/// A host. It is powered off when this is dropped.
#[derive(Debug)]
pub struct Host {
    label: String,
    name: String,
    dir: PathBuf,
    machine: Machine,
    /// Of the process that keeps the host's mounts, or of QEMU; 0 while the host is off.
    pid: AtomicU32,
    flags: Vec<String>,
    plugin: Mutex<Option<Daemon>>,
}

impl Host {
    /// Powers a host on, with volplugin (with these flags beside its own) and Docker.
    #[track_caller]
    pub fn up(folder: &Path, label: &str, flags: &[String]) -> Host {
        Host::build(folder, label, flags, Machine::Namespaces)
    }

    /// The same with the address 10.77.0.(10 + index), joined to a hub, and for volplugin a clock that
    /// [`Host::step_clock`] sets.
    #[track_caller]
    pub fn wired(folder: &Path, label: &str, flags: &[String], index: u8, hub: &Node) -> Host {
        let end = End { name: unique(folder, label), index };
        Host::build(folder, label, flags, Machine::Wired(end, hub.name().to_owned()))
    }

    /// The same with a kernel of its own. It reaches these ports of this machine.
    #[track_caller]
    pub fn guest(folder: &Path, label: &str, flags: &[String], ports: Vec<u16>) -> Host {
        Host::build(folder, label, flags, Machine::Guest(ports))
    }

    #[track_caller]
    fn build(folder: &Path, label: &str, flags: &[String], machine: Machine) -> Host {
        let dir = folder.join(label);
        let name = unique(folder, label);
        let host = Host {
            label: label.to_owned(),
            name,
            dir,
            machine,
            pid: AtomicU32::new(0),
            flags: flags.to_vec(),
            plugin: Mutex::new(None),
        };
        host.power_on();
        host.dockerd("up");
        host
    }

    /// Powers the host on if it is off, with volplugin; Docker has to be started.
    #[track_caller]
    pub fn power_on(&self) {
        let outcome = match &self.machine {
            Machine::Namespaces => {
                Cmd::script("host").args(["up", &self.name]).arg(&self.dir).run()
            }
            Machine::Wired(end, hub) => {
                let up = Cmd::script("host").args(["up", &self.name]).arg(&self.dir).arg("--net");
                up.args(["--index", &end.index.to_string(), "--join", hub]).run()
            }
            Machine::Guest(ports) => {
                let up = Cmd::script("guest").arg("up").arg(&self.dir);
                ports.iter().fold(up, |up, port| up.args(["--forward", &port.to_string()])).run()
            }
        };
        let pid = said(&outcome, "_PID=").and_then(|pid| pid.parse().ok());
        self.pid.store(pid.expect("the script says the process id"), Ordering::Relaxed);
        self.plugin_start();
    }

    /// Pulls the plug: SIGKILL to everything on the host at once; its mounts and devices are gone.
    #[track_caller]
    pub fn power_off(&self) {
        let off = match self.machine {
            Machine::Namespaces | Machine::Wired(..) => {
                Cmd::script("host").args(["down", &self.name])
            }
            Machine::Guest(_) => Cmd::script("guest").arg("down"),
        };
        off.arg(&self.dir).run().ok();
        self.pid.store(0, Ordering::Relaxed);
        self.plugin().take();
    }

    /// Whether it is on.
    pub fn is_on(&self) -> bool {
        self.pid.load(Ordering::Relaxed) != 0
    }

    /// Its name in claims and messages.
    pub fn label(&self) -> &str {
        &self.label
    }

    /// Its folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn is_guest(&self) -> bool {
        matches!(self.machine, Machine::Guest(_))
    }

    /// Where the host keeps things, as it sees it.
    fn disk(&self) -> PathBuf {
        if self.is_guest() { self.dir.join("disk") } else { self.dir.clone() }
    }

    /// A path as it is seen from outside.
    fn path(&self, inside: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{inside}", self.pid.load(Ordering::Relaxed)))
    }

    /// The mounts of the host, as lines of `/proc/…/mountinfo`.
    #[track_caller]
    pub fn mounts(&self) -> Vec<String> {
        let text = match self.machine {
            Machine::Guest(_) => self.exec("cat /proc/self/mountinfo").ok().to_owned(),
            Machine::Namespaces | Machine::Wired(..) => {
                let path = format!("/proc/{}/mountinfo", self.pid.load(Ordering::Relaxed));
                fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
            }
        };
        text.lines().map(str::to_owned).collect()
    }

    /// The folders in which what is held for volumes leaves traces, with all that is below.
    #[track_caller]
    pub fn traces(&self) -> Vec<PathBuf> {
        let folders = [self.data_dir(), "/mnt/volplugin".into()];
        if self.is_guest() {
            // Where one is not there yet, `find` says so beside what it found.
            let script = "find \"$@\" 2>&1 || true";
            let find = self.within().args(["sh", "-c", script, "sh"]).args(&folders).run();
            return find.lines().into_iter().map(PathBuf::from).collect();
        }
        let [data, mounts] = folders;
        let mounts = self.path(&mounts.display().to_string());
        [walk(&data), walk(&mounts)].concat()
    }

    /// The images that the host's kernel has mapped by itself, and what serves images there.
    #[track_caller]
    pub fn mapped(&self) -> Vec<String> {
        if !self.is_guest() {
            return Vec::new();
        }
        let script = "cat /sys/bus/rbd/devices/*/name; pgrep -a 'rbd-(nbd|fuse)'; true";
        let seen = self.sh(script);
        seen.lines().into_iter().map(str::to_owned).collect()
    }

    fn within(&self) -> Cmd {
        let exec = match self.machine {
            Machine::Namespaces | Machine::Wired(..) => {
                Cmd::script("host").args(["exec", &self.name])
            }
            Machine::Guest(_) => Cmd::script("guest").arg("exec"),
        };
        exec.arg(&self.dir).arg("--")
    }

    /// Runs a script inside.
    #[track_caller]
    pub fn sh(&self, script: &str) -> Outcome {
        self.within().args(["sh", "-c", script]).run()
    }

    /// Runs a command inside.
    #[track_caller]
    pub fn exec(&self, line: &str) -> Outcome {
        self.within().words(line).run()
    }

    /// SIGKILL to a process, by its id there; waits until it is gone.
    #[track_caller]
    pub fn kill_process(&self, pid: u32) {
        self.exec(&format!("kill -9 {pid}")).ok();
        poll::until("the end of a process", Duration::from_secs(20), || {
            // One that nobody has waited for yet has no root any more.
            let root = self.exec(&format!("readlink /proc/{pid}/root"));
            poll::holds(!root.is_ok(), "it is there")
        });
    }

    // -- volplugin

    fn plugin(&self) -> MutexGuard<'_, Option<Daemon>> {
        self.plugin.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where volplugin keeps what it holds.
    pub fn data_dir(&self) -> PathBuf {
        self.disk().join("volplugin")
    }

    /// Volplugin's log.
    pub fn plugin_log(&self) -> PathBuf {
        self.fetched("plugin.log")
    }

    /// Docker's log.
    pub fn docker_log(&self) -> PathBuf {
        self.fetched("docker/dockerd.log")
    }

    /// A file of the host's where it can be read; of a guest, as it is now.
    fn fetched(&self, file: &str) -> PathBuf {
        let here = self.dir.join(file);
        if self.is_guest() && self.is_on() {
            fs::create_dir_all(here.parent().unwrap_or(&self.dir)).expect("a folder");
            let text = self.within().arg("cat").arg(self.disk().join(file)).run();
            fs::write(&here, text.ok()).expect("the file is written");
        }
        here
    }

    /// Starts volplugin if it does not run, and waits until it serves.
    #[track_caller]
    pub fn plugin_start(&self) {
        let mut plugin = self.plugin();
        if plugin.as_mut().is_some_and(|plugin| plugin.ended().is_none()) {
            return;
        }
        let (cmd, name) = if self.is_guest() {
            // The process here only waits for the one there, which writes its log there.
            self.plugin_signal("KILL");
            let log = self.disk().join("plugin.log");
            let script = format!("exec \"$@\" >>{} 2>&1", log.display());
            (self.within().args(["sh", "-c", &script, "sh"]), "plugin-waiter")
        } else {
            (self.within(), "plugin")
        };
        // Every call of Docker's is in the log.
        let cmd = cmd.args(["env", "VOLPLUGIN_LOG=info,volplugin=debug"]);
        let cmd = match self.machine {
            Machine::Wired(..) => cmd.clock_in(&self.clock_file()),
            Machine::Namespaces | Machine::Guest(_) => cmd,
        };
        let cmd = cmd.arg(crate::command::binary("volplugin")).args(&self.flags);
        let cmd = cmd.args(["--host-label", &self.label]).arg("--data-dir").arg(self.data_dir());
        let mut started = Daemon::spawn(&cmd, &self.dir, name);
        let what = format!("volplugin on {} to serve", self.label);
        poll::until(&what, Duration::from_secs(60), || {
            started.must_run();
            self.plugin_serves()
        });
        *plugin = Some(started);
    }

    fn plugin_serves(&self) -> Result<(), String> {
        if !self.is_guest() {
            let socket = UnixStream::connect(self.path(SOCKET));
            return socket.map(drop).map_err(|error| error.to_string());
        }
        let cmd = self.within().args(["curl", "-sSf", "--max-time", "5", "--unix-socket", SOCKET]);
        let answer = cmd.args(["-X", "POST", "http://plugin/Plugin.Activate"]).run();
        if answer.is_ok() { Ok(()) } else { Err(answer.to_string()) }
    }

    /// Sends a signal to the volplugin of a guest; it need not run.
    #[track_caller]
    fn plugin_signal(&self, signal: &str) {
        let script = format!("pkill -{signal} -x volplugin; true");
        self.within().args(["sh", "-c", &script]).run().ok();
    }

    /// Starts one more volplugin on the host, under another name and with everything of its own.
    #[track_caller]
    pub fn plugin_beside(&self, name: &str, flags: &str) -> Daemon {
        let cmd = self.within().arg(crate::command::binary("volplugin")).args(&self.flags);
        let cmd =
            cmd.args(["--plugin-name", name, "--host-label", &format!("{}-{name}", self.label)]);
        let cmd = cmd.arg("--data-dir").arg(self.dir.join(format!("volplugin-{name}")));
        let cmd = cmd.arg("--mount-root").arg(format!("/mnt/{name}")).words(flags);
        let mut started = Daemon::spawn(&cmd, &self.dir, name);
        let socket = self.path(&format!("/run/docker/plugins/{name}.sock"));
        poll::until(&format!("{name} to serve"), Duration::from_secs(60), || {
            started.must_run();
            UnixStream::connect(&socket).map(drop)
        });
        started
    }

    /// SIGKILL to volplugin.
    #[track_caller]
    pub fn plugin_kill(&self) {
        if self.is_guest() && self.is_on() {
            self.plugin_signal("KILL");
        }
        self.plugin().take();
    }

    /// SIGTERM to volplugin; it has to end well, within 15 seconds.
    #[track_caller]
    pub fn plugin_stop(&self) {
        if let Some(mut daemon) = self.plugin().take() {
            if self.is_guest() {
                self.plugin_signal("TERM");
                let status = daemon.await_end(Duration::from_secs(30));
                assert!(status.success(), "volplugin on {} ended with {status}", self.label);
                return;
            }
            let status = daemon.terminate(Duration::from_secs(15));
            assert!(status.success(), "volplugin on {} ended with {status}", self.label);
        }
    }

    /// The process id of volplugin.
    #[track_caller]
    pub fn plugin_pid(&self) -> u32 {
        self.plugin().as_ref().expect("volplugin runs").pid()
    }

    /// The resident memory of volplugin in bytes.
    #[track_caller]
    pub fn plugin_resident(&self) -> u64 {
        self.plugin().as_ref().expect("volplugin runs").resident()
    }

    /// A connection to volplugin's socket.
    pub fn plugin_connect(&self) -> std::io::Result<Box<dyn Stream>> {
        if self.is_guest() {
            let env = fs::read_to_string(self.dir.join("env"))?;
            let port = env.lines().find_map(|line| line.strip_prefix("GUEST_PLUGIN="));
            return Ok(Box::new(TcpStream::connect(port.unwrap_or_default())?));
        }
        Ok(Box::new(UnixStream::connect(self.path(SOCKET))?))
    }

    /// Calls volplugin as Docker does: `method` is for example `VolumeDriver.Mount`.
    #[track_caller]
    pub fn plugin_call(&self, method: &str, body: &Value) -> Answer {
        let stream = self.plugin_connect().unwrap_or_else(|error| panic!("{method}: {error}"));
        http::request(stream, &plugin_head(method), &plugin_body(body))
    }

    /// Somebody who calls volplugin over one connection and lives on between the calls. To a guest's
    /// volplugin each connection is another process, and what a process had mounted that is gone is
    /// cleaned up.
    #[track_caller]
    pub fn plugin_caller(&self) -> PluginCaller {
        PluginCaller(self.plugin_connect().unwrap_or_else(|error| panic!("volplugin: {error}")))
    }

    // -- Docker

    #[track_caller]
    fn dockerd(&self, verb: &str) {
        let script = crate::command::scripts().join("dockerd");
        self.within().arg(script).arg(verb).arg(self.disk().join("docker")).run().ok();
    }

    /// SIGKILL to dockerd alone; its containers go on.
    #[track_caller]
    pub fn docker_kill(&self) {
        self.dockerd("kill");
    }

    /// Stops dockerd as an operator would; that stops its containers.
    #[track_caller]
    pub fn docker_stop(&self) {
        self.dockerd("down");
    }

    /// Starts dockerd if it does not run, and waits until it answers.
    #[track_caller]
    pub fn docker_start(&self) {
        self.dockerd("start");
    }

    fn docker_cmd(&self) -> Cmd {
        let host = format!("unix://{}/docker/docker.sock", self.disk().display());
        let config = self.disk().join("docker/client");
        if self.is_guest() {
            let config = format!("DOCKER_CONFIG={}", config.display());
            let env = self.within().arg("env").arg(format!("DOCKER_HOST={host}"));
            return env.arg(config).arg("docker");
        }
        Cmd::new("docker").env("DOCKER_HOST", host).env("DOCKER_CONFIG", config)
    }

    /// Runs `docker`, with the arguments in one text.
    #[track_caller]
    pub fn docker(&self, line: &str) -> Outcome {
        self.docker_cmd().words(line).run()
    }

    /// The same with something to read.
    #[track_caller]
    pub fn docker_with_stdin(&self, line: &str, stdin: impl Into<Vec<u8>>) -> Outcome {
        self.docker_cmd().words(line).stdin(stdin).run()
    }

    /// Runs a script in a new container, which is gone afterwards: `options` are those of
    /// `docker run`, for example `-v tenant1/db:/data`.
    #[track_caller]
    pub fn run(&self, options: &str, script: &str) -> Outcome {
        let cmd = self.docker_cmd().words("run --rm").words(RUN).words(options).arg(IMAGE);
        cmd.args(["sh", "-c", script]).run()
    }

    /// Starts a container that runs a script in the background.
    #[track_caller]
    pub fn start<'h>(&'h self, name: &str, options: &str, script: &str) -> Container<'h> {
        let cmd = self.docker_cmd().words("run -d --name").arg(name).words(RUN).words(options);
        cmd.arg(IMAGE).args(["sh", "-c", script]).run().ok();
        Container { host: self, name: name.to_owned() }
    }

    /// Tries the same: for containers that are to be refused. Gives how it ended.
    #[track_caller]
    pub fn try_start(&self, name: &str, options: &str, script: &str) -> Outcome {
        let cmd = self.docker_cmd().words("run -d --name").arg(name).words(RUN).words(options);
        cmd.arg(IMAGE).args(["sh", "-c", script]).run()
    }

    /// Makes a container and does not start it.
    #[track_caller]
    pub fn create<'h>(&'h self, name: &str, options: &str, script: &str) -> Container<'h> {
        let cmd = self.docker_cmd().words("create --name").arg(name).words(RUN).words(options);
        cmd.arg(IMAGE).args(["sh", "-c", script]).run().ok();
        Container { host: self, name: name.to_owned() }
    }

    /// What `docker volume inspect` shows as the volume's `Status`.
    #[track_caller]
    pub fn volume_status(&self, volume: &str) -> Value {
        self.docker(&format!("volume inspect {volume}")).json()[0]["Status"].clone()
    }

    /// The names that `docker volume ls` shows of volplugin's volumes.
    #[track_caller]
    pub fn volume_names(&self) -> Vec<String> {
        let outcome = self.docker("volume ls -f driver=volplugin --format {{.Name}}");
        outcome.lines().iter().map(|&line| line.to_owned()).collect()
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = Cmd::script("host").args(["down", &self.name]).arg(&self.dir).run();
    }
}

/// What a script has said of something.
fn said<'o>(outcome: &'o Outcome, what: &str) -> Option<&'o str> {
    outcome.lines().into_iter().find_map(|line| line.split_once(what)).map(|(_, value)| value)
}

/// All that is below a folder.
pub(crate) fn walk(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        found.push(entry.path());
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(walk(&entry.path()));
        }
    }
    found
}

/// A container.
#[derive(Debug)]
pub struct Container<'h> {
    host: &'h Host,
    name: String,
}

impl Container<'_> {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Runs a script in it.
    #[track_caller]
    pub fn sh(&self, script: &str) -> Outcome {
        self.host.docker_cmd().args(["exec", &self.name, "sh", "-c", script]).run()
    }

    /// Stops it.
    #[track_caller]
    pub fn stop(&self) {
        self.host.docker(&format!("stop {}", self.name)).ok();
    }

    /// Removes it, running or not.
    #[track_caller]
    pub fn remove(self) {
        self.host.docker(&format!("rm -f {}", self.name)).ok();
    }

    /// Whether Docker says that it runs.
    #[track_caller]
    pub fn runs(&self) -> bool {
        let line = format!("inspect -f {{{{.State.Running}}}} {}", self.name);
        self.host.docker(&line).ok() == "true"
    }

    /// The process id of its first process, as the machine sees it.
    #[track_caller]
    pub fn pid(&self) -> u32 {
        let line = format!("inspect -f {{{{.State.Pid}}}} {}", self.name);
        self.host.docker(&line).ok().parse().expect("a process id")
    }
}

/// See [`Host::plugin_caller`].
pub struct PluginCaller(Box<dyn Stream>);

impl PluginCaller {
    /// Calls a method, e.g. `VolumeDriver.Mount`.
    #[track_caller]
    pub fn call(&mut self, method: &str, body: &Value) -> Answer {
        let request = http::one_of_many(&plugin_head(method), &plugin_body(body));
        let answer = http::send(&mut self.0, &request, Duration::from_secs(125));
        answer.unwrap_or_else(|why| panic!("{method}: {why}"))
    }
}

fn plugin_head(method: &str) -> String {
    format!("POST /{method} HTTP/1.1\r\nHost: \r\nAccept: application/vnd.docker.plugins.v1.2+json")
}

fn plugin_body(body: &Value) -> Vec<u8> {
    if body.is_null() { Vec::new() } else { body.to_string().into_bytes() }
}
