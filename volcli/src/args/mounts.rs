//! `volcli mount …`

use clap::Subcommand;
use volcore::name::TenantName;

use super::{OneVolume, Removal, SomeVolumes};

pub const EXAMPLES: &str = "\
Examples:
  volcli mount list -o table
  volcli mount get tenant1/db
  volcli mount force-remove tenant1/db";

const LIST_EXAMPLES: &str = "\
Examples:
  volcli mount list
  volcli mount list tenant1 -o table";

const GET_EXAMPLES: &str = "\
Examples:
  volcli mount get tenant1/db
  volcli mount get tenant1/db -o table";

const FORCE_REMOVE_EXAMPLES: &str = "\
Examples:
  volcli mount force-remove tenant1/db --dry-run
  volcli mount force-remove tenant1/db --yes";

/// `volcli mount …`
#[derive(Debug, Subcommand)]
pub enum MountCommand {
    /// List the volumes that a host holds
    #[command(visible_alias = "ls", after_help = LIST_EXAMPLES)]
    List {
        /// Only this tenant's
        tenant: Option<TenantName>,
    },
    /// Show which host holds a volume
    #[command(after_help = GET_EXAMPLES)]
    Get {
        #[command(flatten)]
        volume: OneVolume,
    },
    /// Fence whoever holds volumes, and clear their claims
    ///
    /// For hosts that are gone for good. On Ceph the holder is cut off from the image first: should it
    /// still run, its containers get errors, and what they have not synced is lost. A holder that lives is
    /// refused without --yes. With --unsafe or --etcd nobody is fenced: be sure that the host is off.
    #[command(after_help = FORCE_REMOVE_EXAMPLES)]
    ForceRemove {
        #[command(flatten)]
        volumes: SomeVolumes,
        /// Clear the claims and cut nobody off: only when the hosts are surely off
        #[arg(long = "unsafe")]
        unfenced: bool,
        #[command(flatten)]
        removal: Removal,
    },
}
