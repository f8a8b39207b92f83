//! The plugin over fakes with state: Docker's protocol on a real socket, and every fault.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails here")]

mod changes;
mod clients;
mod faults;
mod limits;
mod lost;
mod orders;
mod outage;
mod socket;
mod support;
