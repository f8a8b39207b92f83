//! The file of the embedded store: what outlives the process, and what is refused.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use volstore::embedded::{EmbeddedStore, FORMAT, OpenError};
use volstore::keys::Keys;
use volstore::store::{
    Expect, Key, MIN_TTL, Renewal, Revision, Step, Store, StoreError, WatchEnd, list_all,
};

use super::subject::{create, delete, done, eventually, names, put};

/// Where the child that is to be killed keeps its store.
const CRASH_FILE: &str = "VOLSTORE_CRASH_FILE";

fn volume(id: &str) -> Key {
    Keys::default().volume(&id.parse().unwrap())
}

async fn open(path: &Path) -> EmbeddedStore {
    EmbeddedStore::open(path).await.unwrap()
}

#[tokio::test]
async fn everything_is_there_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let store = open(&path).await;
    assert_eq!(store.describe(), format!("embedded at {}", path.display()));
    let mode = std::fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let first = done(&store, vec![create(&volume("t/a"), "1"), create(&volume("t/b"), "1")]).await;
    let last = done(&store, vec![delete(&volume("t/b"), first)]).await;
    store.close().await;

    let store = open(&path).await;
    assert_eq!(store.revision().await.unwrap(), last);
    let found = store.get(&volume("t/a")).await.unwrap().unwrap();
    assert_eq!((found.value.as_slice(), found.revision), (&b"1"[..], first));
    assert_eq!(store.get(&volume("t/b")).await.unwrap(), None);
    // What was before the process began is not kept.
    let page = store.list(&Keys::default().volumes(), None, 1, Some(first)).await;
    assert!(matches!(page, Err(StoreError::Compacted { .. })), "{page:?}");
    let mut old = store.watch(&Keys::default().root(), last).await.unwrap();
    assert!(matches!(old.next().await, Err(WatchEnd::Compacted(at)) if at == last));
    let mut new = store.watch(&Keys::default().root(), Revision(last.0 + 1)).await.unwrap();
    let next = done(&store, vec![put(&volume("t/a"), "2", Expect::At(first))]).await;
    assert_eq!(next.0, last.0 + 1);
    assert_eq!(new.next().await.unwrap().len(), 1);
}

#[tokio::test]
async fn leases_outlive_the_process_by_their_time() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let store = open(&path).await;
    let (dies, lives) =
        (store.lease_grant(MIN_TTL).await.unwrap(), store.lease_grant(MIN_TTL).await.unwrap());
    for (id, lease) in [("t/dies", dies), ("t/lives", lives)] {
        let key = volume(id);
        let lease = Some(lease);
        done(&store, vec![Step::Put { key, value: vec![], expect: Expect::Absent, lease }]).await;
    }
    store.close().await;

    let store = open(&path).await;
    assert!(store.get(&volume("t/dies")).await.unwrap().is_some());
    let gone = async || {
        assert_eq!(store.lease_renew(lives).await.unwrap(), Renewal::Renewed);
        store.get(&volume("t/dies")).await.unwrap().is_none().then_some(())
    };
    eventually("the lease that nobody renews ends", gone).await;
    assert!(store.get(&volume("t/lives")).await.unwrap().is_some());
    assert_eq!(store.lease_renew(dies).await.unwrap(), Renewal::Ended);
    store.close().await;
    // The end is as durable as the beginning was.
    let store = open(&path).await;
    let (all, _) = list_all(&store, &Keys::default().root()).await.unwrap();
    assert_eq!(names(&all), ["lives"]);
    assert_eq!(store.lease_renew(dies).await.unwrap(), Renewal::Ended);
    assert_eq!(store.lease_renew(lives).await.unwrap(), Renewal::Renewed);
}

#[tokio::test]
async fn a_second_one_is_told_which_file_is_in_use() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let _first = open(&path).await;
    let error = EmbeddedStore::open(&path).await.err().unwrap();
    assert!(matches!(&error, OpenError::InUse { path: named } if *named == path));
    let words = format!("the store {} is in use by another process", path.display());
    assert_eq!(error.to_string(), words);
}

#[tokio::test]
async fn other_files_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    for (name, bytes) in [("text", &b"not a store\n"[..]), ("zeros", &[0; 65536]), ("empty", &[])] {
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        let error = EmbeddedStore::open(&path).await.err().unwrap();
        assert!(matches!(error, OpenError::NotAStore { .. }), "{name}: {error:?}");
        assert_eq!(std::fs::read(&path).unwrap(), bytes, "{name}");
    }
    let path = folder.path().join("other.redb");
    let other = redb::Database::create(&path).unwrap();
    let write = other.begin_write().unwrap();
    write
        .open_table(redb::TableDefinition::<u64, u64>::new("theirs"))
        .unwrap()
        .insert(1, 1)
        .unwrap();
    write.commit().unwrap();
    drop(other);
    let error = EmbeddedStore::open(&path).await.err().unwrap();
    assert!(matches!(error, OpenError::NotAStore { .. }), "{error:?}");
    let error = EmbeddedStore::open(folder.path().join("no/such/folder")).await.err().unwrap();
    assert!(matches!(error, OpenError::Io { .. }), "{error:?}");
}

