//! Through whom snapshots are taken.
//!
//! A holder of the lock that does not answer for 30 s is fenced by whoever wants something of him and may blocklist:
//! taking a snapshot would take the volume from a host that only stood still for a while. So snapshots are taken
//! through a user of their own, who may not.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::sync::OnceCell;

use super::connection::{CALL, Connection, Session};
use crate::ceph::Key;
use crate::image::ImageError;

/// The user that is made for taking snapshots.
const USER: &str = "volplugin-snapshots";

/// The connection that snapshots are taken through.
#[derive(Clone, Debug)]
pub(super) struct Taking {
    own: Connection,
    other: Arc<OnceCell<Connection>>,
}

impl Taking {
    /// Through a user that is made when the first snapshot is taken, if this connection's user may make one.
    pub(super) fn new(own: Connection) -> Taking {
        Taking { own, other: Arc::default() }
    }

    /// Through this one.
    pub(super) fn through(self, other: Connection) -> Taking {
        Taking { other: Arc::new(OnceCell::new_with(Some(other))), ..self }
    }

    /// The connection.
    pub(super) async fn connection(&self) -> Result<&Connection, ImageError> {
        self.other.get_or_try_init(|| self.make()).await
    }

    async fn make(&self) -> Result<Connection, ImageError> {
        let action = format!("make Ceph user client.{USER}");
        let make = {
            let action = action.clone();
            move |session: &Session| key(session).map_err(|error| session.failed(&action, error))
        };
        match self.own.call(&action, CALL, make).await {
            Ok(Some(key)) => Ok(self.own.of_user(USER, Key(key))),
            Err(error @ ImageError::Unreachable { .. }) => Err(error),
            Ok(None) | Err(_) => {
                tracing::warn!(
                    "snapshots are taken through volmaster's own Ceph user: a host that does not answer for 30 s while one \
                     of its volumes is snapshotted is fenced off that volume; volmaster's --ceph-snapshot-user \
                     names a user without the right to blocklist, such as `ceph auth get-or-create client.{USER} mon \
                     'allow r' osd 'profile rbd'` makes"
                );
                Ok(self.own.clone())
            }
        }
    }
}

/// The key of the user, who is made if there is none; `None` where the answer has none.
fn key(session: &Session) -> Result<Option<String>, crate::ceph::CephError> {
    let caps = json!(["mon", "allow r", "osd", "profile rbd"]);
    let entity = format!("client.{USER}");
    let make = json!({
        "prefix": "auth get-or-create", "entity": &entity, "caps": caps, "format": "json",
    });
    let get = json!({ "prefix": "auth get", "entity": &entity, "format": "json" });
    // One that was given other rights is left as he is, and taken.
    let reply = match session.cluster().mon_command(&make) {
        Ok(reply) => reply,
        Err(error) if error.is_denied() => return Err(error),
        Err(_) => session.cluster().mon_command(&get)?,
    };
    let users: Option<Value> = serde_json::from_slice(&reply.output).ok();
    let key = users.as_ref().and_then(|users| users.get(0)?.get("key")?.as_str());
    Ok(key.map(str::to_owned))
}
