//! `volcli global …`, and the examples of the commands that stand alone.

use std::path::PathBuf;

use clap::Subcommand;

pub const GLOBAL_EXAMPLES: &str = "\
Examples:
  volcli global get
  volcli global get | sed 's/10s/30s/' | volcli global upload";

const GET_EXAMPLES: &str = "\
Examples:
  volcli global get
  volcli global get -o yaml";

const UPLOAD_EXAMPLES: &str = "\
Examples:
  volcli global upload settings.json
  echo '{\"session-ttl\": \"30s\"}' | volcli global upload";

pub const DOCTOR_EXAMPLES: &str = "\
Examples:
  volcli doctor
  volcli doctor --fix
  volcli doctor -o json";

pub const STATUS_EXAMPLES: &str = "\
Examples:
  volcli status
  volcli status -o json
  volcli status --master http://m1:9005 --master http://m2:9005";

pub const COMPLETION_EXAMPLES: &str = "\
Examples:
  source <(volcli completion bash)
  volcli completion zsh > ~/.zfunc/_volcli";

pub const MAN_EXAMPLES: &str = "\
Examples:
  volcli man | man -l -
  volcli man --dir /usr/local/share/man/man1";

/// `volcli global …`
#[derive(Debug, Subcommand)]
pub enum GlobalCommand {
    /// Print the settings
    #[command(after_help = GET_EXAMPLES)]
    Get,
    /// Replace the settings
    #[command(after_help = UPLOAD_EXAMPLES)]
    Upload {
        /// The settings, a JSON file; '-' or nothing for the standard input
        file: Option<PathBuf>,
    },
}
