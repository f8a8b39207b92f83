//! `volcli volume …`

use std::time::Duration;

use clap::{Args, Subcommand};
use volcore::duration;
use volcore::name::TenantName;

use super::{Removal, TrashId};

pub const EXAMPLES: &str = "\
Examples:
  volcli volume create tenant1/db --opt size=20GB --opt filesystem=xfs
  volcli volume get tenant1/db
  volcli volume list tenant1
  volcli volume set tenant1/db rate-limit.write.bps=10MB
  volcli volume resize tenant1/db 40GB
  volcli volume flatten tenant1/db-test
  volcli volume remove tenant1/db
  volcli volume restore tenant1/db

A volume is written tenant/volume. The older two arguments, tenant and volume, are read as well.";

const CREATE_EXAMPLES: &str = "\
Examples:
  volcli volume create tenant1/db
  volcli volume create tenant1/db --opt size=20GB --opt rate-limit.write.iops=500
  volcli volume create tenant1/db-test --opt from=tenant1/db@before-upgrade

Options (see the tenant's policy for what holds without them):
  pool, size, filesystem, mount-options, access (auto, kernel, nbd, fuse), map-options,
  sharing (host, container, read-only), ephemeral, on-remove (keep, delete, trash),
  snapshots, snapshots.frequency, snapshots.keep, snapshot.retention, snapshot.freeze,
  rate-limit.write.iops, rate-limit.read.iops, rate-limit.write.bps, rate-limit.read.bps,
  from (TENANT/VOLUME or TENANT/VOLUME@SNAPSHOT, which is cloned)";

const ADOPT_EXAMPLES: &str = "\
Examples:
  volcli volume adopt tenant1/db
  volcli volume adopt tenant1/db --opt pool=ssd --opt filesystem=xfs
  rbd rename ssd/old-database ssd/tenant1.db && volcli volume adopt tenant1/db --opt pool=ssd

Options are those of `volcli volume create`, but for from. A size may be left out: it is the
image's own, and `volcli volume resize` makes it larger afterwards.";

const GET_EXAMPLES: &str = "\
Examples:
  volcli volume get tenant1/db
  volcli volume get tenant1/db -o table";

const SET_EXAMPLES: &str = "\
Examples:
  volcli volume set tenant1/db rate-limit.write.bps=10MB rate-limit.write.iops=500
  volcli volume set tenant1/db rate-limit.write.bps=0
  volcli volume set tenant1/db snapshots=true snapshots.frequency=30m snapshots.keep=20
  volcli volume set tenant1/db size=40GB

Options that can be changed (a size only grows; a limit of 0 is none):
  size,
  rate-limit.write.iops, rate-limit.read.iops, rate-limit.write.bps, rate-limit.read.bps,
  snapshots, snapshots.frequency, snapshots.keep, snapshot.retention, snapshot.freeze";

const RESIZE_EXAMPLES: &str = "\
Examples:
  volcli volume resize tenant1/db 40GB
  volcli volume resize tenant1/db 1TB -o table";

const FLATTEN_EXAMPLES: &str = "\
Examples:
  volcli volume flatten tenant1/db-test
  volcli volume flatten tenant1/db-test --no-wait
  volcli volume flatten tenant1/db-test -o json

On a terminal a bar shows how far it is. With -o json each step is a line, and the volume the last:
  {\"event\":\"progress\",\"object\":\"tenant1/db-test\",\"step\":\"flatten\",\"percent\":42}
Ctrl-C ends the waiting, not the work.";

const RESTORE_EXAMPLES: &str = "\
Examples:
  volcli volume restore tenant1/db
  volcli volume restore tenant1/db --as tenant1/db-old
  volcli volume restore tenant1/db --id 6f9619ff8b86d011b42d00c04fc964ff";

const LIST_EXAMPLES: &str = "\
Examples:
  volcli volume list tenant1
  volcli volume list tenant1 -o table";

const LIST_ALL_EXAMPLES: &str = "\
Examples:
  volcli volume list-all
  volcli volume list-all -o json";

const REMOVE_EXAMPLES: &str = "\
Examples:
  volcli volume remove tenant1/db
  volcli volume remove tenant1/db tenant1/web --yes
  volcli volume remove tenant1/db --timeout 30s
  volcli volume list tenant1 | xargs volcli volume remove --dry-run";

const FORCE_REMOVE_EXAMPLES: &str = "\
Examples:
  volcli volume force-remove tenant1/db
  volcli volume force-remove tenant1/db --etcd http://127.0.0.1:2379";

/// One volume, in one argument or in two.
#[derive(Debug, Args)]
pub struct OneVolume {
    /// The volume
    #[arg(value_name = "TENANT/VOLUME")]
    pub volume: String,
    /// The volume's name, where the first argument is the tenant alone
    #[arg(value_name = "VOLUME", hide = true)]
    pub name: Option<String>,
}

/// One volume or more.
#[derive(Debug, Args)]
pub struct SomeVolumes {
    /// The volumes
    #[arg(value_name = "TENANT/VOLUME", required = true)]
    pub volumes: Vec<String>,
}

/// `volcli volume …`
#[derive(Debug, Subcommand)]
pub enum VolumeCommand {
    /// Create a volume
    ///
    /// Creating a volume again with no options, or with the same, is no error.
    #[command(after_help = CREATE_EXAMPLES)]
    Create {
        #[command(flatten)]
        volume: OneVolume,
        /// What this volume has otherwise than its tenant's policy says
        #[arg(long = "opt", value_name = "KEY=VALUE", value_parser = pair)]
        options: Vec<(String, String)>,
    },
    /// Make an image that is there a volume, with all that is on it
    ///
    /// The image is named TENANT.VOLUME: as `volcli volume force-remove` leaves it, or as it was made
    /// or renamed by hand. Nobody may have it open, and it has to carry a file system; it is never
    /// formatted, and its snapshots stay. Adopting for a volume that is there is no error.
    #[command(after_help = ADOPT_EXAMPLES)]
    Adopt {
        #[command(flatten)]
        volume: OneVolume,
        /// What this volume has otherwise than its tenant's policy says
        #[arg(long = "opt", value_name = "KEY=VALUE", value_parser = pair)]
        options: Vec<(String, String)>,
    },
    /// Show a volume and who holds it
    #[command(after_help = GET_EXAMPLES)]
    Get {
        #[command(flatten)]
        volume: OneVolume,
    },
    /// Change size, limits and snapshots of a volume, also while it is in use
    ///
    /// What is not named stays as it is. Limits hold for running containers within two seconds. A
    /// size only grows. All other options are settled when a volume is created.
    #[command(after_help = SET_EXAMPLES)]
    Set {
        /// The volume
        #[arg(value_name = "TENANT/VOLUME")]
        volume: String,
        /// What to change
        #[arg(value_name = "KEY=VALUE", required = true)]
        changes: Vec<String>,
    },
    /// Make a volume larger, also while it is in use
    ///
    /// A volume never shrinks. The same as `volcli volume set` with size=SIZE.
    #[command(after_help = RESIZE_EXAMPLES)]
    Resize {
        /// The volume
        #[arg(value_name = "TENANT/VOLUME")]
        volume: String,
        /// How large it is to be, such as 20GB or 1TB
        #[arg(value_name = "SIZE")]
        size: String,
        /// The size, where the first two arguments are the tenant and the volume
        #[arg(value_name = "SIZE", hide = true)]
        older: Option<String>,
    },
    /// Copy into a clone all data that it shares with what it was cloned from
    ///
    /// What it was cloned from can go then, and its space is freed. The data is copied in the
    /// background, also while the volume is in use; a volume that is no clone has nothing to copy.
    /// Where a host's kernel has the image mapped, it waits until that is no longer so.
    ///
    /// It is waited for as long as it takes, with --timeout no longer than that.
    #[command(after_help = FLATTEN_EXAMPLES)]
    Flatten {
        #[command(flatten)]
        volume: OneVolume,
        /// Do not wait until all data is copied (also --detach)
        #[arg(long, alias = "detach")]
        no_wait: bool,
    },
    /// List the volumes of a tenant
    #[command(visible_alias = "ls", after_help = LIST_EXAMPLES)]
    List {
        /// The tenant
        tenant: TenantName,
    },
    /// List the volumes of all tenants
    #[command(after_help = LIST_ALL_EXAMPLES)]
    ListAll,
    /// Remove volumes and their data
    ///
    /// A volume that a host holds is not removed; with --timeout it is waited for. Where the volume
    /// says `on-remove: trash` its image is kept in the trash, and `volcli volume restore` brings it
    /// back.
    #[command(visible_alias = "rm", after_help = REMOVE_EXAMPLES)]
    Remove {
        #[command(flatten)]
        volumes: SomeVolumes,
        #[command(flatten)]
        removal: Removal,
        /// While a volume is held or busy, try again for so long, such as 30s or 5m
        // It takes the place of the global flag of that name.
        #[arg(id = "timeout", long = "timeout", value_name = "TIME", value_parser = duration::parse)]
        wait: Option<Duration>,
    },
    /// Forget volumes, and leave their images where they are
    ///
    /// For volumes whose image is lost or is to be kept apart. Nothing in the suite knows the
    /// image afterwards; what is left behind is printed.
    #[command(after_help = FORCE_REMOVE_EXAMPLES)]
    ForceRemove {
        #[command(flatten)]
        volumes: SomeVolumes,
        #[command(flatten)]
        removal: Removal,
    },
    /// Bring a removed volume back from the trash
    ///
    /// Of several of that name it is the one that was removed last, unless --id names another.
    #[command(after_help = RESTORE_EXAMPLES)]
    Restore {
        #[command(flatten)]
        volume: OneVolume,
        /// The volume that it becomes, instead of the one that it was
        #[arg(long = "as", value_name = "TENANT/NEW")]
        becomes: Option<String>,
        /// Which one in the trash, as `volcli trash list` shows them
        #[arg(long, value_name = "ID")]
        id: Option<TrashId>,
    },
}

pub(super) fn pair(text: &str) -> Result<(String, String), &'static str> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        Some(_) | None => Err("it is written KEY=VALUE, such as size=10GB"),
    }
}
