//! The mapping half of [`LinuxHost`]: from an image to a device and back, whichever way it is
//! reached.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};

use volcore::options::Access;

use super::fuse::{Manner, Readied};
use super::ledger::Record;
use super::loops::{self, LoopId};
use super::process_table::{self, ProcessId};
use super::{LinuxHost, Operation, Shared, failed, kernel, mountinfo, name_of};
use crate::host::{HostError, MapRequest, Mapping, Undone};
use crate::image::ImageSource;

/// What is there of a mapping.
enum Standing {
    /// All of it.
    Mapped(Mapping),
    /// Something that does not serve: half of it, another mode or access, a dead server.
    Unfit,
    /// It was set out to map it in this way.
    Recorded(Access),
    /// Nothing.
    Nothing,
}

/// How to go on with a mapping.
enum Next {
    /// There is nothing to do.
    Mapped(Mapping),
    /// A server waits for the word to open.
    Readied(Box<Readied>),
    /// From the start.
    Anew(Access),
}

impl LinuxHost {
    pub(super) async fn ready_image(&self, request: &MapRequest) -> Result<Vec<String>, HostError> {
        check_names(&request.source)?;
        let operation = self.within(self.deadlines().ready);
        let readied = match (operation.next(request).await?, &request.source) {
            (Next::Mapped(mapping), _) => return Ok(mapping.clients),
            (Next::Readied(readied), _) => *readied,
            (Next::Anew(Access::Fuse), ImageSource::Rbd { pool, image }) => {
                let record = operation.begin(request, Access::Fuse).await;
                let started = match record {
                    Ok(record) => operation.fuse_start(record, (pool, image)).await,
                    Err(error) => Err(error),
                };
                self.or_undone(request, started).await?
            }
            (Next::Anew(_), _) => return Ok(Vec::new()),
        };
        let clients = readied.record.clients.clone();
        self.shared.keep_readied(readied);
        Ok(clients)
    }

    pub(super) async fn map_image(&self, request: &MapRequest) -> Result<Mapping, HostError> {
        check_names(&request.source)?;
        let operation = self.within(self.deadlines().map);
        let mapped = match operation.next(request).await? {
            Next::Mapped(mapping) => return Ok(mapping),
            Next::Readied(readied) => operation.fuse_open(*readied).await,
            Next::Anew(access) => operation.map_anew(request, access).await,
        };
        self.or_undone(request, mapped).await
    }

    /// Undoes what failed.
    async fn or_undone<T>(
        &self,
        request: &MapRequest,
        done: Result<T, HostError>,
    ) -> Result<T, HostError> {
        let error = match done {
            Ok(done) => return Ok(done),
            Err(error) => error,
        };
        // A server that does not answer will not end by itself either.
        let hangs = matches!(error, HostError::Deadline { .. });
        let manner = if hangs { Manner::Abort } else { Manner::Orderly };
        let undo = self.within(self.deadlines().unmap);
        if let Err(undo) = undo.tear_down(&request.source, manner).await {
            let cause: &dyn std::error::Error = &undo;
            let image = name_of(&request.source);
            tracing::warn!(image, cause, "could not undo a mapping that failed; unmap will");
        }
        Err(error)
    }

    pub(super) async fn unmap_image(&self, source: &ImageSource) -> Result<Undone, HostError> {
        check_names(source)?;
        self.within(self.deadlines().unmap).tear_down(source, Manner::Orderly).await
    }
}

