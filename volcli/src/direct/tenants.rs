//! Tenants in etcd.

use jiff::Timestamp;
use volapi::tenants::Tenant;
use volcore::name::TenantName;
use volcore::policy::TenantPolicy;
use volstore::records::{Records, Versioned};
use volstore::store::list_all;

use crate::backend::Uploaded;

use super::{ATTEMPTS, Direct, DirectError, done};

fn not_found(tenant: &TenantName) -> DirectError {
    DirectError::NotFound { what: format!("tenant {tenant}") }
}

impl Direct {
    pub async fn tenant_list(&self) -> Result<Vec<Tenant>, DirectError> {
        let (entries, _) =
            list_all(&**self.records.store(), &self.records.keys().tenants()).await?;
        let read = |entry| Ok(Records::read_tenant(self.records.keys(), entry)?.into());
        entries.iter().map(read).collect()
    }

    pub async fn tenant_get(&self, tenant: &TenantName) -> Result<Tenant, DirectError> {
        let found = self.records.tenant(tenant).await?.ok_or_else(|| not_found(tenant))?;
        Ok(found.value.into())
    }

    pub async fn tenant_upload(
        &self,
        tenant: &TenantName,
        policy: TenantPolicy,
    ) -> Result<(Uploaded, Tenant), DirectError> {
        for _ in 0..ATTEMPTS {
            let found = self.records.tenant(tenant).await?;
            if let Some(found) = &found
                && found.value.policy == policy
            {
                return Ok((Uploaded::Unchanged, found.value.clone().into()));
            }
            // Numbers go on over a deletion, so that a volume's revision means one policy for ever.
            let last = self.records.tenant_last_revision(tenant).await?;
            let revision = last
                .checked_add(1)
                .ok_or_else(|| DirectError::NoRevision { tenant: tenant.to_string() })?;
            let next = volcore::policy::Tenant {
                name: tenant.clone(),
                revision: u64::from(revision),
                uploaded_at: Timestamp::now(),
                policy: policy.clone(),
            };
            let expect = Versioned::unchanged(found.as_ref());
            let changes = self.records.changes().put_tenant(&next, expect);
            if done(self.records.commit(changes).await?) {
                return Ok((Uploaded::Revision, next.into()));
            }
        }
        Err(DirectError::Contended { what: format!("tenant {tenant}") })
    }

    pub async fn tenant_delete(&self, tenant: &TenantName) -> Result<(), DirectError> {
        for _ in 0..ATTEMPTS {
            let found = self.records.tenant(tenant).await?.ok_or_else(|| not_found(tenant))?;
            let changes = self.records.changes().delete_tenant(tenant, found.at);
            if done(self.records.commit(changes).await?) {
                return Ok(());
            }
        }
        Err(DirectError::Contended { what: format!("tenant {tenant}") })
    }

    pub async fn tenant_revision_list(
        &self,
        tenant: &TenantName,
    ) -> Result<Vec<Tenant>, DirectError> {
        let uploads = self.records.tenant_revisions(tenant).await?;
        if uploads.is_empty() {
            return Err(not_found(tenant));
        }
        Ok(uploads.into_iter().map(Tenant::from).collect())
    }

    pub async fn tenant_revision_get(
        &self,
        tenant: &TenantName,
        revision: u64,
    ) -> Result<Tenant, DirectError> {
        let absent =
            || DirectError::NotFound { what: format!("revision {revision} of tenant {tenant}") };
        let number = u32::try_from(revision).map_err(|_| absent())?;
        let found = self.records.tenant_revision(tenant, number).await?.ok_or_else(absent)?;
        Ok(found.value.into())
    }
}
