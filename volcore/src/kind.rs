//! The closed set of error kinds, shared by REST, Docker and the command line.
//!
//! The kind alone decides the HTTP status, the exit code and whether a retry can
//! help, so that a caller never has to read a message.

use serde::{Deserialize, Serialize};

/// What sort of failure an error is (DESIGN §6).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The request can never work as it stands.
    Invalid,
    /// The caller has not said who it is.
    Unauthorized,
    /// The caller may not do this.
    Forbidden,
    /// The store said that the object does not exist.
    NotFound,
    /// The object exists, with another content than the one asked for.
    Conflict,
    /// Somebody holds the object.
    InUse,
    /// Another operation on the object is under way; try again.
    Busy,
    /// The object changed since the caller read it.
    Precondition,
    /// Out of space or another resource.
    Exhausted,
    /// A part that is needed cannot be reached; try again.
    Unavailable,
    /// A fault of the suite or the machine.
    Internal,
}

/// Whether sending the same request again can help.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// It may work soon, without anybody doing anything.
    Soon,
    /// It fails again until somebody changes something.
    Never,
}

impl Kind {
    /// Every kind, in the order of the design document.
    pub const ALL: [Kind; 11] = [
        Kind::Invalid,
        Kind::Unauthorized,
        Kind::Forbidden,
        Kind::NotFound,
        Kind::Conflict,
        Kind::InUse,
        Kind::Busy,
        Kind::Precondition,
        Kind::Exhausted,
        Kind::Unavailable,
        Kind::Internal,
    ];

    /// The HTTP status that carries this kind.
    pub fn status(self) -> u16 {
        match self {
            Kind::Invalid => 400,
            Kind::Unauthorized => 401,
            Kind::Forbidden => 403,
            Kind::NotFound => 404,
            Kind::Conflict | Kind::InUse | Kind::Busy => 409,
            Kind::Precondition => 412,
            Kind::Internal => 500,
            Kind::Unavailable => 503,
            Kind::Exhausted => 507,
        }
    }

    /// Whether the same request may work soon.
    pub fn retry(self) -> Retry {
        match self {
            Kind::Busy | Kind::Unavailable => Retry::Soon,
            Kind::Invalid
            | Kind::Unauthorized
            | Kind::Forbidden
            | Kind::NotFound
            | Kind::Conflict
            | Kind::InUse
            | Kind::Precondition
            | Kind::Exhausted
            | Kind::Internal => Retry::Never,
        }
    }

    /// The short title of an error body (RFC 9457 `title`).
    pub fn title(self) -> &'static str {
        match self {
            Kind::Invalid => "the request is not valid",
            Kind::Unauthorized => "authentication is needed",
            Kind::Forbidden => "not allowed",
            Kind::NotFound => "not found",
            Kind::Conflict => "it exists with another content",
            Kind::InUse => "it is in use",
            Kind::Busy => "another operation is under way",
            Kind::Precondition => "it has changed in the meantime",
            Kind::Exhausted => "no space or resource left",
            Kind::Unavailable => "a part that is needed cannot be reached",
            Kind::Internal => "internal error",
        }
    }

    /// The kind as it is written on the wire, e.g. `in_use`.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Invalid => "invalid",
            Kind::Unauthorized => "unauthorized",
            Kind::Forbidden => "forbidden",
            Kind::NotFound => "not_found",
            Kind::Conflict => "conflict",
            Kind::InUse => "in_use",
            Kind::Busy => "busy",
            Kind::Precondition => "precondition",
            Kind::Exhausted => "exhausted",
            Kind::Unavailable => "unavailable",
            Kind::Internal => "internal",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_wire_name_and_serde_agree() {
        for kind in Kind::ALL {
            let value = serde_json::to_value(kind).unwrap();
            assert_eq!(value, kind.as_str());
        }
    }
}
