//! The contract of `ImageDriver`, on every driver: the fake, local files, Ceph RBD.
//!
//! `suite` says what has to hold, `breaking` that it holds with every step broken in every way, and
//! the modules named after drivers say how to look behind each.

#![expect(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod adoption;
mod breaking;
#[path = "../ceph_support/mod.rs"]
mod ceph_support;
mod fake;
mod file;
mod harness;
mod rbd;
mod rbd_holders;
mod rbd_states;
mod snapshots;
mod snapshots_breaking;
mod suite;
