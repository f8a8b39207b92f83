//! `volcli tenant …`

use std::path::PathBuf;

use clap::{ArgAction, Subcommand};
use volcore::name::TenantName;

use super::Removal;

pub const EXAMPLES: &str = "\
Examples:
  volcli tenant upload tenant1 policy.json
  volcli tenant get tenant1
  volcli tenant list
  volcli tenant history tenant1";

const UPLOAD_EXAMPLES: &str = "\
Examples:
  volcli tenant upload tenant1 < policy.json
  volcli tenant upload tenant1 policies/default.json
  volcli tenant upload tenant1 --check policy.json
  volcli tenant upload tenant1 --from-revision 2
  volcli tenant get tenant1 | sed 's/10 MiB/20 MiB/' | volcli tenant upload tenant1";

const GET_EXAMPLES: &str = "\
Examples:
  volcli tenant get tenant1
  volcli tenant get tenant1 -o yaml";

const LIST_EXAMPLES: &str = "\
Examples:
  volcli tenant list
  volcli tenant list -o table";

const DELETE_EXAMPLES: &str = "\
Examples:
  volcli tenant delete tenant1
  volcli tenant delete tenant1 tenant2 --dry-run";

const HISTORY_EXAMPLES: &str = "\
Examples:
  volcli tenant history tenant1
  volcli tenant history tenant1 2
  volcli tenant history tenant1 --diff 1 2
  volcli tenant upload tenant1 --from-revision 1";

/// `volcli tenant …`
#[derive(Debug, Subcommand)]
pub enum TenantCommand {
    /// Upload a tenant's policy
    ///
    /// The policy is checked before it is sent. Volumes that exist keep what they were made with;
    /// every upload is kept, see `volcli tenant history`.
    #[command(after_help = UPLOAD_EXAMPLES)]
    Upload {
        /// The tenant; it is made if it is new
        tenant: TenantName,
        /// The policy, a JSON file; '-' or nothing for the standard input
        file: Option<PathBuf>,
        /// Only check the policy; nothing is sent
        #[arg(long)]
        check: bool,
        /// Upload the policy of an earlier upload again, as the next one
        #[arg(long, value_name = "NUMBER", conflicts_with_all = ["file", "check"])]
        from_revision: Option<u64>,
    },
    /// Print a tenant's policy
    #[command(after_help = GET_EXAMPLES)]
    Get {
        /// The tenant
        tenant: TenantName,
    },
    /// List the tenants
    #[command(visible_alias = "ls", after_help = LIST_EXAMPLES)]
    List,
    /// Delete tenants; their volumes and uploads stay
    ///
    /// Without its tenant a volume works as before, and can be removed; none can be created.
    /// Uploading a policy under the same name brings the tenant back.
    #[command(visible_alias = "rm", after_help = DELETE_EXAMPLES)]
    Delete {
        /// The tenants
        #[arg(required = true, value_name = "TENANT")]
        tenants: Vec<TenantName>,
        #[command(flatten)]
        removal: Removal,
    },
    /// List the uploads of a tenant, print the policy of one, or show in what two differ
    #[command(after_help = HISTORY_EXAMPLES)]
    History {
        /// The tenant
        tenant: TenantName,
        /// The number of the upload to print
        revision: Option<u64>,
        /// Show in what two uploads differ: lines with '-' are of A alone, those with '+' of B
        #[arg(long, num_args = 2, value_names = ["A", "B"], conflicts_with = "revision")]
        #[arg(action = ArgAction::Set)]
        diff: Vec<u64>,
    },
}
