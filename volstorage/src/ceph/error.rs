//! What can go wrong in a call to Ceph, and the questions that callers ask about it.
//!
//! One error type for the module: every failing call is the same sentence (operation, subject, errno), and callers
//! decide by the predicates, never by text.

use std::fmt;
use std::path::PathBuf;

use nix::errno::Errno;
use thiserror::Error;

/// A call to librados or librbd that failed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum CephError {
    /// A client library cannot be opened; most likely the packages are not installed.
    #[error(
        "cannot load {library}; are the Ceph client libraries installed (packages librados2 and librbd1)?"
    )]
    LibrariesMissing {
        /// The soname that was looked for.
        library: &'static str,
        /// What the dynamic linker said.
        source: libloading::Error,
    },
    /// A client library is there, but lacks a function.
    #[error(
        "{library} has no function {function}; Ceph 16.2 or newer is needed (packages librados2 and librbd1)"
    )]
    FunctionMissing {
        /// The soname.
        library: &'static str,
        /// The C function.
        function: &'static str,
        /// What the dynamic linker said.
        source: libloading::Error,
    },
    /// The cluster has no pool of that name, or the user may not see it.
    #[error("the Ceph cluster has no pool {pool:?}")]
    PoolNotFound {
        /// The name asked for.
        pool: String,
    },
    /// The cluster does not let the user in.
    #[error("Ceph user client.{user} cannot log in to the Ceph cluster: {}", login_refused(*source))]
    Login {
        /// The user, without `client.`.
        user: String,
        /// The error code.
        source: Cause,
    },
    /// A text that cannot be handed to C.
    #[error("{what} contains a NUL byte: {value:?}")]
    NulInText {
        /// Which argument.
        what: &'static str,
        /// Its value.
        value: String,
    },
    /// The monitors refused a command.
    #[error("monitor command {prefix:?} failed{}", reason(status))]
    MonCommand {
        /// The `prefix` member of the command, such as `osd blocklist`.
        prefix: String,
        /// The monitor's own words; may be empty.
        status: String,
        /// The error code.
        source: Cause,
    },
    /// Any other call.
    #[error("cannot {operation} {subject}")]
    Call {
        /// What was to be done.
        operation: Operation,
        /// To what.
        subject: Subject,
        /// The error code.
        source: Cause,
    },
}

fn reason(status: &str) -> String {
    if status.is_empty() { String::new() } else { format!(": {status}") }
}

/// What the error code of a login means.
fn login_refused(cause: Cause) -> &'static str {
    match cause.0 {
        Errno::ENOENT => "no keyring with its key was found; `keyring` in ceph.conf says where",
        _ => "the cluster does not know it, or has another key for it than the keyring",
    }
}

impl CephError {
    /// The error code that Ceph answered with, if the call got that far.
    #[must_use]
    pub fn errno(&self) -> Option<Errno> {
        match self {
            Self::Login { source, .. }
            | Self::MonCommand { source, .. }
            | Self::Call { source, .. } => Some(source.0),
            Self::LibrariesMissing { .. }
            | Self::FunctionMissing { .. }
            | Self::PoolNotFound { .. }
            | Self::NulInText { .. } => None,
        }
    }

    /// The pool, image, trash entry or metadata key is not there.
    ///
    /// Not true for a missing configuration file or keyring: those never mean that an image is absent.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        match self {
            Self::PoolNotFound { .. } => true,
            Self::Call { subject: Subject::File(_) | Subject::Cluster, .. }
            | Self::Login { .. } => false,
            _ => self.is(&[Errno::ENOENT]),
        }
    }

    /// The pool is not there; in this case nothing can be said about an image in it.
    #[must_use]
    pub fn is_pool_not_found(&self) -> bool {
        matches!(self, Self::PoolNotFound { .. })
    }

    /// The destination name is taken.
    #[must_use]
    pub fn is_exists(&self) -> bool {
        self.is(&[Errno::EEXIST])
    }

    /// The image is in use: it has a watcher, a snapshot, a clone, or another client's exclusive lock.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        self.is(&[Errno::EBUSY, Errno::ENOTEMPTY, Errno::ETXTBSY])
    }

    /// The handle is read-only, or another client holds the exclusive lock and does not let go of it.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.is(&[Errno::EROFS])
    }

    /// No answer within the timeout. Whether the operation took place is *unknown*: read again before retrying.
    #[must_use]
    pub fn is_timed_out(&self) -> bool {
        self.is(&[Errno::ETIMEDOUT])
    }

    /// The pool's quota is used up, or the cluster is full.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        self.is(&[Errno::ENOSPC, Errno::EDQUOT])
    }

    /// This client was fenced (blocklisted); the [`Cluster`](super::Cluster) is of no further use.
    #[must_use]
    pub fn is_shutdown(&self) -> bool {
        self.is(&[Errno::ESHUTDOWN])
    }

    /// The user's capabilities do not allow it, or (trash) the deferment time is not over.
    #[must_use]
    pub fn is_denied(&self) -> bool {
        self.is(&[Errno::EPERM, Errno::EACCES])
    }

    /// The user has no capability for this. Not true where its key is wrong, nor for the trash, which answers the same
    /// before the deferment of an image is over.
    #[must_use]
    pub fn is_without_capability(&self) -> bool {
        match self {
            Self::Login { .. } | Self::Call { operation: Operation::RemoveFromTrash, .. } => false,
            _ => self.is_denied(),
        }
    }

    fn is(&self, errnos: &[Errno]) -> bool {
        self.errno().is_some_and(|errno| errnos.contains(&errno))
    }
}

