//! `volcli host …`

use volapi::hosts::{FenceHost, HostFenced, HostState, PendingFence};
use volcore::name::HostName;

use super::Context;
use super::removal::{Words, each, is_insisted};
use super::this_host;
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

/// What a host has lost, in words.
fn lost(fenced: &HostFenced) -> String {
    let volumes: Vec<_> = fenced.fenced.iter().map(|fence| fence.volume.to_string()).collect();
    match volumes.as_slice() {
        [] => "fenced; it held no volume from which it had to be cut off".to_owned(),
        volumes => format!("fenced; it has lost {}, which others can have now", volumes.join(", ")),
    }
}

pub async fn fence(context: &Context, hosts: &[HostName], care: Care) -> Result<Exit, Failure> {
    let words = Words {
        result: "fenced",
        ..Words::removal("host", &|names| {
            format!(
                "Cut {names} off from all volumes held there? Containers that still run there get errors, and lose \
                 what they have not synced."
            )
        })
    };
    let client = context.backend.master()?;
    let remove = async |host: &HostName| {
        if this_host::is(host) {
            return Err(Failure::ThisHost { host: host.clone() });
        }
        let fenced = client.host_fence(host, FenceHost { force: is_insisted(care) }).await?;
        match fenced.pending.first() {
            None => Ok(lost(&fenced)),
            Some(PendingFence { volume, reason }) => Err(Failure::FencePending {
                host: host.clone(),
                count: fenced.pending.len(),
                volume: volume.clone(),
                reason: reason.clone(),
            }),
        }
    };
    let look = async |host: &HostName| {
        let found = client.host_get(host).await?;
        let volumes: Vec<_> = found.volumes.iter().map(ToString::to_string).collect();
        let volumes = if volumes.is_empty() { "nothing".to_owned() } else { volumes.join(", ") };
        Ok(match found.state {
            HostState::Live => format!("it lives; with --yes it would lose {volumes}"),
            HostState::Silent => format!("it is silent, and would lose {volumes}"),
        })
    };
    each(context, &words, hosts, care, remove, look).await
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
        Ok(match &found.session {
            Some(session) => format!(
                "its session, which stands since {}, would be ended; the {held} volumes that it holds would stay held",
                date(&session.since)
            ),
            None => "it has no live session that could be ended".to_owned(),
        })
    };
    each(context, &words, hosts, care, remove, look).await
}
