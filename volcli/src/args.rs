//! The command line as clap reads it: every command, flag, help text and example.
//!
//! Help, man pages and completions all come from here. What clap cannot check by itself (one
//! argument or two for a volume, which commands work on etcd) is checked in [`crate::plan`].

mod hosts;
mod mounts;
mod snapshots;
mod system;
mod tenants;
mod trash;
mod volumes;

use std::time::Duration;

use clap::{Args, Parser, Subcommand};
use volclient::MasterUrl;
use volcore::duration;
use volstore::etcd::EndpointUrl;

use crate::output::Format;

pub use hosts::HostCommand;
pub use mounts::MountCommand;
pub use snapshots::{OneSnapshot, ScheduleCommand, SnapshotCommand};
pub use system::GlobalCommand;
pub use tenants::TenantCommand;
pub use trash::{TrashCommand, TrashId};
pub use volumes::{OneVolume, SomeVolumes, VolumeCommand};

/// How long an answer is waited for when nobody says otherwise.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(120);

/// Where volmaster listens when nobody says otherwise.
pub const DEFAULT_MASTER: &str = "http://127.0.0.1:9005";

const EXAMPLES: &str = "\
Examples:
  volcli tenant upload tenant1 < policy.json
  volcli volume create tenant1/db --opt size=20GB
  volcli volume list tenant1
  volcli snapshot create tenant1/db before-upgrade
  volcli mount list -o table
  volcli help volume create

What takes long shows a bar or a spinner on a terminal. With -o json such a command prints a line of
JSON for each step, {\"event\":\"progress\",\"object\":…,\"step\":…,\"percent\":…}, and its result in the last
line. Ctrl-C ends the waiting, not the work.

Exit status: 0 done, 1 failed, 2 wrong usage, 3 partly done (of several names, some failed).
Data goes to the standard output, all else to the standard error.";

/// Manages the tenants, volumes, snapshots, mounts and hosts of the volume suite.
#[derive(Debug, Parser)]
#[command(name = "volcli", version, after_help = EXAMPLES, max_term_width = 100)]
#[command(subcommand_required = true, arg_required_else_help = true)]
pub struct Cli {
    /// What every command takes.
    #[command(flatten)]
    pub common: Common,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What every command takes.
#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
pub struct Common {
    /// Address of a volmaster; may be given several times, the first that answers is used
    /// [env: VOLCLI_MASTER, separated by commas] [default: http://127.0.0.1:9005]
    // The environment is read by the plan: clap would count it as an argument that was typed.
    #[arg(long, global = true, value_name = "URL", value_delimiter = ',')]
    pub master: Vec<MasterUrl>,

    /// How to show the data [default: names for lists, json for one thing]
    #[arg(short, long, global = true, value_name = "FORMAT", value_enum)]
    pub output: Option<Format>,

    /// How long to wait for an answer, such as 30s or 5m [default: 2m]
    // Without a default of clap's: `volume remove` has a meaning of its own for the flag.
    #[arg(long, global = true, value_name = "TIME", value_parser = duration::parse)]
    pub timeout: Option<Duration>,

    /// For disaster recovery without a volmaster: work on the metadata in this etcd; may be given
    /// several times for one cluster
    #[arg(long, global = true, value_name = "URL", value_delimiter = ',')]
    pub etcd: Vec<EndpointUrl>,

    /// The prefix of the keys in etcd, with --etcd [default: /volplugin]
    #[arg(long, global = true, value_name = "PREFIX")]
    pub prefix: Option<String>,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Tenants and their policies
    #[command(subcommand, visible_alias = "tenants", after_help = tenants::EXAMPLES)]
    Tenant(TenantCommand),
    /// Volumes
    #[command(subcommand, visible_alias = "volumes", after_help = volumes::EXAMPLES)]
    Volume(VolumeCommand),
    /// Snapshots of volumes, clones and the way back
    #[command(subcommand, visible_alias = "snapshots", after_help = snapshots::EXAMPLES)]
    Snapshot(SnapshotCommand),
    /// Snapshots on schedule: when the next is due, and what came of the last
    #[command(subcommand, visible_alias = "schedules", after_help = snapshots::SCHEDULE_EXAMPLES)]
    Schedule(ScheduleCommand),
    /// Removed volumes whose data is still there
    #[command(subcommand, after_help = trash::EXAMPLES)]
    Trash(TrashCommand),
    /// Mounts: which host holds which volume
    #[command(subcommand, visible_alias = "mounts", after_help = mounts::EXAMPLES)]
    Mount(MountCommand),
    /// Hosts that run volplugin
    #[command(subcommand, visible_alias = "hosts", after_help = hosts::EXAMPLES)]
    Host(HostCommand),
    /// Settings of the whole suite
    #[command(subcommand, after_help = system::GLOBAL_EXAMPLES)]
    Global(GlobalCommand),
    /// Show the state of volmaster and of what stands behind it
    ///
    /// The exit status is 1 if the metadata store or the images do not answer.
    #[command(after_help = system::STATUS_EXAMPLES)]
    Status,
    /// Compare records, images, claims and the trash, and show what is not as it should be
    ///
    /// With each finding stands the way out: '--fix', or a command for people to decide on. The exit
    /// status is 0 if nothing is wrong, or nothing any more, 3 if something is, and 1 if that could
    /// not be found out.
    #[command(after_help = system::DOCTOR_EXAMPLES)]
    Doctor {
        /// Mend what is proven and loses nothing; without this nothing is changed
        #[arg(long)]
        fix: bool,
    },
    /// Print a script that completes volcli's arguments in a shell
    #[command(after_help = system::COMPLETION_EXAMPLES)]
    Completion {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Print the man page, or write all of them into a folder
    #[command(hide = true, after_help = system::MAN_EXAMPLES)]
    Man {
        /// Write the page of every command into this folder
        #[arg(long, value_name = "FOLDER")]
        dir: Option<std::path::PathBuf>,
    },
}

/// How a command that takes something away behaves.
#[derive(Clone, Copy, Debug, Args)]
pub struct Removal {
    /// Do not ask, also on a terminal
    #[arg(short, long)]
    pub yes: bool,
    /// Only show what would happen
    #[arg(long)]
    pub dry_run: bool,
}
