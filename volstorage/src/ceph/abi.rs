//! The C layouts that this crate relies on, and a list of the C functions that it declares.
//!
//! Public for one reader outside of `ceph`: `tests/abi.rs`, which compares both with the C headers.

use std::ffi::{c_char, c_int};
use std::ptr;

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

/// `rbd_snap_info_t`: one entry of `rbd_snap_list`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct RbdSnapInfo {
    /// Snapshot id.
    pub id: u64,
    /// Bytes of the image at that time.
    pub size: u64,
    /// Snapshot name, owned by librbd until the list is cleaned up; null ends the list.
    pub name: *const c_char,
}

/// `rbd_snap_spec_t`: the snapshot in the answer of `rbd_get_parent`.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct RbdSnapSpec {
    /// Snapshot id.
    pub id: u64,
    /// `rbd_snap_namespace_type_t`, a C enum.
    pub namespace_type: c_int,
    /// Snapshot name, owned by librbd until it is cleaned up.
    pub name: *mut c_char,
}

/// `rbd_linked_image_spec_t`: a parent or a clone.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct RbdLinkedImageSpec {
    /// Pool id.
    pub pool_id: i64,
    /// Pool name; this and the other strings are owned by librbd until they are cleaned up.
    pub pool_name: *mut c_char,
    /// Namespace in the pool.
    pub pool_namespace: *mut c_char,
    /// Image id.
    pub image_id: *mut c_char,
    /// Image name.
    pub image_name: *mut c_char,
    /// Whether it is in the trash.
    pub trash: bool,
}

impl RbdLinkedImageSpec {
    /// None.
    pub const EMPTY: RbdLinkedImageSpec = RbdLinkedImageSpec {
        pool_id: 0,
        pool_name: ptr::null_mut(),
        pool_namespace: ptr::null_mut(),
        image_id: ptr::null_mut(),
        image_name: ptr::null_mut(),
        trash: false,
    };
}
