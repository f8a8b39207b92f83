//! Everything that touches images, devices and mounts.
//!
//! Two seams: [`image::ImageDriver`] is the cluster's side (volmaster), and
//! [`host::HostDriver`] the machine's side (volplugin). Behind them are Ceph through
//! [`ceph`], local files, and fakes with a fault plan. [`process`] is the one door for
//! child processes, [`blocking`] the one for blocking calls.

pub mod blocking;
pub mod ceph;
mod draft;
pub mod fake;
pub mod faults;
pub mod file;
pub mod format;
pub mod host;
pub mod image;
pub mod linux;
pub mod process;
pub mod rbd;
pub mod serve;
mod superblock;
