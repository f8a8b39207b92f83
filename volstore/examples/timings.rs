//! How fast a store is: `timings etcd URL` or `timings embedded FILE`. Writes below `/volplugin-timings`.
//!
//! Prints the median and the 99th percentile of each operation, in microseconds.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use volstore::cache::{Freshness, Mirror};
use volstore::embedded::EmbeddedStore;
use volstore::etcd::{EtcdOptions, EtcdStore};
use volstore::keys::Keys;
use volstore::store::{Commit, Expect, Key, Revision, Step, Store, list_all};

type Anyhow<T> = Result<T, Box<dyn Error>>;

const RECORDS: usize = 10_000;
const TIMES: usize = 1_000;
const BOUND: Duration = Duration::from_secs(10);

#[tokio::main]
async fn main() -> Anyhow<()> {
    let keys = Keys::new("/volplugin-timings")?;
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let store: Arc<dyn Store> = match arguments.as_slice() {
        [kind, url] if kind == "etcd" => {
            Arc::new(EtcdStore::new(EtcdOptions::new([url], &keys)).await?)
        }
        [kind, path] if kind == "embedded" => Arc::new(EmbeddedStore::open(path).await?),
        _ => return Err("usage: timings etcd URL | timings embedded FILE".into()),
    };
    println!("{}", store.describe());
    fill(&*store, &keys).await?;
    one_by_one(&*store, &keys).await?;
    lists(&store, &keys).await
}

fn volume(keys: &Keys, number: usize) -> Anyhow<Key> {
    Ok(keys.volume(&format!("t{}/v{number}", number % 10).parse()?))
}

fn put(key: Key, expect: Expect) -> Step {
    Step::Put { key, value: vec![b'x'; 500], expect, lease: None }
}

async fn commit(store: &dyn Store, steps: Vec<Step>) -> Anyhow<Revision> {
    match store.commit(steps).await? {
        Commit::Done(revision) => Ok(revision),
        Commit::Conflict => Err("a conflict: is the store in use?".into()),
    }
}

async fn fill(store: &dyn Store, keys: &Keys) -> Anyhow<()> {
    let (old, _) = list_all(store, &keys.root()).await?;
    for some in old.chunks(100) {
        let gone = some.iter().map(|e| Step::Delete { key: e.key.clone(), at: e.revision });
        commit(store, gone.collect()).await?;
    }
    let began = Instant::now();
    for first in (0..RECORDS).step_by(100) {
        let numbers = first..first + 100;
        let steps = numbers.map(|n| Ok(put(volume(keys, n)?, Expect::Absent)));
        commit(store, steps.collect::<Anyhow<Vec<Step>>>()?).await?;
    }
    println!("{RECORDS} records in commits of 100: {:?}", began.elapsed());
    Ok(())
}

async fn one_by_one(store: &dyn Store, keys: &Keys) -> Anyhow<()> {
    let mut gets = Vec::new();
    let mut commits = Vec::new();
    let mut revisions = Vec::new();
    for number in 0..TIMES {
        let key = volume(keys, number)?;
        let began = Instant::now();
        let found = store.get(&key).await?.ok_or("a record is gone")?;
        gets.push(began.elapsed());
        let began = Instant::now();
        commit(store, vec![put(key, Expect::At(found.revision))]).await?;
        commits.push(began.elapsed());
        let began = Instant::now();
        store.revision().await?;
        revisions.push(began.elapsed());
    }
    report("get", gets);
    report("commit of one put", commits);
    report("revision", revisions);
    Ok(())
}

async fn lists(store: &Arc<dyn Store>, keys: &Keys) -> Anyhow<()> {
    let mut listed = Vec::new();
    for _ in 0..20 {
        let began = Instant::now();
        list_all(&**store, &keys.volumes()).await?;
        listed.push(began.elapsed());
    }
    report("list of 10,000", listed);
    let began = Instant::now();
    let mirror = Mirror::spawn(store.clone(), keys, keys.volumes(), |entry| Ok(entry.value.len()));
    mirror.loaded(BOUND).await;
    println!("{:<22} {:?}", "mirror loaded", began.elapsed());
    let mut synced = Vec::new();
    let mut read = Vec::new();
    for number in 0..TIMES {
        let key = volume(keys, number)?;
        let found = store.get(&key).await?.ok_or("a record is gone")?;
        commit(&**store, vec![put(key, Expect::At(found.revision))]).await?;
        let began = Instant::now();
        if mirror.sync(BOUND).await? != Freshness::Current {
            return Err("the mirror does not follow".into());
        }
        synced.push(began.elapsed());
        let began = Instant::now();
        let sum: usize = mirror.read(|view| view.records().values().map(|kept| *kept.record).sum());
        std::hint::black_box(sum);
        read.push(began.elapsed());
    }
    report("sync after a commit", synced);
    report("mirror, all records", read);
    Ok(())
}

fn report(what: &str, mut times: Vec<Duration>) {
    times.sort();
    let at = |hundredth: usize| times[(times.len() - 1) * hundredth / 100].as_micros();
    println!("{what:<22} median {:>7}  p99 {:>7}", at(50), at(99));
}
