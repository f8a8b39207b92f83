//! The steps as an operator types them, one process each: the baselines.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use testkit::Cmd;
use volstorage::ceph::{ConnectOptions, Timeouts};

/// Runs a command and gives what it wrote; its failure ends the bench.
pub fn sh(line: &str) -> String {
    Cmd::new("/bin/sh")
        .args(["-c", line])
        .deadline(Duration::from_secs(60))
        .run()
        .ok()
        .trim()
        .to_owned()
}

/// An image in Ceph, mapped by `rbd-fuse` and a loop device, as typed.
pub struct Mapped {
    folder: PathBuf,
    device: String,
}

impl Mapped {
    /// `rbd-fuse`, then `losetup`.
    pub fn map(conf: &Path, image: &str, folder: &Path) -> Mapped {
        let (conf, shown) = (conf.display(), folder.display());
        let line = format!(
            "mkdir -p {shown} && rbd-fuse -c {conf} -p rbd -r {image} {shown} && losetup -f --show --direct-io=on {shown}/{image}"
        );
        Mapped { folder: folder.to_owned(), device: sh(&line) }
    }

    /// The loop device.
    pub fn device(&self) -> &str {
        &self.device
    }

    /// `losetup -d`, then `umount`, again while it is busy.
    pub fn unmap(self) {
        let Mapped { folder, device } = self;
        sh(&format!(
            "losetup -d {device} && until umount {0} 2>/dev/null; do :; done && rmdir {0}",
            folder.display()
        ));
    }
}

/// How long something took.
pub fn timed<T>(act: impl FnOnce() -> T) -> (Duration, T) {
    let began = Instant::now();
    let value = act();
    (began.elapsed(), value)
}

/// The administrator of a cluster, as volmaster is by default.
pub fn admin(conf: &Path) -> ConnectOptions {
    ConnectOptions {
        key: None,
        conf: conf.to_owned(),
        user: "admin".to_owned(),
        timeouts: Timeouts::default(),
    }
}
