//! What volplugin asks of volmaster.
//!
//! [`Master`] is the seam between the two: `volclient` behind it in life, a fake with
//! state and a fault plan behind it in tests.

use std::collections::BTreeMap;
use std::time::Duration;

use async_trait::async_trait;
use uuid::Uuid;
use volapi::hosts::{HeldLimits, OpenSession, Orders, OrdersQuery, ReportOrder, SessionGranted};
use volapi::mounts::{ClaimMount, Mount, ReleaseQuery};
use volapi::problem::chain;
use volapi::volumes::{CreateVolume, DisposalQuery, RemoveQuery, Volume, VolumeBrief};
use volclient::{Brief, BriefItems, Client, ClientError};
use volcore::Kind;
use volcore::name::{BootId, HostName, VolumeId};
use volcore::volume::Disposal;

/// Why volmaster did not do what was asked.
#[derive(Clone, Debug, thiserror::Error)]
pub enum MasterError {
    /// It said no.
    #[error("{detail}")]
    Refused {
        /// Which kind of no.
        kind: Kind,
        /// Its words.
        detail: String,
    },
    /// It did not answer in time, or not at all: what was asked may have been done.
    #[error("volmaster cannot be reached: {detail}")]
    Unreachable {
        /// Which, and why not.
        detail: String,
    },
}

impl MasterError {
    /// True only where volmaster itself said that the object does not exist.
    pub fn is_not_found(&self) -> bool {
        matches!(self, MasterError::Refused { kind: Kind::NotFound, .. })
    }

    /// True where this host has lost what it says that it holds.
    pub fn is_lost(&self) -> bool {
        matches!(self, MasterError::Refused { kind: Kind::Precondition, .. })
    }

    /// True where nothing is known: no answer, or volmaster in turn cannot reach what it needs.
    pub fn is_unknown(&self) -> bool {
        match self {
            MasterError::Unreachable { .. } => true,
            MasterError::Refused { kind, .. } => matches!(kind, Kind::Unavailable | Kind::Internal),
        }
    }
}

/// The brief list of all volumes, or that it has not changed.
#[derive(Clone, Debug)]
pub enum Briefs {
    /// As it was under the given tag.
    Unchanged,
    /// As it is now, under this tag.
    List {
        /// Given back with the next question.
        tag: Option<String>,
        /// In the order of their names.
        volumes: Vec<VolumeBrief>,
    },
}

/// One method for each question. All are idempotent, so that each may be asked again after
/// [`MasterError::Unreachable`]; `within` bounds the whole call.
#[async_trait]
pub trait Master: Send + Sync + 'static {
    /// A volume with the claim on it.
    async fn volume_get(&self, id: &VolumeId, within: Duration) -> Result<Volume, MasterError>;

    /// All volumes, unless they are as under `tag`.
    async fn volume_list(&self, tag: Option<&str>, within: Duration)
    -> Result<Briefs, MasterError>;

    /// Creates a volume, or finds it.
    async fn volume_create(
        &self,
        id: &VolumeId,
        options: BTreeMap<String, String>,
        within: Duration,
    ) -> Result<Volume, MasterError>;

    /// Removes a volume and its data.
    async fn volume_remove(
        &self,
        id: &VolumeId,
        disposal: Disposal,
        within: Duration,
    ) -> Result<(), MasterError>;

    /// Claims a volume, or says what is held of it now.
    async fn mount_claim(
        &self,
        id: &VolumeId,
        claim: ClaimMount,
        within: Duration,
    ) -> Result<Mount, MasterError>;

    /// Gives a claim back. Absent is success.
    async fn mount_release(
        &self,
        id: &VolumeId,
        host: &HostName,
        boot: &BootId,
        within: Duration,
    ) -> Result<(), MasterError>;

    /// All claims.
    async fn mount_list(&self, within: Duration) -> Result<Vec<Mount>, MasterError>;

    /// The limits of all that this host holds.
    async fn host_limit_list(
        &self,
        host: &HostName,
        within: Duration,
    ) -> Result<Vec<HeldLimits>, MasterError>;

    /// What this host is to do; waits for a change as `query` says.
    async fn host_order_list(
        &self,
        host: &HostName,
        query: OrdersQuery,
        within: Duration,
    ) -> Result<Orders, MasterError>;

    /// Says how far this host has come with an order.
    async fn host_order_report(
        &self,
        host: &HostName,
        id: Uuid,
        report: ReportOrder,
        within: Duration,
    ) -> Result<(), MasterError>;

    /// Opens or renews this host's session.
    async fn host_session(
        &self,
        host: &HostName,
        session: OpenSession,
        within: Duration,
    ) -> Result<SessionGranted, MasterError>;
}

