//! The C layouts that this crate relies on, and a list of the C functions that it declares.
//!
//! Public for one reader outside of `ceph`: `tests/abi.rs`, which compares both with the C headers.

use std::ffi::{c_char, c_int};

/// A C function, as it is declared in Rust.
#[derive(Clone, Copy, Debug)]
pub struct Function {
    /// Its name.
    pub name: &'static str,
    /// The Rust types of its parameters, as written.
    pub parameters: &'static [&'static str],
    /// The Rust type that it returns, as written; empty for `void`.
    pub returns: &'static str,
}

/// All functions that are looked up at run time.
#[must_use]
pub fn functions() -> Vec<Function> {
    [super::ffi::RadosApi::FUNCTIONS, super::ffi::RbdApi::FUNCTIONS].concat()
}

/// `rbd_image_spec_t`: one entry of `rbd_list2`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct RbdImageSpec {
    /// Image id, owned by librbd until the list is cleaned up.
    pub id: *mut c_char,
    /// Image name, likewise.
    pub name: *mut c_char,
}

/// `rbd_image_info_t`: the answer of `rbd_stat`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct RbdImageInfo {
    /// Bytes.
    pub size: u64,
    /// Bytes of one backing object.
    pub obj_size: u64,
    /// Number of backing objects that the size amounts to.
    pub num_objs: u64,
    /// log2 of the object size.
    pub order: c_int,
    /// Deprecated in C, kept for the layout.
    pub block_name_prefix: [c_char; 24],
    /// Deprecated in C, kept for the layout.
    pub parent_pool: i64,
    /// Deprecated in C, kept for the layout.
    pub parent_name: [c_char; 96],
}

/// `rbd_trash_image_info_t`: one entry of `rbd_trash_list`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct RbdTrashImageInfo {
    /// Image id, owned by librbd until the list is cleaned up.
    pub id: *mut c_char,
    /// The name that the image had.
    pub name: *mut c_char,
    /// `rbd_trash_image_source_t`, a C enum.
    pub source: c_int,
    /// `time_t`.
    pub deletion_time: libc::time_t,
    /// `time_t`.
    pub deferment_end_time: libc::time_t,
}

/// `rbd_image_watcher_t`: one entry of `rbd_watchers_list`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct RbdImageWatcher {
    /// Client address, owned by librbd until the list is cleaned up.
    pub addr: *mut c_char,
    /// Client instance id.
    pub id: i64,
    /// Watch cookie.
    pub cookie: u64,
}
