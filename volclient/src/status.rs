//! Settings and state of the suite: `global_*`, `status_get`, `healthz`, `readyz`.

use hyper::Method;
use volapi::status::{Health, Status};
use volapi::{Global, routes};

use crate::call::Call;
use crate::client::Client;
use crate::error::ClientError;

impl Client {
    /// The settings of the suite.
    pub async fn global_get(&self) -> Result<Global, ClientError> {
        self.read(Call::get("global_get", "the settings", routes::GLOBAL)).await
    }

    /// Replaces the settings of the suite, and answers them.
    pub async fn global_upload(&self, global: &Global) -> Result<Global, ClientError> {
        let call = Call::new("global_upload", "the settings", Method::PUT, routes::GLOBAL);
        self.read(call.with_body(global)).await
    }

    /// The state of the volmaster that answers, and of what stands behind it.
    pub async fn status_get(&self) -> Result<Status, ClientError> {
        self.read(Call::get("status_get", "volmaster", routes::STATUS)).await
    }

    /// Whether a volmaster serves.
    pub async fn healthz(&self) -> Result<Health, ClientError> {
        self.read(Call::get("healthz", "volmaster", routes::HEALTHZ)).await
    }

    /// Whether the store and the images of a volmaster answer.
    pub async fn readyz(&self) -> Result<Health, ClientError> {
        self.read(Call::get("readyz", "volmaster", routes::READYZ)).await
    }
}
