//! `volcli doctor`

use volapi::doctor::Doctor;

use super::Context;
use crate::failure::{Exit, Failure};
use crate::output::{self, Format, say};
use crate::rows::Findings;

/// Changes nothing.
pub async fn show(context: &Context) -> Result<Exit, Failure> {
    let doctor = context.backend.master()?.doctor_get().await?;
    told(context, &doctor)
}

/// Mends what is proven.
pub async fn fix(context: &Context) -> Result<Exit, Failure> {
    let doctor = context.backend.master()?.doctor_fix().await?;
    told(context, &doctor)
}

/// The status says whether anything is left, so that a script can tell that from not having looked.
fn told(context: &Context, doctor: &Doctor) -> Result<Exit, Failure> {
    match context.format.unwrap_or(Format::Table) {
        format @ (Format::Json | Format::Yaml) => output::value(doctor, format)?,
        _ if doctor.findings.is_empty() => {}
        format @ (Format::Table | Format::Name) => output::list(&doctor.findings, Some(format))?,
    }
    let Findings { found, compared } = Findings::of(doctor);
    say(format_args!("{found} in {compared}"));
    Ok(if doctor.total == doctor.fixed { Exit::Done } else { Exit::Partly })
}
