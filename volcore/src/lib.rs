//! The rules of the suite, and nothing else.
//!
//! Names, sizes, tenant policies, the volume's life, the mount claim: each rule
//! is a function of *what is stored, what is asked, and now* to a decision. There
//! is no IO, clock or runtime in here; `now` is always an argument. Every other
//! crate uses these types, and a value that exists has passed its checks.

pub mod claim;
pub mod duration;
pub mod filesystem;
pub mod format;
pub mod global;
pub mod host;
pub mod kind;
pub mod limit;
pub mod live;
pub mod name;
pub mod options;
pub mod order;
pub mod policy;
pub mod size;
pub mod snapshot;
pub mod spec;
pub mod takeover;
pub mod volume;

pub use kind::Kind;
