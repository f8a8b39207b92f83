//! Fakes with real state and a fault plan, for the tests of whoever uses the drivers.
//!
//! They are public and never chosen by `cfg(test)`. The same contract suite runs on them as on the
//! real drivers.

pub mod host;
pub mod image;

pub use crate::faults::{Broken, Fault, Faults};
