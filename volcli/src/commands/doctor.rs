//! `volcli doctor`

use super::Context;
use crate::failure::{Exit, Failure};
use crate::output::{self, Format, say};
use crate::rows::Findings;

/// Fails where something is found, so that a script can tell.
pub async fn show(context: &Context) -> Result<Exit, Failure> {
    let doctor = context.backend.master()?.doctor_get().await?;
    match context.format.unwrap_or(Format::Table) {
        format @ (Format::Json | Format::Yaml) => output::value(&doctor, format)?,
        _ if doctor.findings.is_empty() => {}
        format @ (Format::Table | Format::Name) => output::list(&doctor.findings, Some(format))?,
    }
    let Findings { found, compared } = Findings::of(&doctor);
    say(format_args!("{found} in {compared}"));
    Ok(if doctor.total == 0 { Exit::Done } else { Exit::Failed })
}
