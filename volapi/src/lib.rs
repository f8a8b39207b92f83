//! The wire between the suite's processes: bodies, routes, the error body, OpenAPI.
//!
//! One file per resource holds its bodies and the conversions from `volcore`, which
//! destructure every field so that a new one breaks the build. Nothing here knows how a
//! request is served or sent.

pub mod doctor;
pub mod hosts;
pub mod list;
pub mod mounts;
pub mod openapi;
pub mod problem;
pub mod routes;
pub mod snapshots;
pub mod status;
pub mod tenants;
pub mod trash;
pub mod volumes;

pub use list::Listing;
pub use problem::Problem;
pub use volcore::global::Global;
