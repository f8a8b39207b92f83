//! What an attempt to take a snapshot came to.

use volclient::Creation;
use volcore::Kind;

use crate::crew::Verdict;
use crate::lanes::Ended;
use crate::master::MasterError;

/// What a take came to.
#[derive(Clone, Debug)]
pub(super) enum TakeEnd {
    /// It was taken.
    Taken,
    /// Somebody had taken it.
    There,
    /// It is not due any more.
    Gone(MasterError),
    /// It was not taken, or it is not known.
    Failed(MasterError),
}

impl Verdict for TakeEnd {
    fn ended(&self) -> Ended {
        match self {
            TakeEnd::Taken | TakeEnd::There | TakeEnd::Gone(_) => Ended::Well,
            TakeEnd::Failed(_) => Ended::Badly,
        }
    }
}

impl From<Result<Creation, MasterError>> for TakeEnd {
    fn from(result: Result<Creation, MasterError>) -> TakeEnd {
        match result {
            Ok(Creation::Created) => TakeEnd::Taken,
            Ok(Creation::Unchanged) => TakeEnd::There,
            Err(error) => match error {
                MasterError::Refused {
                    kind: Kind::Conflict | Kind::NotFound | Kind::Invalid,
                    ..
                } => TakeEnd::Gone(error),
                _ => TakeEnd::Failed(error),
            },
        }
    }
}
