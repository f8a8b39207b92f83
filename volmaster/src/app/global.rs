//! The settings of the suite.

use volcore::Kind;
use volcore::global::Global;
use volstore::records::Versioned;
use volstore::store::{Commit, StoreError};

use super::{App, Failing, store_kind};

/// How often an upload begins again because somebody else was faster.
const ROUNDS: usize = 10;

/// Why the settings were not changed or shown.
#[derive(Debug, thiserror::Error)]
pub enum GlobalError {
    /// Others are faster, time and again.
    #[error("the settings are being changed by others; try again")]
    Contended,
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Failing for GlobalError {
    fn kind(&self) -> Kind {
        match self {
            GlobalError::Contended => Kind::Busy,
            GlobalError::Store(error) => store_kind(error),
        }
    }
}

/// Shows the settings; the defaults where none were uploaded.
pub async fn global_get(app: &App) -> Result<Global, GlobalError> {
    Ok(app.records.global().await?.map(|found| found.value).unwrap_or_default())
}

/// Replaces the settings.
pub async fn global_upload(app: &App, global: Global) -> Result<Global, GlobalError> {
    for _ in 0..ROUNDS {
        let found = app.records.global().await?;
        if found.as_ref().is_some_and(|found| found.value == global) {
            return Ok(global);
        }
        let changes =
            app.records.changes().put_global(&global, Versioned::unchanged(found.as_ref()));
        if let Commit::Done(_) = app.records.commit(changes).await? {
            return Ok(global);
        }
    }
    Err(GlobalError::Contended)
}
