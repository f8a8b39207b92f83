//! The trash: `trash_*`.

use hyper::Method;
use volapi::trash::{RestoreTrash, Trashed};
use volapi::volumes::Volume;
use volapi::{Listing, routes};

use crate::call::Call;
use crate::client::Client;
use crate::error::ClientError;

impl Client {
    /// The removed volumes whose images are still there.
    pub async fn trash_list(&self) -> Result<Vec<Trashed>, ClientError> {
        let call = Call::get("trash_list", "the trash", routes::TRASH);
        Ok(self.read::<Listing<Trashed>>(call).await?.items)
    }

    /// A removed volume. `id` is one that [`trash_list`](Self::trash_list) has.
    pub async fn trash_get(&self, id: &str) -> Result<Trashed, ClientError> {
        self.read(Call::get("trash_get", subject(id), routes::trashed(id))).await
    }

    /// Frees the space of a removed volume, in the background.
    pub async fn trash_purge(&self, id: &str) -> Result<(), ClientError> {
        let call = Call::new("trash_purge", subject(id), Method::DELETE, routes::trashed(id));
        self.send_removal(call).await?;
        Ok(())
    }

    /// Makes a removed volume a volume again.
    pub async fn trash_restore(
        &self,
        id: &str,
        body: &RestoreTrash,
    ) -> Result<Volume, ClientError> {
        let call = Call::new("trash_restore", subject(id), Method::POST, routes::trash_restore(id));
        self.read(call.with_body(body)).await
    }
}

fn subject(id: &str) -> String {
    format!("{id} in the trash")
}
