//! Hosts and their sessions: which machine speaks under which label.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::kind::Kind;
use crate::name::{BootId, HostName};

/// A host's session: it lives in the store as long as it is renewed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Session {
    /// The label of the host.
    pub host: HostName,
    /// The installation that speaks: made once for each data folder, kept over restarts.
    pub instance: Uuid,
    /// The machine's present boot.
    pub boot: BootId,
    /// Since when this session stands.
    pub since: Timestamp,
    /// The version of volplugin.
    pub version: String,
}

/// One run of a volmaster. It has a lease of its own in the store, so that others see whether it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct MasterId(pub Uuid);

/// Who has undertaken to fence the holder of a volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fencing {
    /// The volmaster; when it is gone, any other goes on.
    pub by: MasterId,
    /// Since when the holder has lost the volume.
    pub since: Timestamp,
}

/// What a session request comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SessionDecision {
    /// There is none: open it.
    Open,
    /// It is the caller's own: renew it.
    Renew,
}

/// The label belongs to somebody else.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "host label {host} is in use by another machine or installation since {since:.0}; if this host was just \
     rebooted, wait until the old session has lapsed, else give it a --host-label of its own"
)]
pub struct SessionRefusal {
    /// The label.
    pub host: HostName,
    /// Since when the other has it.
    pub since: Timestamp,
}

impl SessionRefusal {
    /// The session lapses by itself, so that waiting can help.
    pub fn kind(&self) -> Kind {
        Kind::Busy
    }
}

/// Two machines must never speak under one label: their claims would look like one host's.
pub fn session_open(
    existing: Option<&Session>,
    instance: Uuid,
    boot: &BootId,
) -> Result<SessionDecision, SessionRefusal> {
    match existing {
        None => Ok(SessionDecision::Open),
        Some(session) if session.instance == instance && session.boot == *boot => {
            Ok(SessionDecision::Renew)
        }
        Some(session) => Err(SessionRefusal { host: session.host.clone(), since: session.since }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_belongs_to_one_installation_and_boot() {
        let session = Session {
            host: "h1".parse().unwrap(),
            instance: Uuid::from_u128(1),
            boot: "b1".parse().unwrap(),
            since: Timestamp::UNIX_EPOCH,
            version: "0".into(),
        };
        let boot = |text: &str| text.parse::<BootId>().unwrap();
        assert_eq!(session_open(None, Uuid::from_u128(1), &boot("b1")), Ok(SessionDecision::Open));
        let open =
            |instance, b: &str| session_open(Some(&session), Uuid::from_u128(instance), &boot(b));
        assert_eq!(open(1, "b1"), Ok(SessionDecision::Renew));
        assert_eq!(open(2, "b1").unwrap_err().kind(), Kind::Busy);
        assert_eq!(open(1, "b2").unwrap_err().kind(), Kind::Busy);
    }
}
