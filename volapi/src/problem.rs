//! The error body: `application/problem+json` (RFC 9457), with a `kind` that programs read.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use volcore::Kind;

/// The content type of an error body.
pub const PROBLEM_JSON: &str = "application/problem+json";
/// The header that carries a request's id, in both directions.
pub const REQUEST_ID: &str = "x-request-id";

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// A name for the kind of problem: `urn:volplugin:problem:<kind>`.
    #[serde(rename = "type")]
    pub kind_uri: String,
    /// The kind in words.
    pub title: String,
    /// The HTTP status again.
    pub status: u16,
    /// What happened to what, and the way out.
    pub detail: String,
    /// The kind, from a closed set.
    #[schema(value_type = String, example = "in_use")]
    pub kind: Kind,
    /// Under this id the cause stands in the server's log.
    pub request_id: String,
}

impl Problem {
    /// A problem of this kind.
    pub fn new(kind: Kind, detail: impl Into<String>, request_id: impl Into<String>) -> Self {
        Problem {
            kind_uri: format!("urn:volplugin:problem:{}", kind.as_str()),
            title: kind.title().to_owned(),
            status: kind.status(),
            detail: detail.into(),
            kind,
            request_id: request_id.into(),
        }
    }
}

/// An error and its causes in one line: `could not x: could not y: refused`. The one place where chains are printed.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut line = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let text = cause.to_string();
        // Some libraries repeat their cause in their own text.
        if !line.ends_with(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        source = cause.source();
    }
    line
}
