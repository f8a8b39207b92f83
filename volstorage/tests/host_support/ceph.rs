//! A real Ceph for one test binary.

#![expect(clippy::unwrap_used, reason = "what helps a test panics as the test does")]

use std::path::PathBuf;
use std::process::{Child, Stdio};
use std::sync::{LazyLock, Mutex, PoisonError};

use tokio::sync::RwLock;
use volstorage::host::HostDriver;
use volstorage::image::ImageSource;

use crate::host_support::{Bed, command, map, run, try_run};

/// A cluster that runs until the process ends.
pub struct Ceph {
    folder: PathBuf,
    pub conf: PathBuf,
    /// Taken for writing by who freezes it.
    pub whole: RwLock<()>,
}

pub static CEPH: LazyLock<Ceph> = LazyLock::new(Ceph::start);
static WATCHDOG: Mutex<Option<Child>> = Mutex::new(None);

fn script() -> String {
    format!("{}/../scripts/ceph", env!("CARGO_MANIFEST_DIR"))
}

impl Ceph {
    fn start() -> Ceph {
        // One that runs already, with a folder that is there: for an emulated host, on which starting one takes minutes.
        if let Some(conf) = std::env::var_os("VOLPLUGIN_TEST_CEPH") {
            let conf = PathBuf::from(conf);
            let folder = conf.parent().unwrap().to_owned();
            return Ceph { folder, conf, whole: RwLock::new(()) };
        }
        let folder = tempfile::Builder::new().prefix("ceph-").tempdir().unwrap().keep();
        let folder_text = folder.to_str().unwrap();
        // Takes the cluster down when this process is gone, however it ended: the pipe ends then.
        let mut watchdog = command("sh");
        watchdog.args(["-c", "cat; \"$1\" down \"$2\" && rm -rf \"$2\"", "watchdog"]);
        watchdog.args([&script(), folder_text]).stdin(Stdio::piped()).stdout(Stdio::null());
        std::os::unix::process::CommandExt::process_group(&mut watchdog, 0);
        *WATCHDOG.lock().unwrap() = Some(watchdog.spawn().unwrap());
        // SAFETY: the function takes no argument, does not unwind, and is part of the program.
        unsafe { libc::atexit(wait_for_watchdog) };
        let env = run(&script(), &["up", folder_text]);
        let conf = PathBuf::from(env.trim().strip_prefix("CEPH_CONF=").unwrap());
        // How long a client that died keeps its lock: 30 s otherwise.
        let quick = ["tell", "osd.0", "config", "set", "osd_client_watch_timeout", "5"];
        run("ceph", &[&["-c", conf.to_str().unwrap()], &quick[..]].concat());
        Ceph { folder, conf, whole: RwLock::new(()) }
    }

    /// Runs `rbd` as the administrator.
    pub fn rbd(&self, args: &[&str]) -> String {
        run("rbd", &[&["-c", self.conf.to_str().unwrap()], args].concat())
    }

    /// A new image with ext4 on it.
    pub async fn image(&self, name: &str) -> ImageSource {
        self.formatted(name, "64M", &["mkfs.ext4", "-q", "-m0"]).await
    }

    /// A new image on which this program was run.
    pub async fn formatted(&self, name: &str, size: &str, mkfs: &[&str]) -> ImageSource {
        self.rbd(&["create", "--size", size, name]);
        let source = ImageSource::Rbd { pool: "rbd".to_owned(), image: name.to_owned() };
        let bed = Bed::with_ceph(&self.conf);
        let host = bed.host();
        let mapping = host.map(&map(&source)).await.unwrap();
        run(mkfs[0], &[&mkfs[1..], &[mapping.device.to_str().unwrap()]].concat());
        host.unmap(&source).await.unwrap();
        bed.assert_clean();
        source
    }

    /// Who has the image open.
    pub fn watchers(&self, name: &str) -> usize {
        let status = self.rbd(&["status", "--format", "json", name]);
        let status: serde_json::Value = serde_json::from_str(&status).unwrap();
        status["watchers"].as_array().unwrap().len()
    }

    /// What volmaster does about a client that is gone: blocklists it and breaks its lock.
    pub fn fence(&self, name: &str) {
        let locks = self.rbd(&["lock", "ls", "--format", "json", name]);
        let locks: serde_json::Value = serde_json::from_str(&locks).unwrap();
        for lock in locks.as_array().unwrap() {
            let [id, locker] = ["id", "locker"].map(|field| lock[field].as_str().unwrap());
            self.rbd(&["lock", "rm", name, id, locker]);
        }
    }

    /// Stops or continues one of its processes.
    fn signal(&self, verb: &str, daemon: &str) {
        run(&script(), &[verb, self.folder.to_str().unwrap(), daemon]);
    }
}

/// Waiting closes our side of the pipe first.
extern "C" fn wait_for_watchdog() {
    if let Some(mut child) = WATCHDOG.lock().unwrap_or_else(PoisonError::into_inner).take() {
        drop(child.wait());
    }
}

/// A part of the cluster that is frozen for as long as this lives.
pub struct Frozen(&'static str);

impl Frozen {
    pub fn new(daemon: &'static str) -> Frozen {
        CEPH.signal("stop", daemon);
        Frozen(daemon)
    }
}

impl Drop for Frozen {
    fn drop(&mut self) {
        try_run(&script(), &["cont", CEPH.folder.to_str().unwrap(), self.0]);
    }
}
