//! A real Ceph (`scripts/ceph`).

use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::Duration;

use crate::command::Outcome;
use crate::place::{Node, Place};
use crate::poll;

/// The pool that the script makes.
pub const POOL: &str = "rbd";

/// A Ceph with its data in a folder: one monitor, one manager, one OSD.
#[derive(Debug)]
pub struct Ceph {
    dir: PathBuf,
    conf: PathBuf,
    place: Place,
    pools: Mutex<Vec<String>>,
}

impl Ceph {
    /// Starts one. It has the pool [`POOL`], and a user `volplugin` that may write there.
    #[track_caller]
    pub fn up(dir: &Path) -> Ceph {
        Ceph::build(dir, Place::Here, "")
    }

    /// The same with the address of a node.
    #[track_caller]
    pub fn on(node: &Node, dir: &Path) -> Ceph {
        Ceph::build(dir, node.place(), &format!("--addr {}", node.address()))
    }

    #[track_caller]
    fn build(dir: &Path, place: Place, flags: &str) -> Ceph {
        let outcome = place.script("ceph").arg("up").arg(dir).words(flags).run();
        let conf = outcome.ok().strip_prefix("CEPH_CONF=").expect("the script says the file");
        let pools = Mutex::new(vec![POOL.to_owned()]);
        Ceph { dir: dir.to_owned(), conf: conf.into(), place, pools }
    }

    /// The configuration for clients.
    pub fn conf(&self) -> &Path {
        &self.conf
    }

    /// The ports on which its daemons serve.
    #[track_caller]
    pub fn ports(&self) -> Vec<u16> {
        let port = |address: &str| address.split([':', '/']).nth(1)?.parse().ok();
        let mon = self.ceph("mon dump --format json").json();
        let mons = mon["mons"].as_array().expect("monitors").iter();
        let mons = mons.filter_map(|mon| port(mon["addr"].as_str()?));
        let osd = self.ceph("osd dump --format json").json();
        let osds = osd["osds"].as_array().expect("OSDs").iter();
        let osds =
            osds.flat_map(|osd| osd["public_addrs"]["addrvec"].as_array().into_iter().flatten());
        let osds = osds.filter_map(|address| port(address["addr"].as_str()?));
        mons.chain(osds).collect()
    }

    /// Runs `ceph`, with the arguments in one text.
    #[track_caller]
    pub fn ceph(&self, line: &str) -> Outcome {
        self.place.cmd("ceph").arg("-c").arg(&self.conf).words(line).run()
    }

    /// Runs `rbd`, with the arguments in one text.
    #[track_caller]
    pub fn rbd(&self, line: &str) -> Outcome {
        self.place.cmd("rbd").arg("-c").arg(&self.conf).words(line).run()
    }

    /// Makes one more pool, and lets hosts write there.
    #[track_caller]
    pub fn pool(&self, name: &str) {
        let mut pools = self.pools.lock().expect("nobody panicked with it");
        self.ceph(&format!("osd pool create {name} 8 8")).ok();
        self.ceph(&format!("osd pool application enable {name} rbd")).ok();
        self.rbd(&format!("pool init {name}")).ok();
        pools.push(name.to_owned());
        let profiles: Vec<_> =
            pools.iter().map(|pool| format!("profile rbd pool={pool}")).collect();
        let caps = ["auth", "caps", "client.volplugin", "mon", "allow r", "osd"];
        let cmd = self.place.cmd("ceph").arg("-c").arg(&self.conf).args(caps);
        cmd.arg(profiles.join(", ")).run().ok();
    }

    /// The pools that were made here.
    pub fn pools(&self) -> Vec<String> {
        self.pools.lock().expect("nobody panicked with it").clone()
    }

    /// The images of a pool.
    #[track_caller]
    pub fn images(&self, pool: &str) -> Vec<String> {
        self.rbd(&format!("ls {pool}")).lines().iter().map(|&line| line.to_owned()).collect()
    }

    /// What is in the trash of a pool, a line for each image.
    #[track_caller]
    pub fn trash(&self, pool: &str) -> Vec<String> {
        let outcome = self.rbd(&format!("trash ls --all {pool}"));
        outcome.lines().iter().map(|&line| line.to_owned()).collect()
    }

    /// Freezes the monitor and the OSD: connections stand, and nobody answers until the end of
    /// what is given.
    #[track_caller]
    pub fn freeze(&self) -> Frozen<'_> {
        let frozen = Frozen(self);
        for daemon in ["osd", "mon"] {
            self.script("stop", daemon);
        }
        frozen
    }

    /// SIGKILL to all of it: connections are refused.
    #[track_caller]
    pub fn kill(&self) {
        self.script("kill", "all");
    }

    /// Starts what does not run, and waits until it serves.
    #[track_caller]
    pub fn start(&self) {
        self.place.script("ceph").arg("start").arg(&self.dir).run().ok();
    }

    #[track_caller]
    fn script(&self, verb: &str, daemon: &str) {
        self.tries(verb, daemon).ok();
    }

    fn tries(&self, verb: &str, daemon: &str) -> Outcome {
        self.place.script("ceph").arg(verb).arg(&self.dir).arg(daemon).run()
    }

    /// SIGKILL to one daemon: `osd`, `mon` or `mgr`.
    #[track_caller]
    pub fn kill_one(&self, daemon: &str) {
        self.script("kill", daemon);
    }

    /// SIGSTOP to one daemon. An OSD should not stand for longer than its read lease, 16 s: see [`Frozen::thaw`].
    #[track_caller]
    pub fn freeze_one(&self, daemon: &str) {
        self.script("stop", daemon);
    }

    /// SIGCONT to one daemon; it need not run.
    pub fn thaw_one(&self, daemon: &str) {
        let _ = self.tries("cont", daemon);
    }

    /// Says how many bytes a pool may have (0: no limit), and waits until Ceph has found out
    /// whether it is full.
    #[track_caller]
    pub fn quota(&self, pool: &str, bytes: u64, full: bool) {
        self.ceph(&format!("osd pool set-quota {pool} max_bytes {bytes}")).ok();
        poll::until("the quota to take effect", Duration::from_secs(60), || {
            let pools = self.ceph("osd pool ls detail").ok().to_owned();
            let line = pools.lines().find(|line| line.contains(&format!("'{pool}'")));
            let line = line.unwrap_or_default().to_owned();
            if line.contains("full_quota") == full { Ok(()) } else { Err(line) }
        });
    }
}

/// A Ceph that is frozen; when this is dropped it goes on.
#[derive(Debug)]
pub struct Frozen<'c>(&'c Ceph);

impl Frozen<'_> {
    /// Lets Ceph go on, and waits until it serves.
    #[track_caller]
    pub fn thaw(self) {
        let ceph = self.0;
        // A lone OSD that stood still for longer than its read lease (16 s) lets some requests wait
        // for ever, so it is started afresh. (Being marked down would do, and takes half a minute.)
        ceph.script("kill", "osd");
        drop(self);
        ceph.start();
    }
}

impl Drop for Frozen<'_> {
    fn drop(&mut self) {
        for daemon in ["mon", "osd"] {
            self.0.thaw_one(daemon);
        }
    }
}
