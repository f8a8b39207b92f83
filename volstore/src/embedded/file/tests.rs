//! A disk that fails: every operation in turn, once or for good.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use redb::StorageBackend;

use super::*;
use crate::keys::Keys;
use crate::local::Local;
use crate::store::{Commit, Expect, Revision, Step, StoreError};

/// Bytes that survive being closed, and a count of the operations until it fails.
#[derive(Debug, Default)]
struct Disk {
    bytes: Mutex<Vec<u8>>,
    operations: AtomicU64,
    /// The operations that fail.
    broken: Mutex<std::ops::Range<u64>>,
}

impl Disk {
    fn next(&self) -> io::Result<()> {
        let number = self.operations.fetch_add(1, Ordering::SeqCst);
        match self.broken.lock().unwrap().contains(&number) {
            true => Err(io::Error::other("the disk fails")),
            false => Ok(()),
        }
    }

    /// Fails `times` times, beginning with the operation after `good` more.
    fn fail(&self, good: u64, times: u64) {
        let first = self.operations.load(Ordering::SeqCst) + good;
        *self.broken.lock().unwrap() = first..first.saturating_add(times);
    }

    fn has_failed(&self) -> bool {
        self.operations.load(Ordering::SeqCst) > self.broken.lock().unwrap().start
    }

    fn heal(&self) {
        *self.broken.lock().unwrap() = 0..0;
    }
}

#[derive(Debug)]
struct Handle(Arc<Disk>);

impl StorageBackend for Handle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.0.bytes.lock().unwrap().len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        self.0.next()?;
        let offset = usize::try_from(offset).unwrap();
        out.copy_from_slice(&self.0.bytes.lock().unwrap()[offset..offset + out.len()]);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        self.0.next()?;
        self.0.bytes.lock().unwrap().resize(usize::try_from(len).unwrap(), 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.0.next()
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        self.0.next()?;
        let offset = usize::try_from(offset).unwrap();
        self.0.bytes.lock().unwrap()[offset..offset + data.len()].copy_from_slice(data);
        Ok(())
    }
}

fn on(disk: &Arc<Disk>) -> Arc<Local<RedbLog>> {
    let disk = disk.clone();
    let opener = move || builder().create_with_backend(Handle(disk.clone()));
    let database = opener().unwrap();
    initialize(&database).unwrap();
    let image = load(&database).unwrap();
    let log = RedbLog { opener: Box::new(opener), database: Some(database) };
    Local::new("faulty".to_owned(), log, image)
}

fn key(n: u64) -> Key {
    Keys::default().volume(&format!("t/v{n}").parse().unwrap())
}

fn create(n: u64) -> Vec<Step> {
    let value = vec![7; 20_000];
    vec![Step::Put { key: key(n), value, expect: Expect::Absent, lease: None }]
}

/// What the file itself says, past the store.
fn on_disk(disk: &Arc<Disk>, key: &Key) -> bool {
    let copy = Arc::new(Disk::default());
    copy.bytes.lock().unwrap().clone_from(&disk.bytes.lock().unwrap());
    let database = builder().create_with_backend(Handle(copy)).unwrap();
    load(&database).unwrap().entries.contains_key(key)
}

fn there(local: &Local<RedbLog>, key: &Key) -> Result<bool, StoreError> {
    Ok(local.read(|| "read".to_owned())?.get(key).is_some())
}

#[tokio::test]
async fn one_failure_anywhere_is_survived_and_reported_as_it_is() {
    let mut failures = 0;
    for good in 0.. {
        let disk = Arc::new(Disk::default());
        let local = on(&disk);
        assert_eq!(local.commit(&create(0)).unwrap(), Commit::Done(Revision(1)));
        disk.fail(good, 1);
        let answer = local.commit(&create(1));
        if !disk.has_failed() {
            break;
        }
        failures += 1;
        // The disk is well again, so the file tells what became of the commit.
        match answer {
            Ok(Commit::Done(at)) => {
                assert_eq!(at, Revision(2));
                assert!(there(&local, &key(1)).unwrap() && on_disk(&disk, &key(1)), "{good}");
            }
            Err(StoreError::Unavailable { .. }) => {
                assert!(!there(&local, &key(1)).unwrap() && !on_disk(&disk, &key(1)), "{good}");
            }
            other => panic!("{good}: {other:?}"),
        }
        assert!(matches!(local.commit(&create(2)), Ok(Commit::Done(_))), "{good}");
        assert!(there(&local, &key(0)).unwrap() && there(&local, &key(2)).unwrap(), "{good}");
        assert!(on_disk(&disk, &key(0)) && on_disk(&disk, &key(2)), "{good}");
    }
    assert!(failures > 3, "only {failures} operations were failed");
}

#[tokio::test]
async fn while_the_disk_is_gone_nothing_is_claimed() {
    for good in 0.. {
        let disk = Arc::new(Disk::default());
        let local = on(&disk);
        local.commit(&create(0)).unwrap();
        disk.fail(good, u64::MAX);
        let answer = local.commit(&create(1));
        if !disk.has_failed() {
            break;
        }
        match answer {
            // What is in doubt is not shown either way.
            Err(StoreError::Unknown { .. }) => {
                assert!(matches!(there(&local, &key(0)), Err(StoreError::Unavailable { .. })));
                assert!(local.settle().await.is_err());
                let again = local.commit(&create(1));
                assert!(matches!(again, Err(StoreError::Unavailable { .. })), "{good}: {again:?}");
            }
            Err(StoreError::Unavailable { .. }) => {
                assert!(!there(&local, &key(1)).unwrap(), "{good}");
            }
            other => panic!("{good}: {other:?}"),
        }
        disk.heal();
        // Readers alone bring it back.
        local.settle().await.unwrap();
        assert!(there(&local, &key(0)).unwrap());
        assert_eq!(there(&local, &key(1)).unwrap(), on_disk(&disk, &key(1)), "{good}");
        assert!(matches!(local.commit(&create(2)), Ok(Commit::Done(_))), "{good}");
        assert!(on_disk(&disk, &key(2)), "{good}");
    }
}
