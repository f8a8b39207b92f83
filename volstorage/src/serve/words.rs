//! What a server and whoever has started it say to each other.
//!
//! The server is told what to serve by its arguments. On its standard output it says where it is, one JSON document a line:
//! first [`Word::Connected`], then, once it has read the line [`OPEN`] on its standard input, [`Word::Ready`]; or in place of
//! either why not. When its standard input ends before, so does it.

use std::error::Error;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::host::Mode;

/// The word to open the image.
pub(crate) const OPEN: &str = "open";

/// What is to be served.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Wanted {
    /// Ceph's configuration.
    pub conf: PathBuf,
    /// The name to log in with, without `client.`.
    pub user: String,
    /// The pool of the image.
    pub pool: String,
    /// The image, and the name of the file.
    pub image: String,
    /// Whether it may be written to.
    pub mode: Mode,
    /// The file that is made when the image is another's.
    pub mark: PathBuf,
}

/// What a server says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "is", rename_all = "kebab-case")]
pub(crate) enum Word {
    /// It can be told to open the image.
    Connected {
        /// The addresses by which the cluster will know who writes.
        clients: Vec<String>,
    },
    /// The file is there.
    Ready,
    /// There is no such image.
    NoImage,
    /// Another client has the lock of the image, and does not give it up.
    Locked {
        /// Its addresses.
        holders: Vec<String>,
    },
    /// Anything else.
    Failed {
        /// Why.
        reason: String,
    },
}

impl Word {
    /// An error with all of its causes.
    pub(super) fn failed(error: impl Error) -> Word {
        let mut reason = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            reason.push_str(&format!(": {error}"));
            cause = error.source();
        }
        Word::Failed { reason }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_lines_of_json() {
        for (word, line) in [
            (
                Word::Connected { clients: vec!["10.0.0.1:0/7".to_owned()] },
                r#"{"is":"connected","clients":["10.0.0.1:0/7"]}"#,
            ),
            (Word::Ready, r#"{"is":"ready"}"#),
            (Word::NoImage, r#"{"is":"no-image"}"#),
            (Word::Locked { holders: vec![] }, r#"{"is":"locked","holders":[]}"#),
        ] {
            assert_eq!(serde_json::to_string(&word).unwrap(), line);
            assert_eq!(serde_json::from_str::<Word>(line).unwrap(), word);
        }
    }
}
