//! Tenants: `tenant_*`.

use hyper::Method;
use volapi::list::ListQuery;
use volapi::tenants::Tenant;
use volapi::{Listing, routes};
use volcore::name::TenantName;
use volcore::policy::TenantPolicy;

use crate::call::{Call, Creation};
use crate::client::Client;
use crate::error::ClientError;
use crate::query::Path;

impl Client {
    /// Every tenant, by name.
    pub async fn tenant_list(&self) -> Result<Vec<Tenant>, ClientError> {
        self.pages("tenant_list", "tenants", routes::TENANTS, ListQuery::default()).await
    }

    /// A tenant with its newest policy.
    pub async fn tenant_get(&self, tenant: &TenantName) -> Result<Tenant, ClientError> {
        self.read(Call::get("tenant_get", subject(tenant), routes::tenant(tenant))).await
    }

    /// Uploads a policy. [`Creation::Created`]: the tenant is new. Whether an existing tenant got
    /// another policy shows in its revision.
    pub async fn tenant_upload(
        &self,
        tenant: &TenantName,
        policy: &TenantPolicy,
    ) -> Result<(Creation, Tenant), ClientError> {
        let call = Call::new("tenant_upload", subject(tenant), Method::PUT, routes::tenant(tenant));
        self.send(call.with_body(policy)).await?.created()
    }

    /// Removes a tenant; its volumes and the uploads that were made stay.
    pub async fn tenant_delete(&self, tenant: &TenantName) -> Result<(), ClientError> {
        let call =
            Call::new("tenant_delete", subject(tenant), Method::DELETE, routes::tenant(tenant));
        self.send_removal(call).await?;
        Ok(())
    }

    /// Every upload of a tenant, the oldest first.
    pub async fn tenant_revision_list(
        &self,
        tenant: &TenantName,
    ) -> Result<Vec<Tenant>, ClientError> {
        let path = routes::tenant_revisions(tenant);
        let call = Call::get("tenant_revision_list", subject(tenant), path);
        Ok(self.read::<Listing<Tenant>>(call).await?.items)
    }

    /// One upload of a tenant.
    pub async fn tenant_revision_get(
        &self,
        tenant: &TenantName,
        revision: u64,
    ) -> Result<Tenant, ClientError> {
        let subject = format!("revision {revision} of {}", subject(tenant));
        let path = routes::tenant_revision(tenant, revision);
        self.read(Call::get("tenant_revision_get", subject, path)).await
    }

    /// Reads a list page by page.
    pub(crate) async fn pages<T: serde::de::DeserializeOwned>(
        &self,
        operation: &'static str,
        subject: &str,
        path: &str,
        mut query: ListQuery,
    ) -> Result<Vec<T>, ClientError> {
        let mut items = Vec::new();
        loop {
            let path = Path::new(path).list(&query).into_string();
            let page: Listing<T> = self.read(Call::get(operation, subject, path)).await?;
            items.extend(page.items);
            match page.next {
                Some(next) => query.next = Some(next),
                None => return Ok(items),
            }
        }
    }
}

fn subject(tenant: &TenantName) -> String {
    format!("tenant {tenant}")
}
