//! Mount claims on the wire.

use std::collections::BTreeSet;

use jiff::Timestamp;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;
use volcore::claim::{Claim, ClaimAsk, HoldState, Holder, Reached};
use volcore::name::{BootId, HostName, MountId, VolumeId};
use volcore::takeover::check_client;

/// How far a holder has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum MountState {
    /// It may map and mount, and may have done so.
    Claimed,
    /// It has mounted.
    Mounted,
    /// It has lost the volume, and its clients are being cut off.
    Fencing,
}

impl From<HoldState> for MountState {
    fn from(state: HoldState) -> Self {
        match state {
            HoldState::Claimed => MountState::Claimed,
            HoldState::Mounted => MountState::Mounted,
            HoldState::Fencing(_) => MountState::Fencing,
        }
    }
}

/// How far a host says that it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ClaimState {
    /// It is about to map and mount.
    Claimed,
    /// It has mounted.
    Mounted,
}

impl From<ClaimState> for Reached {
    fn from(state: ClaimState) -> Self {
        match state {
            ClaimState::Claimed => Reached::Claimed,
            ClaimState::Mounted => Reached::Mounted,
        }
    }
}

/// A host that holds a volume.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct MountHolder {
    /// Which host.
    #[schema(value_type = String, example = "h1")]
    pub host: HostName,
    /// In which of its boots.
    #[schema(value_type = String)]
    pub boot_id: BootId,
    /// How far it has come.
    pub state: MountState,
    /// Docker's uses of it there.
    #[schema(value_type = Vec<String>)]
    pub mount_ids: BTreeSet<MountId>,
    /// The Ceph client addresses that can write, as far as they are known.
    pub clients: Vec<String>,
    /// Since when.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
}

impl From<Holder> for MountHolder {
    fn from(holder: Holder) -> Self {
        let Holder { host, boot, instance: _, state, mounts, clients, since } = holder;
        MountHolder { host, boot_id: boot, state: state.into(), mount_ids: mounts, clients, since }
    }
}

/// A claim: who holds a volume. The members of the first holder stand beside those of the claim;
/// `others` are there only with `sharing: read-only`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Mount {
    /// `tenant/volume`.
    #[schema(value_type = String, example = "tenant1/db")]
    pub volume: VolumeId,
    /// Grows with every change of holder.
    pub epoch: u64,
    /// The holder.
    #[serde(flatten)]
    pub holder: MountHolder,
    /// Further hosts that read it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub others: Vec<MountHolder>,
}

impl Mount {
    /// The claim as it is shown; `None` for one without any holder, which is never stored.
    pub fn from_claim(claim: Claim) -> Option<Self> {
        let Claim { volume, epoch, holders } = claim;
        let mut holders = holders.into_iter().map(MountHolder::from);
        let holder = holders.next()?;
        Some(Mount { volume, epoch, holder, others: holders.collect() })
    }

    /// Every holder.
    pub fn holders(&self) -> impl Iterator<Item = &MountHolder> {
        std::iter::once(&self.holder).chain(&self.others)
    }
}

/// The body of a claim or its renewal: the whole of what the host holds from now on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ClaimMount {
    /// Who asks.
    #[schema(value_type = String, example = "h1")]
    pub host: HostName,
    /// In which boot.
    #[schema(value_type = String)]
    pub boot_id: BootId,
    /// Under whose session; where it is given, that has to be live.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    pub instance_id: Option<Uuid>,
    /// The epoch under which the host holds the volume: refused (`precondition`) when it has lost it since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch: Option<u64>,
    /// How far it has come.
    #[serde(default = "claimed")]
    pub state: ClaimState,
    /// Docker's uses of it there.
    #[serde(default)]
    #[schema(value_type = Vec<String>)]
    pub mount_ids: BTreeSet<MountId>,
    /// The Ceph client addresses that can write: `ip:port/nonce`.
    #[serde(default, deserialize_with = "clients")]
    pub clients: Vec<String>,
}

/// What is not one client's address would fence others with it.
fn clients<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    let clients = Vec::<String>::deserialize(deserializer)?;
    clients.iter().try_for_each(|client| check_client(client)).map_err(D::Error::custom)?;
    Ok(clients)
}

fn claimed() -> ClaimState {
    ClaimState::Claimed
}

impl From<ClaimMount> for ClaimAsk {
    fn from(body: ClaimMount) -> Self {
        let ClaimMount { host, boot_id, instance_id, epoch, state, mount_ids, clients } = body;
        ClaimAsk {
            host,
            boot: boot_id,
            instance: instance_id,
            epoch,
            state: state.into(),
            mounts: mount_ids,
            clients,
        }
    }
}

/// The query of a release: by the holder, or by force.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseQuery {
    /// Who releases.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub host: Option<HostName>,
    /// In which boot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<BootId>,
    /// Clears the whole claim, whoever holds it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// By force, without cutting anybody off: whoever writes on goes on with it.
    #[serde(default, rename = "unsafe", skip_serializing_if = "std::ops::Not::not")]
    pub unfenced: bool,
}
