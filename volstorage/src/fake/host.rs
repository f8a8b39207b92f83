//! A host without devices: real state, no kernel.
//!
//! Keeps the contract of [`HostDriver`]: what is mapped and mounted outlives whoever uses the
//! driver, as the kernel's state does, and its [`Faults`] break one effect after another. Behaves as
//! [`LinuxHost`](crate::linux::LinuxHost) does with `fuse`: a device that nobody has mounted any
//! more is gone, and what is left of its mapping waits for `unmap`.

mod state;

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use tokio::time::{Instant, sleep_until};
use uuid::Uuid;
use volcore::limit::RateLimits;
use volcore::options::Access;
use volcore::order::{Thawed, ThawedBy};

use crate::faults::Faults;
use crate::host::{
    Found, Frozen, Grown, HostDriver, HostError, Inventory, MapRequest, Mapping, Mode,
    MountRequest, Mounted, Space, Undone,
};
use crate::image::ImageSource;
use state::{Mapped, Stage, State, is_served};

/// The fake. Clones share the state.
#[derive(Clone, Debug)]
pub struct FakeHost {
    state: Arc<Mutex<State>>,
    faults: Faults,
}

impl Default for FakeHost {
    fn default() -> Self {
        FakeHost::new()
    }
}

impl FakeHost {
    /// A host on which nothing is mapped, with a fault plan that counts.
    pub fn new() -> FakeHost {
        FakeHost { state: Arc::default(), faults: Faults::counting() }
    }

    /// What breaks, and which effects there were.
    pub fn faults(&self) -> &Faults {
        &self.faults
    }

    /// The images of which something is mapped, in the order in which they were.
    pub fn mapped(&self) -> Vec<ImageSource> {
        self.state().mapped.iter().map(|mapped| mapped.mapping.source.clone()).collect()
    }

    /// The folders that are mounted, the newest last.
    pub fn mounted(&self) -> Vec<PathBuf> {
        self.state().mounts.iter().map(|(_, target)| target.clone()).collect()
    }

    /// Says which containers have this folder's device mounted; while there are any, its image
    /// cannot be unmapped.
    pub fn set_users(&self, target: &Path, users: &[&str]) {
        let users = users.iter().map(|user| (*user).to_owned()).collect();
        self.state().users.insert(target.to_owned(), users);
    }

    /// The limits that this host holds for an image.
    pub fn limits(&self, source: &ImageSource) -> RateLimits {
        let state = self.state();
        let device = state.position(source).map(|index| &state.mapped[index].mapping.device);
        device.and_then(|device| state.limits.get(device)).copied().unwrap_or_default()
    }

    /// Says how large an image has become; one about which nothing was said has 10 MiB.
    pub fn set_size(&self, source: &ImageSource, bytes: u64) {
        self.state().content(source).image = bytes;
    }

    /// How large the file system in an image is.
    pub fn filesystem_size(&self, source: &ImageSource) -> u64 {
        self.state().content(source).filesystem
    }

    /// The UUID of the file system in an image: nil until it was set.
    pub fn identity(&self, source: &ImageSource) -> Uuid {
        self.state().content(source).uuid
    }

    /// Says what the UUID is, as a rollback of the image does.
    pub fn set_identity(&self, source: &ImageSource, uuid: Uuid) {
        self.state().content(source).uuid = uuid;
    }

    /// The folders whose file systems are frozen.
    pub fn frozen(&self) -> Vec<PathBuf> {
        let mut state = self.state();
        let mounts = state.mounts.clone();
        let frozen = mounts.into_iter().filter(|(device, _)| state.is_frozen(device));
        frozen.map(|(_, target)| target).collect()
    }

    /// Thaws a folder's file system, as somebody else may.
    pub fn thaw_by_hand(&self, target: &Path) {
        let mut state = self.state();
        let mounts = state.mounts.clone();
        for (device, _) in mounts.iter().filter(|(_, mounted)| mounted == target) {
            state.frozen.remove(device);
        }
    }

    /// Leaves a folder's file system frozen, as a death together with what was to thaw for it does.
    pub fn leave_frozen(&self, target: &Path) {
        let mut state = self.state();
        let mounts = state.mounts.clone();
        let ages = Instant::now() + Duration::from_secs(1 << 20);
        for (device, _) in mounts.iter().filter(|(_, mounted)| mounted == target) {
            state.frozen.insert(device.clone(), ages);
        }
    }

