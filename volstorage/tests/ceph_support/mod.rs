//! A real Ceph for one test binary.
//!
//! `scripts/ceph up` runs once per process. A watchdog takes the cluster down when this process is gone, however it
//! ended: it waits for the end of a pipe of which we hold the other side. On a normal exit we wait for it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};
use std::time::{Duration, Instant};

use serde_json::Value;
use volstorage::ceph::{Cluster, ConnectOptions, Features, Pool, Timeouts};

/// A cluster that runs until the process ends.
pub struct Ceph {
    pub conf: PathBuf,
    cluster: Mutex<Option<Cluster>>,
}

pub static CEPH: LazyLock<Ceph> = LazyLock::new(Ceph::start);

static WATCHDOG: Mutex<Option<Child>> = Mutex::new(None);

/// The features that the suite gives its images.
pub const FEATURES: Features = Features::from_bits(0b11_1101);

pub const MIB: u64 = 1 << 20;

impl Ceph {
    fn start() -> Self {
        let script = script();
        let dir = tempfile::Builder::new().prefix("ceph-").tempdir().expect("a folder").keep();
        watch(&script, &dir);
        let up = command(&script)
            .args(["up".as_ref(), dir.as_os_str()])
            .output()
            .expect("scripts/ceph runs");
        assert!(up.status.success(), "scripts/ceph up: {}", String::from_utf8_lossy(&up.stderr));
        let conf = String::from_utf8(up.stdout).expect("text");
        let conf = PathBuf::from(conf.trim().strip_prefix("CEPH_CONF=").expect("CEPH_CONF=…"));
        let cluster = connect(&conf, Timeouts::default());
        // Registered after the libraries of Ceph were loaded, so it runs before their exit handlers.
        // SAFETY: the function takes no argument, does not unwind, and is part of the program.
        unsafe { libc::atexit(tear_down) };
        Self { conf, cluster: Mutex::new(Some(cluster)) }
    }

    /// The connection that all tests share.
    pub fn cluster(&self) -> Cluster {
        let cluster = self.cluster.lock().unwrap_or_else(PoisonError::into_inner);
        cluster.clone().expect("the cluster is up until the process ends")
    }

    /// The pool that every cluster has.
    pub fn pool(&self) -> Pool {
        self.cluster().pool("rbd").expect("the pool rbd")
    }

    /// A new client, as another host would have.
    pub fn connect(&self, timeouts: Timeouts) -> Cluster {
        connect(&self.conf, timeouts)
    }

    /// Runs a monitor command that prints JSON.
    pub fn ask(&self, command: &Value) -> Value {
        let reply = self.cluster().mon_command(command).expect("the monitor accepts the command");
        serde_json::from_slice(&reply.output).unwrap_or(Value::Null)
    }
}

fn connect(conf: &Path, timeouts: Timeouts) -> Cluster {
    let options =
        ConnectOptions { key: None, conf: conf.to_owned(), user: "admin".to_owned(), timeouts };
    Cluster::connect(&options).expect("a connection")
}

/// Polls until `probe` gives a value; panics with the last status text when the time is over.
pub fn wait_for<T>(what: &str, mut probe: impl FnMut() -> Result<T, String>) -> T {
    let end = Instant::now() + Duration::from_secs(120);
    loop {
        match probe() {
            Ok(value) => return value,
            Err(status) => assert!(Instant::now() < end, "gave up waiting for {what}: {status}"),
        }
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The script that starts and stops the cluster.
pub fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/ceph")
}

#[expect(
    clippy::disallowed_methods,
    reason = "the test drives the tools of Ceph and the script that starts it"
)]
pub fn command(program: &Path) -> Command {
    Command::new(program)
}

/// Starts the watchdog.
fn watch(script: &Path, dir: &Path) {
    use std::os::unix::process::CommandExt;

    let child = command(Path::new("sh"))
        .args(["-c", "cat; \"$1\" down \"$2\" && rm -rf \"$2\"", "watchdog"])
        .args([script, dir])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .process_group(0)
        .spawn()
        .expect("a watchdog");
    *WATCHDOG.lock().unwrap_or_else(PoisonError::into_inner) = Some(child);
}

/// Disconnects, and waits for the watchdog: statics are never dropped.
extern "C" fn tear_down() {
    drop(CEPH.cluster.lock().unwrap_or_else(PoisonError::into_inner).take());
    if let Some(mut child) = WATCHDOG.lock().unwrap_or_else(PoisonError::into_inner).take() {
        // Waiting closes our side of the pipe first.
        drop(child.wait());
    }
}
