//! The address of an etcd member, as `--etcd` gives it.

use std::fmt;
use std::str::FromStr;

use http::Uri;
use serde::Deserialize;

/// A client URL of etcd: `http://host:port`.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct EndpointUrl(String);

/// A text that is no client URL of etcd.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("etcd endpoint {given:?} is not like http://127.0.0.1:2379: {reason}")]
pub struct EndpointUrlError {
    /// What was given, cut to 120 characters.
    pub given: String,
    /// What is wrong with it.
    pub reason: &'static str,
}

fn check(text: &str) -> Result<(), &'static str> {
    let uri: Uri = text.parse().map_err(|_| "it does not read as a URL")?;
    match uri.scheme_str() {
        Some("http") => {}
        Some("https") => return Err("TLS is not spoken; reach etcd over http"),
        Some(_) | None => return Err("it has to begin with http://"),
    }
    let authority = uri.authority().ok_or("it names no host")?;
    if authority.host().is_empty() {
        return Err("it names no host");
    }
    if authority.as_str().contains('@') {
        return Err("it may not carry a user or password");
    }
    let has_port = authority.as_str().len() > authority.host().len();
    if has_port && authority.port_u16().is_none_or(|port| port == 0) {
        return Err("its port is not a number from 1 to 65535");
    }
    if !matches!(uri.path(), "" | "/") || uri.query().is_some() || text.contains('#') {
        return Err("it ends after the port, without a path, query or fragment");
    }
    Ok(())
}

impl FromStr for EndpointUrl {
    type Err = EndpointUrlError;

    fn from_str(text: &str) -> Result<Self, EndpointUrlError> {
        let text = text.trim();
        check(text)
            .map(|()| EndpointUrl(text.to_owned()))
            .map_err(|reason| EndpointUrlError { given: text.chars().take(120).collect(), reason })
    }
}

impl TryFrom<String> for EndpointUrl {
    type Error = EndpointUrlError;

    fn try_from(text: String) -> Result<Self, EndpointUrlError> {
        text.parse()
    }
}

impl From<EndpointUrl> for String {
    fn from(url: EndpointUrl) -> String {
        url.0
    }
}

impl fmt::Display for EndpointUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn client_urls_are_read_and_shown() {
        for given in ["http://127.0.0.1:2379", "http://e1.example:2379/", "http://[::1]:2379"] {
            assert_eq!(given.parse::<EndpointUrl>().unwrap().to_string(), given);
        }
    }

    #[test]
    fn nonsense_is_refused_with_the_reason() {
        for (given, reason) in [
            ("", "does not read"),
            ("foo", "begin with http://"),
            ("127.0.0.1:2379", "begin with http://"),
            ("unix:///run/etcd.sock", "does not read"),
            ("https://e:2379", "TLS"),
            ("ftp://e:2379", "begin with http://"),
            ("http://", "does not read"),
            ("http://a b", "does not read"),
            ("http://e:port", "port"),
            ("http://e:", "port"),
            ("http://e:0", "port"),
            ("http://e:99999", "port"),
            ("http://u:p@e:2379", "user"),
            ("http://e:2379/v3", "without a path"),
            ("http://e:2379?a=b", "query"),
        ] {
            let error = given.parse::<EndpointUrl>().unwrap_err();
            assert!(error.reason.contains(reason), "{given}: {error}");
        }
    }
}
