//! Why a call failed, and what is known after it.

use std::fmt;
use std::time::Duration;

use volapi::Problem;
use volcore::Kind;

use crate::master::MasterUrl;

/// Why a call failed.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// A volmaster answered, and said no. The only variant that tells anything about the object.
    #[error("{}", .problem.detail)]
    Problem {
        /// The answer.
        problem: Box<Problem>,
        /// Which operation, as in `volapi::routes::ROUTES`.
        operation: &'static str,
        /// On what, e.g. `volume tenant1/db`.
        subject: String,
    },
    /// No volmaster answered: nothing is known about the object.
    #[error("{subject}: no volmaster can be reached")]
    Unreachable {
        /// Which operation.
        operation: &'static str,
        /// On what.
        subject: String,
        /// What happened at each master.
        #[source]
        attempts: Attempts,
    },
    /// The time was over before a volmaster answered: nothing is known about the object.
    #[error("{subject}: no volmaster answered within {}", volcore::duration::show(*.limit))]
    Deadline {
        /// Which operation.
        operation: &'static str,
        /// On what.
        subject: String,
        /// How much time the call had.
        limit: Duration,
        /// What happened at each master.
        #[source]
        attempts: Attempts,
    },
    /// Something answered that does not speak as a volmaster does: nothing is known about the object.
    #[error(
        "{url} does not answer as a volmaster does (status {status}, {body:?}); is it the right address?"
    )]
    Garbled {
        /// Which operation.
        operation: &'static str,
        /// On what.
        subject: String,
        /// What was asked.
        url: String,
        /// The HTTP status of the answer.
        status: u16,
        /// How the answer begins, at most 200 characters.
        body: String,
        /// Why it cannot be read, where it was read at all.
        #[source]
        source: Option<serde_json::Error>,
    },
}

/// What a failed call leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It was not done.
    NotDone,
    /// It may have been done, or still be under way: read before reporting.
    Unknown,
}

impl ClientError {
    /// The closed kind (DESIGN §6).
    pub fn kind(&self) -> Kind {
        match self {
            ClientError::Problem { problem, .. } => problem.kind,
            ClientError::Unreachable { .. } | ClientError::Deadline { .. } => Kind::Unavailable,
            // 502 to 504 are what a proxy says when it reaches no volmaster.
            ClientError::Garbled { status: 502..=504, .. } => Kind::Unavailable,
            ClientError::Garbled { .. } => Kind::Internal,
        }
    }

    /// True only where a volmaster said so. What a proxy or a stranger answers is never "not found".
    pub fn is_not_found(&self) -> bool {
        matches!(self, ClientError::Problem { problem, .. } if problem.kind == Kind::NotFound)
    }

    /// The server's answer, if one answered.
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            ClientError::Problem { problem, .. } => Some(problem),
            ClientError::Unreachable { .. }
            | ClientError::Deadline { .. }
            | ClientError::Garbled { .. } => None,
        }
    }

    /// Which operation failed.
    pub fn operation(&self) -> &'static str {
        match self {
            ClientError::Problem { operation, .. }
            | ClientError::Unreachable { operation, .. }
            | ClientError::Deadline { operation, .. }
            | ClientError::Garbled { operation, .. } => operation,
        }
    }

    /// What it was about.
    pub fn subject(&self) -> &str {
        match self {
            ClientError::Problem { subject, .. }
            | ClientError::Unreachable { subject, .. }
            | ClientError::Deadline { subject, .. }
            | ClientError::Garbled { subject, .. } => subject,
        }
    }

    /// Whether a change that failed so may have been made all the same.
    pub fn outcome(&self) -> Outcome {
        match self {
            ClientError::Problem { problem, .. } => match problem.kind {
                Kind::Invalid
                | Kind::Unauthorized
                | Kind::Forbidden
                | Kind::NotFound
                | Kind::Conflict
                | Kind::InUse
                | Kind::Busy
                | Kind::Precondition
                | Kind::Exhausted => Outcome::NotDone,
                Kind::Unavailable | Kind::Internal => Outcome::Unknown,
            },
            ClientError::Unreachable { attempts, .. } | ClientError::Deadline { attempts, .. } => {
                if attempts.sent() {
                    Outcome::Unknown
                } else {
                    Outcome::NotDone
                }
            }
            ClientError::Garbled { .. } => Outcome::Unknown,
        }
    }
}

/// What happened at each master, in the order in which they were asked.
#[derive(Debug, Default)]
pub struct Attempts(pub Vec<Attempt>);

impl Attempts {
    /// True where a request may have arrived.
    pub fn sent(&self) -> bool {
        self.0.iter().any(|attempt| attempt.trouble.sent())
    }
}

impl fmt::Display for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // With retries the same master may be in here many times; each is told once, as it ended.
        let mut told: Vec<&MasterUrl> = Vec::new();
        for attempt in self.0.iter().rev() {
            if told.contains(&&attempt.master) {
                continue;
            }
            if !told.is_empty() {
                f.write_str("; ")?;
            }
            told.push(&attempt.master);
            write!(f, "{}: {}", attempt.master, volapi::problem::chain(&attempt.trouble))?;
        }
        if told.is_empty() { f.write_str("there was no time to ask") } else { Ok(()) }
    }
}

impl std::error::Error for Attempts {}

/// One request that got no answer.
#[derive(Debug)]
pub struct Attempt {
    /// Whom it was sent to.
    pub master: MasterUrl,
    /// What became of it.
    pub trouble: Trouble,
}

/// Why a request got no answer.
#[derive(Debug, thiserror::Error)]
pub enum Trouble {
    /// There was no connection: the request did not arrive.
    #[error("cannot connect")]
    Connect(#[source] Root),
    /// The connection broke: the request may have arrived.
    #[error("the connection broke")]
    Lost(#[source] Root),
    /// It took longer than its share of the time: the request may have arrived.
    #[error("no answer within {}", volcore::duration::show(*.0))]
    TimedOut(Duration),
    /// The master said that a part it needs cannot be reached.
    #[error("{}", .0.detail)]
    Unavailable(Box<Problem>),
}

/// The root of a chain of errors, which is all that a user wants to read of what lies below HTTP.
#[derive(Debug)]
pub struct Root(pub(crate) Box<dyn std::error::Error + Send + Sync>);

impl fmt::Display for Root {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut root: &dyn std::error::Error = self.0.as_ref();
        while let Some(cause) = root.source() {
            root = cause;
        }
        write!(f, "{root}")
    }
}

impl std::error::Error for Root {}

impl Trouble {
    /// True where the request may have arrived.
    pub fn sent(&self) -> bool {
        match self {
            Trouble::Connect(_) => false,
            Trouble::Lost(_) | Trouble::TimedOut(_) | Trouble::Unavailable(_) => true,
        }
    }
}
