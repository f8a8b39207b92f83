//! Mount claims in etcd.

use volapi::mounts::Mount;
use volcore::claim::Claim;
use volcore::name::{TenantName, VolumeId};
use volstore::records::Records;
use volstore::store::list_all;

use super::{ATTEMPTS, Direct, DirectError, done};

fn not_found(id: &VolumeId) -> DirectError {
    DirectError::NotFound { what: format!("a mount of volume {id}") }
}

impl Direct {
    pub(super) async fn claims(
        &self,
        tenant: Option<&TenantName>,
    ) -> Result<Vec<Claim>, DirectError> {
        let keys = self.records.keys();
        let prefix = tenant.map_or_else(|| keys.mounts(), |tenant| keys.mounts_of(tenant));
        let (entries, _) = list_all(&**self.records.store(), &prefix).await?;
        let read = |entry| Ok(Records::read_claim(keys, entry)?);
        entries.iter().map(read).collect()
    }

    pub async fn mount_list(&self, tenant: Option<&TenantName>) -> Result<Vec<Mount>, DirectError> {
        Ok(self.claims(tenant).await?.into_iter().filter_map(Mount::from_claim).collect())
    }

    pub async fn mount_get(&self, id: &VolumeId) -> Result<Mount, DirectError> {
        let claim = self.records.claim(id).await?.ok_or_else(|| not_found(id))?;
        Mount::from_claim(claim.value).ok_or_else(|| not_found(id))
    }

    /// Clears the claim. Its epoch stays, so that the next holder's is higher.
    pub async fn mount_force_remove(&self, id: &VolumeId) -> Result<(), DirectError> {
        for _ in 0..ATTEMPTS {
            let claim = self.records.claim(id).await?.ok_or_else(|| not_found(id))?;
            let changes = self.records.changes().delete_claim(id, claim.at);
            if done(self.records.commit(changes).await?) {
                return Ok(());
            }
        }
        Err(DirectError::Contended { what: format!("the mount of volume {id}") })
    }
}
