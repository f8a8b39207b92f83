//! What is taken out of requests: names, queries, bodies. Everything is parsed here, once.

use std::str::FromStr;
use std::time::Duration;

use axum::body::Body;
use axum::extract::{FromRequest, FromRequestParts, RawPathParams, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use axum::http::request::Parts;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use uuid::Uuid;
use volcore::name::{HostName, SnapshotName, TenantName, VolumeId};

use super::Shared;
use super::answer::Failure;

/// The largest body that is read.
pub(super) const LARGEST_BODY: usize = 256 << 10;
/// How much of a larger one is taken in and forgotten, so that its sender gets to the answer.
const LARGEST_WASTE: usize = 8 << 20;

/// The name in a path.
pub(super) struct Of<T>(pub(super) T);

/// What a path can name.
pub(super) trait Named: Sized {
    /// Reads it out of the segments.
    fn read(params: &RawPathParams) -> Result<Self, Failure>;
}

fn segment<T: FromStr<Err: std::fmt::Display>>(
    params: &RawPathParams,
    name: &str,
) -> Result<T, Failure> {
    let text = params.iter().find(|(key, _)| *key == name).map_or("", |(_, value)| value);
    text.parse().map_err(|error: T::Err| Failure::invalid(error.to_string()))
}

impl Named for TenantName {
    fn read(params: &RawPathParams) -> Result<Self, Failure> {
        segment(params, "tenant")
    }
}

impl Named for HostName {
    fn read(params: &RawPathParams) -> Result<Self, Failure> {
        segment(params, "host")
    }
}

impl Named for VolumeId {
    fn read(params: &RawPathParams) -> Result<Self, Failure> {
        Ok(VolumeId::new(segment(params, "tenant")?, segment(params, "volume")?))
    }
}

/// One snapshot of a volume.
impl Named for (VolumeId, SnapshotName) {
    fn read(params: &RawPathParams) -> Result<Self, Failure> {
        Ok((VolumeId::read(params)?, segment(params, "snapshot")?))
    }
}

/// One order of a host.
impl Named for (HostName, Uuid) {
    fn read(params: &RawPathParams) -> Result<Self, Failure> {
        Ok((segment(params, "host")?, segment(params, "id")?))
    }
}

/// The id of something in the trash, whatever it may be.
pub(super) struct TrashId(pub(super) String);

impl Named for TrashId {
    fn read(params: &RawPathParams) -> Result<Self, Failure> {
        segment(params, "id").map(TrashId)
    }
}

/// One upload of a tenant.
impl Named for (TenantName, u32) {
    fn read(params: &RawPathParams) -> Result<Self, Failure> {
        let tenant = segment(params, "tenant")?;
        let number: Result<u32, Failure> = segment(params, "revision");
        match number {
            Ok(number) if number > 0 => Ok((tenant, number)),
            Ok(_) | Err(_) => Err(Failure::invalid("a revision is a whole number from 1 on")),
        }
    }
}

impl<T: Named> FromRequestParts<Shared> for Of<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, http: &Shared) -> Result<Self, Failure> {
        let params = RawPathParams::from_request_parts(parts, http).await;
        let params = params.map_err(|error| Failure::invalid(error.to_string()))?;
        T::read(&params).map(Of)
    }
}

/// The query, every key of which must be known.
pub(super) struct Query<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<Shared> for Query<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self, Failure> {
        match axum::extract::Query::<T>::try_from_uri(&parts.uri) {
            Ok(query) => Ok(Query(query.0)),
            Err(error) => {
                let cause = std::error::Error::source(&error).map(|cause| cause.to_string());
                let cause = cause.unwrap_or_else(|| error.to_string());
                Err(Failure::invalid(format!("the query is not valid: {cause}")))
            }
        }
    }
}

/// For operations that have no query: any key is unknown.
pub(super) struct NoQuery;

impl FromRequestParts<Shared> for NoQuery {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &Shared) -> Result<Self, Failure> {
        match parts.uri.query() {
            None | Some("") => Ok(NoQuery),
            Some(query) => {
                let key: String =
                    query.split(['=', '&']).next().unwrap_or_default().chars().take(80).collect();
                Err(Failure::invalid(format!(
                    "the query is not valid: unknown field `{key}`, there are none"
                )))
            }
        }
    }
}

/// A body of JSON.
pub(super) struct Json<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<Shared> for Json<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, http: &Shared) -> Result<Self, Failure> {
        content_type(request.headers())?;
        let bytes = body(request, http.limits.body).await?;
        parse(&bytes).map(Json)
    }
}

/// For operations that need no body: one that is there is an object of JSON, and any member is unknown.
pub(super) struct NoBody;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct NoMembers {}

impl FromRequest<Shared> for NoBody {
    type Rejection = Failure;

    async fn from_request(request: Request, http: &Shared) -> Result<Self, Failure> {
        let given = content_type(request.headers());
        let bytes = body(request, http.limits.body).await?;
        if bytes.is_empty() {
            return Ok(NoBody);
        }
        given?;
        parse::<NoMembers>(&bytes).map(|NoMembers {}| NoBody)
    }
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Failure> {
    // serde would take an array for the members of a struct in their order.
    if bytes.trim_ascii_start().first().is_some_and(|first| *first != b'{') {
        return Err(Failure::invalid("the body is not valid: it is not an object of JSON"));
    }
    // The text of this error has line and column.
    serde_json::from_slice(bytes)
        .map_err(|error| Failure::invalid(format!("the body is not valid: {error}")))
}

fn content_type(headers: &HeaderMap) -> Result<(), Failure> {
    let Some(given) = headers.get(CONTENT_TYPE) else { return Ok(()) };
    let text = String::from_utf8_lossy(given.as_bytes());
    let essence = text.split(';').next().unwrap_or_default().trim();
    if essence.eq_ignore_ascii_case("application/json") {
        Ok(())
    } else {
        let given: String = essence.chars().take(80).collect();
        Err(Failure::invalid(format!("the content type is {given:?}, not application/json")))
    }
}

async fn body(request: Request, bound: Duration) -> Result<Bytes, Failure> {
    let announced = request.headers().get(CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    let announced = announced.and_then(|text| text.parse::<usize>().ok()).unwrap_or(0);
    if announced > LARGEST_WASTE {
        return Err(too_large());
    }
    match tokio::time::timeout(bound, collect(request.into_body())).await {
        Ok(collected) => collected,
        Err(_) => Err(Failure::invalid(format!("the body did not arrive within {bound:?}"))),
    }
}

async fn collect(mut body: Body) -> Result<Bytes, Failure> {
    let mut kept = BytesMut::new();
    let mut seen = 0;
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            Failure::invalid(format!("the body broke off: {}", volapi::problem::chain(&error)))
        })?;
        let Ok(data) = frame.into_data() else { continue };
        seen += data.len();
        if seen <= LARGEST_BODY {
            kept.extend_from_slice(&data);
        } else if seen > LARGEST_WASTE {
            break;
        }
    }
    if seen > LARGEST_BODY { Err(too_large()) } else { Ok(kept.freeze()) }
}

fn too_large() -> Failure {
    Failure::invalid(format!("the body is larger than {} KiB", LARGEST_BODY >> 10))
}
