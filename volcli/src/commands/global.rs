//! `volcli global …`

use volcore::global::Global;

use super::Context;
use crate::document::Document;
use crate::failure::{Exit, Failure};
use crate::output::{self, say};
use crate::plan::Source;

pub async fn get(context: &Context) -> Result<Exit, Failure> {
    output::one(&context.backend.master()?.global_get().await?, context.format)?;
    Ok(Exit::Done)
}

pub async fn upload(context: &Context, source: &Source) -> Result<Exit, Failure> {
    let wanted: Global = Document::read(source)?.parse()?;
    let global = context.backend.master()?.global_upload(&wanted).await?;
    let Global { session_ttl, trash_retention } = &global;
    say(format_args!(
        "settings: session-ttl is {session_ttl}, trash-retention is {trash_retention}"
    ));
    output::changed(&global, context.format)?;
    Ok(Exit::Done)
}
