//! `rbd-nbd`: librbd in a process of its own behind the kernel's nbd (rbd-nbd(8)).
//!
//! Not run yet: the development kernel has no nbd. The list is tested with what rbd-nbd 16.2 prints.

use std::path::{Path, PathBuf};

use serde::Deserialize;
use volcore::options::Access;

use super::{Operation, failed, process_table};
use crate::host::{HostError, Mapping, Mode};
use crate::image::ImageSource;
use crate::process::{Ending, ProcessError, Run};

/// One line of `rbd-nbd list-mapped --format json`.
#[derive(Debug, Deserialize)]
struct Listed {
    pool: String,
    #[serde(default)]
    namespace: String,
    image: String,
    #[serde(default)]
    snap: String,
    device: PathBuf,
}

/// The device of an image.
fn find(list: &[u8], pool: &str, image: &str) -> Result<Option<PathBuf>, serde_json::Error> {
    // Nothing mapped is no output at all.
    if list.trim_ascii().is_empty() {
        return Ok(None);
    }
    let list: Vec<Listed> = serde_json::from_slice(list)?;
    let is = |found: &Listed| {
        (found.pool.as_str(), found.image.as_str()) == (pool, image)
            && found.namespace.is_empty()
            && matches!(found.snap.as_str(), "" | "-")
    };
    Ok(list.into_iter().find(is).map(|found| found.device))
}

impl Operation<'_> {
    /// Whether the kernel has nbd, or a module of it, and `rbd-nbd` is installed.
    pub(super) async fn nbd_is_possible(&self) -> Result<(), HostError> {
        let refuse = |reason: String| Err(HostError::NoAccess { access: Access::Nbd, reason });
        if let Err(error) = self.shared.programs.rbd_nbd.path() {
            return refuse(error.to_string());
        }
        if Path::new("/sys/block/nbd0").exists() || self.has_module("nbd").await {
            return Ok(());
        }
        refuse(
            "this kernel has neither nbd nor a module of that name; install one that has (Debian: \
             linux-image-amd64), or use access fuse"
                .to_owned(),
        )
    }

    fn rbd_nbd(&self) -> Run {
        let config = &self.shared.config;
        self.run(&self.shared.programs.rbd_nbd)
            .arg("-c")
            .arg(&config.ceph_conf)
            .args(["--id", &config.ceph_user])
    }

    pub(super) async fn nbd_map(
        &self,
        pool: &str,
        image: &str,
        mode: Mode,
    ) -> Result<Mapping, HostError> {
        let name = format!("{pool}/{image}");
        let action = format!("map {name} with rbd-nbd");
        let source = ImageSource::Rbd { pool: pool.to_owned(), image: image.to_owned() };
        let mapping = |device| Mapping { source, device, access: Access::Nbd, clients: Vec::new() };
        if let Some(device) = self.nbd_find(pool, image).await? {
            return Ok(mapping(device));
        }
        let kind = match mode {
            Mode::ReadWrite => "--exclusive",
            Mode::ReadOnly => "--read-only",
        };
        match self.rbd_nbd().args(["map", kind, &name]).daemon().await {
            Ok(()) => {}
            Err(ProcessError::Failed { ending: Ending::Exit(libc::ENOENT), .. }) => {
                return Err(HostError::NoImage { image: name });
            }
            Err(error) => return Err(self.program_failed(action)(error)),
        }
        let device = self.nbd_find(pool, image).await?.ok_or_else(|| {
            failed(action)("rbd-nbd reports success, and its list does not show the image")
        })?;
        Ok(mapping(device))
    }

    async fn nbd_find(&self, pool: &str, image: &str) -> Result<Option<PathBuf>, HostError> {
        let action = "list what rbd-nbd has mapped";
        let list = self.rbd_nbd().args(["list-mapped", "--format", "json"]).output().await;
        find(&list.map_err(self.program_failed(action))?.stdout, pool, image)
            .map_err(failed(action))
    }

    pub(super) async fn nbd_unmap(&self, pool: &str, image: &str) -> Result<(), HostError> {
        while let Some(device) = self.nbd_find(pool, image).await? {
            match self.rbd_nbd().arg("unmap").arg(&device).output().await {
                Ok(_) => {}
                Err(ProcessError::Failed { ending: Ending::Exit(libc::EBUSY), .. }) => {
                    let holders = process_table::device_holders(&device);
                    return Err(HostError::Busy { what: device.display().to_string(), holders });
                }
                Err(error) => {
                    return Err(self.program_failed(format!("unmap {}", device.display()))(error));
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_list_is_read() {
        let list = br#"[{"id":"4711","pool":"rbd","namespace":"","image":"t.w","snap":"-","device":"/dev/nbd0"},
            {"id":"4712","pool":"rbd","namespace":"","image":"t.v","snap":"day","device":"/dev/nbd1"},
            {"id":"4713","pool":"rbd","namespace":"","image":"t.v","snap":"-","device":"/dev/nbd2"}]"#;
        assert_eq!(find(list, "rbd", "t.v").unwrap(), Some("/dev/nbd2".into()));
        assert_eq!(find(list, "rbd", "t.x").unwrap(), None);
        assert_eq!(find(b"\n", "rbd", "t.v").unwrap(), None);
        assert!(find(b"nonsense", "rbd", "t.v").is_err());
    }
}