#[tokio::test]
async fn a_newer_format_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    open(&path).await.close().await;
    let file = redb::Database::open(&path).unwrap();
    let write = file.begin_write().unwrap();
    let meta = redb::TableDefinition::<&str, u64>::new("meta");
    write.open_table(meta).unwrap().insert("format", FORMAT + 1).unwrap();
    write.commit().unwrap();
    drop(file);
    let error = EmbeddedStore::open(&path).await.err().unwrap();
    assert!(
        matches!(error, OpenError::NewerFormat { found, .. } if found == FORMAT + 1),
        "{error:?}"
    );
}

#[tokio::test]
async fn a_creation_that_was_cut_short_is_begun_again() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    std::fs::write(folder.path().join("store.redb.new"), [0; 70_000]).unwrap();
    let store = open(&path).await;
    done(&store, vec![create(&volume("t/v"), "1")]).await;
    store.close().await;
    // Left behind beside a finished store: of no account.
    std::fs::write(folder.path().join("store.redb.new"), [0; 70_000]).unwrap();
    let store = open(&path).await;
    assert!(store.get(&volume("t/v")).await.unwrap().is_some());
}

#[tokio::test]
async fn a_dropped_commit_is_all_or_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let store = Arc::new(open(&path).await);
    for i in 0..50 {
        let steps = vec![
            create(&volume(&format!("t/a{i}")), "1"),
            create(&volume(&format!("t/b{i}")), "1"),
        ];
        let task = tokio::spawn({
            let store = store.clone();
            async move { store.commit(steps).await }
        });
        tokio::task::yield_now().await;
        task.abort();
    }
    // The next one waits for those that are still under way.
    done(&*store, vec![create(&volume("t/last"), "1")]).await;
    let (all, at) = list_all(&*store, &Keys::default().volumes()).await.unwrap();
    assert_eq!(all.len() as u64, 2 * (at.0 - 1) + 1);
}

/// Not a test by itself: what `nothing_acknowledged_is_lost_in_a_crash` starts, and kills.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn child_that_is_killed() {
    let Some(path) = std::env::var_os(CRASH_FILE) else { return };
    let store = Arc::new(open(Path::new(&path)).await);
    let begin = store.revision().await.unwrap().0;
    for task in 0..3 {
        let store = store.clone();
        tokio::spawn(async move {
            for n in 0.. {
                let (a, b) = (format!("t/a{begin}-{task}-{n}"), format!("t/b{begin}-{task}-{n}"));
                let value = "x".repeat(n % 3000);
                done(&*store, vec![create(&volume(&a), &value), create(&volume(&b), &value)]).await;
                let mut out = std::io::stdout().lock();
                writeln!(out, "acknowledged {begin}-{task}-{n}").unwrap();
                out.flush().unwrap();
            }
        });
    }
    // Whoever started this ends it; should that fail, it ends itself.
    tokio::time::sleep(Duration::from_secs(60)).await;
}

#[tokio::test]
async fn nothing_acknowledged_is_lost_in_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("store.redb");
    let mut acknowledged = Vec::new();
    for round in 0..6 {
        let mut command = Command::new(std::env::current_exe().unwrap());
        command.args(["--exact", "contract::embedded_file::child_that_is_killed", "--nocapture"]);
        command.env(CRASH_FILE, &path).stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let wanted = acknowledged.len() + 30 + 47 * round;
        for line in BufReader::new(child.stdout.take().unwrap()).lines() {
            let line = line.unwrap();
            if let Some((_, id)) = line.split_once("acknowledged ") {
                acknowledged.push(id.to_owned());
            }
            // What is still in the pipe was acknowledged as well.
            if acknowledged.len() == wanted {
                child.kill().unwrap();
            }
        }
        child.wait().unwrap();
        assert!(acknowledged.len() >= wanted, "the child ended by itself");

        let store = open(&path).await;
        let (all, at) = list_all(&store, &Keys::default().volumes()).await.unwrap();
        let names: std::collections::HashSet<&str> = names(&all).into_iter().collect();
        for id in &acknowledged {
            for half in ["a", "b"] {
                assert!(names.contains(format!("{half}{id}").as_str()), "{half}{id} is lost");
            }
        }
        assert_eq!(all.len() as u64, 2 * at.0, "a commit is whole");
    }
}
