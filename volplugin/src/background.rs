//! Loops that bring things together again: periodic and nudged, idempotent, with no input.

pub mod cache;
pub mod changes;
pub mod orders;
pub mod reconcile;
pub mod session;
