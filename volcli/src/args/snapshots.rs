//! `volcli snapshot …` and `volcli schedule …`

use clap::{Args, Subcommand};
use volcore::name::TenantName;

use super::volumes::pair;
use super::{OneVolume, Removal};

pub const EXAMPLES: &str = "\
Examples:
  volcli snapshot create tenant1/db before-upgrade
  volcli snapshot list tenant1/db -o table
  volcli snapshot clone tenant1/db@before-upgrade tenant1/db-test
  volcli snapshot rollback tenant1/db@before-upgrade
  volcli snapshot remove tenant1/db@before-upgrade

A snapshot is written tenant/volume@snapshot. Its volume and its name may be two arguments, and the
older three, tenant, volume and snapshot, are read as well.";

const CREATE_EXAMPLES: &str = "\
Examples:
  volcli snapshot create tenant1/db before-upgrade
  volcli snapshot create tenant1/db@before-upgrade
  volcli snapshot create tenant1/db \"manual-$(date -u +%Y%m%dT%H%M%SZ)\"";

const GET_EXAMPLES: &str = "\
Examples:
  volcli snapshot get tenant1/db@before-upgrade
  volcli snapshot get tenant1/db before-upgrade -o table";

const LIST_EXAMPLES: &str = "\
Examples:
  volcli snapshot list tenant1/db
  volcli snapshot list tenant1/db -o table";

const REMOVE_EXAMPLES: &str = "\
Examples:
  volcli snapshot remove tenant1/db@before-upgrade
  volcli snapshot remove tenant1/db@before-upgrade tenant1/web@before-upgrade --yes
  volcli snapshot list tenant1/db | sed 's|^|tenant1/db@|' | xargs volcli snapshot remove --dry-run";

const CLONE_EXAMPLES: &str = "\
Examples:
  volcli snapshot clone tenant1/db@before-upgrade tenant1/db-test
  volcli snapshot clone tenant1/db tenant2/db-copy --opt size=40GB --opt snapshots=false
  volcli snapshot clone tenant1/db@before-upgrade tenant1/db-test --flatten

The clone has the file system of what it is cloned from, and at least its size; all else is as the
policy of its own tenant and --opt say. See `volcli help volume create` for the options.";

const ROLLBACK_EXAMPLES: &str = "\
Examples:
  volcli snapshot rollback tenant1/db@before-upgrade --dry-run
  volcli snapshot rollback tenant1/db@before-upgrade --yes";

pub const SCHEDULE_EXAMPLES: &str = "\
Examples:
  volcli schedule list -o table
  volcli volume set tenant1/db snapshots=true snapshots.frequency=30m snapshots.keep=20
  volcli volume set tenant1/db snapshots=false";

const SCHEDULE_LIST_EXAMPLES: &str = "\
Examples:
  volcli schedule list
  volcli schedule list tenant1 -o table";

/// One snapshot, in one argument, in two or in three.
#[derive(Debug, Args)]
pub struct OneSnapshot {
    /// The snapshot, or its volume alone
    #[arg(value_name = "TENANT/VOLUME@SNAPSHOT")]
    pub first: String,
    /// The snapshot's name, where the first argument is the volume alone
    #[arg(value_name = "SNAPSHOT")]
    pub second: Option<String>,
    /// The snapshot's name, where the first two are the tenant and the volume
    #[arg(value_name = "NAME", hide = true)]
    pub third: Option<String>,
}

/// `volcli snapshot …`
#[derive(Debug, Subcommand)]
pub enum SnapshotCommand {
    /// Take a snapshot of a volume, also while it is in use
    ///
    /// Names that begin with auto- are kept for snapshots on schedule. A snapshot that is there
    /// already is not taken again: the exit status is 1.
    #[command(after_help = CREATE_EXAMPLES)]
    Create {
        #[command(flatten)]
        snapshot: OneSnapshot,
    },
    /// Show a snapshot
    #[command(after_help = GET_EXAMPLES)]
    Get {
        #[command(flatten)]
        snapshot: OneSnapshot,
    },
    /// List the snapshots of a volume, the oldest first
    #[command(visible_alias = "ls", after_help = LIST_EXAMPLES)]
    List {
        #[command(flatten)]
        volume: OneVolume,
    },
    /// Remove snapshots; clones of them keep their data
    #[command(visible_alias = "rm", after_help = REMOVE_EXAMPLES)]
    Remove {
        /// The snapshots
        #[arg(required = true, value_name = "TENANT/VOLUME@SNAPSHOT")]
        snapshots: Vec<String>,
        #[command(flatten)]
        removal: Removal,
    },
    /// Create a volume that begins as a copy of a snapshot, or of a volume as it is now
    ///
    /// What is written on one of the two is not seen on the other. The clone shares data with what it is
    /// cloned from until it is flattened, see `volcli help volume flatten`.
    #[command(after_help = CLONE_EXAMPLES)]
    Clone {
        /// What is cloned
        #[arg(value_name = "TENANT/VOLUME[@SNAPSHOT]")]
        origin: String,
        /// The new volume
        #[arg(value_name = "NEW-TENANT/NEW-VOLUME")]
        volume: String,
        /// What the new volume has otherwise than its tenant's policy says
        #[arg(long = "opt", value_name = "KEY=VALUE", value_parser = pair)]
        options: Vec<(String, String)>,
        /// Copy all data into the clone, so that what it is cloned from can go
        #[arg(long)]
        flatten: bool,
        /// Do not wait until all data is copied (also --detach)
        #[arg(long, alias = "detach", requires = "flatten")]
        no_wait: bool,
    },
    /// Give a volume the data that it had at a snapshot; what was written since is lost
    ///
    /// Only a volume that no host holds is rolled back. All of its snapshots stay.
    #[command(after_help = ROLLBACK_EXAMPLES)]
    Rollback {
        #[command(flatten)]
        snapshot: OneSnapshot,
        #[command(flatten)]
        removal: Removal,
    },
}

/// `volcli schedule …`
#[derive(Debug, Subcommand)]
pub enum ScheduleCommand {
    /// List the volumes that are snapshotted on schedule, and what came of it
    #[command(visible_alias = "ls", after_help = SCHEDULE_LIST_EXAMPLES)]
    List {
        /// Only this tenant's
        tenant: Option<TenantName>,
    },
}
