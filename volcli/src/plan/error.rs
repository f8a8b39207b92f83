//! What can be wrong with a command line.

use volclient::MasterUrlError;
use volcore::live::LiveError;
use volcore::name::NameError;
use volcore::options::OptionError;
use volstore::keys::PrefixError;

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
    /// Something that names no snapshot.
    #[error("{given:?} names no snapshot: write it as tenant/volume@snapshot")]
    NoSnapshot {
        /// What was given.
        given: String,
    },
    /// `tenant/volume@snapshot snapshot`.
    #[error("{first} names a snapshot already: {second} is one argument too many")]
    SnapshotTwice {
        /// The first argument.
        first: String,
        /// The second argument.
        second: String,
    },
    /// A name that only the schedule gives.
    #[error(
        "a snapshot cannot be called {snapshot}: names that begin with auto- are kept for snapshots on schedule, \
         and clone- with an id for those that clones are made from"
    )]
    Reserved {
        /// Which.
        snapshot: String,
    },
    /// Something that cannot be cloned.
    #[error("{given:?} cannot be cloned: {reason}")]
    Origin {
        /// What was given.
        given: String,
        /// What it should be.
        reason: String,
    },
    /// What is cloned is named as an argument and as an option.
    #[error("--opt from is given by the first argument already, which is {from}")]
    FromTwice {
        /// The first argument.
        from: String,
    },
    /// A clone that would be its own origin.
    #[error(
        "volume {volume} cannot be cloned onto itself: give the clone another name, or go back to a snapshot with \
         `volcli snapshot rollback`"
    )]
    OntoItself {
        /// Which.
        volume: String,
    },
    /// An adoption that would be a clone.
    #[error("an image that is adopted was cloned from nothing here: leave --opt from out")]
    FromAdopted,
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
