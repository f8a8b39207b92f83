//! `/v1/hosts`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use uuid::Uuid;
use volapi::hosts::{
    HeldLimits, Host, OpenSession, Order, Orders, OrdersQuery, ReportOrder, SessionGranted,
};
use volapi::list::Listing;
use volcore::name::HostName;
use volcore::volume::Volume;

use super::Shared;
use super::answer::{Failure, done, ok};
use super::ask::{Json, NoQuery, Of, Query};
use crate::app::hosts::{self, SessionAsk};
use crate::app::orders;

pub(super) async fn host_list(State(http): State<Shared>, _: NoQuery) -> Result<Response, Failure> {
    let sessions = hosts::host_list(&http.app).await?;
    Ok(ok(&Listing::whole(sessions.into_iter().map(Host::from).collect())))
}

pub(super) async fn host_get(
    State(http): State<Shared>,
    Of(host): Of<HostName>,
    _: NoQuery,
) -> Result<Response, Failure> {
    let session = hosts::host_get(&http.app, &host).await?;
    Ok(ok(&Host::from(session)))
}

pub(super) async fn host_limit_list(
    State(http): State<Shared>,
    Of(host): Of<HostName>,
    _: NoQuery,
) -> Result<Response, Failure> {
    let held = hosts::host_limit_list(&http.app, &host).await?;
    let one = |volume: Arc<Volume>| HeldLimits {
        volume: volume.id.clone(),
        uid: volume.uid,
        size: volume.spec.size.bytes(),
        rate_limit: (&volume.spec.rate_limits).into(),
    };
    Ok(ok(&Listing::whole(held.into_iter().map(one).collect())))
}

pub(super) async fn host_order_list(
    State(http): State<Shared>,
    Of(host): Of<HostName>,
    Query(query): Query<OrdersQuery>,
) -> Result<Response, Failure> {
    let OrdersQuery { wait, after } = query;
    // Well before the answer to a GET is overdue.
    let wait = Duration::from_secs(wait.unwrap_or(0)).min(http.limits.read / 2);
    let (orders, at) = orders::host_order_list(&http.app, &host, after, wait).await?;
    Ok(ok(&Orders { items: orders.iter().map(Order::from).collect(), at }))
}

pub(super) async fn host_order_report(
    State(http): State<Shared>,
    Of((host, id)): Of<(HostName, Uuid)>,
    _: NoQuery,
    Json(body): Json<ReportOrder>,
) -> Result<Response, Failure> {
    let app = http.app.clone();
    let work = async move { orders::host_order_report(&app, &host, id, body.into()).await };
    http.app.detached(work).await??;
    Ok(done())
}

pub(super) async fn host_session(
    State(http): State<Shared>,
    Of(host): Of<HostName>,
    _: NoQuery,
    Json(body): Json<OpenSession>,
) -> Result<Response, Failure> {
    let OpenSession { instance_id, boot_id, version } = body;
    let ask = SessionAsk { instance: instance_id, boot: boot_id, version };
    let app = http.app.clone();
    let work = async move { hosts::host_session(&app, &host, &ask).await };
    let (session, ttl) = http.app.detached(work).await??;
    Ok(ok(&SessionGranted { host: Host::from(session), ttl }))
}

pub(super) async fn host_forget(
    State(http): State<Shared>,
    Of(host): Of<HostName>,
    _: NoQuery,
) -> Result<Response, Failure> {
    let app = http.app.clone();
    let work = async move { hosts::host_forget(&app, &host).await };
    http.app.detached(work).await??;
    Ok(done())
}
