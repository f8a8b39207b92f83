//! From what was typed to what is to be done: everything that can be wrong with a command line
//! is found here, before anything is read, asked or sent.

use std::path::PathBuf;
use std::time::Duration;

use volapi::volumes::{CreateVolume, SetVolume};
use volclient::{MasterUrl, MasterUrlError};
use volcore::live::{LiveChange, LiveError};
use volcore::name::{HostName, NameError, TenantName, VolumeId, VolumeIdError};
use volcore::options::{OptionError, OptionSet};
use volstore::etcd::EndpointUrl;
use volstore::keys::{DEFAULT_PREFIX, Keys, PrefixError};

use crate::args::{
    Cli, Command, Common, DEFAULT_MASTER, GlobalCommand, HostCommand, MountCommand, OneVolume,
    Removal, TenantCommand, VolumeCommand,
};
use crate::output::Format;

/// What is to be done, where, and how the result is shown.
#[derive(Debug)]
pub struct Plan {
    /// Where the metadata is.
    pub reach: Reach,
    /// How the data is shown, if the user said.
    pub format: Option<Format>,
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

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Action {
    /// `tenant upload`
    TenantUpload(TenantName, Source),
    /// `tenant upload --check`
    TenantCheck(TenantName, Source),
    /// `tenant get`
    TenantGet(TenantName),
    /// `tenant list`
    TenantList,
    /// `tenant delete`
    TenantDelete(Vec<TenantName>, Care),
    /// `tenant history`
    TenantHistory(TenantName),
    /// `tenant history` with a number
    TenantRevision(TenantName, u64),
    /// `volume create`
    VolumeCreate(CreateVolume),
    /// `volume get`
    VolumeGet(VolumeId),
    /// `volume set`
    VolumeSet(VolumeId, SetVolume),
    /// `volume list`, or `list-all` without a tenant
    VolumeList(Option<TenantName>),
    /// `volume remove`
    VolumeRemove(Vec<VolumeId>, Care),
    /// `volume force-remove`
    VolumeForceRemove(Vec<VolumeId>, Care),
    /// `mount list`
    MountList(Option<TenantName>),
    /// `mount get`
    MountGet(VolumeId),
    /// `mount force-remove`
    MountForceRemove(Vec<VolumeId>, Care),
    /// `host list`
    HostList,
    /// `host get`
    HostGet(HostName),
    /// `host forget`
    HostForget(Vec<HostName>, Care),
    /// `global get`
    GlobalGet,
    /// `global upload`
    GlobalUpload(Source),
    /// `status`
    Status,
    /// `completion`
    Completion(clap_complete::Shell),
    /// `man`
    Man(Option<PathBuf>),
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

/// A command line that means nothing.
#[derive(Debug, thiserror::Error)]
pub enum UsageError {
    /// A plain name where `tenant/volume` is wanted.
    #[error("volume {given:?} names no tenant: write it as tenant/volume")]
    NoTenant {
        /// What was given.
        given: String,
    },
    /// A name breaks its rule.
    #[error(transparent)]
    Name(#[from] NameError),
    /// `tenant other/volume`.
    #[error(
        "{first} and {second} do not go together: write one argument, tenant/volume, or two, tenant and volume"
    )]
    Mixed {
        /// The first argument.
        first: String,
        /// The second argument.
        second: String,
    },
    /// An option of a volume is wrong.
    #[error("--opt: {0}")]
    Option(#[from] OptionError),
    /// An option of a volume is given twice.
    #[error("--opt {key} is given more than once")]
    OptionTwice {
        /// Which.
        key: String,
    },
    /// A change is wrong.
    #[error(transparent)]
    Change(#[from] LiveError),
    /// A change is given twice.
    #[error("{key} is given more than once")]
    ChangeTwice {
        /// Which.
        key: String,
    },
    /// No change.
    #[error("{given:?} is not written KEY=VALUE, such as rate-limit.write.bps=10MB")]
    NoPair {
        /// What was given.
        given: String,
    },
    /// Nothing is to be changed.
    #[error("nothing is to be changed: add KEY=VALUE, such as rate-limit.write.bps=10MB")]
    NoChange,
    /// Both ways to the metadata are named.
    #[error("--master and --etcd exclude each other: with --etcd no volmaster is asked")]
    MasterAndEtcd,
    /// A prefix without `--etcd`.
    #[error("--prefix is for --etcd only; a volmaster knows its own prefix")]
    PrefixAlone,
    /// The prefix is no prefix.
    #[error("--prefix: {0}")]
    Prefix(#[from] PrefixError),
    /// The command touches more than metadata.
    #[error(
        "this needs a volmaster. With --etcd work: tenant upload, get, list, delete and history; \
         volume get, list, list-all and force-remove; mount list, get and force-remove"
    )]
    NotOnEtcd,
    /// The environment names no master.
    #[error("VOLCLI_MASTER: {0}")]
    Environment(#[from] MasterUrlError),
}

/// Makes the plan of a command line.
///
/// `environment` is `VOLCLI_MASTER`, which counts where neither `--master` nor `--etcd` is given.
pub fn plan(cli: Cli, environment: Option<&str>) -> Result<Plan, UsageError> {
    let action = action(cli.command)?;
    let format = cli.common.output;
    let reach = reach(cli.common, environment)?;
    if matches!(reach, Reach::Etcd { .. }) && !action.works_on_etcd() {
        return Err(UsageError::NotOnEtcd);
    }
    Ok(Plan { reach, format, action })
}

fn reach(common: Common, environment: Option<&str>) -> Result<Reach, UsageError> {
    let Common { master, output: _, timeout, etcd, prefix } = common;
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

impl Action {
    /// Whether it is metadata alone, so that it can be done without a volmaster (DESIGN §12).
    fn works_on_etcd(&self) -> bool {
        match self {
            Action::TenantUpload(..)
            | Action::TenantCheck(..)
            | Action::TenantGet(_)
            | Action::TenantList
            | Action::TenantDelete(..)
            | Action::TenantHistory(_)
            | Action::TenantRevision(..)
            | Action::VolumeGet(_)
            | Action::VolumeList(_)
            | Action::VolumeForceRemove(..)
            | Action::MountList(_)
            | Action::MountGet(_)
            | Action::MountForceRemove(..)
            | Action::Completion(_)
            | Action::Man(_) => true,
            Action::VolumeCreate(_)
            | Action::VolumeSet(..)
            | Action::VolumeRemove(..)
            | Action::HostList
            | Action::HostGet(_)
            | Action::HostForget(..)
            | Action::GlobalGet
            | Action::GlobalUpload(_)
            | Action::Status => false,
        }
    }
}

fn action(command: Command) -> Result<Action, UsageError> {
    Ok(match command {
        Command::Tenant(command) => tenant(command),
        Command::Volume(command) => volume(command)?,
        Command::Mount(command) => mount(command)?,
        Command::Host(HostCommand::List) => Action::HostList,
        Command::Host(HostCommand::Get { host }) => Action::HostGet(host),
        Command::Host(HostCommand::Forget { hosts, removal }) => {
            Action::HostForget(once(hosts), care(removal))
        }
        Command::Global(GlobalCommand::Get) => Action::GlobalGet,
        Command::Global(GlobalCommand::Upload { file }) => Action::GlobalUpload(source(file)),
        Command::Status => Action::Status,
        Command::Completion { shell } => Action::Completion(shell),
        Command::Man { dir } => Action::Man(dir),
    })
}

fn tenant(command: TenantCommand) -> Action {
    match command {
        TenantCommand::Upload { tenant, file, check: true } => {
            Action::TenantCheck(tenant, source(file))
        }
        TenantCommand::Upload { tenant, file, check: false } => {
            Action::TenantUpload(tenant, source(file))
        }
        TenantCommand::Get { tenant } => Action::TenantGet(tenant),
        TenantCommand::List => Action::TenantList,
        TenantCommand::Delete { tenants, removal } => {
            Action::TenantDelete(once(tenants), care(removal))
        }
        TenantCommand::History { tenant, revision: None } => Action::TenantHistory(tenant),
        TenantCommand::History { tenant, revision: Some(revision) } => {
            Action::TenantRevision(tenant, revision)
        }
    }
}

fn volume(command: VolumeCommand) -> Result<Action, UsageError> {
    Ok(match command {
        VolumeCommand::Create { volume, options } => {
            Action::VolumeCreate(creation(one(volume)?, options)?)
        }
        VolumeCommand::Set { volume, changes } => change(&volume, &changes)?,
        VolumeCommand::Get { volume } => Action::VolumeGet(one(volume)?),
        VolumeCommand::List { tenant } => Action::VolumeList(Some(tenant)),
        VolumeCommand::ListAll => Action::VolumeList(None),
        VolumeCommand::Remove { volumes, removal } => {
            Action::VolumeRemove(some(&volumes.volumes)?, care(removal))
        }
        VolumeCommand::ForceRemove { volumes, removal } => {
            Action::VolumeForceRemove(some(&volumes.volumes)?, care(removal))
        }
    })
}

fn mount(command: MountCommand) -> Result<Action, UsageError> {
    Ok(match command {
        MountCommand::List { tenant } => Action::MountList(tenant),
        MountCommand::Get { volume } => Action::MountGet(one(volume)?),
        MountCommand::ForceRemove { volumes, removal } => {
            Action::MountForceRemove(some(&volumes.volumes)?, care(removal))
        }
    })
}

/// The options are checked here as volmaster will check them, so that a slip costs no round trip.
fn creation(id: VolumeId, pairs: Vec<(String, String)>) -> Result<CreateVolume, UsageError> {
    let mut options = std::collections::BTreeMap::new();
    for (key, value) in pairs {
        if options.insert(key.clone(), value).is_some() {
            return Err(UsageError::OptionTwice { key });
        }
    }
    OptionSet::from_driver_options(&options)?;
    let VolumeId { tenant, volume } = id;
    Ok(CreateVolume { tenant, name: volume, options })
}

/// A second argument that is no change is the name of the volume, as in older versions.
fn change(first: &str, rest: &[String]) -> Result<Action, UsageError> {
    let (id, pairs) = match rest {
        [name, pairs @ ..] if !first.contains('/') && !name.contains('=') => {
            (pair(first, name)?, pairs)
        }
        pairs => (volume_id(first)?, pairs),
    };
    let mut options = std::collections::BTreeMap::new();
    for given in pairs {
        let (key, value) = given
            .split_once('=')
            .filter(|(key, _)| !key.is_empty())
            .ok_or_else(|| UsageError::NoPair { given: given.clone() })?;
        if options.insert(key.to_owned(), value.to_owned()).is_some() {
            return Err(UsageError::ChangeTwice { key: key.to_owned() });
        }
    }
    if options.is_empty() {
        return Err(UsageError::NoChange);
    }
    LiveChange::from_driver_options(&options)?;
    Ok(Action::VolumeSet(id, SetVolume { options }))
}

fn one(given: OneVolume) -> Result<VolumeId, UsageError> {
    match given.name {
        None => volume_id(&given.volume),
        Some(name) => pair(&given.volume, &name),
    }
}

/// Two arguments of which the first has no slash are a tenant and a volume, as in older versions.
fn some(given: &[String]) -> Result<Vec<VolumeId>, UsageError> {
    match given {
        [tenant, volume] if !tenant.contains('/') => Ok(vec![pair(tenant, volume)?]),
        _ => Ok(once(given.iter().map(|name| volume_id(name)).collect::<Result<_, _>>()?)),
    }
}

/// `tenant volume`; `tenant tenant/volume` is read too, because lists print full names.
fn pair(tenant: &str, volume: &str) -> Result<VolumeId, UsageError> {
    let mixed = || UsageError::Mixed { first: tenant.to_owned(), second: volume.to_owned() };
    if tenant.contains('/') {
        return Err(mixed());
    }
    match volume.split_once('/') {
        None => Ok(VolumeId::new(tenant.parse()?, volume.parse()?)),
        Some((again, volume)) if again == tenant => {
            Ok(VolumeId::new(tenant.parse()?, volume.parse()?))
        }
        Some(_) => Err(mixed()),
    }
}

fn volume_id(text: &str) -> Result<VolumeId, UsageError> {
    text.parse().map_err(|error| match error {
        VolumeIdError::NoTenant { given } => UsageError::NoTenant { given },
        VolumeIdError::Part(error) => UsageError::Name(error),
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

/// Each name once, in the order given: to remove a thing twice is to fail the second time.
fn once<T: PartialEq>(names: Vec<T>) -> Vec<T> {
    let mut kept = Vec::with_capacity(names.len());
    for name in names {
        if !kept.contains(&name) {
            kept.push(name);
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    fn read_with(line: &str, environment: Option<&str>) -> Result<Plan, String> {
        let cli =
            Cli::try_parse_from(line.split_whitespace()).map_err(|error| error.to_string())?;
        plan(cli, environment).map_err(|error| error.to_string())
    }

    fn read(line: &str) -> Result<Plan, String> {
        read_with(line, None)
    }

    fn action_of(line: &str) -> Action {
        read(line).unwrap().action
    }

    fn id(text: &str) -> VolumeId {
        text.parse().unwrap()
    }

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_volume_is_one_argument_or_two() {
        for line in ["volcli volume get t/v", "volcli volume get t v", "volcli volume get t t/v"] {
            assert_eq!(action_of(line), Action::VolumeGet(id("t/v")), "{line}");
        }
        let remove = |ids: &[&str]| {
            Action::VolumeRemove(ids.iter().map(|text| id(text)).collect(), Care::Ask)
        };
        assert_eq!(action_of("volcli volume remove t v"), remove(&["t/v"]));
        assert_eq!(action_of("volcli volume rm t/v t/w t/v"), remove(&["t/v", "t/w"]));
        for (line, expected) in [
            ("volcli volume get v", "names no tenant"),
            ("volcli volume get a/b c", "do not go together"),
            ("volcli volume get t u/v", "do not go together"),
            ("volcli volume remove t v w", "names no tenant"),
            ("volcli volume get t/-", "volume name \"-\" is not valid"),
            ("volcli volume get a/b/c", "is not valid"),
        ] {
            let error = read(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }

    #[test]
    fn options_are_checked_before_they_are_sent() {
        let Action::VolumeCreate(body) =
            action_of("volcli volume create t v --opt size=1GB --opt ephemeral=T")
        else {
            panic!()
        };
        assert_eq!(body.options["size"], "1GB");
        for (line, expected) in [
            ("volcli volume create t/v --opt sise=1GB", "unknown option \"sise\""),
            ("volcli volume create t/v --opt size=1XB", "option size=\"1XB\""),
            ("volcli volume create t/v --opt size=1 --opt size=2", "more than once"),
            ("volcli volume create t/v --opt size", "KEY=VALUE"),
        ] {
            let error = read(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }

    #[test]
    fn changes_are_checked_before_they_are_sent() {
        let expected = |options: &[(&str, &str)]| {
            let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
            Action::VolumeSet(id("t/v"), SetVolume { options: options.collect() })
        };
        let limit = expected(&[("rate-limit.write.bps", "2MB")]);
        for line in ["t/v rate-limit.write.bps=2MB", "t v rate-limit.write.bps=2MB"] {
            assert_eq!(action_of(&format!("volcli volume set {line}")), limit, "{line}");
        }
        let two = expected(&[("rate-limit.read.iops", "0"), ("snapshots", "false")]);
        assert_eq!(action_of("volcli volume set t/v snapshots=false rate-limit.read.iops=0"), two);
        for (line, expected) in [
            ("t/v", "KEY=VALUE"),
            ("t v", "nothing is to be changed"),
            ("v snapshots=false", "names no tenant"),
            ("t/v w snapshots=false", "\"w\" is not written KEY=VALUE"),
            ("t/v =5", "\"=5\" is not written KEY=VALUE"),
            ("t/v snapshots=0 snapshots=1", "more than once"),
            ("t/v size=1GB", "option size cannot be changed by set"),
            ("t/v sise=1GB", "unknown option \"sise\""),
            ("t/v snapshots=maybe", "true or false"),
            ("t/v snapshots=0 --etcd http://e:1", "needs a volmaster"),
        ] {
            let error = read(&format!("volcli volume set {line}")).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }

    #[test]
    fn masters_come_from_flags_and_default_to_this_machine() {
        let reached = |line: &str, environment| match read_with(line, environment).unwrap().reach {
            Reach::Masters { masters, .. } => {
                masters.iter().map(ToString::to_string).collect::<Vec<_>>()
            }
            Reach::Etcd { .. } => panic!(),
        };
        let masters = |line: &str| reached(line, None);
        let environment = Some("http://a:1, http://b:2");
        assert_eq!(reached("volcli status", environment), ["http://a:1", "http://b:2"]);
        assert_eq!(reached("volcli status --master http://c:3", environment), ["http://c:3"]);
        assert_eq!(reached("volcli status", Some("")), ["http://127.0.0.1:9005"]);
        assert!(read_with("volcli status", Some("a:1")).unwrap_err().starts_with("VOLCLI_MASTER"));
        assert!(read_with("volcli tenant list --etcd http://e:1", environment).is_ok());
        assert_eq!(masters("volcli status"), ["http://127.0.0.1:9005"]);
        assert_eq!(
            masters("volcli status --master http://a:1,http://b:2"),
            ["http://a:1", "http://b:2"]
        );
        assert_eq!(
            masters("volcli --master http://a:1 --master http://b:2 status"),
            ["http://a:1", "http://b:2"]
        );
        assert!(read("volcli status --master a:1").unwrap_err().contains("begin with http://"));
    }

    #[test]
    fn etcd_is_for_metadata_only() {
        let url = "--etcd http://127.0.0.1:2379";
        for line in ["volume list-all", "tenant list", "mount force-remove t/v"] {
            assert!(read(&format!("volcli {url} {line}")).is_ok(), "{line}");
        }
        for line in ["status", "volume create t/v", "volume remove t/v", "host list", "global get"]
        {
            let error = read(&format!("volcli {line} {url}")).unwrap_err();
            assert!(error.contains("needs a volmaster"), "{line}: {error}");
        }
        for (line, expected) in [
            ("volcli tenant list --etcd 127.0.0.1:2379", "is not like"),
            ("volcli tenant list --prefix /x", "for --etcd only"),
            ("volcli tenant list --etcd http://e:1 --prefix x", "must start with '/'"),
            ("volcli tenant list --etcd http://e:1 --master http://m:1", "exclude each other"),
        ] {
            let error = read(line).unwrap_err();
            assert!(error.contains(expected), "{line}: {error}");
        }
    }

    #[test]
    fn removals_are_as_careful_as_they_are_told() {
        let of = |flags: &str| action_of(&format!("volcli tenant delete t {flags}"));
        let tenants = || vec!["t".parse().unwrap()];
        assert_eq!(of(""), Action::TenantDelete(tenants(), Care::Ask));
        assert_eq!(of("--yes"), Action::TenantDelete(tenants(), Care::Go));
        assert_eq!(of("--dry-run -y"), Action::TenantDelete(tenants(), Care::DryRun));
    }
}
