//! Real servers for tests and benches: etcd, Ceph, Docker hosts, the suite's own binaries.
//!
//! Everything here is for tests, so it panics, with a message that says what was expected of
//! whom, instead of returning errors. It knows none of the suite's other crates: what
//! is tested through it is seen as a user sees it.
//!
//! | module | owns |
//! |---|---|
//! | [`command`] | the one door for processes: captured, with a deadline |
//! | [`daemon`] | processes that go on in the background, with their logs |
//! | [`bed`] | the folder of a test process, and the janitor that takes it down |
//! | [`poll`] | waiting for a condition |
//! | [`etcd`], [`ceph`], [`host`] | the servers, through the scripts in `scripts/` |
//! | [`master`], [`supervisor`] | volmaster and volsupervisor processes |
//! | [`place`], [`wire`] | machines with addresses of their own, and the suite on them |
//! | [`fault`], [`proxy`], [`dice`] | what can go wrong there, by chance that can be repeated |
//! | [`ledger`] | whether what was synced is there, and nothing else |
//! | [`suite`], [`story`] | all of it together, and one test's share of it |
//! | [`leftovers`] | what a tenant has left anywhere |
//! | [`http`] | requests as raw as a test needs them |
//! | [`golden`] | texts that are checked in |

pub mod bed;
pub mod ceph;
pub mod command;
pub mod daemon;
pub mod dice;
pub mod etcd;
pub mod fault;
pub mod golden;
pub mod host;
pub mod http;
pub mod ledger;
pub mod leftovers;
pub mod master;
pub mod place;
pub mod poll;
pub mod proxy;
pub mod story;
pub mod suite;
pub mod supervisor;
pub mod wire;

pub use command::{Cmd, Outcome};
pub use host::{Host, IMAGE};
pub use story::Story;
pub use suite::Suite;
pub use supervisor::Supervisor;
