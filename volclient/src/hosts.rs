//! Hosts and their sessions: `host_*`.

use hyper::Method;
use volapi::hosts::{HeldLimits, Host, OpenSession, SessionGranted};
use volapi::list::ListQuery;
use volapi::{Listing, routes};
use volcore::name::HostName;

use crate::call::Call;
use crate::client::Client;
use crate::error::ClientError;

impl Client {
    /// Every host with a live session, by name.
    pub async fn host_list(&self) -> Result<Vec<Host>, ClientError> {
        self.pages("host_list", "hosts", routes::HOSTS, ListQuery::default()).await
    }

    /// A host.
    pub async fn host_get(&self, host: &HostName) -> Result<Host, ClientError> {
        self.read(Call::get("host_get", subject(host), routes::host(host))).await
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
