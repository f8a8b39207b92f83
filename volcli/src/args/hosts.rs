//! `volcli host …`

use clap::Subcommand;
use volcore::name::HostName;

use super::Removal;

pub const EXAMPLES: &str = "\
Examples:
  volcli host list -o table
  volcli host get h1
  volcli host forget h1";

const LIST_EXAMPLES: &str = "\
Examples:
  volcli host list
  volcli host list -o table";

const GET_EXAMPLES: &str = "\
Examples:
  volcli host get h1
  volcli host get h1 -o yaml";

const FORGET_EXAMPLES: &str = "\
Examples:
  volcli host forget h1
  volcli host forget h1 h2 --dry-run";

/// `volcli host …`
#[derive(Debug, Subcommand)]
pub enum HostCommand {
    /// List the hosts with a live session
    #[command(visible_alias = "ls", after_help = LIST_EXAMPLES)]
    List,
    /// Show a host
    #[command(after_help = GET_EXAMPLES)]
    Get {
        /// The host's label
        host: HostName,
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
