//! Tenants on the wire.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use volcore::name::TenantName;
use volcore::policy::TenantPolicy;

/// A tenant with its newest policy, or one revision of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tenant {
    /// Who.
    #[schema(value_type = String, example = "tenant1")]
    pub name: TenantName,
    /// Counts the uploads, from 1.
    pub revision: u64,
    /// When it was uploaded.
    #[schema(value_type = String, format = DateTime)]
    pub uploaded_at: Timestamp,
    /// The document that was uploaded.
    #[schema(value_type = Object)]
    pub policy: TenantPolicy,
}

impl From<volcore::policy::Tenant> for Tenant {
    fn from(tenant: volcore::policy::Tenant) -> Self {
        let volcore::policy::Tenant { name, revision, uploaded_at, policy } = tenant;
        Tenant { name, revision, uploaded_at, policy }
    }
}
