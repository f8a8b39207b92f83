//! From what was typed to what is to be done: everything that can be wrong with a command line
//! is found here, before anything is read, asked or sent.

mod action;
mod error;
mod names;
mod snapshots;
mod tenants;
#[cfg(test)]
mod tests;
mod trash;
mod volumes;

use std::path::PathBuf;
use std::time::Duration;

use volclient::MasterUrl;
use volstore::etcd::EndpointUrl;
use volstore::keys::{DEFAULT_PREFIX, Keys};

pub use self::action::{Action, Holders};
pub use self::error::UsageError;
pub use self::names::SnapshotId;
use self::names::{once, one, some};
use crate::args::{
    Cli, Command, Common, DEFAULT_MASTER, DEFAULT_TIMEOUT, GlobalCommand, HostCommand,
    MountCommand, Removal, ScheduleCommand, TrashId,
};
use crate::output::Format;

/// What is to be done, where, and how the result is shown.
#[derive(Debug)]
pub struct Plan {
    /// Where the metadata is.
    pub reach: Reach,
    /// How the data is shown, if the user said.
    pub format: Option<Format>,
    /// How long what goes on in the background is waited for, if the user said.
    pub patience: Option<Duration>,
    /// What is to be done.
    pub action: Action,
}

/// Where the metadata is.
#[derive(Debug)]
pub enum Reach {
    /// Behind these masters.
    Masters {
        /// At least one.
        masters: Vec<MasterUrl>,
        /// How long a call may take.
        timeout: Duration,
    },
    /// In this etcd: recovery without a volmaster.
    Etcd {
        /// Its endpoints, at least one.
        endpoints: Vec<EndpointUrl>,
        /// The keys below the prefix.
        keys: Keys,
        /// How long a call may take.
        timeout: Duration,
    },
}

/// Where a document is read from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The standard input.
    Stdin,
    /// A file.
    File(PathBuf),
}

/// How careful a removal is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Care {
    /// Asks on a terminal, goes ahead elsewhere.
    Ask,
    /// Goes ahead.
    Go,
    /// Only looks.
    DryRun,
}

/// Whether what goes on in the background is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Waiting {
    /// Until it is done.
    Wait,
    /// It is only begun.
    Detach,
}

/// What of the trash is purged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purge {
    /// These.
    These(Vec<TrashId>),
    /// All that are there.
    All,
}

/// Makes the plan of a command line.
///
/// `environment` is `VOLCLI_MASTER`, which counts where neither `--master` nor `--etcd` is given.
pub fn plan(cli: Cli, environment: Option<&str>) -> Result<Plan, UsageError> {
    let action = action(cli.command)?;
    let (format, patience) = (cli.common.output, cli.common.timeout);
    let reach = reach(cli.common, environment)?;
    if matches!(reach, Reach::Etcd { .. }) && !action.works_on_etcd() {
        return Err(UsageError::NotOnEtcd);
    }
    Ok(Plan { reach, format, patience, action })
}

fn reach(common: Common, environment: Option<&str>) -> Result<Reach, UsageError> {
    let Common { master, output: _, timeout, etcd, prefix } = common;
    let timeout = timeout.unwrap_or(DEFAULT_TIMEOUT);
    if etcd.is_empty() {
        if prefix.is_some() {
            return Err(UsageError::PrefixAlone);
        }
        let masters = if master.is_empty() { masters(environment)? } else { master };
        return Ok(Reach::Masters { masters, timeout });
    }
    if !master.is_empty() {
        return Err(UsageError::MasterAndEtcd);
    }
    let keys = Keys::new(prefix.as_deref().unwrap_or(DEFAULT_PREFIX))?;
    Ok(Reach::Etcd { endpoints: etcd, keys, timeout })
}

/// The masters that the environment names, else the one on this machine.
fn masters(environment: Option<&str>) -> Result<Vec<MasterUrl>, UsageError> {
    let named = environment.unwrap_or_default().split([',', ' ']).filter(|url| !url.is_empty());
    let masters: Vec<MasterUrl> = named.map(str::parse).collect::<Result<_, _>>()?;
    if masters.is_empty() { Ok(vec![DEFAULT_MASTER.parse()?]) } else { Ok(masters) }
}

fn action(command: Command) -> Result<Action, UsageError> {
    Ok(match command {
        Command::Tenant(command) => tenants::action(command),
        Command::Volume(command) => volumes::action(command)?,
        Command::Snapshot(command) => snapshots::action(command)?,
        Command::Schedule(ScheduleCommand::List { tenant }) => Action::ScheduleList(tenant),
        Command::Trash(command) => trash::action(command)?,
        Command::Mount(MountCommand::List { tenant }) => Action::MountList(tenant),
        Command::Mount(MountCommand::Get { volume }) => Action::MountGet(one(volume)?),
        Command::Mount(MountCommand::ForceRemove { volumes, unfenced, removal }) => {
            let holders = if unfenced { Holders::Leave } else { Holders::Fence };
            Action::MountForceRemove(some(&volumes.volumes)?, care(removal), holders)
        }
        Command::Host(HostCommand::List) => Action::HostList,
        Command::Host(HostCommand::Get { host }) => Action::HostGet(host),
        Command::Host(HostCommand::Fence { hosts, removal }) => {
            Action::HostFence(once(hosts), care(removal))
        }
        Command::Host(HostCommand::Forget { hosts, removal }) => {
            Action::HostForget(once(hosts), care(removal))
        }
        Command::Global(GlobalCommand::Get) => Action::GlobalGet,
        Command::Global(GlobalCommand::Upload { file }) => Action::GlobalUpload(source(file)),
        Command::Status => Action::Status,
        Command::Doctor { fix: false } => Action::Doctor,
        Command::Doctor { fix: true } => Action::DoctorFix,
        Command::Completion { shell } => Action::Completion(shell),
        Command::Man { dir } => Action::Man(dir),
    })
}

fn source(file: Option<PathBuf>) -> Source {
    match file {
        None => Source::Stdin,
        Some(path) if path.as_os_str() == "-" => Source::Stdin,
        Some(path) => Source::File(path),
    }
}

fn care(removal: Removal) -> Care {
    match removal {
        Removal { dry_run: true, .. } => Care::DryRun,
        Removal { yes: true, .. } => Care::Go,
        Removal { .. } => Care::Ask,
    }
}