impl Operation<'_> {
    /// What there is to do, after what is in the way was taken away.
    async fn next(&self, request: &MapRequest) -> Result<Next, HostError> {
        let source = &request.source;
        if let Some(readied) = self.shared.take_readied(source) {
            let access = [Access::Auto, Access::Fuse].contains(&request.access);
            if access && readied.record.mode == request.mode && readied.is_there() {
                return Ok(Next::Readied(Box::new(readied)));
            }
            // Its pipes are closed now, and it ends.
        }
        Ok(match self.standing(request).await? {
            Standing::Mapped(mapping) => Next::Mapped(mapping),
            Standing::Recorded(access) => Next::Anew(access),
            Standing::Unfit => {
                self.renew(source).await?;
                Next::Anew(self.choose(request).await?)
            }
            Standing::Nothing => Next::Anew(self.choose(request).await?),
        })
    }

    /// What the record and the kernel say together.
    async fn standing(&self, request: &MapRequest) -> Result<Standing, HostError> {
        let request = request.clone();
        let action = format!("look whether {} is mapped", name_of(&request.source));
        self.call(action, move |shared| {
            let (source, file) = (&request.source, shared.file(&request.source));
            let record = shared.ledger.read(source).map_err(failed("read the record"))?;
            let Some(record) = record else { return shared.unrecorded(&request, &file) };
            let local = matches!(source, ImageSource::File { .. });
            let fits = record.mode == request.mode
                && (local || [Access::Auto, record.access].contains(&request.access));
            if fits && record.access != Access::Fuse {
                // Who maps knows by himself what is mapped, but for a device that nobody serves any more.
                let gone = record.server_gone().is_some();
                let dead = gone || record.nbd.is_some_and(|nbd| !nbd.is_there());
                return Ok(if dead { Standing::Unfit } else { Standing::Recorded(record.access) });
            }
            let Some(attached) = record.attached.filter(|_| fits) else {
                return Ok(Standing::Unfit);
            };
            let held = attached.hold(&file).map_err(failed("open the loop device"))?;
            // A server that was killed answers at once that it is not connected.
            Ok(match held.filter(|_| file.metadata().is_ok()) {
                Some(device) => Standing::Mapped(shared.keep(&record, attached, device)),
                None => Standing::Unfit,
            })
        })
        .await
    }

    /// How the image is to be reached in fact.
    async fn choose(&self, request: &MapRequest) -> Result<Access, HostError> {
        match (&request.source, request.access) {
            (ImageSource::File { .. }, _) | (_, Access::Fuse) => Ok(Access::Fuse),
            (_, Access::Kernel) => self.kernel_is_possible().await.map(|()| Access::Kernel),
            (_, Access::Nbd) => self.nbd_is_possible().await.map(|()| Access::Nbd),
            (_, Access::Auto) => Ok(*self.shared.auto.get_or_init(|| self.best()).await),
        }
    }

    /// The best access that this machine has.
    async fn best(&self) -> Access {
        if self.kernel_is_possible().await.is_ok() {
            return Access::Kernel;
        }
        let nbd = self.nbd_is_possible().await.is_ok();
        if nbd { Access::Nbd } else { Access::Fuse }
    }

    /// Writes down what is about to be mapped.
    async fn begin(&self, request: &MapRequest, access: Access) -> Result<Record, HostError> {
        let source = &request.source;
        let record = self.shared.ledger.begin(source, access, request.mode);
        let record = self.call(format!("record {}", name_of(source)), move |shared| {
            shared.write(&record, "write the record")?;
            Ok(record)
        });
        record.await
    }

    async fn map_anew(&self, request: &MapRequest, access: Access) -> Result<Mapping, HostError> {
        let record = self.begin(request, access).await?;
        match (access, &request.source) {
            (Access::Kernel, ImageSource::Rbd { pool, image }) => {
                self.kernel_map((pool, image), request).await
            }
            (Access::Nbd, ImageSource::Rbd { .. }) => self.nbd_map(record).await,
            (_, ImageSource::Rbd { pool, image }) => {
                let readied = self.fuse_start(record, (pool, image)).await?;
                self.fuse_open(readied).await
            }
            (_, ImageSource::File { .. }) => self.attach(record, None).await,
        }
    }

    /// Attaches a loop device to the image's file, and completes the record.
    pub(super) async fn attach(
        &self,
        record: Record,
        server: Option<ProcessId>,
    ) -> Result<Mapping, HostError> {
        let (source, mode) = (record.source.clone(), record.mode);
        let file = self.shared.file(&source);
        let action = format!("attach a loop device to {}", name_of(&source));
        let attach = {
            let (file, action) = (file.clone(), action.clone());
            move |shared: &Shared| {
                match file.metadata() {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => {
                        return Err(HostError::NoImage { image: file.display().to_string() });
                    }
                    Ok(found) if !found.is_file() => {
                        return Err(failed(action)("it is not a regular file"));
                    }
                    // What else there is to say, attaching it says.
                    Ok(_) | Err(_) => {}
                }
                shared.faults.effect("attach the loop device", || {
                    loops::attach(&file, mode).map_err(failed(action))
                })
            }
        };
        // Given up while it is still attaching, the descriptor is dropped, and the device goes.
        let (attached, device) = self.call(action, attach).await?;
        self.call(format!("record {}", name_of(&source)), move |shared| {
            let record = record.attached(attached, server);
            shared.write(&record, "complete the record")?;
            Ok(shared.keep(&record, attached, device))
        })
        .await
    }

    /// Takes away what does not serve. What is in use stays, and if that is because its server has ended,
    /// this is what there is to say.
    async fn renew(&self, source: &ImageSource) -> Result<(), HostError> {
        match self.tear_down(source, Manner::Orderly).await {
            Err(HostError::Busy { what, holders }) => {
                let source = source.clone();
                let action = format!("look for what serves {}", name_of(&source));
                self.call(action, move |shared| shared.is_served(&source)).await?;
                Err(HostError::Busy { what, holders })
            }
            done => done.map(drop),
        }
    }

    /// Takes away all that there is of a mapping, the record last.
    async fn tear_down(&self, source: &ImageSource, manner: Manner) -> Result<Undone, HostError> {
        let source = source.clone();
        let looked = {
            let source = source.clone();
            move |shared: &Shared| {
                shared.faults.alive("unmap")?;
                shared.let_go(&source);
                // Closes its pipes, too.
                let readied = shared.take_readied(&source).and_then(|readied| readied.server());
                let record = shared.ledger.read(&source).map_err(failed("read the record"))?;
                let attached = record.as_ref().and_then(|record| record.attached);
                let attached = match (&source, attached) {
                    (ImageSource::File { path }, None) => shared.attached_by_others(path)?,
                    (_, attached) => attached,
                };
                Ok((record, attached, readied))
            }
        };
        let action = format!("unmap {}", name_of(&source));
        let (record, attached, readied) = self.call(action.clone(), looked).await?;
        let mut found = record.is_some();
        match (&source, record.as_ref().map(|record| record.access)) {
            (_, Some(Access::Kernel)) => {
                self.kernel_unmap(&source, kernel::Removal::Unused).await?;
            }
            (_, Some(Access::Nbd)) => {
                let found = record.and_then(|record| Some((record.nbd?, record.server)));
                self.nbd_unmap(&source, found).await?;
            }
            _ => {
                if let Some(attached) = attached {
                    found |= self.detach(&source, attached).await?;
                }
                let server = readied.or(record.and_then(|record| record.server));
                found |= self.fuse_stop(&source, server, manner).await?;
            }
        }
        self.call(action, move |shared| {
            let remove = || shared.ledger.remove(&source).map_err(failed("remove the record"));
            shared.faults.effect("remove the record", remove)?;
            Ok(if found { Undone::Done } else { Undone::Absent })
        })
        .await
    }

    /// Detaches a loop device and waits until it is gone; says whether it was there.
    pub(super) async fn detach(
        &self,
        source: &ImageSource,
        attached: LoopId,
    ) -> Result<bool, HostError> {
        let file = self.shared.file(source);
        let action = format!("detach {}", attached.device().display());
        let clear = {
            let (file, action) = (file.clone(), action.clone());
            move |shared: &Shared| {
                if !attached.is_there(&file) {
                    return Ok(false);
                }
                let mounts = mountinfo::read().map_err(failed("read the mounts"))?;
                if mounts.iter().any(|mount| mount.source == attached.device()) {
                    return Err(busy(attached));
                }
                let clear = || attached.clear(&file).map_err(failed(action));
                shared.faults.effect("detach the loop device", clear).map(|()| true)
            }
        };
        let was_there = self.call(action.clone(), clear).await?;
        let gone = move |_: &Shared| Ok(!attached.is_there(&file));
        if was_there && !self.until(action.clone(), gone).await? {
            return self.call(action, move |_| Err(busy(attached))).await;
        }
        Ok(was_there)
    }
}

