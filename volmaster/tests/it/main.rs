//! A whole volmaster but for the process: the real router on a real socket, the real operations and
//! reconcilers, over a store in memory and a fake cluster that break on demand.

#![expect(clippy::unwrap_used, reason = "in a test, what cannot be is a failure")]

mod adopt;
mod bad_input;
mod client;
mod doctor;
mod faults;
mod flatten;
mod limits;
mod mortal;
mod orders;
mod process;
mod races;
mod routes;
mod set;
mod snapshots;
mod stage;
mod takeover;
mod trash;
