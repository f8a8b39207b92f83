//! `volcli host …`

use volcore::name::HostName;

use super::Context;
use super::removal::{Words, each};
use crate::failure::{Exit, Failure};
use crate::output;
use crate::plan::Care;
use crate::rows::date;

pub async fn list(context: &Context) -> Result<Exit, Failure> {
    output::list(&context.backend.master()?.host_list().await?, context.format)?;
    Ok(Exit::Done)
}

pub async fn get(context: &Context, host: &HostName) -> Result<Exit, Failure> {
    output::one(&context.backend.master()?.host_get(host).await?, context.format)?;
    Ok(Exit::Done)
}

pub async fn forget(context: &Context, hosts: &[HostName], care: Care) -> Result<Exit, Failure> {
    let words = Words::removal("host", &|names| {
        format!("End the session of {names}? Volumes held there stay held.")
    });
    let client = context.backend.master()?;
    let remove = async |host: &HostName| {
        client.host_forget(host).await?;
        Ok("session ended; the volumes that it holds stay held".to_owned())
    };
    let look = async |host: &HostName| {
        let found = client.host_get(host).await?;
        let mounts = client.mount_list(None).await?;
        let held = mounts.iter().filter(|m| m.holders().any(|holder| holder.host == *host)).count();
        Ok(format!(
            "its session, which stands since {}, would be ended; the {held} volumes that it holds would stay held",
            date(&found.since)
        ))
    };
    each(context, &words, hosts, care, remove, look).await
}
