//! The metadata store: who else wrote, and in which order.
//!
//! Owns the [`store::Store`] trait (preconditions on every write, revisions, paging,
//! watches, leases), its implementations (`etcd`, `embedded`, [`memory`]), the layout
//! of the keys ([`keys`]) and the stored records with their version tags (`records`).
//! Called by `volmaster`, and by `volcli` in its `--etcd` recovery mode. It decides
//! nothing: rules live in `volcore`.

pub mod cache;
pub mod commit;
pub mod embedded;
mod engine;
pub mod etcd;
pub mod keys;
mod limits;
mod local;
pub mod memory;
pub mod records;
pub mod store;
