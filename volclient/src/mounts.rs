//! Mount claims: `mount_*`.

use hyper::Method;
use volapi::list::ListQuery;
use volapi::mounts::{ClaimMount, Mount, ReleaseQuery};
use volapi::routes;
use volcore::name::{TenantName, VolumeId};

use crate::call::{Call, Creation};
use crate::client::Client;
use crate::error::ClientError;
use crate::query::Path;

impl Client {
    /// Every claim, of one tenant's volumes or of all, by name.
    pub async fn mount_list(&self, tenant: Option<&TenantName>) -> Result<Vec<Mount>, ClientError> {
        let query = ListQuery { tenant: tenant.map(ToString::to_string), ..ListQuery::default() };
        self.pages("mount_list", "mounts", routes::MOUNTS, query).await
    }

    /// Who holds a volume. "Not found" when nobody does, or when there is no such volume.
    pub async fn mount_get(&self, id: &VolumeId) -> Result<Mount, ClientError> {
        self.read(Call::get("mount_get", subject(id), routes::mount(id))).await
    }

    /// Claims a volume for a host ([`Creation::Created`]), or renews the claim with what the host
    /// holds now ([`Creation::Unchanged`]).
    pub async fn mount_claim(
        &self,
        id: &VolumeId,
        body: &ClaimMount,
    ) -> Result<(Creation, Mount), ClientError> {
        let call = Call::new("mount_claim", subject(id), Method::PUT, routes::mount(id));
        self.send(call.with_body(body)).await?.created()
    }

    /// Releases a host's claim, or clears the whole claim by force. Absent is success.
    pub async fn mount_release(
        &self,
        id: &VolumeId,
        query: &ReleaseQuery,
    ) -> Result<(), ClientError> {
        let path = Path::new(routes::mount(id)).release(query).into_string();
        let call = Call::new("mount_release", subject(id), Method::DELETE, path);
        self.send_removal(call).await?;
        Ok(())
    }
}

fn subject(id: &VolumeId) -> String {
    format!("the mount of volume {id}")
}
