//! `/v1/tenants`.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::Response;
use volapi::list::{ListQuery, Listing};
use volapi::tenants::Tenant;
use volcore::name::TenantName;
use volcore::policy::TenantPolicy;

use super::Shared;
use super::answer::{Failure, done, json, ok};
use super::ask::{Json, NoQuery, Of, Query};
use super::pages::PageKey;
use crate::app::tenants::{self, Uploaded};
use crate::app::{ListAsk, ListError, Slice};

pub(super) async fn tenant_list(
    State(http): State<Shared>,
    Query(query): Query<ListQuery>,
    headers: HeaderMap,
) -> Result<Response, Failure> {
    let ask = ListAsk::read(&query)?;
    if ask.tenant.is_some() {
        return Err(ListError::NoSuchFilter.into());
    }
    tenants::tenant_sync(&http.app).await?;
    let generations = [tenants::tenant_generation(&http.app), 0];
    let key = PageKey { operation: "tenant_list", query, generations };
    Ok(http.pages.answer(key, &headers, || {
        let Slice { records, more } = tenants::tenant_list(&http.app, &ask);
        let next = records.last().filter(|_| more).map(|last| last.name.to_string());
        let one = |tenant: &volcore::policy::Tenant| Tenant::from(tenant.clone());
        Listing { items: records.iter().map(|tenant| one(tenant)).collect(), next }
    }))
}

pub(super) async fn tenant_get(
    State(http): State<Shared>,
    Of(name): Of<TenantName>,
    _: NoQuery,
) -> Result<Response, Failure> {
    let tenant = tenants::tenant_get(&http.app, &name).await?;
    Ok(ok(&Tenant::from(tenant)))
}

pub(super) async fn tenant_upload(
    State(http): State<Shared>,
    Of(name): Of<TenantName>,
    _: NoQuery,
    Json(policy): Json<TenantPolicy>,
) -> Result<Response, Failure> {
    let app = http.app.clone();
    let work = async move { tenants::tenant_upload(&app, &name, policy).await };
    let (status, tenant) = match http.app.detached(work).await?? {
        Uploaded::Created(tenant) => (StatusCode::CREATED, tenant),
        Uploaded::Updated(tenant) | Uploaded::Unchanged(tenant) => (StatusCode::OK, tenant),
    };
    Ok(json(status, &Tenant::from(tenant)))
}

pub(super) async fn tenant_delete(
    State(http): State<Shared>,
    Of(name): Of<TenantName>,
    _: NoQuery,
) -> Result<Response, Failure> {
    let app = http.app.clone();
    let work = async move { tenants::tenant_delete(&app, &name).await };
    http.app.detached(work).await??;
    Ok(done())
}

pub(super) async fn tenant_revision_list(
    State(http): State<Shared>,
    Of(name): Of<TenantName>,
    _: NoQuery,
) -> Result<Response, Failure> {
    let revisions = tenants::tenant_revision_list(&http.app, &name).await?;
    Ok(ok(&Listing::whole(revisions.into_iter().map(Tenant::from).collect())))
}

pub(super) async fn tenant_revision_get(
    State(http): State<Shared>,
    Of((name, revision)): Of<(TenantName, u32)>,
    _: NoQuery,
) -> Result<Response, Failure> {
    let tenant = tenants::tenant_revision_get(&http.app, &name, revision).await?;
    Ok(ok(&Tenant::from(tenant)))
}
