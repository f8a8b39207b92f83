//! The file of the embedded store: three redb tables, one transaction per commit.
//!
//! Called by the embedded store, always on a thread that may block. redb gives up on
//! a file after any failed read or write, so the file is opened anew before the next
//! use; after a failed commit that also tells whether the commit is there.

use std::fs::{File, OpenOptions, TryLockError};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use redb::{
    Database, DatabaseError, Durability, ReadableDatabase, ReadableTable, StorageError,
    TableDefinition, TableError,
};

use super::{FORMAT, OpenError};
use crate::engine::{Image, LeaseChange, Plan, Slot};
use crate::local::{Log, LogError};
use crate::store::{Cause, Key, LeaseId};

/// `format` and `revision`.
const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// Key to revision, lease (zero for none) and value.
const ENTRIES: TableDefinition<&str, (u64, i64, &[u8])> = TableDefinition::new("entries");
/// Lease to its time to live in seconds.
const LEASES: TableDefinition<i64, u64> = TableDefinition::new("leases");

/// redb's page cache. Small, because reads are served from elsewhere.
const CACHE_BYTES: usize = 8 << 20;

/// Opens the database, as often as it is needed.
type Opener = Box<dyn Fn() -> Result<Database, DatabaseError> + Send>;

/// The open file.
pub(crate) struct RedbLog {
    opener: Opener,
    /// `None` after a failure, until it is opened again.
    database: Option<Database>,
}

impl RedbLog {
    /// Opens or creates the file, and reads all of it.
    pub(crate) fn open(path: &Path) -> Result<(Self, Image), OpenError> {
        let database = create_or_open(path)?;
        let image = load(&database).map_err(|error| error.at(path))?;
        let path = path.to_owned();
        let opener = Box::new(move || builder().open(&path));
        Ok((RedbLog { opener, database: Some(database) }, image))
    }

    fn database(&mut self) -> Result<&Database, DatabaseError> {
        match &mut self.database {
            Some(database) => Ok(database),
            gone => Ok(gone.insert((self.opener)()?)),
        }
    }
}

impl Log for RedbLog {
    const BLOCKS: bool = true;

    fn write(&mut self, plan: &Plan) -> Result<(), LogError> {
        let database = self.database().map_err(|e| LogError::NotWritten(Box::new(e)))?;
        let written = transact(database, plan);
        if written.is_err() {
            self.database = None;
        }
        written
    }

    fn reload(&mut self) -> Result<Image, Cause> {
        self.database = None;
        let loaded = load(self.database()?);
        loaded.map_err(|error| match error {
            LoadError::Redb(cause) => cause,
            other => format!("the file has changed: {other:?}").into(),
        })
    }
}

fn builder() -> redb::Builder {
    let mut builder = Database::builder();
    builder.set_cache_size(CACHE_BYTES);
    builder
}

/// One durable transaction.
fn transact(database: &Database, plan: &Plan) -> Result<(), LogError> {
    let fill = || -> Result<redb::WriteTransaction, redb::Error> {
        let mut transaction = database.begin_write()?;
        transaction.set_durability(Durability::Immediate)?;
        {
            let mut entries = transaction.open_table(ENTRIES)?;
            for delta in &plan.deltas {
                let key = delta.key.as_str();
                match &delta.new {
                    Some(slot) => {
                        let lease = slot.lease.map_or(0, |lease| lease.0);
                        entries.insert(key, (slot.revision, lease, &*slot.value))?;
                    }
                    None => {
                        entries.remove(key)?;
                    }
                }
            }
            match plan.lease {
                Some(LeaseChange::Granted(id, ttl)) => {
                    transaction.open_table(LEASES)?.insert(id.0, ttl.as_secs())?;
                }
                Some(LeaseChange::Ended(id)) => {
                    transaction.open_table(LEASES)?.remove(id.0)?;
                }
                None => {}
            }
            transaction.open_table(META)?.insert("revision", plan.revision)?;
        }
        Ok(transaction)
    };
    // Dropping an unfinished transaction undoes it: until the commit, nothing has happened.
    let transaction = fill().map_err(|e| LogError::NotWritten(Box::new(e)))?;
    transaction.commit().map_err(|e| LogError::Unknown(Box::new(e)))
}

#[derive(Debug)]
enum LoadError {
    NewerFormat(u64),
    NotAStore(Cause),
    Redb(Cause),
}

impl<E: Into<redb::Error>> From<E> for LoadError {
    fn from(error: E) -> Self {
        LoadError::Redb(Box::new(error.into()))
    }
}

