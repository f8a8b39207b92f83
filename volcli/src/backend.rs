//! Where the metadata is reached: through volmaster, or straight in etcd for disaster recovery.
//!
//! What both can do has one method here. What only volmaster can do is asked of its client,
//! which [`Backend::master`] gives.

use volapi::mounts::{Mount, ReleaseQuery};
use volapi::tenants::Tenant;
use volapi::volumes::{RemoveQuery, Removed, Volume, VolumeBrief};
use volclient::{BriefItems, Client, ClientError, Options};
use volcore::name::{TenantName, VolumeId};
use volcore::policy::TenantPolicy;

use crate::direct::Direct;
use crate::failure::Failure;
use crate::plan::Holders;
use crate::plan::{Reach, UsageError};

/// Where the metadata is.
pub enum Backend {
    /// Behind volmaster.
    Master(Client),
    /// In etcd.
    Etcd(Direct),
}

/// What an upload came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Uploaded {
    /// The tenant has a new revision.
    Revision,
    /// It had this policy already.
    Unchanged,
}

/// The answer has the same status for a new revision and for an old one, so that the revision
/// before has to be known. An upload of somebody else's in between counts as ours.
async fn upload(
    client: &Client,
    tenant: &TenantName,
    policy: &TenantPolicy,
) -> Result<(Uploaded, Tenant), ClientError> {
    let before = match client.tenant_get(tenant).await {
        Ok(before) => Some(before.revision),
        Err(error) if error.is_not_found() => None,
        Err(error) => return Err(error),
    };
    let (_, now) = client.tenant_upload(tenant, policy).await?;
    let uploaded =
        if before == Some(now.revision) { Uploaded::Unchanged } else { Uploaded::Revision };
    Ok((uploaded, now))
}

impl Backend {
    /// Gets ready to reach it. Asks nobody yet.
    pub async fn new(reach: Reach) -> Result<Self, Failure> {
        match reach {
            Reach::Masters { masters, timeout } => {
                let options = Options {
                    limit: timeout,
                    user_agent: concat!("volcli/", env!("CARGO_PKG_VERSION")).to_owned(),
                    ..Options::default()
                };
                Ok(Backend::Master(Client::new(masters, options)?))
            }
            Reach::Etcd { endpoints, keys, timeout } => {
                Ok(Backend::Etcd(Direct::new(endpoints, keys, timeout).await?))
            }
        }
    }

    /// The client of volmaster. The plan has seen to it that there is one where it is needed.
    pub fn master(&self) -> Result<&Client, Failure> {
        match self {
            Backend::Master(client) => Ok(client),
            Backend::Etcd(_) => Err(UsageError::NotOnEtcd.into()),
        }
    }

    pub async fn tenant_list(&self) -> Result<Vec<Tenant>, Failure> {
        match self {
            Backend::Master(client) => Ok(client.tenant_list().await?),
            Backend::Etcd(direct) => Ok(direct.tenant_list().await?),
        }
    }

    pub async fn tenant_get(&self, tenant: &TenantName) -> Result<Tenant, Failure> {
        match self {
            Backend::Master(client) => Ok(client.tenant_get(tenant).await?),
            Backend::Etcd(direct) => Ok(direct.tenant_get(tenant).await?),
        }
    }

    pub async fn tenant_upload(
        &self,
        tenant: &TenantName,
        policy: TenantPolicy,
    ) -> Result<(Uploaded, Tenant), Failure> {
        match self {
            Backend::Master(client) => Ok(upload(client, tenant, &policy).await?),
            Backend::Etcd(direct) => Ok(direct.tenant_upload(tenant, policy).await?),
        }
    }

    pub async fn tenant_delete(&self, tenant: &TenantName) -> Result<(), Failure> {
        match self {
            Backend::Master(client) => Ok(client.tenant_delete(tenant).await?),
            Backend::Etcd(direct) => Ok(direct.tenant_delete(tenant).await?),
        }
    }

    pub async fn tenant_revision_list(&self, tenant: &TenantName) -> Result<Vec<Tenant>, Failure> {
        match self {
            Backend::Master(client) => Ok(client.tenant_revision_list(tenant).await?),
            Backend::Etcd(direct) => Ok(direct.tenant_revision_list(tenant).await?),
        }
    }

    pub async fn tenant_revision_get(
        &self,
        tenant: &TenantName,
        revision: u64,
    ) -> Result<Tenant, Failure> {
        match self {
            Backend::Master(client) => Ok(client.tenant_revision_get(tenant, revision).await?),
            Backend::Etcd(direct) => Ok(direct.tenant_revision_get(tenant, revision).await?),
        }
    }

    pub async fn volume_get(&self, id: &VolumeId) -> Result<Volume, Failure> {
        match self {
            Backend::Master(client) => Ok(client.volume_get(id).await?),
            Backend::Etcd(direct) => Ok(direct.volume_get(id).await?),
        }
    }

    pub async fn volume_list(&self, tenant: Option<&TenantName>) -> Result<Vec<Volume>, Failure> {
        match self {
            Backend::Master(client) => Ok(client.volume_list(tenant).await?),
            Backend::Etcd(direct) => Ok(direct.volume_list(tenant).await?),
        }
    }

    /// Names and states only: 10,000 volumes come in milliseconds.
    pub async fn volume_list_brief(
        &self,
        tenant: Option<&TenantName>,
    ) -> Result<Vec<VolumeBrief>, Failure> {
        let mut items = match self {
            Backend::Master(client) => match client.volume_list_brief(None).await?.items {
                BriefItems::Items(items) => items,
                BriefItems::NotModified => Vec::new(),
            },
            Backend::Etcd(direct) => direct.volume_list_brief(tenant).await?,
        };
        items.retain(|item| tenant.is_none_or(|tenant| item.volume.tenant == *tenant));
        Ok(items)
    }

    pub async fn volume_force_remove(&self, id: &VolumeId) -> Result<Removed, Failure> {
        match self {
            Backend::Master(client) => {
                let query = RemoveQuery { metadata_only: true, disposal: None };
                Ok(client.volume_remove(id, query).await?)
            }
            Backend::Etcd(direct) => Ok(direct.volume_force_remove(id).await?),
        }
    }

    pub async fn mount_list(&self, tenant: Option<&TenantName>) -> Result<Vec<Mount>, Failure> {
        match self {
            Backend::Master(client) => Ok(client.mount_list(tenant).await?),
            Backend::Etcd(direct) => Ok(direct.mount_list(tenant).await?),
        }
    }

    pub async fn mount_get(&self, id: &VolumeId) -> Result<Mount, Failure> {
        match self {
            Backend::Master(client) => Ok(client.mount_get(id).await?),
            Backend::Etcd(direct) => Ok(direct.mount_get(id).await?),
        }
    }

    /// Whether a holder whose claim is cleared by force is fenced from the image first.
    pub fn fences(&self) -> bool {
        matches!(self, Backend::Master(_))
    }

    /// Clears the claim on a volume, whoever holds it.
    pub async fn mount_force_remove(&self, id: &VolumeId, holders: Holders) -> Result<(), Failure> {
        match self {
            Backend::Master(client) => {
                let unfenced = holders == Holders::Leave;
                let query = ReleaseQuery { force: true, unfenced, ..ReleaseQuery::default() };
                Ok(client.mount_release(id, &query).await?)
            }
            Backend::Etcd(direct) => Ok(direct.mount_force_remove(id).await?),
        }
    }
}
