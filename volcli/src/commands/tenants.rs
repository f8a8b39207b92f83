//! `volcli tenant …`

use volcore::name::TenantName;

use super::Context;
use super::removal::{Words, each};
use crate::backend::Uploaded;
use crate::document::Document;
use crate::failure::{Exit, Failure};
use crate::output::{self, Format, lines, say};
use crate::plan::{Care, Source};
use crate::rows::{Upload, date};

pub async fn upload(
    context: &Context,
    tenant: &TenantName,
    source: &Source,
) -> Result<Exit, Failure> {
    let policy = Document::read(source)?.policy()?;
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
    let words = Words {
        noun: "tenant",
        question: |names| format!("Delete {names}? Volumes and uploads stay."),
    };
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