impl LoadError {
    fn at(self, path: &Path) -> OpenError {
        let path = path.to_owned();
        match self {
            LoadError::NewerFormat(found) => OpenError::NewerFormat { path, found },
            LoadError::NotAStore(source) => OpenError::NotAStore { path, source },
            LoadError::Redb(source) => OpenError::Io { path, source },
        }
    }
}

fn load(database: &Database) -> Result<Image, LoadError> {
    let transaction = database.begin_read()?;
    let meta = match transaction.open_table(META) {
        Err(error @ (TableError::TableDoesNotExist(_) | TableError::TableTypeMismatch { .. })) => {
            return Err(LoadError::NotAStore(Box::new(error)));
        }
        other => other?,
    };
    let number = |name: &str| meta.get(name).map(|found| found.map_or(0, |guard| guard.value()));
    match number("format")? {
        0 => return Err(LoadError::NotAStore("it has no format version".into())),
        found if found > FORMAT => return Err(LoadError::NewerFormat(found)),
        _ => {}
    }
    let mut image = Image { revision: number("revision")?, ..Image::default() };
    for row in transaction.open_table(ENTRIES)?.iter()? {
        let (key, slot) = row?;
        let (revision, lease, value) = slot.value();
        let lease = (lease != 0).then_some(LeaseId(lease));
        image
            .entries
            .insert(Key(key.value().to_owned()), Slot { value: value.into(), revision, lease });
    }
    for row in transaction.open_table(LEASES)?.iter()? {
        let (id, seconds) = row?;
        image.leases.push((LeaseId(id.value()), Duration::from_secs(seconds.value())));
    }
    Ok(image)
}

fn create_or_open(path: &Path) -> Result<Database, OpenError> {
    let exists = path.try_exists().map_err(|error| io(path, error))?;
    if exists { open(path) } else { create(path) }
}

fn open(path: &Path) -> Result<Database, OpenError> {
    builder().open(path).map_err(|error| failed(path, error))
}

/// Makes the file under another name first, so that a half-made one is never found at `path`.
fn create(path: &Path) -> Result<Database, OpenError> {
    let mut unfinished = path.as_os_str().to_owned();
    unfinished.push(".new");
    let unfinished = PathBuf::from(unfinished);
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).truncate(false).mode(0o600);
    let file = options.open(&unfinished).map_err(|error| io(path, error))?;
    match file.try_lock() {
        Err(TryLockError::WouldBlock) => return Err(OpenError::InUse { path: path.to_owned() }),
        Err(TryLockError::Error(error)) => return Err(io(path, error)),
        Ok(()) => {}
    }
    // Only the holder of this lock gives `path` its file, so whoever sees none here can go on.
    if path.try_exists().map_err(|error| io(path, error))? {
        std::fs::remove_file(&unfinished).map_err(|error| io(path, error))?;
        return open(path);
    }
    file.set_len(0).map_err(|error| io(path, error))?;
    let database = builder().create_file(file).map_err(|error| failed(path, error))?;
    initialize(&database).map_err(|error| LoadError::from(error).at(path))?;
    std::fs::rename(&unfinished, path).map_err(|error| io(path, error))?;
    sync_folder(path).map_err(|error| io(path, error))?;
    Ok(database)
}

fn initialize(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut meta = transaction.open_table(META)?;
        meta.insert("format", FORMAT)?;
        meta.insert("revision", 0)?;
        transaction.open_table(ENTRIES)?;
        transaction.open_table(LEASES)?;
    }
    Ok(transaction.commit()?)
}

/// Makes the file's name durable.
fn sync_folder(path: &Path) -> std::io::Result<()> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    File::open(folder)?.sync_all()
}

fn failed(path: &Path, error: DatabaseError) -> OpenError {
    let path = path.to_owned();
    match error {
        DatabaseError::DatabaseAlreadyOpen => OpenError::InUse { path },
        DatabaseError::Storage(StorageError::Io(ref io))
            if io.kind() == std::io::ErrorKind::InvalidData =>
        {
            OpenError::NotAStore { path, source: Box::new(error) }
        }
        DatabaseError::UpgradeRequired(_) => OpenError::NotAStore { path, source: Box::new(error) },
        error => OpenError::Io { path, source: Box::new(error) },
    }
}

fn io(path: &Path, error: std::io::Error) -> OpenError {
    OpenError::Io { path: path.to_owned(), source: Box::new(error) }
}

#[cfg(test)]
mod tests;