impl From<ClientError> for MasterError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Problem { problem, .. } => {
                MasterError::Refused { kind: problem.kind, detail: problem.detail }
            }
            ClientError::Unreachable { .. }
            | ClientError::Deadline { .. }
            | ClientError::Garbled { .. } => MasterError::Unreachable { detail: chain(&error) },
        }
    }
}

#[async_trait]
impl Master for Client {
    async fn volume_get(&self, id: &VolumeId, within: Duration) -> Result<Volume, MasterError> {
        Ok(self.within(within).volume_get(id).await?)
    }

    async fn volume_list(
        &self,
        tag: Option<&str>,
        within: Duration,
    ) -> Result<Briefs, MasterError> {
        let Brief { etag, items } = self.within(within).volume_list_brief(tag).await?;
        Ok(match items {
            BriefItems::NotModified => Briefs::Unchanged,
            BriefItems::Items(volumes) => Briefs::List { tag: etag, volumes },
        })
    }

    async fn volume_create(
        &self,
        id: &VolumeId,
        options: BTreeMap<String, String>,
        within: Duration,
    ) -> Result<Volume, MasterError> {
        let body = CreateVolume { tenant: id.tenant.clone(), name: id.volume.clone(), options };
        let (_, volume) = self.within(within).volume_create(&body).await?;
        Ok(volume)
    }

    async fn volume_remove(
        &self,
        id: &VolumeId,
        disposal: Disposal,
        within: Duration,
    ) -> Result<(), MasterError> {
        let disposal = match disposal {
            Disposal::Delete => DisposalQuery::Delete,
            Disposal::Trash => DisposalQuery::Trash,
        };
        let query = RemoveQuery { metadata_only: false, disposal: Some(disposal) };
        self.within(within).volume_remove(id, query).await?;
        Ok(())
    }

    async fn mount_claim(
        &self,
        id: &VolumeId,
        claim: ClaimMount,
        within: Duration,
    ) -> Result<Mount, MasterError> {
        let (_, mount) = self.within(within).mount_claim(id, &claim).await?;
        Ok(mount)
    }

    async fn mount_release(
        &self,
        id: &VolumeId,
        host: &HostName,
        boot: &BootId,
        within: Duration,
    ) -> Result<(), MasterError> {
        let (host, boot_id) = (Some(host.clone()), Some(boot.clone()));
        let query = ReleaseQuery { host, boot_id, ..ReleaseQuery::default() };
        Ok(self.within(within).mount_release(id, &query).await?)
    }

    async fn mount_list(&self, within: Duration) -> Result<Vec<Mount>, MasterError> {
        Ok(self.within(within).mount_list(None).await?)
    }

    async fn host_limit_list(
        &self,
        host: &HostName,
        within: Duration,
    ) -> Result<Vec<HeldLimits>, MasterError> {
        Ok(self.within(within).host_limit_list(host).await?)
    }

    async fn host_order_list(
        &self,
        host: &HostName,
        query: OrdersQuery,
        within: Duration,
    ) -> Result<Orders, MasterError> {
        Ok(self.within(within).host_order_list(host, query).await?)
    }

    async fn host_order_report(
        &self,
        host: &HostName,
        id: Uuid,
        report: ReportOrder,
        within: Duration,
    ) -> Result<(), MasterError> {
        Ok(self.within(within).host_order_report(host, id, &report).await?)
    }

    async fn host_session(
        &self,
        host: &HostName,
        session: OpenSession,
        within: Duration,
    ) -> Result<SessionGranted, MasterError> {
        Ok(self.within(within).host_session(host, &session).await?)
    }
}
