//! The client of volmaster: one method for each operation of [`volapi::routes::ROUTES`],
//! under the operation's name.
//!
//! `volplugin`, `volsupervisor` and `volcli` speak to volmaster through this crate alone.
//! It owns the choice between several masters, the retries and the deadline; it decides
//! nothing about volumes, and keeps no state but the connections and which master answered last.
//!
//! # Retries
//!
//! Every operation of the API may be sent twice: a create that is repeated finds the volume and
//! says [`Creation::Unchanged`], a claim or an upload that is repeated finds itself, a removal that is
//! repeated finds nothing. So a request is sent again, to the next master or to the same one,
//! not only when no connection came about but also when the answer was lost on the way.
//! Where an earlier attempt may have been carried out, "not found" from a removal means that it is
//! done, and is reported as such. A rollback is the exception: it is not sent again once it may have arrived,
//! because somebody may have written in between. An answer that a master gave is final, unless its kind is
//! `unavailable`, which another master may see differently.
//!
//! # Deadlines
//!
//! A call ends within the limit that the caller gives ([`Client::within`], [`Client::until`]). With
//! several masters each attempt has a share of what is left, so that one that hangs leaves time
//! for the others.
//!
//! ```no_run
//! # async fn f() -> Result<(), Box<dyn std::error::Error>> {
//! use std::time::Duration;
//! use volclient::{Client, Options};
//!
//! let masters = vec!["http://127.0.0.1:9005".parse()?];
//! let client = Client::new(masters, Options::default())?;
//! let volume = client.within(Duration::from_secs(1)).volume_get(&"tenant1/db".parse()?).await?;
//! # let _ = volume; Ok(()) }
//! ```

mod call;
mod client;
mod doctor;
mod error;
mod hosts;
mod master;
mod mounts;
mod query;
mod snapshots;
mod status;
mod tenants;
mod trash;
mod volumes;

pub use call::Creation;
pub use client::{Client, NoMaster, Options};
pub use error::{Attempt, Attempts, ClientError, Outcome, Root, Trouble};
pub use master::{MasterUrl, MasterUrlError};
pub use volumes::{Brief, BriefItems};
