//! Docker's volume plugin protocol on a unix socket
//! (<https://docs.docker.com/engine/extend/plugins_volume/>).
//!
//! Owns the bodies ([`protocol`]), who is at the other end ([`peer`]), how long it is waited for ([`patience`]), the socket
//! ([`socket`]) and the dispatch ([`server`]). It decides nothing about volumes.

pub mod patience;
pub mod peer;
pub mod protocol;
pub mod server;
pub mod socket;
