//! `/v1/hosts`.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::Response;
use uuid::Uuid;
use volapi::hosts::{
    FenceHost, HeldLimits, Host, HostFence, HostFenced, HostSession, HostState, OpenSession, Order,
    Orders, OrdersQuery, PendingFence, ReportOrder, SessionGranted,
};
use volapi::list::Listing;
use volcore::name::HostName;
use volcore::volume::Volume;

use super::Shared;
use super::answer::{Failure, done, ok};
use super::ask::{Json, NoQuery, Of, Query};
use crate::app::hosts::{self, Fenced, Known, SessionAsk, WhileLive};
use crate::app::orders;

pub(super) async fn host_list(State(http): State<Shared>, _: NoQuery) -> Result<Response, Failure> {
    let known = hosts::host_list(&http.app).await?;
    Ok(ok(&Listing::whole(known.into_iter().map(shown).collect())))
}

pub(super) async fn host_get(
    State(http): State<Shared>,
    Of(host): Of<HostName>,
    _: NoQuery,
) -> Result<Response, Failure> {
    Ok(ok(&shown(hosts::host_get(&http.app, &host).await?)))
}

fn shown(known: Known) -> Host {
    let Known { host, session, volumes, fences } = known;
    let state = if session.is_some() { HostState::Live } else { HostState::Silent };
    let fences = fences.into_iter().map(HostFence::from).collect();
    Host { host, state, session: session.map(HostSession::from), volumes, fences }
}

pub(super) async fn host_fence(
    State(http): State<Shared>,
    Of(host): Of<HostName>,
    _: NoQuery,
    Json(body): Json<FenceHost>,
) -> Result<Response, Failure> {
    let live = if body.force { WhileLive::Fence } else { WhileLive::Refuse };
    let (app, label) = (http.app.clone(), host.clone());
    let work = async move { hosts::host_fence(&app, &label, live).await };
    let Fenced { fenced, pending } = http.app.detached(work).await??;
    let pending = pending
        .into_iter()
        .map(|(volume, error)| PendingFence { volume, reason: volapi::problem::chain(&error) });
    let fenced = fenced.into_iter().map(HostFence::from).collect();
    Ok(ok(&HostFenced { host, fenced, pending: pending.collect() }))
}

pub(super) async fn host_limit_list(
    State(http): State<Shared>,
    Of(host): Of<HostName>,
    _: NoQuery,
) -> Result<Response, Failure> {
    let held = hosts::host_limit_list(&http.app, &host).await?;
    let one = |(volume, epoch): (Arc<Volume>, u64)| HeldLimits {
        volume: volume.id.clone(),
        uid: volume.uid,
        epoch,
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
    let host = session.host.clone();
    Ok(ok(&SessionGranted { host, session: HostSession::from(session), ttl }))
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