fn busy(attached: LoopId) -> HostError {
    let device = attached.device();
    let holders = process_table::device_holders(&device);
    HostError::Busy { what: device.display().to_string(), holders }
}

/// A pool and an image become folders, and arguments of programs.
fn check_names(source: &ImageSource) -> Result<(), HostError> {
    let plain = |name: &str| {
        !name.is_empty() && !name.contains(['/', '\0', '@']) && !name.starts_with(['.', '-'])
    };
    let fine = match source {
        ImageSource::Rbd { pool, image } => plain(pool) && plain(image),
        ImageSource::File { path } => path.is_absolute() && path.file_name().is_some(),
    };
    if fine {
        return Ok(());
    }
    Err(failed(format!("map {}", name_of(source)))("an image name that the suite does not make"))
}

impl Shared {
    /// The file that the loop device is over.
    pub(super) fn file(&self, source: &ImageSource) -> PathBuf {
        match (source, self.fuse_folder(source)) {
            (ImageSource::Rbd { image, .. }, Some(folder)) => folder.join(image),
            (ImageSource::Rbd { image, .. }, None) => image.into(),
            (ImageSource::File { path }, _) => path.clone(),
        }
    }

    /// Whether what serves a mapping runs.
    pub(super) fn is_served(&self, source: &ImageSource) -> Result<(), HostError> {
        if self.ledger.mark(source).exists() {
            return Err(HostError::Fenced { image: name_of(source) });
        }
        let record = self.ledger.read(source).map_err(failed("read the record"))?;
        record.and_then(|record| record.server_gone()).map_or(Ok(()), Err)
    }

