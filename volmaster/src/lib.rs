//! The control plane: REST at the edge ([`http`]), operations ([`app`]), reconcilers
//! ([`background`]). The only one that changes images and metadata. It mounts nothing.
//!
//! The binary is one page (`main.rs`); everything is in here so that tests can drive it.

pub mod app;
pub mod background;
pub mod config;
pub mod ground;
pub mod http;
pub mod serve;
