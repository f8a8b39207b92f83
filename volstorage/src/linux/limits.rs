//! Limits of what the kernel maps by itself, by `io.max` of cgroup v2
//! (Documentation/admin-guide/cgroup-v2.rst of the kernel). librbd holds limits itself; the kernel's
//! rbd does not.
//!
//! A limit of a cgroup holds for all below it together, so it is set on what all containers of an
//! engine have in common: `docker` where Docker manages cgroups itself, `system.slice` where systemd
//! does. Whatever else on this machine uses the device is none of the volume's users.

use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use nix::sys::stat::{major, minor};
use volcore::limit::RateLimits;

const ROOT: &str = "/sys/fs/cgroup";
/// Docker's own, which it makes with its first container: that may come after the first mount.
const DOCKER: &str = "docker";
/// Systemd's for services, containers among them.
const SYSTEMD: &str = "system.slice";

/// Whether this machine can hold limits so.
pub(super) fn are_possible() -> bool {
    possible_in(Path::new(ROOT))
}

fn possible_in(root: &Path) -> bool {
    let controllers = fs::read_to_string(root.join("cgroup.controllers")).unwrap_or_default();
    controllers.split_whitespace().any(|controller| controller == "io")
}

/// Sets the limits of a device for all containers, and takes away those that it has beyond: also
/// those of another image, which had its number before.
pub(super) fn set(device: &Path, limits: &RateLimits) -> io::Result<()> {
    let metadata = device.metadata()?;
    if !metadata.file_type().is_block_device() {
        return Err(io::Error::other("not a block device"));
    }
    let number = (major(metadata.rdev()), minor(metadata.rdev()));
    set_in(Path::new(ROOT), number, limits)
}

fn set_in(root: &Path, (major, minor): (u64, u64), limits: &RateLimits) -> io::Result<()> {
    if !possible_in(root) {
        return if limits.is_unlimited() {
            Ok(())
        } else {
            Err(io::Error::new(ErrorKind::Unsupported, "there is no cgroup v2 with controller io"))
        };
    }
    let line = format!("{major}:{minor} {}", line(limits));
    for parent in parents(root, limits)? {
        fs::write(parent.join("io.max"), &line).map_err(|error| {
            io::Error::new(error.kind(), format!("{}: {error}", parent.display()))
        })?;
    }
    Ok(())
}

/// What all containers have in common, with the controller enabled.
fn parents(root: &Path, limits: &RateLimits) -> io::Result<Vec<PathBuf>> {
    let (docker, systemd) = (root.join(DOCKER), root.join(SYSTEMD));
    if !limits.is_unlimited() {
        let enabled = fs::read_to_string(root.join("cgroup.subtree_control")).unwrap_or_default();
        if !enabled.split_whitespace().any(|controller| controller == "io") {
            fs::write(root.join("cgroup.subtree_control"), "+io")?;
        }
        if !docker.exists() && !systemd.exists() {
            fs::create_dir(&docker)?;
        }
    }
    Ok([docker, systemd].into_iter().filter(|parent| parent.join("io.max").exists()).collect())
}

fn line(limits: &RateLimits) -> String {
    let RateLimits { write_iops, read_iops, write_bps, read_bps } = limits;
    let named =
        [("rbps", read_bps), ("wbps", write_bps), ("riops", read_iops), ("wiops", write_iops)];
    let shown = named.map(|(name, limit)| match limit {
        Some(limit) => format!("{name}={limit}"),
        None => format!("{name}=max"),
    });
    shown.join(" ")
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU64;

    use super::*;

    fn limits() -> RateLimits {
        RateLimits { write_bps: NonZeroU64::new(1_000_000), ..RateLimits::default() }
    }

    #[test]
    fn all_four_are_said() {
        assert_eq!(line(&limits()), "rbps=max wbps=1000000 riops=max wiops=max");
        assert_eq!(line(&RateLimits::default()), "rbps=max wbps=max riops=max wiops=max");
    }

    #[test]
    fn the_controller_is_enabled_and_what_is_there_is_written() {
        let root = tempfile::tempdir().unwrap();
        let file = |name: &str| root.path().join(name);
        assert!(set_in(root.path(), (252, 16), &RateLimits::default()).is_ok());
        let error = set_in(root.path(), (252, 16), &limits()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);

        fs::write(file("cgroup.controllers"), "cpuset cpu io memory\n").unwrap();
        fs::write(file("cgroup.subtree_control"), "cpu memory\n").unwrap();
        fs::create_dir(file(SYSTEMD)).unwrap();
        fs::write(file("system.slice/io.max"), "").unwrap();
        set_in(root.path(), (252, 16), &limits()).unwrap();
        assert_eq!(fs::read_to_string(file("cgroup.subtree_control")).unwrap(), "+io");
        let written = fs::read_to_string(file("system.slice/io.max")).unwrap();
        assert_eq!(written, "252:16 rbps=max wbps=1000000 riops=max wiops=max");
        assert!(!file(DOCKER).exists());
    }
}
