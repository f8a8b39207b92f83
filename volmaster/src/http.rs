//! The REST edge: routes, extractors, and how answers and errors are written.
//!
//! A handler extracts, calls its namesake in [`crate::app`], and wraps. One file per resource; the
//! templates of the routes are `volapi`'s. Decides nothing, and knows neither store nor driver.

mod answer;
mod ask;
mod edge;
mod metrics;
mod pages;

mod doctor;
mod global;
mod hosts;
mod mounts;
mod snapshots;
mod status;
mod tenants;
mod trash;
mod volumes;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::{get, post, put};
use bytes::Bytes;
use volapi::routes;

use crate::app::App;

/// How long clients may take, and how long they wait.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For a request's head, also the first one on a connection.
    pub head: Duration,
    /// For a request's body.
    pub body: Duration,
    /// For the answer to a GET.
    pub read: Duration,
    /// For the answer to anything else. Docker waits 120 s.
    pub change: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        let seconds = Duration::from_secs;
        Limits { head: seconds(30), body: seconds(30), read: seconds(10), change: seconds(105) }
    }
}

/// What all handlers share.
pub(crate) struct Http {
    app: Arc<App>,
    limits: Limits,
    pages: pages::Pages,
    metrics: metrics::Metrics,
    openapi: Bytes,
}

pub(crate) type Shared = Arc<Http>;

/// The service for all routes of the table.
pub fn router(app: Arc<App>, limits: Limits) -> Router {
    let http = Arc::new(Http {
        app,
        limits,
        pages: pages::Pages::default(),
        metrics: metrics::Metrics::default(),
        openapi: status::openapi_document(),
    });
    Router::new()
        .route(routes::TENANTS, get(tenants::tenant_list))
        .route(
            routes::TENANT,
            get(tenants::tenant_get).put(tenants::tenant_upload).delete(tenants::tenant_delete),
        )
        .route(routes::TENANT_REVISIONS, get(tenants::tenant_revision_list))
        .route(routes::TENANT_REVISION, get(tenants::tenant_revision_get))
        .route(routes::VOLUMES, get(volumes::volume_list).merge(post(volumes::volume_create)))
        .route(
            routes::VOLUME,
            get(volumes::volume_get).patch(volumes::volume_set).delete(volumes::volume_remove),
        )
        .route(routes::VOLUME_ADOPT, post(volumes::volume_adopt))
        .route(routes::VOLUME_FLATTEN, post(volumes::volume_flatten))
        .route(
            routes::SNAPSHOTS,
            get(snapshots::snapshot_list).merge(post(snapshots::snapshot_create)),
        )
        .route(routes::SNAPSHOT, get(snapshots::snapshot_get).delete(snapshots::snapshot_remove))
        .route(routes::SNAPSHOT_ROLLBACK, post(snapshots::snapshot_rollback))
        .route(routes::SCHEDULES, get(snapshots::schedule_list))
        .route(routes::SCHEDULES_DUE, get(snapshots::schedule_due))
        .route(routes::TRASH, get(trash::trash_list))
        .route(routes::TRASHED, get(trash::trash_get).delete(trash::trash_purge))
        .route(routes::TRASH_RESTORE, post(trash::trash_restore))
        .route(routes::MOUNTS, get(mounts::mount_list))
        .route(
            routes::MOUNT,
            get(mounts::mount_get).put(mounts::mount_claim).delete(mounts::mount_release),
        )
        .route(routes::HOSTS, get(hosts::host_list))
        .route(routes::HOST, get(hosts::host_get).delete(hosts::host_forget))
        .route(routes::HOST_LIMITS, get(hosts::host_limit_list))
        .route(routes::HOST_ORDERS, get(hosts::host_order_list))
        .route(routes::HOST_ORDER, put(hosts::host_order_report))
        .route(routes::HOST_FENCE, post(hosts::host_fence))
        .route(routes::HOST_SESSION, put(hosts::host_session))
        .route(routes::GLOBAL, get(global::global_get).put(global::global_upload))
        .route(routes::DOCTOR, get(doctor::doctor_get).merge(post(doctor::doctor_fix)))
        .route(routes::STATUS, get(status::status_get))
        .route(routes::OPENAPI, get(status::openapi_get))
        .route(routes::HEALTHZ, get(status::healthz))
        .route(routes::READYZ, get(status::readyz))
        .route(routes::METRICS, get(status::metrics))
        .route("/v1", get(status::root))
        .fallback(edge::unknown_path)
        .method_not_allowed_fallback(edge::wrong_method)
        .layer(axum::middleware::from_fn_with_state(http.clone(), edge::edge))
        .with_state(http)
}
