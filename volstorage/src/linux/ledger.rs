//! What this host has set out to map: one small file for each image, written before the first
//! step and removed after the last.
//!
//! So everything that a crash can leave is found again. The files say where to look; whether it is
//! still there is asked of the kernel. Those of an earlier boot say that nothing is. They are not
//! synced: what they speak of does not outlive the machine either.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use volcore::options::Access;

use super::loops::LoopId;
use super::nbd::NbdId;
use super::process_table::ProcessId;
use super::{fuse, name_of};
use crate::host::{HostError, Mode};
use crate::image::ImageSource;

/// The form of the records that this version writes and reads.
const VERSION: u32 = 1;

/// An image that is mapped, or was to be.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    version: u32,
    boot: String,
    /// The image.
    pub source: ImageSource,
    /// How it is mapped.
    pub access: Access,
    /// In which mode.
    pub mode: Mode,
    /// Its loop device, once there is one.
    pub attached: Option<LoopId>,
    /// Its server (ours or `rbd-nbd`), once it is known.
    pub server: Option<ProcessId>,
    /// The addresses of the clients that can write, once they are known.
    #[serde(default)]
    pub clients: Vec<String>,
    /// Its network block device, once there is one.
    #[serde(default)]
    pub nbd: Option<NbdId>,
}

impl Record {
    /// With the device, and the server behind it if there is one.
    pub fn attached(self, device: LoopId, server: Option<ProcessId>) -> Record {
        Record { attached: Some(device), server, ..self }
    }

    /// With the clients that can write.
    pub fn by(self, clients: Vec<String>) -> Record {
        Record { clients, ..self }
    }

    /// With the network block device.
    pub fn on_nbd(self, nbd: NbdId, server: Option<ProcessId>) -> Record {
        Record { nbd: Some(nbd), server, ..self }
    }

    /// The server when it has ended. Where none is recorded nothing can be said.
    pub fn server_gone(&self) -> Option<HostError> {
        let server = self.server.filter(|server| server.open().is_none())?;
        Some(HostError::ServerGone {
            program: if self.access == Access::Nbd { "rbd-nbd" } else { fuse::PROGRAM },
            pid: server.pid(),
            image: name_of(&self.source),
        })
    }
}

/// The records of one host.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    folder: PathBuf,
    boot: String,
}

impl Ledger {
    /// The records in `folder`, which is made when the first one is written.
    pub fn new(folder: PathBuf) -> Ledger {
        let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default();
        Ledger { folder, boot: boot.trim().to_owned() }
    }

    /// A record of an image of which nothing is mapped yet.
    pub fn begin(&self, source: &ImageSource, access: Access, mode: Mode) -> Record {
        let (boot, source) = (self.boot.clone(), source.clone());
        let (attached, server, clients, nbd) = (None, None, Vec::new(), None);
        Record { version: VERSION, boot, source, access, mode, attached, server, clients, nbd }
    }

    /// Writes a record, in place of the one before.
    pub fn write(&self, record: &Record) -> io::Result<()> {
        std::fs::create_dir_all(&self.folder)?;
        let mut file = tempfile::Builder::new().prefix(".new").tempfile_in(&self.folder)?;
        file.write_all(&serde_json::to_vec(record)?)?;
        file.persist(self.path(&record.source)).map_err(|error| error.error)?;
        Ok(())
    }

    /// The record of an image.
    pub fn read(&self, source: &ImageSource) -> io::Result<Option<Record>> {
        self.load(&self.path(source))
    }

    /// Removes the record of an image, with what its server has left beside it; says whether there was one.
    pub fn remove(&self, source: &ImageSource) -> io::Result<bool> {
        remove_file(&self.mark(source))?;
        remove_file(&self.log(source))?;
        remove_file(&self.path(source))
    }

    /// The file that is there when the image has become another's: its server makes it.
    pub fn mark(&self, source: &ImageSource) -> PathBuf {
        self.path(source).with_extension("fenced")
    }

    /// What the server of an image writes on stderr.
    pub fn log(&self, source: &ImageSource) -> PathBuf {
        self.path(source).with_extension("log")
    }

