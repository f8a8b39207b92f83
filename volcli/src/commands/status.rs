//! `volcli status`

use super::Context;
use crate::failure::{Exit, Failure};
use crate::output::{self, Format};
use crate::rows::{StatusLine, status_lines};

/// Fails where the store or the images do not answer, so that a script can tell.
pub async fn show(context: &Context) -> Result<Exit, Failure> {
    let status = context.backend.master()?.status_get().await?;
    let lines = status_lines(&status);
    match context.format.unwrap_or(Format::Table) {
        format @ (Format::Table | Format::Name) => output::list(&lines, Some(format))?,
        format @ (Format::Json | Format::Yaml) => {
            output::document::<StatusLine>(&lines[0], &status, Some(format))?;
        }
    }
    Ok(if status.store.ok && status.images.ok { Exit::Done } else { Exit::Failed })
}
