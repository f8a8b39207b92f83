//! The devices of the kernel's rbd, as sysfs shows them (Documentation/ABI/testing/sysfs-bus-rbd of the kernel).

use std::io;
use std::path::{Path, PathBuf};

use volcore::options::Access;

use crate::host::Mapping;
use crate::image::ImageSource;

pub(super) const DEVICES: &str = "/sys/bus/rbd/devices";

/// A mapped image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::linux) struct Device {
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
    /// The number by which the bus knows it.
    pub fn number(&self) -> &str {
        self.path.to_str().unwrap_or_default().trim_start_matches("/dev/rbd")
    }

    pub fn mapping(self, source: ImageSource) -> Mapping {
        let clients = if self.client.is_empty() { Vec::new() } else { vec![self.client] };
        Mapping { source, device: self.path, access: Access::Kernel, clients }
    }
}

/// Whether this is the path of a device of this sort.
pub(in crate::linux) fn is_device(path: &Path) -> bool {
    let number = path.file_name().and_then(|name| name.to_str()?.strip_prefix("rbd"));
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

/// All mapped images; empty without the module.
pub(in crate::linux) fn devices() -> io::Result<Vec<Device>> {
    devices_in(Path::new(DEVICES))
}

/// The device of an image. Of the others only the name is read: there may be hundreds.
pub(in crate::linux) fn find(source: &ImageSource) -> io::Result<Option<Device>> {
    Ok(matching(Path::new(DEVICES), Some(source))?.into_iter().find(|found| found.is(source)))
}

fn devices_in(folder: &Path) -> io::Result<Vec<Device>> {
    matching(folder, None)
}

fn matching(folder: &Path, wanted: Option<&ImageSource>) -> io::Result<Vec<Device>> {
    match std::fs::read_dir(folder) {
        Ok(entries) => {
            Ok(entries.filter_map(|entry| device(&entry.ok()?.path(), wanted)).collect())
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

fn device(folder: &Path, wanted: Option<&ImageSource>) -> Option<Device> {
    let read = |name: &str| {
        std::fs::read_to_string(folder.join(name)).ok().map(|text| text.trim().to_owned())
    };
    let image = read("name")?;
    if let Some(ImageSource::Rbd { image: wanted, .. }) = wanted
        && *wanted != image
    {
        return None;
    }
    if read("current_snap")? != "-" || !read("pool_ns").unwrap_or_default().is_empty() {
        return None;
    }
    Some(Device {
        pool: read("pool")?,
        image,
        client: read("client_addr").unwrap_or_default(),
        path: Path::new("/dev").join(format!("rbd{}", folder.file_name()?.to_str()?)),
    })
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
        assert_eq!(found[0].number(), "0");
        assert!(found[0].is(&ImageSource::Rbd { pool: "rbd".into(), image: "t.v".into() }));
        assert!(!found[0].is(&ImageSource::Rbd { pool: "rbd".into(), image: "t.w".into() }));
        assert_eq!(devices_in(Path::new("/nonexistent")).unwrap(), []);
    }

    #[test]
    fn devices_are_known_by_their_path() {
        for (path, is) in [("/dev/rbd0", true), ("/dev/rbd299", true), ("/dev/rbd", false)] {
            assert_eq!(is_device(Path::new(path)), is, "{path}");
        }
        assert!(!is_device(Path::new("/dev/rbd0p1")) && !is_device(Path::new("rbd-nbd")));
    }
}
