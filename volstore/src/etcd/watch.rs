//! A watch on etcd, as a task that forwards what arrives and says why it ended.
//!
//! Called by `EtcdStore::watch`. Never starts a watch again by itself.

use etcd_client::{
    Error as ClientError, Event, EventType, WatchClient, WatchOptions, WatchResponse, WatchStream,
};
use tokio::sync::mpsc;

use super::failure::{Failure, Verdict, describe, judge};
use super::{entry, revision, signed};
use crate::store::{Change, Key, Revision, Watch, WatchEnd};

/// How many batches wait before etcd is made to wait.
const BATCHES: usize = 8;

/// Opens a watch and waits until etcd says that it is there.
pub(super) async fn open(
    mut client: WatchClient,
    prefix: Key,
    from: u64,
) -> Result<WatchStream, ClientError> {
    let options = WatchOptions::new().with_prefix().with_start_revision(signed(from));
    let mut stream = client.watch(prefix.as_str(), Some(options)).await?;
    match stream.message().await? {
        Some(first) if first.created() && !first.canceled() => Ok(stream),
        Some(first) => Err(ClientError::WatchError(first.cancel_reason().to_owned())),
        None => Err(ClientError::WatchError("the stream ended at once".to_owned())),
    }
}

/// Hands on what the stream brings until it ends or nobody listens.
pub(super) fn forward(stream: WatchStream, from: u64, head: Key) -> Watch {
    let (sender, changes) = mpsc::channel(BATCHES);
    tokio::spawn(run(stream, from, head, sender));
    Watch { changes }
}

async fn run(
    mut stream: WatchStream,
    mut from: u64,
    head: Key,
    sender: mpsc::Sender<Result<Vec<Change>, WatchEnd>>,
) {
    loop {
        // Nothing is lost: the second arm is the end of it all.
        let message = tokio::select! {
            message = stream.message() => message,
            () = sender.closed() => return,
        };
        let batch = read(message, from, &head);
        match &batch {
            Ok(changes) if changes.is_empty() => continue,
            Ok(changes) => from = changes.last().map_or(from, |last| revision_of(last) + 1),
            Err(_) => {}
        }
        let ended = batch.is_err();
        if sender.send(batch).await.is_err() || ended {
            return;
        }
    }
}

/// One message as changes. etcd never splits a revision, unless asked to.
fn read(
    message: Result<Option<WatchResponse>, ClientError>,
    from: u64,
    head: &Key,
) -> Result<Vec<Change>, WatchEnd> {
    match message {
        Ok(Some(message)) if message.compact_revision() > 0 => {
            Err(WatchEnd::Compacted(Revision(from)))
        }
        Ok(Some(message)) if message.canceled() => {
            Err(WatchEnd::Cut(Some(message.cancel_reason().to_owned().into())))
        }
        Ok(Some(message)) => {
            Ok(message.events().iter().filter_map(|event| change(event, head)).collect())
        }
        Ok(None) => Err(WatchEnd::Cut(None)),
        // The same message would come again: only a list gets past it.
        Err(error) if matches!(judge(&error), Verdict::Final(Failure::TooLarge)) => {
            Err(WatchEnd::Compacted(Revision(from)))
        }
        Err(error) => Err(WatchEnd::Cut(Some(describe(&error).into()))),
    }
}

fn change(event: &Event, head: &Key) -> Option<Change> {
    let kv = event.kv()?;
    let entry = entry(kv).filter(|entry| entry.key != *head)?;
    Some(match event.event_type() {
        EventType::Put => Change::Put(entry),
        EventType::Delete => {
            Change::Deleted { key: entry.key, revision: revision(kv.mod_revision()) }
        }
    })
}

fn revision_of(change: &Change) -> u64 {
    match change {
        Change::Put(entry) => entry.revision.0,
        Change::Deleted { revision, .. } => revision.0,
    }
}
