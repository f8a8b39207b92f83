//! What an error of the etcd client means: did it happen, and may it be tried again?
//!
//! Called by `calls` for every failed attempt. Knows etcd's messages
//! (<https://github.com/etcd-io/etcd/blob/main/api/v3rpc/rpctypes/error.go>, the same in 3.4)
//! and tonic's; never retries anything.

use std::error::Error;

use etcd_client::Error as ClientError;
use tonic::{Code, ConnectError, Status};

/// Why a call failed, all attempts together.
#[derive(Debug)]
pub(super) enum Failure {
    /// It certainly did nothing.
    NotDone(Attempt),
    /// It may have happened.
    InDoubt(Attempt),
    /// It can never work.
    Refused(String),
    /// The answer does not fit into a message.
    TooLarge,
    /// The revision is no longer kept.
    Compacted,
    /// There is no such lease.
    NoLease,
}

/// What one attempt came to.
#[derive(Debug)]
pub(super) enum Verdict {
    /// There was no connection to send it on.
    NotReached,
    /// A server is there and has not done it, for now.
    NotNow,
    /// No answer, or one that leaves it open.
    InDoubt,
    /// An answer that another attempt would not change.
    Final(Failure),
}

/// The last attempt, for the message.
#[derive(Debug, thiserror::Error)]
#[error("{url}: {what}")]
pub(super) struct Attempt {
    /// The endpoint.
    pub(super) url: String,
    /// What it said, or what happened to the connection.
    pub(super) what: String,
}

/// What is known after this error.
pub(super) fn judge(error: &ClientError) -> Verdict {
    match error {
        ClientError::GRpcStatus(status) => judge_status(status),
        ClientError::LeaseKeepAliveError(what) if what == "lease not found" => {
            Verdict::Final(Failure::NoLease)
        }
        ClientError::InvalidArgs(what) => Verdict::Final(Failure::Refused(what.clone())),
        _ => Verdict::InDoubt,
    }
}

fn judge_status(status: &Status) -> Verdict {
    let message = status.message();
    if causes(status).any(|cause| cause.is::<ConnectError>()) {
        return Verdict::NotReached;
    }
    if message.starts_with("Error, decoded message length too large")
        || message.contains("trying to send message larger than max")
    {
        return Verdict::Final(Failure::TooLarge);
    }
    match message {
        "etcdserver: no leader"
        | "etcdserver: not leader"
        | "etcdserver: too many requests"
        | "etcdserver: mvcc: database space exceeded"
        | "etcdserver: invalid auth token" => return Verdict::NotNow,
        "etcdserver: requested lease not found" => return Verdict::Final(Failure::NoLease),
        "etcdserver: mvcc: required revision has been compacted" => {
            return Verdict::Final(Failure::Compacted);
        }
        _ => {}
    }
    match status.code() {
        Code::InvalidArgument
        | Code::OutOfRange
        | Code::PermissionDenied
        | Code::Unauthenticated
        | Code::Unimplemented => Verdict::Final(Failure::Refused(message.to_owned())),
        _ => Verdict::InDoubt,
    }
}

/// What happened, in one line: tonic hides the cause (`connection refused`) three levels down.
pub(super) fn describe(error: &ClientError) -> String {
    match error {
        ClientError::GRpcStatus(status) => {
            let cause = causes(status).last().map(ToString::to_string);
            match cause {
                Some(cause) if !status.message().contains(&cause) => {
                    format!("{}: {cause}", status.message())
                }
                _ => status.message().to_owned(),
            }
        }
        other => other.to_string(),
    }
}

fn causes(status: &Status) -> impl Iterator<Item = &(dyn Error + 'static)> {
    std::iter::successors(status.source(), |error| (*error).source())
}
