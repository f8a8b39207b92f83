//! `volplugin`: Docker's volume plugin on one host.
//!
//! Follow a `docker run -v tenant1/db:/data`: Docker's `VolumeDriver.Mount` comes in at
//! [`docker`], [`app::mount`] puts it in order (write down the intent, claim at
//! volmaster, map, mount, write down the use), [`master`] speaks to volmaster, and
//! `volstorage::host` maps and mounts. [`host`] keeps on disk what is held here, and
//! [`background`] brings that, the kernel, Docker and the claims together again after
//! anything has died. volplugin never talks to etcd, never changes an image, and
//! listens on no network port.

pub mod app;
pub mod background;
pub mod config;
pub mod docker;
pub mod host;
pub mod master;
pub mod serve;
