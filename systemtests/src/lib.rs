//! Tests of the whole suite from outside: real Docker engines, a real etcd, a real Ceph, several
//! hosts. Each file in `tests/` starts a suite or two and lets stories play in it.
//!
//! Here are the [`stories`] that are told of every kind of store and image, and the campaign of faults, [`chaos`].

pub mod chaos;
pub mod stories;
