//! The kernel's rbd: `rbd map`, and what it leaves in sysfs.
//!
//! Not run yet where it counts: the development kernel has no rbd. What is read from sysfs is
//! tested with what a Linux 6.1 guest has shown there.
//!
//! `exclusive` keeps other writers out, where the lock alone passes to and fro. `noshare` gives the
//! mapping a client of its own, so that fencing it does not fence the host's other images.

use std::io;
use std::path::{Path, PathBuf};

use volcore::options::Access;

use super::{Operation, Shared, failed, process_table};
use crate::host::{HostError, Mapping, Mode};
use crate::image::ImageSource;
use crate::process::{Ending, ProcessError, Run};

const DEVICES: &str = "/sys/bus/rbd/devices";

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
    fn mapping(self, source: ImageSource) -> Mapping {
        let clients = if self.client.is_empty() { Vec::new() } else { vec![self.client] };
        Mapping { source, device: self.path, access: Access::Kernel, clients }
    }
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
            Mode::ReadWrite => "noudev,noshare,exclusive",
            Mode::ReadOnly => "noudev,noshare,ro",
        };
        let name = format!("{pool}/{image}");
        let action = format!("map {name} with the kernel's rbd");
        if let Some(found) = self.kernel_find(&source).await? {
            return Ok(found.mapping(source));
        }
        match self.rbd(&["map", "--options", options, &name]).output().await {
            Ok(_) => {}
            Err(ProcessError::Failed { ending: Ending::Exit(libc::ENOENT), .. }) => {
                return Err(HostError::NoImage { image: name });
            }
            Err(error) => return Err(self.program_failed(action)(error)),
        }
        let found = self.kernel_find(&source).await?.ok_or_else(|| {
            failed(action)(format!("rbd reports success, and {DEVICES} does not show it"))
        })?;
        Ok(found.mapping(source))
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
}