/// An error code of Ceph, with what it means there.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub struct Cause(pub Errno);

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Errno::ESHUTDOWN => {
                write!(f, "this client was fenced off by the cluster ({:?})", self.0)
            }
            Errno::EDQUOT => write!(f, "the pool is full: its quota is used up ({:?})", self.0),
            Errno::ENOSPC => write!(f, "the cluster is full ({:?})", self.0),
            Errno::ETIMEDOUT => write!(f, "no answer from the cluster in time ({:?})", self.0),
            errno => write!(f, "{} ({errno:?})", errno.desc()),
        }
    }
}

/// What a failing call was to do; reads after "cannot".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
#[expect(missing_docs, reason = "each variant is the text in its Display")]
pub enum Operation {
    CreateClient,
    ReadConfig,
    Configure,
    Connect,
    ReadFsid,
    ReadAddresses,
    WaitForOsdMap,
    ListPools,
    OpenPool,
    Reach,
    ListImages,
    Create,
    LookUp,
    Link,
    Unlink,
    Relist,
    Unlist,
    PrepareTrash,
    MoveToTrash,
    ListTrash,
    RemoveFromTrash,
    Open,
    Close,
    Stat,
    Resize,
    ReadUsage,
    Read,
    Write,
    Discard,
    Flush,
    ReadMetadata,
    SetMetadata,
    Announce,
    RemoveMetadata,
    ListWatchers,
    ReadLockOwners,
    AcquireLock,
    ReleaseLock,
    BreakLock,
    Lease,
    List,
    ListSnapshots,
    CreateSnapshot,
    RemoveSnapshot,
    RollBack,
    Clone,
    ReadParent,
    ListClones,
    Flatten,
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::CreateClient => "set up a client for",
            Self::ReadConfig => "read the configuration",
            Self::Configure => "configure a client for",
            Self::Connect => "connect to",
            Self::ReadFsid => "read the id of",
            Self::ReadAddresses => "read the own addresses in",
            Self::WaitForOsdMap => "wait for the latest OSD map of",
            Self::ListPools => "list the pools of",
            Self::OpenPool => "open",
            Self::Reach => "get an answer from the OSDs of",
            Self::ListImages => "list the images in",
            Self::Create => "create",
            Self::LookUp => "look up",
            Self::Link => "link the name of",
            Self::Unlink => "unlink the name of",
            Self::Relist => "list by its new name",
            Self::Unlist => "take off the list",
            Self::PrepareTrash => "prepare the trash of",
            Self::MoveToTrash => "move to the trash",
            Self::ListTrash => "list the trash of",
            Self::RemoveFromTrash => "remove from the trash",
            Self::Open => "open",
            Self::Close => "close",
            Self::Stat => "read the properties of",
            Self::Resize => "resize",
            Self::ReadUsage => "read the usage of",
            Self::Read => "read",
            Self::Write => "write",
            Self::Discard => "discard",
            Self::Flush => "flush",
            Self::ReadMetadata => "read the metadata of",
            Self::SetMetadata => "set the metadata of",
            Self::Announce => "announce a change of",
            Self::RemoveMetadata => "remove the metadata of",
            Self::ListWatchers => "list the watchers of",
            Self::ReadLockOwners => "read the lock owners of",
            Self::AcquireLock => "acquire the exclusive lock of",
            Self::ReleaseLock => "release the exclusive lock of",
            Self::Lease => "take a lease in",
            Self::BreakLock => "break the exclusive lock of",
            Self::List => "put on the list",
            Self::ListSnapshots => "list the snapshots of",
            Self::CreateSnapshot => "take",
            Self::RemoveSnapshot => "remove",
            Self::RollBack => "roll back to",
            Self::Clone => "make a clone as",
            Self::ReadParent => "look for the parent of",
            Self::ListClones => "list the clones of",
            Self::Flatten => "flatten",
        })
    }
}

