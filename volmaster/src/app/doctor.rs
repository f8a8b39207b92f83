//! Comparing records, images, claims, sessions and the trash, and mending what is proven.
//!
//! Records and images are read one after the other, and both go on changing meanwhile. So what looks wrong is looked at
//! once more before it is told: a record has to be the same after the images were listed, and an image that is missed is
//! asked for by its name. What is mended has looked the same twice, record by record and revision by revision, and the
//! commit that mends it has those revisions as its precondition. Orders to hosts are not compared: they end with their
//! leases, within seconds.
//!
//! | file | what |
//! |---|---|
//! | `seen` | reads records and images |
//! | `findings` | compares what was read; no IO |
//! | `by_hand` | the commands for people |
//! | `mend` | changes one thing |

mod by_hand;
mod findings;
mod mend;
mod seen;

use std::collections::BTreeMap;

use futures::StreamExt;
use volapi::doctor::{Doctor, Finding, FindingKind, Remedy};
use volcore::Kind;
use volstorage::image::ImageError;
use volstore::store::StoreError;

use self::findings::{Found, findings};
use self::mend::{Mend, Mended, mend};
use self::seen::Seen;
use super::{App, Failing, ListError, store_kind};

/// How many findings are told; how many there are is told too.
const MOST: usize = 1000;
/// How much is mended at a time.
const AT_A_TIME: usize = 16;

/// Why nothing was found out.
#[derive(Debug, thiserror::Error)]
pub enum DoctorError {
    /// It is not known what records there are.
    #[error(transparent)]
    List(#[from] ListError),
    /// It is not known what images there are.
    #[error("could not compare records and images")]
    Images(#[from] ImageError),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Failing for DoctorError {
    fn kind(&self) -> Kind {
        match self {
            DoctorError::List(error) => error.kind(),
            DoctorError::Images(error) => error.kind(),
            DoctorError::Store(error) => store_kind(error),
        }
    }
}

/// Compares what there is. Changes nothing.
pub async fn doctor_get(app: &App) -> Result<Doctor, DoctorError> {
    let seen = Seen::look(app).await?;
    Ok(shown(&seen, findings(&seen).into_iter().map(|found| found.finding).collect()))
}

/// Compares what there is, twice, and mends what was proven both times. Any number may do so at once, and whoever dies
/// leaves nothing that the next does not find.
///
/// # Errors
/// Only where nothing was changed: what could not be mended is among the findings, with the reason.
pub async fn doctor_fix(app: &App) -> Result<Doctor, DoctorError> {
    type About = (FindingKind, String);
    let seen = Seen::look(app).await?;
    let found = findings(&seen);
    let about = |found: &Found| (found.finding.kind, found.finding.object.clone());
    let before: BTreeMap<About, Mend> =
        found.iter().filter_map(|found| Some((about(found), found.mend.clone()?))).collect();
    if before.is_empty() {
        return Ok(shown(&seen, found.into_iter().map(|found| found.finding).collect()));
    }
    let seen = Seen::look(app).await?;
    let mending = findings(&seen).into_iter().map(|found| {
        let proven = before.get(&about(&found)).cloned();
        async move {
            match (found.mend, proven) {
                (Some(now), Some(before)) if now == before => mended(app, found.finding, now).await,
                _ => found.finding,
            }
        }
    });
    let findings = futures::stream::iter(mending).buffer_unordered(AT_A_TIME).collect().await;
    Ok(shown(&seen, findings))
}

async fn mended(app: &App, finding: Finding, what: Mend) -> Finding {
    let (kind, object) = (finding.kind.as_str(), &finding.object);
    let left = |why: String| format!("{}; it was not done now: {why}", finding.help);
    match mend(app, &what).await {
        Ok(Mended::Done) => {
            tracing::info!(kind, object, "mended");
            Finding { remedy: Remedy::Fixed, help: what.done().to_owned(), ..finding }
        }
        Ok(Mended::Changed) => {
            let help = left("somebody has changed it meanwhile".to_owned());
            Finding { help, ..finding }
        }
        Err(error) => {
            let error = volapi::problem::chain(&error);
            tracing::warn!(kind, object, error, "could not be mended");
            let help = left(error);
            Finding { help, ..finding }
        }
    }
}

fn shown(seen: &Seen, mut findings: Vec<Finding>) -> Doctor {
    findings.sort_by(|one, other| {
        let key = |it: &Finding| (it.remedy == Remedy::Fixed, it.kind);
        key(one).cmp(&key(other)).then_with(|| one.object.cmp(&other.object))
    });
    let fixed = findings.iter().filter(|found| found.remedy == Remedy::Fixed).count() as u64;
    let total = findings.len() as u64;
    findings.truncate(MOST);
    let images = &seen.stock.images;
    Doctor {
        findings,
        total,
        fixed,
        volumes: seen.after.volumes.len() as u64,
        images: images.len() as u64,
        foreign_images: images.iter().filter(|one| one.uid.is_none()).count() as u64,
    }
}
