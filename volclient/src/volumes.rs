//! Volumes: `volume_*`.

use hyper::{Method, StatusCode};
use volapi::list::{LARGEST_PAGE, ListQuery, View};
use volapi::volumes::{
    AdoptVolume, CreateVolume, RemoveQuery, Removed, SetVolume, Volume, VolumeBrief,
};
use volapi::{Listing, routes};
use volcore::name::{TenantName, VolumeId};

use crate::call::{Call, Creation};
use crate::client::Client;
use crate::error::ClientError;
use crate::query::Path;

/// How many volumes in full are asked for at a time: about 2 MB.
const FULL_PAGE: usize = 2_000;

/// A brief list of all volumes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Brief {
    /// Names this state of the list, for the next call; absent where the server gave none.
    pub etag: Option<String>,
    /// The list, unless it is the one that the caller has.
    pub items: BriefItems,
}

/// What a brief list says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BriefItems {
    /// Nothing has changed since the etag that was sent.
    NotModified,
    /// The list, by name.
    Items(Vec<VolumeBrief>),
}

impl Client {
    /// Every volume in full, of one tenant or of all, by name.
    pub async fn volume_list(
        &self,
        tenant: Option<&TenantName>,
    ) -> Result<Vec<Volume>, ClientError> {
        let subject = match tenant {
            Some(tenant) => format!("volumes of tenant {tenant}"),
            None => "volumes".to_owned(),
        };
        let query = ListQuery {
            tenant: tenant.map(ToString::to_string),
            limit: Some(FULL_PAGE),
            ..ListQuery::default()
        };
        self.pages("volume_list", &subject, routes::VOLUMES, query).await
    }

    /// The names, states and dates of every volume, unless nothing changed since `etag`.
    pub async fn volume_list_brief(&self, etag: Option<&str>) -> Result<Brief, ClientError> {
        let mut query = ListQuery {
            limit: Some(LARGEST_PAGE),
            view: Some(View::Brief),
            ..ListQuery::default()
        };
        let mut items: Vec<VolumeBrief> = Vec::new();
        let mut named: Option<String> = None;
        loop {
            let first = query.next.is_none();
            let path = Path::new(routes::VOLUMES).list(&query).into_string();
            let call = Call::get("volume_list", "volumes", path);
            let answer = self.send(call.with_etag(etag.filter(|_| first))).await?;
            if first && answer.status == StatusCode::NOT_MODIFIED {
                let etag = etag.map(str::to_owned);
                return Ok(Brief { etag, items: BriefItems::NotModified });
            }
            // Pages of different states make a list that no etag names.
            named = answer.etag().filter(|etag| first || named.as_ref() == Some(etag));
            let page: Listing<VolumeBrief> = answer.json()?;
            items.extend(page.items);
            match page.next {
                Some(next) => query.next = Some(next),
                None => return Ok(Brief { etag: named, items: BriefItems::Items(items) }),
            }
        }
    }

    /// Creates a volume, or finds it. One with other options is a `conflict`.
    pub async fn volume_create(
        &self,
        body: &CreateVolume,
    ) -> Result<(Creation, Volume), ClientError> {
        let subject = format!("volume {}/{}", body.tenant, body.name);
        let call = Call::new("volume_create", subject, Method::POST, routes::VOLUMES);
        self.send(call.with_body(body)).await?.created()
    }

    /// Makes an image that is there a volume's own, or finds that it is.
    pub async fn volume_adopt(
        &self,
        id: &VolumeId,
        body: &AdoptVolume,
    ) -> Result<(Creation, Volume), ClientError> {
        let call = Call::new("volume_adopt", subject(id), Method::POST, routes::volume_adopt(id));
        self.send(call.with_body(body)).await?.created()
    }

    /// A volume, and who holds it.
    pub async fn volume_get(&self, id: &VolumeId) -> Result<Volume, ClientError> {
        self.read(Call::get("volume_get", subject(id), routes::volume(id))).await
    }

    /// Changes what is live of a volume; what is so already is no error.
    pub async fn volume_set(&self, id: &VolumeId, body: &SetVolume) -> Result<Volume, ClientError> {
        let call = Call::new("volume_set", subject(id), Method::PATCH, routes::volume(id));
        self.read(call.with_body(body)).await
    }

    /// Has all data of a clone copied into its own image, in the background; whether that is done tells
    /// [`volume_get`](Self::volume_get).
    pub async fn volume_flatten(&self, id: &VolumeId) -> Result<Volume, ClientError> {
        let path = routes::volume_flatten(id);
        self.read(Call::new("volume_flatten", subject(id), Method::POST, path)).await
    }

    /// Removes a volume.
    pub async fn volume_remove(
        &self,
        id: &VolumeId,
        query: RemoveQuery,
    ) -> Result<Removed, ClientError> {
        let path = Path::new(routes::volume(id)).remove(query).into_string();
        let call = Call::new("volume_remove", subject(id), Method::DELETE, path);
        match self.send_removal(call).await? {
            Some(answer) => answer.json(),
            None => Ok(Removed { volume: id.clone(), left_behind: None }),
        }
    }
}

fn subject(id: &VolumeId) -> String {
    format!("volume {id}")
}
