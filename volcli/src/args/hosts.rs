//! `volcli host …`

use clap::Subcommand;
use volcore::name::HostName;

use super::Removal;

pub const EXAMPLES: &str = "\
Examples:
  volcli host list -o table
  volcli host get h1
  volcli host fence h1
  volcli host forget h1";

const LIST_EXAMPLES: &str = "\
Examples:
  volcli host list
  volcli host list -o table";

const GET_EXAMPLES: &str = "\
Examples:
  volcli host get h1
  volcli host get h1 -o yaml";

const FENCE_EXAMPLES: &str = "\
Examples:
  volcli host fence h1 --dry-run
  volcli host fence h1 --yes";

const FORGET_EXAMPLES: &str = "\
Examples:
  volcli host forget h1
  volcli host forget h1 h2 --dry-run";

/// `volcli host …`
#[derive(Debug, Subcommand)]
pub enum HostCommand {
    /// List the hosts: those that are heard of, and those that hold or have lost volumes
    #[command(visible_alias = "ls", after_help = LIST_EXAMPLES)]
    List,
    /// Show a host
    #[command(after_help = GET_EXAMPLES)]
    Get {
        /// The host's label
        host: HostName,
    },
    /// Take all volumes from hosts that are dead or cut off
    ///
    /// Their clients are kept out of Ceph, so that nothing that they still do reaches an image, and others
    /// can have the volumes at once. Without this that happens when somebody asks for one of them, as
    /// soon as the host has been silent for a session's time to live. A host that lives is refused without
    /// --yes: its containers get errors, and lose what they have not synced.
    #[command(after_help = FENCE_EXAMPLES)]
    Fence {
        /// The hosts' labels
        #[arg(required = true, value_name = "HOST")]
        hosts: Vec<HostName>,
        #[command(flatten)]
        removal: Removal,
    },
    /// End the sessions of hosts; the volumes that they hold stay held
    ///
    /// A host that still runs opens its session again within seconds.
    #[command(after_help = FORGET_EXAMPLES)]
    Forget {
        /// The hosts' labels
        #[arg(required = true, value_name = "HOST")]
        hosts: Vec<HostName>,
        #[command(flatten)]
        removal: Removal,
    },
}