    /// All records.
    pub fn all(&self) -> io::Result<Vec<Record>> {
        let entries = match std::fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        let mut records = Vec::new();
        for entry in entries {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension == "json") {
                records.extend(self.load(&path)?);
            }
        }
        Ok(records)
    }

    fn load(&self, path: &Path) -> io::Result<Option<Record>> {
        let text = match std::fs::read(path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        match serde_json::from_slice::<Record>(&text) {
            Ok(record) if record.version == VERSION && record.boot == self.boot => Ok(Some(record)),
            Ok(record) if record.version == VERSION => {
                let (attached, server, clients, nbd) = (None, None, Vec::new(), None);
                Ok(Some(Record { attached, server, clients, nbd, ..record }))
            }
            // Only a power cut leaves half a record, and then nothing is mapped any more.
            Err(error) if error.is_eof() || error.is_syntax() => {
                tracing::warn!(path = %path.display(), "removing half a record of a mapping");
                std::fs::remove_file(path).map(|()| None)
            }
            Ok(_) | Err(_) => {
                tracing::warn!(path = %path.display(), "ignoring a record of another version");
                Ok(None)
            }
        }
    }

    fn path(&self, source: &ImageSource) -> PathBuf {
        self.folder.join(file_name(source))
    }
}

/// Removes a file; says whether there was one.
pub(super) fn remove_file(path: &Path) -> io::Result<bool> {
    match std::fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// A file name that a person can read and that no two images share: the image's own name as far as
/// it goes, and a checksum (FNV-1a) of all of it.
fn file_name(source: &ImageSource) -> String {
    let text = match source {
        ImageSource::Rbd { pool, image } => format!("rbd {pool}/{image}"),
        ImageSource::File { path } => format!("file {}", path.display()),
    };
    let sum = text.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |sum, byte| {
        (sum ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    let name = text.rsplit('/').next().unwrap_or_default();
    let plain = |c: &char| c.is_ascii_alphanumeric() || "._-".contains(*c);
    let name: String = name.chars().filter(plain).take(100).collect();
    format!("{name}-{sum:016x}.json")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rbd(pool: &str, image: &str) -> ImageSource {
        ImageSource::Rbd { pool: pool.into(), image: image.into() }
    }

    #[test]
    fn records_are_kept_replaced_and_removed() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::new(folder.path().join("records"));
        let source = rbd("rbd", "t.v");
        assert_eq!(ledger.all().unwrap(), []);
        assert_eq!(ledger.read(&source).unwrap(), None);
        let mut record = ledger.begin(&source, Access::Fuse, Mode::ReadWrite);
        ledger.write(&record).unwrap();
        record.attached = Some(LoopId { number: 4, sequence: Some(9) });
        ledger.write(&record).unwrap();
        assert_eq!(ledger.read(&source).unwrap().as_ref(), Some(&record));
        assert_eq!(ledger.all().unwrap(), [record]);
        assert!(ledger.remove(&source).unwrap());
        assert!(!ledger.remove(&source).unwrap());
        assert_eq!(ledger.all().unwrap(), []);
    }

    #[test]
    fn an_earlier_boot_left_no_device_and_damage_is_removed() {
        let folder = tempfile::tempdir().unwrap();
        let ledger = Ledger::new(folder.path().to_owned());
        let source = rbd("rbd", "t.v");
        let mut record = ledger.begin(&source, Access::Fuse, Mode::ReadWrite);
        record.attached = Some(LoopId { number: 4, sequence: Some(9) });
        record.boot = "another".to_owned();
        ledger.write(&record).unwrap();
        assert_eq!(ledger.read(&source).unwrap().unwrap().attached, None);
        std::fs::write(ledger.path(&source), b"{").unwrap();
        assert_eq!(ledger.read(&source).unwrap(), None);
        assert!(!ledger.path(&source).exists());
    }

    #[test]
    fn no_two_images_share_a_record() {
        let names: std::collections::HashSet<String> = [
            rbd("a", "b.c"),
            rbd("a.b", "c"),
            rbd("b", "b.c"),
            ImageSource::File { path: "/a/b.c".into() },
        ]
        .iter()
        .map(file_name)
        .collect();
        assert_eq!(names.len(), 4);
        assert!(file_name(&rbd("p", "t.v")).starts_with("t.v-"));
    }
}
