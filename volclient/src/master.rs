//! The address of a volmaster, as `--master` gives it.

use std::fmt;
use std::str::FromStr;

use hyper::Uri;
use hyper::http::uri::PathAndQuery;
use serde::Deserialize;

/// Where a volmaster, or a proxy before several, answers: `http://host:port`.
///
/// It has no path: under a wrong one, a server that is right would answer that what was asked for
/// does not exist, and hosts act on that.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(try_from = "String")]
pub struct MasterUrl {
    /// `http`, the host, the port and a slash.
    base: Uri,
}

/// A text that is no address of a volmaster.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("master {given:?} is not like http://127.0.0.1:9005: {reason}")]
pub struct MasterUrlError {
    /// What was given, cut to 120 characters.
    pub given: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

impl MasterUrl {
    /// The address of a path below this master. `None` only for a path that is no path.
    pub(crate) fn uri(&self, path_and_query: &str) -> Option<Uri> {
        let mut parts = self.base.clone().into_parts();
        let path: PathAndQuery = path_and_query.parse().ok()?;
        parts.path_and_query = Some(path);
        Uri::from_parts(parts).ok()
    }
}

fn read(text: &str) -> Result<MasterUrl, &'static str> {
    let uri: Uri = text.trim().parse().map_err(|_| "it does not read as a URL")?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => return Err("TLS is not spoken; reach volmaster over http"),
        Some(_) | None => return Err("it has to begin with http://"),
    }
    let authority = uri.authority().ok_or("it names no host")?;
    if authority.host().is_empty() {
        return Err("it names no host");
    }
    if authority.as_str().contains('@') {
        return Err("it may not carry a user or password");
    }
    if authority.as_str().len() > authority.host().len()
        && authority.port_u16().is_none_or(|port| port == 0)
    {
        return Err("its port is not a number from 1 to 65535");
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() || text.contains('#') {
        return Err("it ends after the port, without a path, query or fragment");
    }
    let base = Uri::builder().scheme("http").authority(authority.clone()).path_and_query("/");
    Ok(MasterUrl { base: base.build().map_err(|_| "it does not read as a URL")? })
}

impl Default for MasterUrl {
    /// Where volmaster listens on this machine when nobody says otherwise.
    fn default() -> Self {
        MasterUrl { base: Uri::from_static("http://127.0.0.1:9005/") }
    }
}

impl FromStr for MasterUrl {
    type Err = MasterUrlError;

    fn from_str(text: &str) -> Result<Self, MasterUrlError> {
        read(text)
            .map_err(|reason| MasterUrlError { given: text.chars().take(120).collect(), reason })
    }
}

impl TryFrom<String> for MasterUrl {
    type Error = MasterUrlError;

    fn try_from(text: String) -> Result<Self, MasterUrlError> {
        text.parse()
    }
}

impl fmt::Display for MasterUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.base.to_string().trim_end_matches('/'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_shown() {
        for (given, shown) in [
            ("http://127.0.0.1:9005", "http://127.0.0.1:9005"),
            ("http://127.0.0.1:9005/", "http://127.0.0.1:9005"),
            ("HTTP://m.example", "http://m.example"),
            ("http://[::1]:9005", "http://[::1]:9005"),
        ] {
            let master: MasterUrl = given.parse().unwrap();
            assert_eq!(master.to_string(), shown);
            let uri = master.uri("/v1/volumes?limit=1").unwrap();
            assert_eq!(uri.to_string(), format!("{shown}/v1/volumes?limit=1"));
        }
        assert_eq!(MasterUrl::default(), "http://127.0.0.1:9005".parse().unwrap());
    }

    #[test]
    fn nonsense_is_refused_with_the_reason() {
        for (given, reason) in [
            ("", "does not read"),
            ("127.0.0.1:9005", "begin with http://"),
            ("localhost", "begin with http://"),
            ("https://m:9005", "TLS"),
            ("ftp://m", "begin with http://"),
            ("http://", "does not read"),
            ("http://u:p@h:1", "user"),
            ("http://h:99999", "port"),
            ("http://h:0", "port"),
            ("http://h:1/?a=b", "query"),
            ("http://h:1/v1", "without a path"),
        ] {
            let error = given.parse::<MasterUrl>().unwrap_err();
            assert!(error.reason.contains(reason), "{given}: {error}");
        }
    }
}
