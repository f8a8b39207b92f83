//! Hosts and their sessions on the wire.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;
use volcore::duration::SessionTtl;
use volcore::host::Session;
use volcore::limit::RateLimitOptions;
use volcore::name::{BootId, HostName, VolumeId};

/// A host with a live session.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Host {
    /// Its label.
    #[schema(value_type = String, example = "h1")]
    pub host: HostName,
    /// The installation on it.
    #[schema(value_type = String)]
    pub instance_id: Uuid,
    /// Its present boot.
    #[schema(value_type = String)]
    pub boot_id: BootId,
    /// Since when the session stands.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// The version of volplugin there.
    pub version: String,
}

impl From<Session> for Host {
    fn from(session: Session) -> Self {
        let Session { host, instance, boot, since, version } = session;
        Host { host, instance_id: instance, boot_id: boot, since, version }
    }
}

/// The size and the limits of a volume that a host holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct HeldLimits {
    /// `tenant/volume`.
    #[schema(value_type = String, example = "tenant1/db")]
    pub volume: VolumeId,
    /// Which one of that name.
    #[schema(value_type = String)]
    pub uid: Uuid,
    /// Its size in bytes: what the file system on it is to grow to.
    #[serde(default)]
    pub size: u64,
    /// Its limits; the members are those of a policy's `rate-limit`.
    #[serde(rename = "rate-limit", default)]
    #[schema(value_type = Object)]
    pub rate_limit: RateLimitOptions,
}

/// The body of a session request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenSession {
    /// The installation that speaks.
    #[schema(value_type = String)]
    pub instance_id: Uuid,
    /// The machine's present boot.
    #[schema(value_type = String)]
    pub boot_id: BootId,
    /// The version of volplugin.
    pub version: String,
}

/// The answer to a session request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct SessionGranted {
    /// The host as it stands now.
    #[serde(flatten)]
    pub host: Host,
    /// The session ends when it is not renewed within this time.
    #[schema(value_type = String, example = "10s")]
    pub ttl: SessionTtl,
}
