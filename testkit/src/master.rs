//! A volmaster process.

use std::fs;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use serde_json::Value;

use crate::command::Cmd;
use crate::daemon::Daemon;
use crate::http::{self, Answer};
use crate::place::{Node, Place};
use crate::poll;

/// Where those that have a node of their own serve.
const PORT: u16 = 9005;
/// It says that it serves within this time.
const START: Duration = Duration::from_secs(20);

/// A volmaster that can be stopped and started again, on one port.
#[derive(Debug)]
pub struct Master {
    name: String,
    folder: PathBuf,
    place: Place,
    address: SocketAddr,
    cmd: Cmd,
    daemon: Mutex<Option<Daemon>>,
}

/// A port on loopback that nobody listens on, below those that the kernel gives to connections.
#[track_caller]
pub fn free_port() -> u16 {
    let first = 20_000 + u16::try_from(std::process::id() % 12_000).unwrap_or_default();
    static NEXT: Mutex<u16> = Mutex::new(0);
    let mut next = NEXT.lock().unwrap_or_else(PoisonError::into_inner);
    for _ in 0..2_000 {
        let port = 20_000 + (first - 20_000 + *next) % 12_000;
        *next += 1;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("found no free port");
}

fn clock_file(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.clock"))
}

/// Writes what [`Cmd::clock_in`] reads.
pub(crate) fn set_clock(file: &Path, seconds: i64) {
    let new = file.with_extension("clock-new");
    fs::write(&new, format!("{seconds:+}\n")).expect("the clock is written");
    // In one step, as somebody may be reading.
    fs::rename(&new, file).expect("the clock is set");
}

impl Master {
    /// Starts one with these flags; `--listen` and `--data-dir` are given to it.
    #[track_caller]
    pub fn start(folder: &Path, name: &str, flags: &[String]) -> Master {
        let address = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), free_port());
        let cmd = Cmd::suite("volmaster");
        Master::build(folder, name, Place::Here, address, cmd.args(flags))
    }

    /// The same on a node, with an address of its own and a clock that [`Master::step_clock`] sets.
    #[track_caller]
    pub fn on(node: &Node, folder: &Path, name: &str, flags: &[String]) -> Master {
        let address = SocketAddr::new(node.address(), PORT);
        let cmd = node.place().cmd("env").clock_in(&clock_file(folder, name));
        let cmd = cmd.arg(crate::command::binary("volmaster")).arg("--insecure");
        Master::build(folder, name, node.place(), address, cmd.args(flags))
    }

    #[track_caller]
    fn build(folder: &Path, name: &str, place: Place, address: SocketAddr, cmd: Cmd) -> Master {
        let data = folder.join(format!("{name}-data"));
        let cmd = cmd.args(["--listen", &address.to_string()]).arg("--data-dir").arg(data);
        let (name, folder) = (name.to_owned(), folder.to_owned());
        let master = Master { name, folder, place, address, cmd, daemon: Mutex::new(None) };
        master.start_again();
        master
    }

    /// From within a second on the process sees a clock that is so many seconds ahead of the machine's. Only on a node.
    pub fn step_clock(&self, seconds: i64) {
        set_clock(&clock_file(&self.folder, &self.name), seconds);
    }

    fn daemon(&self) -> MutexGuard<'_, Option<Daemon>> {
        self.daemon.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// Its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it is.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Its log.
    pub fn log(&self) -> PathBuf {
        self.folder.join(format!("{}.log", self.name))
    }

    /// Starts it if it does not run, and waits until it serves.
    #[track_caller]
    pub fn start_again(&self) {
        let mut daemon = self.daemon();
        if daemon.as_mut().is_some_and(|daemon| daemon.ended().is_none()) {
            return;
        }
        let mut started = Daemon::spawn(&self.cmd, &self.folder, &self.name);
        poll::until(&format!("{} to serve", self.name), START, || {
            started.must_run();
            let Some(answer) = self.try_send("GET", "/healthz", b"") else {
                return Err("it takes no connection".to_owned());
            };
            if answer.status == 200 { Ok(()) } else { Err(answer.to_string()) }
        });
        *daemon = Some(started);
    }

    /// SIGKILL.
    pub fn kill(&self) {
        self.daemon().take();
    }

    /// SIGTERM; it has to end well, within ten seconds.
    #[track_caller]
    pub fn stop(&self) {
        if let Some(mut daemon) = self.daemon().take() {
            let status = daemon.terminate(Duration::from_secs(10));
            assert!(status.success(), "{} ended with {status}", self.name);
        }
    }

    /// SIGSTOP: connections are taken by the kernel, and nobody answers.
    pub fn freeze(&self) {
        if let Some(daemon) = self.daemon().as_ref() {
            daemon.signal(nix::sys::signal::Signal::SIGSTOP);
        }
    }

    /// SIGCONT.
    pub fn thaw(&self) {
        if let Some(daemon) = self.daemon().as_ref() {
            daemon.signal(nix::sys::signal::Signal::SIGCONT);
        }
    }

    /// Its resident memory in bytes.
    #[track_caller]
    pub fn resident(&self) -> u64 {
        self.daemon().as_ref().expect("it runs").resident()
    }

    /// A connection to it.
    pub fn connect(&self) -> std::io::Result<TcpStream> {
        self.place.connect(self.address)
    }

    fn try_send(&self, method: &str, path: &str, body: &[u8]) -> Option<Answer> {
        self.send_within(method, path, body, Duration::from_secs(30))
    }

    /// The answer to a GET, as JSON, if there is one in time, of success or not.
    pub fn ask(&self, path: &str, limit: Duration) -> Option<Value> {
        serde_json::from_str(&self.send_within("GET", path, b"", limit)?.body).ok()
    }

    fn send_within(
        &self,
        method: &str,
        path: &str,
        body: &[u8],
        limit: Duration,
    ) -> Option<Answer> {
        let mut stream = self.connect().ok()?;
        let head = format!("{method} {path} HTTP/1.1\r\nHost: volmaster");
        let head = if body.is_empty() { head } else { head + "\r\nContent-Type: application/json" };
        http::send(&mut stream, &http::whole(&head, body), limit).ok()
    }

    /// Sends a request, with a body of JSON if there is one.
    #[track_caller]
    pub fn send(&self, method: &str, path: &str, body: &Value) -> Answer {
        let body = if body.is_null() { String::new() } else { body.to_string() };
        let answer = self.try_send(method, path, body.as_bytes());
        answer.unwrap_or_else(|| panic!("{} did not answer {method} {path}", self.name))
    }

    /// The answer to a GET, as JSON; panics unless it is one of success.
    #[track_caller]
    pub fn get(&self, path: &str) -> Value {
        self.send("GET", path, &Value::Null).ok()
    }

    /// Whether it runs and answers.
    pub fn answers(&self) -> bool {
        self.try_send("GET", "/healthz", b"").is_some()
    }
}
