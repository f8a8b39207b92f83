//! The kernel's rbd: `rbd map`, and what it leaves in sysfs.
//!
//! Run on a Linux 6.1 guest (`make test-vm`); the kernel that the rest is developed on has no rbd.
//!
//! `exclusive` keeps other writers out, where the lock alone passes to and fro. `noshare` gives the
//! mapping a client of its own, so that fencing it does not fence the host's other images. The
//! timeouts are there because the kernel waits for ever by default, and nobody can interrupt it:
//! `lock_timeout` for a lock that a dead client has left (30 s until Ceph knows), `mount_timeout` for
//! monitors. `osd_request_timeout` is how long a cluster may be away before what is mounted gets
//! errors: long, because a file system that got one has to be repaired, but not for ever, because
//! otherwise nothing could be unmounted any more.

use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::sys::stat::{Mode as Permissions, SFlag, makedev, mknod};
use volcore::options::Access;

use super::{Operation, Shared, failed, process_table};
use crate::host::{HostError, Mapping, Mode};
use crate::image::ImageSource;
use crate::process::{Ending, ProcessError, Run};

const DEVICES: &str = "/sys/bus/rbd/devices";
/// The features that the kernel's rbd knows, in hexadecimal.
const FEATURES: &str = "/sys/bus/rbd/supported_features";

/// The options of every mapping.
const OPTIONS: &str = "noudev,noshare,mount_timeout=20,osd_request_timeout=300";
/// Those of one that writes.
const WRITE: &str = "exclusive,lock_timeout=35";

/// The features of images, by their bits (`rbd/features.h`).
const NAMES: [(u64, &str); 9] = [
    (1 << 0, "layering"),
    (1 << 1, "striping"),
    (1 << 2, "exclusive-lock"),
    (1 << 3, "object-map"),
    (1 << 4, "fast-diff"),
    (1 << 5, "deep-flatten"),
    (1 << 6, "journaling"),
    (1 << 7, "data-pool"),
    (1 << 8, "operations"),
];

/// A mapped image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Device {
    pool: String,
    image: String,
    /// `ip:port/nonce`.
    client: String,
    /// `/dev/rbdN`.
    pub path: PathBuf,
}

impl Device {
    /// Whether this is the image itself, not a snapshot of it.
    pub fn is(&self, source: &ImageSource) -> bool {
        matches!(source, ImageSource::Rbd { pool, image } if (pool, image) == (&self.pool, &self.image))
    }
}

impl Device {
    /// Makes the device's file where nobody has: the kernel does it in a devtmpfs, and udev, but what is
    /// `/dev` in a container is neither.
    fn make_node(&self) -> io::Result<()> {
        let name = self.path.file_name().unwrap_or_default();
        let number = std::fs::read_to_string(Path::new("/sys/block").join(name).join("dev"))?;
        let parsed = number
            .trim()
            .split_once(':')
            .and_then(|(major, minor)| Some(makedev(major.parse().ok()?, minor.parse().ok()?)));
        let number = parsed.ok_or_else(|| io::Error::other(format!("device number {number:?}")))?;
        match self.path.metadata() {
            Ok(there) if there.file_type().is_block_device() && there.rdev() == number => Ok(()),
            Ok(_) => Err(io::Error::other("another file is there")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mode = Permissions::from_bits_truncate(0o660);
                match mknod(&self.path, SFlag::S_IFBLK, mode, number) {
                    // The kernel was faster.
                    Ok(()) | Err(Errno::EEXIST) => Ok(()),
                    Err(error) => Err(error.into()),
                }
            }
            Err(error) => Err(error),
        }
    }

    fn mapping(self, source: ImageSource) -> Mapping {
        let clients = if self.client.is_empty() { Vec::new() } else { vec![self.client] };
        Mapping { source, device: self.path, access: Access::Kernel, clients }
    }
}

