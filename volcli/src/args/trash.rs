//! `volcli trash …`

use std::fmt;
use std::str::FromStr;

use clap::Subcommand;

use super::Removal;

pub const EXAMPLES: &str = "\
Examples:
  volcli trash list -o table
  volcli volume restore tenant1/db
  volcli trash restore 6f9619ff8b86d011b42d00c04fc964ff --as tenant1/db-old
  volcli trash purge --all --dry-run

Volumes come here when they are removed and their option on-remove is trash.";

const LIST_EXAMPLES: &str = "\
Examples:
  volcli trash list
  volcli trash list -o table";

const GET_EXAMPLES: &str = "\
Examples:
  volcli trash get 6f9619ff8b86d011b42d00c04fc964ff
  volcli trash get 6f9619ff8b86d011b42d00c04fc964ff -o table";

const RESTORE_EXAMPLES: &str = "\
Examples:
  volcli trash restore 6f9619ff8b86d011b42d00c04fc964ff
  volcli trash restore 6f9619ff8b86d011b42d00c04fc964ff --as tenant1/db-old";

const PURGE_EXAMPLES: &str = "\
Examples:
  volcli trash purge 6f9619ff8b86d011b42d00c04fc964ff
  volcli trash purge --all --dry-run
  volcli trash purge --all --yes --wait";

/// The id of a removed volume, which is one segment of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TrashId(String);

/// A text that is no id.
#[derive(Debug, thiserror::Error)]
#[error("an id is 1 to 128 letters, digits or '-'; `volcli trash list -o table` shows them")]
pub struct TrashIdError;

impl TrashId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for TrashId {
    type Err = TrashIdError;

    fn from_str(text: &str) -> Result<Self, TrashIdError> {
        let fits = (1..=128).contains(&text.len())
            && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
        if fits { Ok(TrashId(text.to_owned())) } else { Err(TrashIdError) }
    }
}

impl fmt::Display for TrashId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// `volcli trash …`
#[derive(Debug, Subcommand)]
pub enum TrashCommand {
    /// List the removed volumes whose data is still there, by their ids
    #[command(visible_alias = "ls", after_help = LIST_EXAMPLES)]
    List,
    /// Show a removed volume
    #[command(after_help = GET_EXAMPLES)]
    Get {
        /// Its id
        id: TrashId,
    },
    /// Make a removed volume a volume again
    ///
    /// By its id. `volcli volume restore` finds the last one of a name.
    #[command(after_help = RESTORE_EXAMPLES)]
    Restore {
        /// Its id
        id: TrashId,
        /// The volume that it becomes, instead of the one that it was
        #[arg(long = "as", value_name = "TENANT/NEW")]
        becomes: Option<String>,
    },
    /// Free the space of removed volumes; their data is gone for good
    ///
    /// The space is freed in the background; --wait shows how far it is.
    #[command(visible_alias = "rm", after_help = PURGE_EXAMPLES)]
    Purge {
        /// Their ids
        #[arg(required_unless_present = "all", value_name = "ID")]
        ids: Vec<TrashId>,
        /// All that are in the trash
        #[arg(long, conflicts_with = "ids")]
        all: bool,
        /// Wait until the space is freed, with --timeout no longer than that
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        removal: Removal,
    },
}
