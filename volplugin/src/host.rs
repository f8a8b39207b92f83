//! What this host holds, on disk: its identity and the uses of its volumes.

pub mod identity;
pub mod locks;
pub mod standing;
pub mod uses;