/// Whether this is the path of a device of this sort.
pub(super) fn is_device(path: &Path) -> bool {
    let number = path.file_name().and_then(|name| name.to_str()?.strip_prefix("rbd"));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// All mapped images; empty without the module.
pub(super) fn devices() -> io::Result<Vec<Device>> {
    devices_in(Path::new(DEVICES))
}

fn devices_in(folder: &Path) -> io::Result<Vec<Device>> {
    match std::fs::read_dir(folder) {
        Ok(entries) => Ok(entries.filter_map(|entry| device(&entry.ok()?.path())).collect()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn device(folder: &Path) -> Option<Device> {
    let read = |name: &str| {
        std::fs::read_to_string(folder.join(name)).ok().map(|text| text.trim().to_owned())
    };
    if read("current_snap")? != "-" || !read("pool_ns").unwrap_or_default().is_empty() {
        return None;
    }
    Some(Device {
        pool: read("pool")?,
        image: read("name")?,
        client: read("client_addr").unwrap_or_default(),
        path: Path::new("/dev").join(format!("rbd{}", folder.file_name()?.to_str()?)),
    })
}

impl Operation<'_> {
    /// Whether the kernel has rbd, or a module of it.
    pub(super) async fn kernel_is_possible(&self) -> Result<(), HostError> {
        if Path::new("/sys/bus/rbd").exists() || self.has_module("rbd").await {
            return Ok(());
        }
        let reason = "this kernel has neither rbd nor a module of that name; install one that has (Debian: \
             linux-image-amd64), or use access nbd or fuse";
        Err(HostError::NoAccess { access: Access::Kernel, reason: reason.to_owned() })
    }

    pub(super) async fn has_module(&self, name: &str) -> bool {
        let dry_run = self.run(&self.shared.programs.modprobe);
        dry_run.args(["--dry-run", "--quiet", name]).output().await.is_ok()
    }

    /// A call of `rbd` with the host's configuration and user.
    pub(super) fn rbd(&self, args: &[&str]) -> Run {
        let config = &self.shared.config;
        self.run(&self.shared.programs.rbd)
            .arg("-c")
            .arg(&config.ceph_conf)
            .args(["--id", &config.ceph_user])
            .args(args)
    }

    pub(super) async fn kernel_map(
        &self,
        pool: &str,
        image: &str,
        mode: Mode,
    ) -> Result<Mapping, HostError> {
        let source = ImageSource::Rbd { pool: pool.to_owned(), image: image.to_owned() };
        let options = match mode {
            Mode::ReadWrite => format!("{OPTIONS},{WRITE}"),
            Mode::ReadOnly => format!("{OPTIONS},ro"),
        };
        let name = format!("{pool}/{image}");
        let action = format!("map {name} with the kernel's rbd");
        if let Some(found) = self.kernel_find(&source).await? {
            return Ok(found.mapping(source));
        }
        match self.rbd(&["map", "--options", &options, &name]).output().await {
            Ok(_) => {}
            Err(ProcessError::Failed { ending: Ending::Exit(libc::ENOENT), .. }) => {
                return Err(HostError::NoImage { image: name });
            }
            Err(error) => {
                if let ProcessError::Failed { ending: Ending::Exit(libc::ENXIO), .. } = &error
                    && let Some(reason) = self.unknown_features(&name).await
                {
                    return Err(HostError::NoAccess { access: Access::Kernel, reason });
                }
                let error = self.program_failed(action)(error);
                return Err(self.blame_lock(&source, error).await);
            }
        }
        let found = self.kernel_find(&source).await?.ok_or_else(|| {
            failed(action)(format!("rbd reports success, and {DEVICES} does not show it"))
        })?;
        let (action, device) = (format!("make {}", found.path.display()), found.clone());
        self.call(action.clone(), move |_| device.make_node().map_err(failed(action))).await?;
        Ok(found.mapping(source))
    }

    /// What the kernel lacks that the image has, and what helps.
    async fn unknown_features(&self, image: &str) -> Option<String> {
        let known = std::fs::read_to_string(FEATURES).ok()?;
        let info = self.rbd(&["info", "--format", "json", image]).output().await.ok()?;
        lacking(known.trim(), &info.stdout, image)
    }

    async fn kernel_find(&self, source: &ImageSource) -> Result<Option<Device>, HostError> {
        let source = source.clone();
        self.call("list the kernel's rbd devices", move |_: &Shared| {
            let all = devices().map_err(failed("list the kernel's rbd devices"))?;
            Ok(all.into_iter().find(|found| found.is(&source)))
        })
        .await
    }

    pub(super) async fn kernel_unmap(&self, pool: &str, image: &str) -> Result<(), HostError> {
        let source = ImageSource::Rbd { pool: pool.to_owned(), image: image.to_owned() };
        while let Some(found) = self.kernel_find(&source).await? {
            let device = found.path.display().to_string();
            match self.rbd(&["unmap", "--options", "noudev", &device]).output().await {
                Ok(_) => {}
                Err(ProcessError::Failed { ending: Ending::Exit(libc::EBUSY), .. }) => {
                    let holders = process_table::device_holders(&found.path);
                    return Err(HostError::Busy { what: device, holders });
                }
                Err(error) => return Err(self.program_failed(format!("unmap {device}"))(error)),
            }
        }
        Ok(())
    }
}

/// The features in what `rbd info` prints that are not among the known ones.
fn lacking(known: &str, info: &[u8], image: &str) -> Option<String> {
    let known = u64::from_str_radix(known.strip_prefix("0x").unwrap_or(known), 16).ok()?;
    let info: serde_json::Value = serde_json::from_slice(info).ok()?;
    let has = |name: &str| {
        info["features"].as_array().into_iter().flatten().any(|feature| feature == name)
    };
    let lacking = NAMES.iter().filter(|(bit, name)| known & bit == 0 && has(name));
    let lacking: Vec<&str> = lacking.map(|(_, name)| *name).collect();
    if lacking.is_empty() {
        return None;
    }
    Some(format!(
        "this kernel's rbd does not know the features {} of image {image}; take them away with `rbd feature \
         disable {image} {}`, or use access nbd or fuse",
        lacking.join(", "),
        lacking.join(" ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sysfs_is_read() {
        let folder = tempfile::tempdir().unwrap();
        for (number, image, snap) in [("0", "t.v", "-"), ("1", "t.v", "daily")] {
            let device = folder.path().join(number);
            std::fs::create_dir(&device).unwrap();
            for (name, text) in [
                ("pool", "rbd"),
                ("pool_ns", ""),
                ("name", image),
                ("current_snap", snap),
                ("client_addr", "10.77.0.11:0/2387401263"),
            ] {
                std::fs::write(device.join(name), format!("{text}\n")).unwrap();
            }
        }
        let found = devices_in(folder.path()).unwrap();
        let wanted = Device {
            pool: "rbd".into(),
            image: "t.v".into(),
            client: "10.77.0.11:0/2387401263".into(),
            path: "/dev/rbd0".into(),
        };
        assert_eq!(found, [wanted]);
        assert!(found[0].is(&ImageSource::Rbd { pool: "rbd".into(), image: "t.v".into() }));
        assert!(!found[0].is(&ImageSource::Rbd { pool: "rbd".into(), image: "t.w".into() }));
        assert_eq!(devices_in(Path::new("/nonexistent")).unwrap(), []);
    }

    #[test]
    fn devices_are_known_by_their_path() {
        for (path, is) in [("/dev/rbd0", true), ("/dev/rbd299", true), ("/dev/rbd", false)] {
            assert_eq!(is_device(Path::new(path)), is, "{path}");
        }
        assert!(!is_device(Path::new("/dev/rbd0p1")) && !is_device(Path::new("rbd-fuse")));
    }

    #[test]
    fn features_that_the_kernel_lacks_are_named() {
        let info = br#"{"features": ["layering", "exclusive-lock", "object-map", "journaling"]}"#;
        let reason = lacking("0x3d", info, "rbd/t.v").unwrap();
        assert!(reason.contains("`rbd feature disable rbd/t.v journaling`"), "{reason}");
        let reason = lacking("0x5", info, "rbd/t.v").unwrap();
        assert!(reason.contains("disable rbd/t.v object-map journaling`"), "{reason}");
        assert_eq!(lacking("0x7d", info, "rbd/t.v"), None);
        assert_eq!(lacking("0x7d", b"", "rbd/t.v"), None);
    }
}
