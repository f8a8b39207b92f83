//! Hosts and their sessions: `host_*`.

use hyper::Method;
use uuid::Uuid;
use volapi::hosts::{
    FenceHost, HeldLimits, Host, HostFenced, OpenSession, Orders, OrdersQuery, ReportOrder,
    SessionGranted,
};
use volapi::list::ListQuery;
use volapi::{Listing, routes};
use volcore::name::HostName;

use crate::call::Call;
use crate::client::Client;
use crate::error::ClientError;
use crate::query::Path;

impl Client {
    /// Every host with a live session, and every one that holds or has lost volumes, by name.
    pub async fn host_list(&self) -> Result<Vec<Host>, ClientError> {
        self.pages("host_list", "hosts", routes::HOSTS, ListQuery::default()).await
    }

    /// A host.
    pub async fn host_get(&self, host: &HostName) -> Result<Host, ClientError> {
        self.read(Call::get("host_get", subject(host), routes::host(host))).await
    }

    /// Takes all volumes from a host, and cuts it off from them. Idempotent: what it has lost already it does not
    /// lose again.
    pub async fn host_fence(
        &self,
        host: &HostName,
        body: FenceHost,
    ) -> Result<HostFenced, ClientError> {
        let call = Call::new("host_fence", subject(host), Method::POST, routes::host_fence(host));
        self.read(call.with_body(&body)).await
    }

    /// Ends a host's session; its claims stay.
    pub async fn host_forget(&self, host: &HostName) -> Result<(), ClientError> {
        let call = Call::new("host_forget", subject(host), Method::DELETE, routes::host(host));
        self.send_removal(call).await?;
        Ok(())
    }

    /// The limits of what a host holds.
    pub async fn host_limit_list(&self, host: &HostName) -> Result<Vec<HeldLimits>, ClientError> {
        let subject = format!("the limits of {}", subject(host));
        let call = Call::get("host_limit_list", subject, routes::host_limits(host));
        Ok(self.read::<Listing<HeldLimits>>(call).await?.items)
    }

    /// What a host is to do; waits for a change as `query` says, within the limit of the call.
    pub async fn host_order_list(
        &self,
        host: &HostName,
        query: OrdersQuery,
    ) -> Result<Orders, ClientError> {
        let subject = format!("the orders of {}", subject(host));
        let path = Path::new(routes::host_orders(host)).orders(query).into_string();
        self.read(Call::get("host_order_list", subject, path)).await
    }

    /// Says how far a host has come with an order.
    pub async fn host_order_report(
        &self,
        host: &HostName,
        id: Uuid,
        report: &ReportOrder,
    ) -> Result<(), ClientError> {
        let subject = format!("order {id} of {}", subject(host));
        let call =
            Call::new("host_order_report", subject, Method::PUT, routes::host_order(host, id));
        self.send(call.with_body(report)).await?;
        Ok(())
    }

    /// Opens a host's session, or renews it.
    pub async fn host_session(
        &self,
        host: &HostName,
        body: &OpenSession,
    ) -> Result<SessionGranted, ClientError> {
        let subject = format!("the session of {}", subject(host));
        let call = Call::new("host_session", subject, Method::PUT, routes::host_session(host));
        self.read(call.with_body(body)).await
    }
}

fn subject(host: &HostName) -> String {
    format!("host {host}")
}
