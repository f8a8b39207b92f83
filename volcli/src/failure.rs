//! Why a command failed, how that is told, and what can be done about it.

use std::process::{ExitCode, Termination};

use jiff::Timestamp;
use volclient::{ClientError, NoMaster, Outcome};
use volcore::Kind;
use volcore::name::{HostName, VolumeId};

use crate::direct::DirectError;
use crate::document::DocumentError;
use crate::output::{OutputError, say};
use crate::plan::{SnapshotId, UsageError};
use crate::rows::date;

/// How a command ended (DESIGN §12).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// All is done.
    Done,
    /// Nothing is done.
    Failed,
    /// The command line means nothing.
    Usage,
    /// Of several names, some are done; or something is left that is not as it should be.
    Partly,
}

impl Termination for Exit {
    fn report(self) -> ExitCode {
        ExitCode::from(match self {
            Exit::Done => 0,
            Exit::Failed => 1,
            Exit::Usage => 2,
            Exit::Partly => 3,
        })
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// volmaster said no, or could not be asked.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// etcd said no, or could not be asked.
    #[error(transparent)]
    Direct(#[from] DirectError),
    /// The document cannot be uploaded.
    #[error(transparent)]
    Document(#[from] DocumentError),
    /// The command line means nothing.
    #[error(transparent)]
    Usage(#[from] UsageError),
    /// There is no master to ask.
    #[error(transparent)]
    NoMaster(#[from] NoMaster),
    /// The answer cannot be shown.
    #[error(transparent)]
    Output(#[from] OutputError),
    /// The user said no.
    #[error("nothing was done")]
    Declined,
    /// It would be refused, as a dry run found.
    #[error("{what} would not be {done}: {why}")]
    WouldRefuse {
        /// What.
        what: String,
        /// What was to be done to it, e.g. `removed`.
        done: &'static str,
        /// Why not.
        why: String,
    },
    /// Nobody cuts off the machine that he works on.
    #[error(
        "host {host} is this very machine, whose volplugin runs: nobody is fenced; stop the containers that use the \
         volumes, or do this from elsewhere"
    )]
    ThisHost {
        /// Which.
        host: HostName,
    },
    /// A host has lost its volumes, and may still write to some.
    #[error(
        "host {host} has lost its volumes, and is not cut off from {count} of them yet, which nobody can have until then; \
         it is tried again by itself. The first is {volume}: {reason}"
    )]
    FencePending {
        /// Which host.
        host: HostName,
        /// How many.
        count: usize,
        /// The first of them.
        volume: VolumeId,
        /// Why not.
        reason: String,
    },
    /// The holder lives, and nobody said that it is to lose the volume all the same.
    #[error(
        "volume {volume} is held by host {host}, which lives; stop the containers that use it there, or say that it is to \
         lose the volume (--yes): they get errors then, and lose what they have not synced"
    )]
    HolderLives {
        /// Which volume.
        volume: VolumeId,
        /// Its holder.
        host: HostName,
    },
    /// A snapshot of that name was there before.
    #[error(
        "snapshot {} of volume {} exists since {}; it was not taken again", id.snapshot, id.volume, date(since)
    )]
    SnapshotThere {
        /// Which.
        id: SnapshotId,
        /// When it was taken.
        since: Timestamp,
    },
    /// A rollback of which no answer came.
    #[error(
        "it is not known whether volume {} was rolled back to snapshot {}; look with `volcli volume get {}` before \
         you do anything else with it", id.volume, id.snapshot, id.volume
    )]
    RollbackUnknown {
        /// To which snapshot.
        id: SnapshotId,
        /// Why there is no answer.
        #[source]
        source: Box<ClientError>,
    },
    /// The trash has no volume of that name.
    #[error("volume {volume} is not in the trash; `volcli trash list -o table` shows what is")]
    NotInTrash {
        /// Which.
        volume: VolumeId,
    },
    /// The trash has volumes of that name, and none that can be restored.
    #[error(
        "volume {volume} is in the trash and cannot be restored; `volcli trash list -o table` shows what can be"
    )]
    NotRestorable {
        /// Which.
        volume: VolumeId,
    },
    /// The id is that of another volume.
    #[error(
        "{id} in the trash was volume {was}, not {asked}; to restore it as {asked} say: volcli volume restore {was} \
         --id {id} --as {asked}"
    )]
    OtherTrash {
        /// The id.
        id: String,
        /// What it was.
        was: VolumeId,
        /// What it was taken for.
        asked: VolumeId,
    },
    /// The user has ended the waiting, or its time was over. The work goes on.
    #[error("{what} {why}; {afterwards}")]
    NotWaitedFor {
        /// What was waited for.
        what: String,
        /// Why it is not any more.
        why: String,
        /// What becomes of it.
        afterwards: String,
    },
    /// The program cannot be set up.
    #[error("cannot start the runtime")]
    Runtime(#[source] std::io::Error),
    /// A man page cannot be written.
    #[error("cannot write the man pages to {folder}")]
    Man {
        /// Where.
        folder: String,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}

impl Failure {
    /// How the program ends.
    pub fn exit(&self) -> Exit {
        match self {
            Failure::Usage(_) | Failure::NoMaster(_) => Exit::Usage,
            Failure::Client(_)
            | Failure::Direct(_)
            | Failure::Document(_)
            | Failure::Output(_)
            | Failure::Declined
            | Failure::ThisHost { .. }
            | Failure::FencePending { .. }
            | Failure::HolderLives { .. }
            | Failure::WouldRefuse { .. }
            | Failure::SnapshotThere { .. }
            | Failure::RollbackUnknown { .. }
            | Failure::NotInTrash { .. }
            | Failure::NotRestorable { .. }
            | Failure::OtherTrash { .. }
            | Failure::NotWaitedFor { .. }
            | Failure::Runtime(_)
            | Failure::Man { .. } => Exit::Failed,
        }
    }

    /// True only where the store said so.
    pub fn is_not_found(&self) -> bool {
        match self {
            Failure::Client(error) => error.is_not_found(),
            Failure::Direct(error) => matches!(error, DirectError::NotFound { .. }),
            Failure::Document(_)
            | Failure::Usage(_)
            | Failure::NoMaster(_)
            | Failure::Output(_)
            | Failure::Declined
            | Failure::ThisHost { .. }
            | Failure::FencePending { .. }
            | Failure::HolderLives { .. }
            | Failure::WouldRefuse { .. }
            | Failure::SnapshotThere { .. }
            | Failure::RollbackUnknown { .. }
            | Failure::NotInTrash { .. }
            | Failure::NotRestorable { .. }
            | Failure::OtherTrash { .. }
            | Failure::NotWaitedFor { .. }
            | Failure::Runtime(_)
            | Failure::Man { .. } => false,
        }
    }

    /// Tells the user.
    pub fn tell(&self) {
        say(format_args!("error: {}", volapi::problem::chain(self)));
        for hint in self.hints() {
            say(format_args!("  {hint}"));
        }
    }

    /// The way out.
    fn hints(&self) -> Vec<String> {
        match self {
            Failure::Client(error) => client_hints(error),
            Failure::RollbackUnknown { id: _, source } => way_out(source),
            Failure::Direct(DirectError::Store(_)) => {
                vec!["is etcd running there? name all its endpoints with --etcd URL".to_owned()]
            }
            Failure::Direct(_)
            | Failure::Document(_)
            | Failure::Usage(_)
            | Failure::NoMaster(_)
            | Failure::Output(_)
            | Failure::Declined
            | Failure::ThisHost { .. }
            | Failure::FencePending { .. }
            | Failure::HolderLives { .. }
            | Failure::WouldRefuse { .. }
            | Failure::SnapshotThere { .. }
            | Failure::NotInTrash { .. }
            | Failure::NotRestorable { .. }
            | Failure::OtherTrash { .. }
            | Failure::NotWaitedFor { .. }
            | Failure::Runtime(_)
            | Failure::Man { .. } => Vec::new(),
        }
    }
}

fn client_hints(error: &ClientError) -> Vec<String> {
    let mut hints = way_out(error);
    let reads = error.operation().ends_with("_get") || error.operation().ends_with("_list");
    if !reads && error.outcome() == Outcome::Unknown {
        hints.push("it may have been done all the same: look before you try again".to_owned());
    }
    hints
}

fn way_out(error: &ClientError) -> Vec<String> {
    match error {
        ClientError::Unreachable { .. } => vec![
            "is volmaster running there? name another with --master URL or VOLCLI_MASTER"
                .to_owned(),
        ],
        ClientError::Deadline { .. } => vec!["wait longer with --timeout".to_owned()],
        ClientError::Garbled { .. } => {
            vec!["name the address of a volmaster with --master URL or VOLCLI_MASTER".to_owned()]
        }
        ClientError::Problem { problem, .. } => match problem.kind {
            Kind::Internal | Kind::Unavailable => {
                vec![format!("volmaster's log has more under request id {}", problem.request_id)]
            }
            Kind::Busy => vec!["try again in a moment".to_owned()],
            Kind::Invalid
            | Kind::Unauthorized
            | Kind::Forbidden
            | Kind::NotFound
            | Kind::Conflict
            | Kind::InUse
            | Kind::Precondition
            | Kind::Exhausted => Vec::new(),
        },
    }
}
