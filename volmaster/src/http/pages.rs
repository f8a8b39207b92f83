//! The bodies of lists, kept as they were written until something in them changes, because
//! many hosts ask for the same list again and again.

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::http::header::{CONTENT_TYPE, ETAG, HeaderValue, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use serde::Serialize;
use volapi::list::ListQuery;
use volcore::Kind;

use super::answer::Failure;

/// How many bodies are kept.
const KEPT: usize = 8;
/// The largest body that is kept; of larger ones only the etag.
const LARGEST: usize = 2 << 20;

/// What a body depends on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct PageKey {
    /// Which list.
    pub(super) operation: &'static str,
    /// What was asked of it.
    pub(super) query: ListQuery,
    /// The generations of the mirrors that it was cut from.
    pub(super) generations: [u64; 2],
}

/// A body with its etag, which is a hash of it: the same for the same list, whichever volmaster
/// answers and however often it was started.
#[derive(Clone, Debug)]
struct Page {
    etag: HeaderValue,
    body: Option<Bytes>,
}

#[derive(Debug, Default)]
pub(super) struct Pages {
    kept: Mutex<VecDeque<(PageKey, Page)>>,
}

impl Pages {
    /// The answer to a list, built only if need be.
    pub(super) fn answer<T: Serialize>(
        &self,
        key: PageKey,
        headers: &HeaderMap,
        build: impl FnOnce() -> T,
    ) -> Response {
        if let Some(page) = self.find(&key)
            && let Some(response) = respond(&page, headers)
        {
            return response;
        }
        let body = match serde_json::to_vec(&build()) {
            Ok(body) => Bytes::from(body),
            Err(error) => return Failure::new(Kind::Internal, error.to_string()).into_response(),
        };
        let etag = format!("\"{:016x}\"", fnv1a(&body));
        let etag = HeaderValue::from_str(&etag).unwrap_or(HeaderValue::from_static("\"\""));
        let page = Page { etag, body: Some(body) };
        self.keep(key, &page);
        respond(&page, headers).unwrap_or_else(|| StatusCode::NOT_MODIFIED.into_response())
    }

    fn find(&self, key: &PageKey) -> Option<Page> {
        self.kept().iter().find(|(kept, _)| kept == key).map(|(_, page)| page.clone())
    }

    fn keep(&self, key: PageKey, page: &Page) {
        let body = page.body.clone().filter(|body| body.len() <= LARGEST);
        let page = Page { etag: page.etag.clone(), body };
        let mut kept = self.kept();
        let same = |known: &PageKey| known.operation == key.operation && known.query == key.query;
        kept.retain(|(known, _)| !same(known));
        kept.truncate(KEPT - 1);
        kept.push_front((key, page));
    }

    fn kept(&self) -> MutexGuard<'_, VecDeque<(PageKey, Page)>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// `None` where the body is needed and not there.
fn respond(page: &Page, headers: &HeaderMap) -> Option<Response> {
    let known = headers.get_all(IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let same = |tag: &str| {
        let tag = tag.trim().trim_start_matches("W/");
        tag == "*" || tag.as_bytes() == page.etag.as_bytes()
    };
    if known.flat_map(|value| value.split(',')).any(same) {
        return Some((StatusCode::NOT_MODIFIED, [(ETAG, page.etag.clone())]).into_response());
    }
    let json = HeaderValue::from_static("application/json");
    let headers = [(CONTENT_TYPE, json), (ETAG, page.etag.clone())];
    Some((headers, page.body.clone()?).into_response())
}

/// The FNV-1a hash: small, and the same in every version of this program.
fn fnv1a(bytes: &[u8]) -> u64 {
    let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
    bytes.iter().fold(0xcbf2_9ce4_8422_2325, step)
}
