//! Why an image of Ceph cannot be written to: the exclusive lock of a client that is gone.
//!
//! A client that was killed keeps its lock until somebody breaks it, and breaking it calls for a
//! right that hosts do not have on purpose: volmaster alone fences. Until then a new client can read,
//! and every write of its fails with EIO (seen with 16.2). The kernel and e2fsck cannot say that.

use serde::Deserialize;

use super::{Operation, failed, name_of};
use crate::host::HostError;
use crate::image::ImageSource;
use crate::process::ProcessError;

/// One line of `rbd lock ls --format json`.
#[derive(Debug, Deserialize)]
struct Lock {
    locker: String,
    address: String,
}

/// `rbd status --format json`.
#[derive(Debug, Deserialize)]
struct Status {
    watchers: Vec<Watcher>,
}

#[derive(Debug, Deserialize)]
struct Watcher {
    address: String,
}

/// The addresses of the lock holders.
fn owners(locks: &[u8]) -> Result<Vec<String>, serde_json::Error> {
    let locks: Vec<Lock> = serde_json::from_slice(locks)?;
    Ok(locks.into_iter().map(|lock| lock.address).collect())
}

/// The lock holders that no longer watch the image, as `client.N (address)`.
fn gone(locks: &[u8], status: &[u8]) -> Result<Vec<String>, serde_json::Error> {
    let locks: Vec<Lock> = serde_json::from_slice(locks)?;
    let status: Status = serde_json::from_slice(status)?;
    let watches = |lock: &Lock| status.watchers.iter().any(|it| it.address == lock.address);
    let gone = locks.iter().filter(|lock| !watches(lock));
    Ok(gone.map(|lock| format!("{} ({})", lock.locker, lock.address)).collect())
}

impl Operation<'_> {
    /// The addresses of those who have locked an image.
    pub(super) async fn lock_owners(&self, image: &str) -> Result<Vec<String>, HostError> {
        let action = format!("look who has locked {image}");
        let locks = self.rbd(&["lock", "ls", "--format", "json", image]).output().await;
        let locks = locks.map_err(self.program_failed(action.clone()))?;
        owners(&locks.stdout).map_err(failed(action))
    }

    /// The error of something that had to write to an image, or a better one.
    pub(super) async fn blame_lock(&self, source: &ImageSource, error: HostError) -> HostError {
        let ImageSource::Rbd { .. } = source else { return error };
        let image = name_of(source);
        let asked = async {
            let locks = self.rbd(&["lock", "ls", "--format", "json", &image]).output().await?;
            let status = self.rbd(&["status", "--format", "json", &image]).output().await?;
            Ok::<_, ProcessError>(gone(&locks.stdout, &status.stdout).unwrap_or_default())
        };
        match asked.await {
            Ok(holders) if !holders.is_empty() => {
                let cause: &dyn std::error::Error = &error;
                tracing::warn!(image, cause, ?holders, "the lock of a client that is gone");
                HostError::Locked { image, holders }
            }
            Ok(_) | Err(_) => error,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn those_who_watch_are_not_gone() {
        let locks = br#"[{"id":"auto 140099484389488","locker":"client.4546","address":"127.0.0.1:0/4252152656"}]"#;
        let own = br#"{"watchers":[{"address":"127.0.0.1:0/77","client":4550,"cookie":1}]}"#;
        assert_eq!(gone(locks, own).unwrap(), ["client.4546 (127.0.0.1:0/4252152656)"]);
        let both =
            br#"{"watchers":[{"address":"127.0.0.1:0/4252152656","client":4546,"cookie":1}]}"#;
        assert_eq!(gone(locks, both).unwrap(), [""; 0]);
        assert_eq!(gone(b"[]", own).unwrap(), [""; 0]);
        assert_eq!(owners(locks).unwrap(), ["127.0.0.1:0/4252152656"]);
    }
}