/// What a failing call was about.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Subject {
    /// The cluster as a whole.
    Cluster,
    /// A file on this host.
    File(PathBuf),
    /// A pool, by name.
    Pool(String),
    /// An image, by pool and name (or id, where it was opened by id).
    Image {
        /// Pool name.
        pool: String,
        /// Image name or id.
        image: String,
    },
    /// An entry of a pool's trash.
    Trash {
        /// Pool name.
        pool: String,
        /// Image id.
        id: String,
    },
    /// A snapshot of an image.
    Snapshot {
        /// Pool name.
        pool: String,
        /// Image name or id.
        image: String,
        /// Snapshot name.
        snapshot: String,
    },
    /// A metadata key of an image.
    Metadata {
        /// Pool name.
        pool: String,
        /// Image name or id.
        image: String,
        /// Key.
        key: String,
    },
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cluster => f.write_str("the Ceph cluster"),
            Self::File(path) => write!(f, "{}", path.display()),
            Self::Pool(pool) => write!(f, "pool {pool}"),
            Self::Image { pool, image } => write!(f, "image {pool}/{image}"),
            Self::Trash { pool, id } => write!(f, "image {pool}/{id}"),
            Self::Snapshot { pool, image, snapshot } => {
                write!(f, "snapshot {pool}/{image}@{snapshot}")
            }
            Self::Metadata { pool, image, key } => write!(f, "image {pool}/{image}, key {key}"),
        }
    }
}

/// Turns the return value of a C function into its non-negative value, or into an error about `subject`.
///
/// The functions answer with `int` or `ssize_t`, both of which fit.
pub(super) fn check(
    ret: impl TryInto<i64>,
    operation: Operation,
    subject: impl FnOnce() -> Subject,
) -> Result<u64, CephError> {
    let ret = ret.try_into().unwrap_or(i64::MIN);
    u64::try_from(ret).map_err(|_| CephError::Call {
        operation,
        subject: subject(),
        source: cause(ret),
    })
}

/// The error code in a negative return value.
pub(super) fn cause(ret: i64) -> Cause {
    Cause(i32::try_from(ret.saturating_neg()).map_or(Errno::UnknownErrno, Errno::from_raw))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn failed(errno: Errno, subject: Subject) -> CephError {
        check(-(errno as i64), Operation::Open, || subject).unwrap_err()
    }

    fn image() -> Subject {
        Subject::Image { pool: "rbd".to_owned(), image: "t.v".to_owned() }
    }

    #[test]
    fn check_tells_values_from_errors() {
        assert_eq!(check(7i32, Operation::Read, image).unwrap(), 7);
        assert_eq!(
            check(isize::MAX, Operation::Read, image).unwrap(),
            isize::MAX.unsigned_abs() as u64
        );
        let error = failed(Errno::EBUSY, image());
        assert_eq!(
            (error.to_string(), error.errno()),
            ("cannot open image rbd/t.v".to_owned(), Some(Errno::EBUSY))
        );
        assert_eq!(
            check(i64::MIN, Operation::Read, image).unwrap_err().errno(),
            Some(Errno::UnknownErrno)
        );
    }

    #[test]
    fn each_predicate_answers_to_its_errnos_only() {
        type Predicate = fn(&CephError) -> bool;
        let predicates: [(Predicate, &[Errno]); 8] = [
            (CephError::is_not_found, &[Errno::ENOENT]),
            (CephError::is_exists, &[Errno::EEXIST]),
            (CephError::is_busy, &[Errno::EBUSY, Errno::ENOTEMPTY, Errno::ETXTBSY]),
            (CephError::is_read_only, &[Errno::EROFS]),
            (CephError::is_timed_out, &[Errno::ETIMEDOUT]),
            (CephError::is_no_space, &[Errno::ENOSPC, Errno::EDQUOT]),
            (CephError::is_shutdown, &[Errno::ESHUTDOWN]),
            (CephError::is_denied, &[Errno::EPERM, Errno::EACCES]),
        ];
        for errno in (1..134).map(Errno::from_raw).filter(|errno| *errno != Errno::UnknownErrno) {
            for (holds, errnos) in predicates {
                assert_eq!(holds(&failed(errno, image())), errnos.contains(&errno), "{errno}");
            }
        }
    }

    #[test]
    fn missing_file_is_no_missing_image() {
        assert!(!failed(Errno::ENOENT, Subject::File("/etc/ceph/ceph.conf".into())).is_not_found());
        assert!(!failed(Errno::ENOENT, Subject::Cluster).is_not_found());
        assert!(
            failed(Errno::ENOENT, Subject::Trash { pool: "rbd".to_owned(), id: "12".to_owned() })
                .is_not_found()
        );
    }

    #[test]
    fn a_login_names_the_user() {
        let login = |errno| CephError::Login { user: "v".to_owned(), source: Cause(errno) };
        let (unknown, absent) = (login(Errno::EACCES), login(Errno::ENOENT));
        assert!(unknown.is_denied() && !unknown.is_without_capability());
        assert!(!absent.is_not_found());
        assert!(unknown.to_string().starts_with("Ceph user client.v cannot log in"), "{unknown}");
        assert!(absent.to_string().contains("no keyring"), "{absent}");
    }

    #[test]
    fn mon_command_says_why_if_the_monitor_did() {
        let error = |status: &str| CephError::MonCommand {
            prefix: "osd dump".to_owned(),
            status: status.to_owned(),
            source: Cause(Errno::EACCES),
        };
        assert_eq!(
            error("access denied").to_string(),
            r#"monitor command "osd dump" failed: access denied"#
        );
        assert_eq!(error("").to_string(), r#"monitor command "osd dump" failed"#);
    }
}