    /// What there is of an image without a record: a FUSE mount whose record was lost, a loop
    /// device that somebody else attached.
    fn unrecorded(&self, request: &MapRequest, file: &Path) -> Result<Standing, HostError> {
        let source = &request.source;
        if let Some(folder) = self.fuse_folder(source) {
            let mounts = mountinfo::at(&folder).map_err(failed("read the mounts"))?;
            if mounts.is_empty() {
                return self.refuse_foreign(source).map(|()| Standing::Nothing);
            }
            return Ok(Standing::Unfit);
        }
        let Some(attached) = self.attached_by_others(file)? else { return Ok(Standing::Nothing) };
        let held = attached.hold(file).map_err(failed("open the loop device"))?;
        let Some(device) = held.filter(|_| attached.mode() == Some(request.mode)) else {
            return Ok(Standing::Unfit);
        };
        let record = self.ledger.begin(source, Access::Fuse, request.mode).attached(attached, None);
        self.write(&record, "write the record")?;
        Ok(Standing::Mapped(self.keep(&record, attached, device)))
    }

    /// Whatever this host maps is recorded first. So without a record a device of the kernel is somebody else's: it keeps
    /// no second writer out, and is not this host's to take away.
    fn refuse_foreign(&self, source: &ImageSource) -> Result<(), HostError> {
        let found = kernel::find(source).map_err(failed("list the kernel's rbd devices"))?;
        let Some(found) = found else { return Ok(()) };
        let device = found.path.display();
        Err(failed(format!("map {}", name_of(source)))(format!(
            "it is mapped already, as {device}, and not by volplugin: whoever did that has to unmap it (`rbd unmap {device}`)"
        )))
    }

    /// The loop device over a local file.
    fn attached_by_others(&self, file: &Path) -> Result<Option<LoopId>, HostError> {
        match loops::over(file) {
            Ok(found) => Ok(found),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(failed(format!("look for {}", file.display()))(error)),
        }
    }

    pub(super) fn write(&self, record: &Record, effect: &'static str) -> Result<(), HostError> {
        self.faults.effect(effect, || {
            self.ledger.write(record).map_err(failed(format!("record {}", name_of(&record.source))))
        })
    }

    /// Keeps the device until it is mounted.
    fn keep(&self, record: &Record, attached: LoopId, device: OwnedFd) -> Mapping {
        self.hold(&record.source, device);
        Mapping {
            source: record.source.clone(),
            device: attached.device(),
            access: Access::Fuse,
            clients: record.clients.clone(),
        }
    }
}
