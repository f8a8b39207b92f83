//! Tenants: their policies and the history of those.

use volcore::Kind;
use volcore::name::TenantName;
use volcore::policy::{PolicyError, Tenant, TenantPolicy};
use volstore::records::Versioned;
use volstore::store::{Commit, StoreError};

use super::{App, Failing, ListAsk, ListError, Slice, catch_up, lists, store_kind};

/// How often an operation begins again because somebody else was faster.
const ROUNDS: usize = 10;

/// Why a tenant was not changed or shown.
#[derive(Debug, thiserror::Error)]
pub enum TenantError {
    /// There is none.
    #[error("tenant {tenant} does not exist")]
    NotFound {
        /// Which.
        tenant: TenantName,
    },
    /// It never was uploaded, or not so often.
    #[error("tenant {tenant} has no revision {revision}")]
    NoRevision {
        /// Which.
        tenant: TenantName,
        /// Which of its uploads.
        revision: u32,
    },
    /// The document does not hold together.
    #[error("the policy of tenant {tenant} is not valid")]
    Policy {
        /// Which.
        tenant: TenantName,
        /// Why not.
        #[source]
        source: PolicyError,
    },
    /// Others are faster, time and again.
    #[error("tenant {tenant} is being changed by others; try again")]
    Contended {
        /// Which.
        tenant: TenantName,
    },
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Failing for TenantError {
    fn kind(&self) -> Kind {
        match self {
            TenantError::NotFound { .. } | TenantError::NoRevision { .. } => Kind::NotFound,
            TenantError::Policy { .. } => Kind::Invalid,
            TenantError::Contended { .. } => Kind::Busy,
            TenantError::Store(error) => store_kind(error),
        }
    }
}

/// What an upload came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Uploaded {
    /// The tenant is new.
    Created(Tenant),
    /// It has a new policy.
    Updated(Tenant),
    /// It had this policy already.
    Unchanged(Tenant),
}

/// Shows a tenant with its newest policy.
pub async fn tenant_get(app: &App, name: &TenantName) -> Result<Tenant, TenantError> {
    let found = app.records.tenant(name).await?;
    found.map(|found| found.value).ok_or_else(|| TenantError::NotFound { tenant: name.clone() })
}

/// Makes sure that lists of tenants show what was acknowledged before.
pub async fn tenant_sync(app: &App) -> Result<(), ListError> {
    catch_up(app, &app.mirrors.tenants, None::<&volstore::cache::Mirror<Tenant>>).await
}

/// Changes whenever a list of tenants does.
pub fn tenant_generation(app: &App) -> u64 {
    app.mirrors.tenants.read(|view| view.generation().0)
}

/// Lists the tenants, after [`tenant_sync`].
pub fn tenant_list(app: &App, ask: &ListAsk<TenantName>) -> Slice<Tenant> {
    let keys = app.records.keys();
    let after = ask.after.as_ref().map(|name| keys.tenant(name));
    lists::slice(&app.mirrors.tenants, &keys.tenants(), after.as_ref(), ask.limit)
}

/// Uploads a policy as the tenant's next revision, unless it is the one that stands.
pub async fn tenant_upload(
    app: &App,
    name: &TenantName,
    policy: TenantPolicy,
) -> Result<Uploaded, TenantError> {
    policy.check().map_err(|source| TenantError::Policy { tenant: name.clone(), source })?;
    for _ in 0..ROUNDS {
        let existing = app.records.tenant(name).await?;
        let last = match &existing {
            Some(found) if found.value.policy == policy => {
                return Ok(Uploaded::Unchanged(found.value.clone()));
            }
            Some(found) => found.value.revision,
            // Its uploads survive a tenant, and so does their count.
            None => u64::from(app.records.tenant_last_revision(name).await?),
        };
        let tenant = Tenant {
            name: name.clone(),
            revision: last + 1,
            uploaded_at: app.now(),
            policy: policy.clone(),
        };
        let expect = Versioned::unchanged(existing.as_ref());
        let changes = app.records.changes().put_tenant(&tenant, expect);
        if let Commit::Done(_) = app.records.commit(changes).await? {
            return Ok(match existing {
                None => Uploaded::Created(tenant),
                Some(_) => Uploaded::Updated(tenant),
            });
        }
    }
    Err(TenantError::Contended { tenant: name.clone() })
}

/// Removes a tenant; its volumes and its uploads stay.
pub async fn tenant_delete(app: &App, name: &TenantName) -> Result<(), TenantError> {
    for _ in 0..ROUNDS {
        let found = app.records.tenant(name).await?;
        let found = found.ok_or_else(|| TenantError::NotFound { tenant: name.clone() })?;
        let changes = app.records.changes().delete_tenant(name, found.at);
        if let Commit::Done(_) = app.records.commit(changes).await? {
            return Ok(());
        }
    }
    Err(TenantError::Contended { tenant: name.clone() })
}

/// Lists the uploads of a tenant, also of one that is gone.
pub async fn tenant_revision_list(
    app: &App,
    name: &TenantName,
) -> Result<Vec<Tenant>, TenantError> {
    let revisions = app.records.tenant_revisions(name).await?;
    if revisions.is_empty() {
        return Err(TenantError::NotFound { tenant: name.clone() });
    }
    Ok(revisions)
}

/// Shows one upload of a tenant.
pub async fn tenant_revision_get(
    app: &App,
    name: &TenantName,
    revision: u32,
) -> Result<Tenant, TenantError> {
    let found = app.records.tenant_revision(name, revision).await?;
    let none = || TenantError::NoRevision { tenant: name.clone(), revision };
    found.map(|found| found.value).ok_or_else(none)
}
