//! What a [`FakeHost`](super::FakeHost) has mapped and mounted. Changed by it alone.

use std::collections::{BTreeMap, HashSet};
use std::path::{Path, PathBuf};

use tokio::time::Instant;
use uuid::Uuid;
use volcore::limit::RateLimits;
use volcore::options::Access;

use super::{busy, name};
use crate::faults::Faults;
use crate::host::{Grown, HostError, MapRequest, Mapping, Mode, Mounted};
use crate::image::ImageSource;

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) mapped: Vec<Mapped>,
    pub(super) mounts: Vec<(PathBuf, PathBuf)>,
    pub(super) users: BTreeMap<PathBuf, Vec<String>>,
    /// Which device was mounted last at a folder: containers may have it still.
    pub(super) last: BTreeMap<PathBuf, PathBuf>,
    /// What is limited, by device.
    pub(super) limits: BTreeMap<PathBuf, RateLimits>,
    pub(super) missing: HashSet<ImageSource>,
    pub(super) blank: HashSet<ImageSource>,
    pub(super) unserved: HashSet<ImageSource>,
    pub(super) fenced: HashSet<ImageSource>,
    pub(super) contents: BTreeMap<String, Content>,
    /// What is frozen, by device, and until when.
    pub(super) frozen: BTreeMap<PathBuf, Instant>,
    pub(super) devices: usize,
}

/// What is in an image: it outlives its mappings.
#[derive(Clone, Copy, Debug)]
pub(super) struct Content {
    /// Its bytes.
    pub(super) image: u64,
    /// Those that its file system has.
    pub(super) filesystem: u64,
    /// The UUID of its file system.
    pub(super) uuid: Uuid,
}

impl Default for Content {
    fn default() -> Self {
        Content { image: SIZE, filesystem: SIZE, uuid: Uuid::nil() }
    }
}

/// How large images are about which nothing else was said.
const SIZE: u64 = 10 << 20;

#[derive(Debug)]
pub(super) struct Mapped {
    pub(super) mapping: Mapping,
    pub(super) mode: Mode,
    /// How far it has come.
    pub(super) stage: Stage,
}

/// How far a mapping has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stage {
    /// A server waits for the word to open the image.
    Ready,
    /// The device is there.
    Attached,
    /// It is not, any more; what is left waits for `unmap`.
    Left,
}

impl Mapped {
    pub(super) fn is_attached(&self) -> bool {
        self.stage == Stage::Attached
    }
}

impl State {
    pub(super) fn position(&self, source: &ImageSource) -> Option<usize> {
        self.mapped.iter().position(|mapped| mapped.mapping.source == *source)
    }

    pub(super) fn is_mounted(&self, device: &Path) -> bool {
        self.mounts.iter().any(|(mounted, _)| mounted == device)
    }

    pub(super) fn content(&mut self, source: &ImageSource) -> &mut Content {
        self.contents.entry(name(source)).or_default()
    }

    /// What a mount says of growing.
    pub(super) fn fill(&mut self, faults: &Faults, source: &ImageSource, mode: Mode) -> Mounted {
        match mode {
            Mode::ReadOnly => Mounted { fills: None, flaw: None },
            Mode::ReadWrite => match self.grow(faults, source) {
                Ok(grown) => Mounted { fills: Some(grown.device()), flaw: None },
                Err(flaw) => Mounted { fills: None, flaw: Some(flaw) },
            },
        }
    }

    /// Grows a file system to its image; says whether it was smaller.
    pub(super) fn grow(
        &mut self,
        faults: &Faults,
        source: &ImageSource,
    ) -> Result<Grown, HostError> {
        let content = self.content(source);
        if content.filesystem >= content.image {
            return Ok(Grown::AsItWas(content.image));
        }
        faults.effect("grow the file system", || {
            content.filesystem = content.image;
            Ok(Grown::Larger(content.image))
        })
    }

    /// Who has a device: mounts, and containers that got it through one.
    pub(super) fn holders(&self, device: &Path) -> Vec<String> {
        let mounts = self.mounts.iter().filter(|(mounted, _)| mounted == device);
        let mounts = mounts.map(|(_, target)| format!("the mount {}", target.display()));
        let had = self.last.iter().filter(|(_, mounted)| mounted.as_path() == device);
        let users = had.filter_map(|(target, _)| self.users.get(target)).flatten().cloned();
        mounts.chain(users).collect()
    }

    /// As the kernel's rbd has no limits of its own, the host holds them.
    pub(super) fn limit(&mut self, mapping: &Mapping, limits: &RateLimits) {
        if mapping.access == Access::Kernel {
            self.limits.insert(mapping.device.clone(), *limits);
        }
    }

    /// What is frozen: nothing is beyond its bound.
    pub(super) fn is_frozen(&mut self, device: &Path) -> bool {
        let now = Instant::now();
        self.frozen.retain(|_, until| *until > now);
        self.frozen.contains_key(device)
    }

    /// Takes away the devices that nobody has any more.
    pub(super) fn let_go(&mut self) {
        let held: Vec<bool> =
            self.mapped.iter().map(|it| !self.holders(&it.mapping.device).is_empty()).collect();
        for (mapped, held) in self.mapped.iter_mut().zip(held) {
            if !(mapped.is_attached() && held) {
                mapped.stage = Stage::Left;
            }
        }
    }

    /// What is there of a mapping that will do, after what is in the way was taken away.
    pub(super) fn make_room(
        &mut self,
        faults: &Faults,
        request: &MapRequest,
    ) -> Result<Option<usize>, HostError> {
        let Some(index) = self.position(&request.source) else { return Ok(None) };
        let found = &self.mapped[index];
        let is_ready = found.stage == Stage::Ready && is_served(request);
        if (found.is_attached() || is_ready) && found.mode == request.mode {
            return Ok(Some(index));
        }
        let holders = self.holders(&found.mapping.device);
        if found.stage != Stage::Ready && !holders.is_empty() {
            return Err(busy(&found.mapping.device, holders));
        }
        faults.effect("unmap", || {
            self.mapped.remove(index);
            Ok(None)
        })
    }

    /// Undoes what failed, unless the process is dead.
    pub(super) fn undo(&mut self, faults: &Faults, source: &ImageSource) {
        if let (Some(index), Ok(())) = (self.position(source), faults.alive("undo")) {
            self.mapped.remove(index);
        }
    }

    /// Adds a mapping, with a device and, where a server serves it, with the address of that.
    pub(super) fn add(&mut self, request: &MapRequest, stage: Stage) -> Mapping {
        self.devices += 1;
        self.unserved.remove(&request.source);
        self.fenced.remove(&request.source);
        let address = || format!("10.77.0.11:0/{}", self.devices);
        let mapping = Mapping {
            source: request.source.clone(),
            device: format!("/dev/fake{}", self.devices).into(),
            access: match request.access {
                Access::Auto => Access::Fuse,
                access => access,
            },
            // The kernel's client is known when it has mapped the image.
            clients: if is_local(&request.source) { Vec::new() } else { vec![address()] },
        };
        self.mapped.push(Mapped { mapping: mapping.clone(), mode: request.mode, stage });
        mapping
    }
}

pub(super) fn is_local(source: &ImageSource) -> bool {
    matches!(source, ImageSource::File { .. })
}

/// Whether a server of ours serves it.
pub(super) fn is_served(request: &MapRequest) -> bool {
    let access = matches!(request.access, Access::Auto | Access::Fuse);
    access && !is_local(&request.source)
}
