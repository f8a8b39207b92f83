//! One test's share of a suite: a tenant of its own, a place in the order, and the logs when it fails.

use std::sync::{PoisonError, RwLockReadGuard, RwLockWriteGuard};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::command::Outcome;
use crate::daemon::tail;
use crate::leftovers::{Leftovers, Where};
use crate::poll;
use crate::suite::Suite;

/// What is still in the way of a clean end is gone within this time. The longest of what a killed volmaster leaves is
/// its lease on an image and its watch of it (30 s each), and then a reconciler's pause of at most a minute.
const CLEAN: Duration = Duration::from_secs(120);

/// A running story. Its tenant has the story's name.
pub struct Story<'s> {
    /// The suite it plays in.
    pub suite: &'s Suite,
    /// Its tenant.
    pub tenant: String,
    began: Instant,
    _place: Place<'s>,
}

#[expect(dead_code, reason = "held, not read")]
enum Place<'s> {
    Beside(RwLockReadGuard<'s, ()>),
    Alone(RwLockWriteGuard<'s, ()>),
}

/// A policy with small volumes and everything that needs no Ceph of a certain sort.
pub fn policy() -> Value {
    json!({
        "default-options": { "size": "20MB", "filesystem": "ext4", "ephemeral": true },
        "filesystems": {
            "ext4": "mkfs.ext4 -q -m0 %",
            "xfs": "mkfs.xfs -q %",
            "btrfs": "mkfs.btrfs -q %",
        },
    })
}

impl<'s> Story<'s> {
    /// A story that others may run beside.
    #[track_caller]
    pub fn beside(suite: &'s Suite, name: &str) -> Story<'s> {
        let place = suite.gate.read().unwrap_or_else(PoisonError::into_inner);
        Story::begin(suite, name, Place::Beside(place))
    }

    /// A story that stops or kills something and so runs alone in its suite.
    #[track_caller]
    pub fn alone(suite: &'s Suite, name: &str) -> Story<'s> {
        let place = suite.gate.write().unwrap_or_else(PoisonError::into_inner);
        suite.heal();
        Story::begin(suite, name, Place::Alone(place))
    }

    #[track_caller]
    fn begin(suite: &'s Suite, name: &str, place: Place<'s>) -> Story<'s> {
        let story = Story { suite, tenant: name.to_owned(), began: Instant::now(), _place: place };
        story.upload(&policy());
        story
    }

    /// Uploads a policy of the story's tenant.
    #[track_caller]
    pub fn upload(&self, policy: &Value) {
        self.upload_for(&self.tenant, policy);
    }

    /// Uploads a policy of another tenant.
    #[track_caller]
    pub fn upload_for(&self, tenant: &str, policy: &Value) {
        let line = format!("tenant upload {tenant}");
        self.suite.volcli_with_stdin(&line, &policy.to_string()).ok();
    }

    /// `tenant/volume`.
    pub fn volume(&self, name: &str) -> String {
        format!("{}/{name}", self.tenant)
    }

    /// `<tenant>.<volume>`.
    pub fn image(&self, name: &str) -> String {
        format!("{}.{name}", self.tenant)
    }

    /// Creates a volume through the Docker of the first host, and gives its name.
    #[track_caller]
    pub fn create(&self, name: &str, options: &str) -> String {
        let volume = self.volume(name);
        self.try_create(name, options).ok();
        volume
    }

    /// Tries to: `options` are those of `docker volume create`, such as `--opt size=1GB`.
    #[track_caller]
    pub fn try_create(&self, name: &str, options: &str) -> Outcome {
        let volume = self.volume(name);
        self.suite.h1().docker(&format!("volume create -d volplugin {options} {volume}"))
    }

    /// Runs `volcli`.
    #[track_caller]
    pub fn volcli(&self, line: &str) -> Outcome {
        self.suite.volcli(line)
    }

    /// What volmaster says of a volume.
    #[track_caller]
    pub fn get(&self, name: &str) -> Value {
        self.suite.master().get(&format!("/v1/volumes/{}", self.volume(name)))
    }

    /// Waits until nothing of the tenant's volumes is mapped, mounted or claimed any more.
    #[track_caller]
    pub fn until_unused(&self) {
        self.until(Where::InUse);
    }

    /// Waits until nothing of the tenant's volumes is anywhere any more.
    #[track_caller]
    pub fn until_nothing_is_left(&self) {
        self.until(Where::Anywhere);
    }

    #[track_caller]
    fn until(&self, places: Where) {
        let what = format!("tenant {} to have nothing left", self.tenant);
        poll::until(&what, CLEAN, || Leftovers::of(self.suite, &self.tenant, places).none());
    }

    /// What is mapped, mounted or claimed of the tenant's volumes now.
    #[track_caller]
    pub fn in_use(&self) -> Vec<String> {
        Leftovers::of(self.suite, &self.tenant, Where::InUse).0
    }
}

impl Drop for Story<'_> {
    fn drop(&mut self) {
        println!("story {} of {}: {:.1?}", self.tenant, self.suite.name, self.began.elapsed());
        if !std::thread::panicking() {
            return;
        }
        println!("the logs of story {}:", self.tenant);
        for log in self.suite.logs() {
            println!("{}:\n{}", log.display(), tail(&log, 25, &self.tenant));
        }
    }
}