    /// Says that there is no such image.
    pub fn set_missing(&self, source: &ImageSource) {
        self.state().missing.insert(source.clone());
    }

    /// Says that there is no file system on this image.
    pub fn set_blank(&self, source: &ImageSource) {
        self.state().blank.insert(source.clone());
    }

    /// Says that the server of this image has died, until the image is mapped anew.
    pub fn kill_server(&self, source: &ImageSource) {
        self.state().unserved.insert(source.clone());
    }

    /// Says that another host has been given this image, until it is mapped anew.
    pub fn fence(&self, source: &ImageSource) {
        self.state().fenced.insert(source.clone());
    }

    /// Starts the process again after a death: servers that were only ready, and devices that were not mounted yet are gone.
    pub fn restart(&self) {
        self.faults.revive();
        self.state().let_go();
    }

    /// Takes everything away, as a reboot does.
    pub fn reboot(&self) {
        let mut state = self.state();
        let contents = std::mem::take(&mut state.contents);
        *state = State { contents, ..State::default() };
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn name(source: &ImageSource) -> String {
    match source {
        ImageSource::Rbd { pool, image } => format!("{pool}/{image}"),
        ImageSource::File { path } => path.display().to_string(),
    }
}

fn busy(what: &Path, holders: Vec<String>) -> HostError {
    HostError::Busy { what: what.display().to_string(), holders }
}

#[async_trait]
impl HostDriver for FakeHost {
    async fn ready(&self, request: &MapRequest) -> Result<Vec<String>, HostError> {
        let mut state = self.state();
        if let Some(index) = state.make_room(&self.faults, request)? {
            return Ok(state.mapped[index].mapping.clients.clone());
        }
        if !is_served(request) {
            return Ok(Vec::new());
        }
        let ready =
            self.faults.effect("make ready", || Ok(state.add(request, Stage::Ready).clients));
        ready.inspect_err(|_| state.undo(&self.faults, &request.source))
    }

    async fn map(&self, request: &MapRequest) -> Result<Mapping, HostError> {
        let mut state = self.state();
        let ready = state.make_room(&self.faults, request)?;
        if let Some(index) = ready.filter(|index| state.mapped[*index].is_attached()) {
            return Ok(state.mapped[index].mapping.clone());
        }
        if state.missing.contains(&request.source) {
            state.undo(&self.faults, &request.source);
            return Err(HostError::NoImage { image: name(&request.source) });
        }
        let mapped = self.faults.effect("map", || {
            let Some(index) = ready else { return Ok(state.add(request, Stage::Attached)) };
            state.mapped[index].stage = Stage::Attached;
            Ok(state.mapped[index].mapping.clone())
        });
        mapped.inspect_err(|_| state.undo(&self.faults, &request.source))
    }

    async fn unmap(&self, source: &ImageSource) -> Result<Undone, HostError> {
        let mut state = self.state();
        let Some(index) = state.position(source) else { return Ok(Undone::Absent) };
        let device = state.mapped[index].mapping.device.clone();
        let holders = state.holders(&device);
        if !holders.is_empty() {
            return Err(busy(&device, holders));
        }
        self.faults.effect("unmap", || {
            state.mapped.remove(index);
            state.fenced.remove(source);
            state.unserved.remove(source);
            Ok(Undone::Done)
        })
    }

    async fn abandon(&self, source: &ImageSource, target: &Path) -> Result<Undone, HostError> {
        self.faults.alive("give up an image")?;
        let mut state = self.state();
        let mut undone = Undone::Absent;
        if let Some(index) = state.position(source)
            && state.mapped[index].stage != Stage::Left
            && !state.unserved.contains(source)
        {
            self.faults.effect("kill the server", || {
                state.unserved.insert(source.clone());
                undone = Undone::Done;
                Ok::<_, HostError>(())
            })?;
        }
        if let Some(index) = state.mounts.iter().position(|(_, mounted)| mounted == target) {
            self.faults.effect("detach the mount", || {
                let (device, _) = state.mounts.remove(index);
                state.limits.remove(&device);
                state.frozen.remove(&device);
                undone = Undone::Done;
                Ok::<_, HostError>(())
            })?;
        }
        if let Some(index) = state.position(source)
            && state.holders(&state.mapped[index].mapping.device).is_empty()
        {
            state.mapped[index].stage = Stage::Left;
        }
        Ok(undone)
    }

    async fn mount(&self, mapping: &Mapping, request: &MountRequest) -> Result<Mounted, HostError> {
        let mut state = self.state();
        let found = state.position(&mapping.source).map(|index| &state.mapped[index]);
        let device = mapping.device.clone();
        let mode = match found {
            Some(found) if found.is_attached() && found.mapping.device == device => found.mode,
            Some(_) | None => {
                return Err(HostError::Failed {
                    action: format!("mount {} from {}", name(&mapping.source), device.display()),
                    source: "it is not mapped to that device any more; map it again".into(),
                });
            }
        };
        match state.mounts.iter().find(|(_, target)| *target == request.target) {
            Some((mounted, _)) if *mounted == device => {
                state.limit(mapping, &request.limits);
                return Ok(state.fill(&self.faults, &mapping.source, request.mode));
            }
            Some((mounted, _)) => {
                return Err(busy(&request.target, vec![mounted.display().to_string()]));
            }
            None => {}
        }
        let unmountable = if state.blank.contains(&mapping.source) {
            Some("no file system was found on it")
        } else if (mode, request.mode) == (Mode::ReadOnly, Mode::ReadWrite) {
            Some("it is to be written to, and the device is read-only")
        } else {
            None
        };
        if let Some(reason) = unmountable {
            let device = device.display().to_string();
            return Err(HostError::Unmountable { device, reason: reason.to_owned() });
        }
        let identity = request.identity.filter(|_| request.mode == Mode::ReadWrite);
        if let Some(uuid) = identity.filter(|uuid| *uuid != state.content(&mapping.source).uuid) {
            self.faults.effect("set the file system's UUID", || {
                state.content(&mapping.source).uuid = uuid;
                Ok::<_, HostError>(())
            })?;
        }
        self.faults.effect("mount", || {
            state.limit(mapping, &request.limits);
            state.last.insert(request.target.clone(), device.clone());
            state.mounts.push((device, request.target.clone()));
            Ok::<_, HostError>(())
        })?;
        Ok(state.fill(&self.faults, &mapping.source, request.mode))
    }

    async fn unmount(&self, target: &Path) -> Result<Undone, HostError> {
        let mut state = self.state();
        let Some(index) = state.mounts.iter().position(|(_, mounted)| mounted == target) else {
            return Ok(Undone::Absent);
        };
        let device = state.mounts[index].0.clone();
        if state.is_frozen(&device) {
            return Err(busy(target, vec!["a freeze".to_owned()]));
        }
        self.faults.effect("unmount", || {
            let (device, _) = state.mounts.remove(index);
            state.limits.remove(&device);
            let held = state.is_mounted(&device) || !state.holders(&device).is_empty();
            for mapped in state.mapped.iter_mut().filter(|it| it.mapping.device == device) {
                mapped.stage = if held { Stage::Attached } else { Stage::Left };
            }
            Ok(Undone::Done)
        })
    }

    async fn inventory(&self) -> Result<Inventory, HostError> {
        self.faults.alive("inventory")?;
        let state = self.state();
        let found = |mapped: &Mapped| Found {
            source: mapped.mapping.source.clone(),
            device: mapped.is_attached().then(|| mapped.mapping.device.clone()),
        };
        let mappings = state.mapped.iter().map(found).collect();
        Ok(Inventory { mappings, mounts: state.mounts.clone() })
    }

    async fn users(&self, _: &Path, target: &Path) -> Result<Vec<String>, HostError> {
        self.faults.alive("users")?;
        Ok(self.state().users.get(target).cloned().unwrap_or_default())
    }

    async fn serves(&self, source: &ImageSource) -> Result<(), HostError> {
        if self.state().fenced.contains(source) {
            return Err(HostError::Fenced { image: name(source) });
        }
        if self.state().unserved.contains(source) {
            let image = name(source);
            return Err(HostError::ServerGone { program: crate::serve::PROGRAM, pid: 1, image });
        }
        Ok(())
    }

    async fn space(&self, target: &Path) -> Result<Space, HostError> {
        let state = self.state();
        let mut mounts = state.mounts.iter();
        if let Some((device, _)) = mounts.find(|(_, mounted)| mounted == target) {
            let mut mapped = state.mapped.iter();
            let mapped = mapped.find(|mapped| mapped.mapping.device == *device);
            let content = mapped.and_then(|it| state.contents.get(&name(&it.mapping.source)));
            let size = content.copied().unwrap_or_default().filesystem;
            return Ok(Space { size, used: 1 << 20 });
        }
        Err(HostError::Failed {
            action: format!("measure {}", target.display()),
            source: "nothing is mounted there".into(),
        })
    }

    async fn grow(&self, mapping: &Mapping, target: &Path, size: u64) -> Result<Grown, HostError> {
        self.faults.alive("grow")?;
        let mut state = self.state();
        let there = (mapping.device.clone(), target.to_owned());
        let failed = |source: String| HostError::Failed {
            action: format!("grow {}", mapping.device.display()),
            source: source.into(),
        };
        if !state.mounts.contains(&there) {
            return Err(failed(format!("{} is not mounted from it", target.display())));
        }
        let found = state.position(&mapping.source).map(|index| state.mapped[index].mode);
        let has = state.content(&mapping.source).image;
        if has < size {
            return Err(failed(format!("its image should have {size} bytes, and has {has}")));
        }
        match found {
            Some(Mode::ReadWrite) => state.grow(&self.faults, &mapping.source),
            Some(Mode::ReadOnly) => Ok(Grown::AsItWas(has)),
            None => Err(failed(format!("{} is not mapped to it any more", name(&mapping.source)))),
        }
    }

    async fn freeze(
        &self,
        mapping: &Mapping,
        target: &Path,
        bound: Duration,
    ) -> Result<Box<dyn Frozen>, HostError> {
        let device = mapping.device.clone();
        let mut state = self.state();
        let failed = |source: &str| HostError::Failed {
            action: format!("freeze {}", target.display()),
            source: source.into(),
        };
        if !state.mounts.contains(&(device.clone(), target.to_owned())) {
            return Err(failed("it is not mounted there"));
        }
        if state.is_frozen(&device) {
            return Err(failed("it is frozen already"));
        }
        let (began, until) = (Instant::now(), Instant::now() + bound);
        // What breaks dies with the call, and so thaws.
        let frozen = self.faults.effect("freeze", || {
            state.frozen.insert(device.clone(), until);
            Ok::<_, HostError>(())
        });
        if frozen.is_err() {
            state.frozen.remove(&device);
        }
        frozen?;
        Ok(Box::new(FakeFrozen { state: Arc::clone(&self.state), device, began, until }))
    }

    async fn thaw_all(&self) -> Result<Vec<PathBuf>, HostError> {
        let frozen = self.frozen();
        for target in &frozen {
            self.faults.effect("thaw", || {
                self.thaw_by_hand(target);
                Ok::<_, HostError>(())
            })?;
        }
        Ok(frozen)
    }

    async fn limit(&self, mapping: &Mapping, limits: &RateLimits) -> Result<(), HostError> {
        if mapping.access != Access::Kernel {
            return Ok(());
        }
        let mut state = self.state();
        let found = state.position(&mapping.source).map(|index| &state.mapped[index]);
        if found.is_none_or(|found| !found.is_attached() || found.mapping.device != mapping.device)
        {
            return Err(HostError::Failed {
                action: format!("set the limits of {}", mapping.device.display()),
                source: format!("{} is not mapped to it any more", name(&mapping.source)).into(),
            });
        }
        self.faults.effect("set the limits", || {
            state.limit(mapping, limits);
            Ok(())
        })
    }

    fn holds_limits(&self, access: Access) -> bool {
        access == Access::Kernel
    }
}

/// What keeps a file system frozen; its death thaws.
struct FakeFrozen {
    state: Arc<Mutex<State>>,
    device: PathBuf,
    began: Instant,
    until: Instant,
}

impl FakeFrozen {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Frozen for FakeFrozen {
    async fn over(&mut self) {
        // Nobody is told of a thaw by hand before the bound is over.
        sleep_until(self.until).await;
    }

    async fn thaw(self: Box<Self>) -> Thawed {
        let held = self.began.elapsed();
        let held_ms = u64::try_from(held.as_millis()).unwrap_or(u64::MAX);
        let by =
            if self.state().is_frozen(&self.device) { ThawedBy::Word } else { ThawedBy::Itself };
        Thawed { held_ms, by }
    }
}

impl Drop for FakeFrozen {
    fn drop(&mut self) {
        self.state().frozen.remove(&self.device);
    }
}
