//! `volcli tenant …`

use serde::Serialize;
use similar::TextDiff;
use volapi::tenants::Tenant;
use volcore::name::TenantName;
use volcore::policy::TenantPolicy;

use super::Context;
use super::removal::{Words, each};
use crate::backend::Uploaded;
use crate::document::Document;
use crate::failure::{Exit, Failure};
use crate::output::{self, Format, OutputError, lines, say};
use crate::plan::{Care, Source};
use crate::rows::{Upload, date};

pub async fn upload(
    context: &Context,
    tenant: &TenantName,
    source: &Source,
) -> Result<Exit, Failure> {
    let policy = Document::read(source)?.policy()?;
    put(context, tenant, policy).await
}

/// Brings the policy of an earlier upload back, as the next one.
pub async fn upload_revision(
    context: &Context,
    tenant: &TenantName,
    revision: u64,
) -> Result<Exit, Failure> {
    let earlier = context.backend.tenant_revision_get(tenant, revision).await?;
    say(format_args!("tenant {tenant}: uploading the policy of revision {revision} again"));
    put(context, tenant, earlier.policy).await
}

async fn put(
    context: &Context,
    tenant: &TenantName,
    policy: TenantPolicy,
) -> Result<Exit, Failure> {
    let (uploaded, tenant_now) = context.backend.tenant_upload(tenant, policy).await?;
    let revision = tenant_now.revision;
    match uploaded {
        Uploaded::Revision => say(format_args!("tenant {tenant}: revision {revision}")),
        Uploaded::Unchanged => say(format_args!(
            "tenant {tenant}: unchanged, it has this policy as revision {revision}"
        )),
    }
    output::changed(&tenant_now, context.format)?;
    Ok(Exit::Done)
}

/// Nothing is sent.
pub fn check(tenant: &TenantName, source: &Source) -> Result<Exit, Failure> {
    Document::read(source)?.policy()?;
    say(format_args!("tenant {tenant}: the policy is valid; it was not uploaded"));
    Ok(Exit::Done)
}

/// Prints what was uploaded, so that it can be changed and uploaded again.
pub async fn get(context: &Context, tenant: &TenantName) -> Result<Exit, Failure> {
    let tenant = context.backend.tenant_get(tenant).await?;
    output::document(&tenant, &tenant.policy, context.format)?;
    Ok(Exit::Done)
}

pub async fn list(context: &Context) -> Result<Exit, Failure> {
    output::list(&context.backend.tenant_list().await?, context.format)?;
    Ok(Exit::Done)
}

pub async fn delete(
    context: &Context,
    tenants: &[TenantName],
    care: Care,
) -> Result<Exit, Failure> {
    let words =
        Words::removal("tenant", &|names| format!("Delete {names}? Volumes and uploads stay."));
    let remove = async |tenant: &TenantName| {
        context.backend.tenant_delete(tenant).await?;
        Ok("deleted; its volumes and its uploads stay".to_owned())
    };
    let look = async |tenant: &TenantName| {
        let found = context.backend.tenant_get(tenant).await?;
        let volumes = context.backend.volume_list_brief(Some(tenant)).await?.len();
        Ok(format!(
            "would be deleted, with revision {} as its last; its {volumes} volumes and its uploads would stay",
            found.revision
        ))
    };
    each(context, &words, tenants, care, remove, look).await
}

pub async fn history(context: &Context, tenant: &TenantName) -> Result<Exit, Failure> {
    let uploads: Vec<Upload> =
        context.backend.tenant_revision_list(tenant).await?.into_iter().map(Upload).collect();
    match context.format {
        None => {
            let line =
                |upload: &Upload| format!("{} {}", upload.0.revision, date(&upload.0.uploaded_at));
            output::put(&lines(uploads.iter().map(line)))?;
        }
        Some(Format::Table | Format::Json | Format::Yaml | Format::Name) => {
            output::list(&uploads, context.format)?;
        }
    }
    Ok(Exit::Done)
}

pub async fn revision(
    context: &Context,
    tenant: &TenantName,
    revision: u64,
) -> Result<Exit, Failure> {
    let upload = Upload(context.backend.tenant_revision_get(tenant, revision).await?);
    output::document(&upload, &upload.0.policy, context.format)?;
    Ok(Exit::Done)
}

/// In what two uploads differ.
#[derive(Serialize)]
struct Difference {
    from: Upload,
    to: Upload,
    /// Lines of the policies as JSON, with `-` those of `from` alone, with `+` those of `to`.
    diff: Vec<String>,
}

/// Shows in what two uploads differ, by the lines of their policies as `volcli tenant get` prints them.
pub async fn diff(
    context: &Context,
    tenant: &TenantName,
    older: u64,
    newer: u64,
) -> Result<Exit, Failure> {
    let older = context.backend.tenant_revision_get(tenant, older).await?;
    let newer = context.backend.tenant_revision_get(tenant, newer).await?;
    let text = compared(&older, &newer)?;
    if text.is_empty() {
        let [older, newer] = [older.revision, newer.revision];
        say(format_args!("tenant {tenant}: revisions {older} and {newer} have the same policy"));
    }
    match context.format {
        None | Some(Format::Table | Format::Name) => output::put(&text)?,
        Some(format @ (Format::Json | Format::Yaml)) => {
            let diff = text.lines().skip(2).map(str::to_owned).collect();
            let difference = Difference { from: Upload(older), to: Upload(newer), diff };
            output::value(&difference, format)?;
        }
    }
    Ok(Exit::Done)
}

/// Empty where the policies are the same.
fn compared(older: &Tenant, newer: &Tenant) -> Result<String, OutputError> {
    let text =
        |tenant: &Tenant| serde_json::to_string_pretty(&tenant.policy).map(|json| json + "\n");
    let title =
        |tenant: &Tenant| format!("revision {}\t{}", tenant.revision, date(&tenant.uploaded_at));
    let (before, after) = (text(older)?, text(newer)?);
    let diff = TextDiff::from_lines(&before, &after);
    Ok(diff.unified_diff().context_radius(3).header(&title(older), &title(newer)).to_string())
}
