//! The C functions of librados and librbd that this module uses, found at run time.
//!
//! Owns the only declarations of foreign functions and layouts in the crate. Called by the siblings in `ceph` only.
//! It must not grow convenience: no strings, no errors of calls, no ownership; those live in the safe layer.
//!
//! The libraries are opened with `dlopen` on first use instead of being linked, so that a binary builds and starts
//! where Ceph is not installed. They are never closed again: both start threads and register exit handlers.
//!
//! Layouts and signatures are compared with the installed C headers by `tests/abi.rs`. The functions and structures are those of
//! `librados.h` and `librbd.h` of Ceph 16.2 (librbd 1.16); their signatures are part of the stable ABI of
//! `librados.so.2` and `librbd.so.1`.

use std::ffi::{c_char, c_int, c_void};
use std::sync::{Mutex, OnceLock, PoisonError};

use libloading::Library;

use super::abi::{
    Function, RbdImageInfo, RbdImageSpec, RbdImageWatcher, RbdLinkedImageSpec, RbdSnapInfo,
    RbdSnapSpec, RbdTrashImageInfo,
};
use super::error::CephError;

/// `rados_t`.
pub(super) type RadosHandle = *mut c_void;
/// `rados_ioctx_t`.
pub(super) type IoctxHandle = *mut c_void;
/// `rados_write_op_t`.
pub(super) type WriteOpHandle = *mut c_void;
/// `rbd_image_t`.
pub(super) type ImageHandle = *mut c_void;
/// `rbd_completion_t`.
pub(super) type CompletionHandle = *mut c_void;
/// `librbd_progress_fn_t`.
pub(super) type ProgressFn =
    unsafe extern "C" fn(offset: u64, total: u64, arg: *mut c_void) -> c_int;
/// `rbd_callback_t`; null is allowed.
pub(super) type CompletionFn =
    Option<unsafe extern "C" fn(completion: CompletionHandle, arg: *mut c_void)>;
/// The callback of `rbd_diff_iterate2`.
pub(super) type DiffFn =
    unsafe extern "C" fn(offset: u64, len: usize, exists: c_int, arg: *mut c_void) -> c_int;

/// `rbd_lock_mode_t`, a C enum.
pub(super) type LockMode = c_int;
/// `RBD_LOCK_MODE_EXCLUSIVE`.
pub(super) const LOCK_MODE_EXCLUSIVE: LockMode = 0;

/// `rbd_image_options_t`.
pub(super) type ImageOptionsHandle = *mut c_void;
/// `RBD_IMAGE_OPTION_FEATURES`.
pub(super) const IMAGE_OPTION_FEATURES: c_int = 1;
/// `RBD_IMAGE_OPTION_CLONE_FORMAT`.
pub(super) const IMAGE_OPTION_CLONE_FORMAT: c_int = 12;

/// `rbd_snap_namespace_type_t`, a C enum.
pub(super) type SnapNamespace = c_int;
/// `RBD_SNAP_NAMESPACE_TYPE_USER`.
pub(super) const SNAP_NAMESPACE_USER: SnapNamespace = 0;
/// `RBD_SNAP_NAMESPACE_TYPE_TRASH`.
pub(super) const SNAP_NAMESPACE_TRASH: SnapNamespace = 2;
/// `RBD_SNAP_CREATE_SKIP_QUIESCE`.
pub(super) const SNAP_CREATE_SKIP_QUIESCE: u32 = 1;

/// Declares a table of C functions and how it is filled from a library.
macro_rules! function_table {
    ($(#[$meta:meta])* $table:ident in $soname:literal { $( fn $name:ident($($arg:ident: $ty:ty),* $(,)?) $(-> $ret:ty)?; )* }) => {
        $(#[$meta])*
        pub(super) struct $table {
            $( pub(super) $name: unsafe extern "C" fn($($arg: $ty),*) $(-> $ret)?, )*
            /// Keeps the code of the functions above mapped.
            _library: Library,
        }

        impl $table {
            pub(super) const FUNCTIONS: &[Function] = &[
                $( Function {
                    name: stringify!($name),
                    parameters: &[$(stringify!($ty)),*],
                    returns: concat!("" $(, stringify!($ret))?),
                }, )*
            ];

            fn load() -> Result<Self, CephError> {
                // SAFETY: opening runs the initialisers of a system library that is meant to be opened by any thread
                // of a process; it is the soname with the ABI version that the declarations below are written for.
                let library = unsafe { Library::new($soname) }
                    .map_err(|source| CephError::LibrariesMissing { library: $soname, source })?;
                $(
                    // SAFETY: the type given is the C prototype of this symbol in the ABI version opened.
                    let $name = *unsafe {
                        library.get::<unsafe extern "C" fn($($arg: $ty),*) $(-> $ret)?>(concat!(stringify!($name), "\0").as_bytes())
                    }
                    .map_err(|source| CephError::FunctionMissing { library: $soname, function: stringify!($name), source })?;
                )*
                Ok(Self { $($name,)* _library: library })
            }
        }
    };
}

function_table! {
    /// Functions of `librados.h`.
    RadosApi in "librados.so.2" {
        fn rados_create(cluster: *mut RadosHandle, id: *const c_char) -> c_int;
        fn rados_conf_read_file(cluster: RadosHandle, path: *const c_char) -> c_int;
        fn rados_conf_set(cluster: RadosHandle, option: *const c_char, value: *const c_char) -> c_int;
        fn rados_connect(cluster: RadosHandle) -> c_int;
        fn rados_shutdown(cluster: RadosHandle);
        fn rados_cluster_fsid(cluster: RadosHandle, buf: *mut c_char, len: usize) -> c_int;
        fn rados_getaddrs(cluster: RadosHandle, addrs: *mut *mut c_char) -> c_int;
        fn rados_wait_for_latest_osdmap(cluster: RadosHandle) -> c_int;
        fn rados_pool_list(cluster: RadosHandle, buf: *mut c_char, len: usize) -> c_int;
        fn rados_mon_command(
            cluster: RadosHandle, cmd: *const *const c_char, cmdlen: usize, inbuf: *const c_char, inbuflen: usize,
            outbuf: *mut *mut c_char, outbuflen: *mut usize, outs: *mut *mut c_char, outslen: *mut usize,
        ) -> c_int;
        fn rados_buffer_free(buf: *mut c_char);
        fn rados_ioctx_create(cluster: RadosHandle, pool_name: *const c_char, ioctx: *mut IoctxHandle) -> c_int;
        fn rados_ioctx_destroy(ioctx: IoctxHandle);
        fn rados_ioctx_get_id(ioctx: IoctxHandle) -> i64;
        fn rados_set_pool_full_try(ioctx: IoctxHandle);
        fn rados_stat(ioctx: IoctxHandle, object: *const c_char, size: *mut u64, mtime: *mut libc::time_t) -> c_int;
        fn rados_read(ioctx: IoctxHandle, object: *const c_char, buf: *mut c_char, len: usize, offset: u64) -> c_int;
        fn rados_write_full(ioctx: IoctxHandle, object: *const c_char, buf: *const c_char, len: usize) -> c_int;
        fn rados_ioctx_selfmanaged_snap_create(ioctx: IoctxHandle, snap_id: *mut u64) -> c_int;
        fn rados_ioctx_selfmanaged_snap_remove(ioctx: IoctxHandle, snap_id: u64) -> c_int;
        fn rados_write(ioctx: IoctxHandle, object: *const c_char, buf: *const c_char, len: usize, offset: u64) -> c_int;
        fn rados_lock_exclusive(
            ioctx: IoctxHandle, object: *const c_char, name: *const c_char, cookie: *const c_char, desc: *const c_char,
            duration: *mut libc::timeval, flags: u8,
        ) -> c_int;
        fn rados_list_lockers(
            ioctx: IoctxHandle, object: *const c_char, name: *const c_char, exclusive: *mut c_int,
            tag: *mut c_char, tag_len: *mut usize, clients: *mut c_char, clients_len: *mut usize,
            cookies: *mut c_char, cookies_len: *mut usize, addrs: *mut c_char, addrs_len: *mut usize,
        ) -> isize;
        fn rados_break_lock(
            ioctx: IoctxHandle, object: *const c_char, name: *const c_char, client: *const c_char,
            cookie: *const c_char,
        ) -> c_int;
        fn rados_exec(
            ioctx: IoctxHandle, object: *const c_char, cls: *const c_char, method: *const c_char,
            in_buf: *const c_char, in_len: usize, buf: *mut c_char, out_len: usize,
        ) -> c_int;
        fn rados_notify2(
            ioctx: IoctxHandle, object: *const c_char, buf: *const c_char, buf_len: c_int, timeout_ms: u64,
            reply_buffer: *mut *mut c_char, reply_buffer_len: *mut usize,
        ) -> c_int;
        fn rados_create_write_op() -> WriteOpHandle;
        fn rados_release_write_op(op: WriteOpHandle);
        fn rados_write_op_assert_exists(op: WriteOpHandle);
        fn rados_write_op_create(op: WriteOpHandle, exclusive: c_int, category: *const c_char);
        fn rados_write_op_cmpext(op: WriteOpHandle, buf: *const c_char, len: usize, offset: u64, result: *mut c_int);
        fn rados_write_op_remove(op: WriteOpHandle);
        fn rados_write_op_exec(
            op: WriteOpHandle, cls: *const c_char, method: *const c_char, in_buf: *const c_char, in_len: usize,
            result: *mut c_int,
        );
        fn rados_write_op_operate(
            op: WriteOpHandle, ioctx: IoctxHandle, object: *const c_char, mtime: *mut libc::time_t, flags: c_int,
        ) -> c_int;
    }
}

function_table! {
    /// Functions of `librbd.h`.
    RbdApi in "librbd.so.1" {
        fn rbd_list2(ioctx: IoctxHandle, images: *mut RbdImageSpec, max_images: *mut usize) -> c_int;
        fn rbd_image_spec_list_cleanup(images: *mut RbdImageSpec, num_images: usize);
        fn rbd_create2(ioctx: IoctxHandle, name: *const c_char, size: u64, features: u64, order: *mut c_int) -> c_int;
        fn rbd_trash_list(ioctx: IoctxHandle, entries: *mut RbdTrashImageInfo, num_entries: *mut usize) -> c_int;
        fn rbd_trash_list_cleanup(entries: *mut RbdTrashImageInfo, num_entries: usize);
        fn rbd_trash_remove_with_progress(
            ioctx: IoctxHandle, id: *const c_char, force: bool, progress: ProgressFn, arg: *mut c_void,
        ) -> c_int;

        fn rbd_open(ioctx: IoctxHandle, name: *const c_char, image: *mut ImageHandle, snap: *const c_char) -> c_int;
        fn rbd_open_read_only(ioctx: IoctxHandle, name: *const c_char, image: *mut ImageHandle, snap: *const c_char) -> c_int;
        fn rbd_open_by_id(ioctx: IoctxHandle, id: *const c_char, image: *mut ImageHandle, snap: *const c_char) -> c_int;
        fn rbd_open_by_id_read_only(ioctx: IoctxHandle, id: *const c_char, image: *mut ImageHandle, snap: *const c_char) -> c_int;
        fn rbd_close(image: ImageHandle) -> c_int;
        fn rbd_stat(image: ImageHandle, info: *mut RbdImageInfo, infosize: usize) -> c_int;
        fn rbd_get_id(image: ImageHandle, id: *mut c_char, id_len: usize) -> c_int;
        fn rbd_get_features(image: ImageHandle, features: *mut u64) -> c_int;
        fn rbd_resize2(image: ImageHandle, size: u64, allow_shrink: bool, progress: ProgressFn, arg: *mut c_void) -> c_int;
        fn rbd_diff_iterate2(
            image: ImageHandle, from_snap: *const c_char, offset: u64, len: u64, include_parent: u8, whole_object: u8,
            callback: DiffFn, arg: *mut c_void,
        ) -> c_int;

        fn rbd_read(image: ImageHandle, offset: u64, len: usize, buf: *mut c_char) -> isize;
        fn rbd_write(image: ImageHandle, offset: u64, len: usize, buf: *const c_char) -> isize;
        fn rbd_discard(image: ImageHandle, offset: u64, len: u64) -> c_int;
        fn rbd_flush(image: ImageHandle) -> c_int;
        fn rbd_aio_create_completion(arg: *mut c_void, callback: CompletionFn, completion: *mut CompletionHandle) -> c_int;
        fn rbd_aio_write(image: ImageHandle, offset: u64, len: usize, buf: *const c_char, completion: CompletionHandle) -> c_int;
        fn rbd_aio_read(image: ImageHandle, offset: u64, len: usize, buf: *mut c_char, completion: CompletionHandle) -> c_int;
        fn rbd_aio_write_zeroes(
            image: ImageHandle, offset: u64, len: usize, completion: CompletionHandle, zero_flags: c_int, op_flags: c_int,
        ) -> c_int;
        fn rbd_aio_flush(image: ImageHandle, completion: CompletionHandle) -> c_int;
        fn rbd_aio_wait_for_complete(completion: CompletionHandle) -> c_int;
        fn rbd_aio_get_return_value(completion: CompletionHandle) -> isize;
        fn rbd_aio_release(completion: CompletionHandle);

        fn rbd_metadata_get(image: ImageHandle, key: *const c_char, value: *mut c_char, val_len: *mut usize) -> c_int;
        fn rbd_metadata_set(image: ImageHandle, key: *const c_char, value: *const c_char) -> c_int;
        fn rbd_metadata_remove(image: ImageHandle, key: *const c_char) -> c_int;

        fn rbd_watchers_list(image: ImageHandle, watchers: *mut RbdImageWatcher, max_watchers: *mut usize) -> c_int;
        fn rbd_watchers_list_cleanup(watchers: *mut RbdImageWatcher, num_watchers: usize);
        fn rbd_lock_acquire(image: ImageHandle, mode: LockMode) -> c_int;
        fn rbd_lock_release(image: ImageHandle) -> c_int;
        fn rbd_is_exclusive_lock_owner(image: ImageHandle, is_owner: *mut c_int) -> c_int;
        fn rbd_lock_get_owners(image: ImageHandle, mode: *mut LockMode, owners: *mut *mut c_char, max_owners: *mut usize) -> c_int;
        fn rbd_lock_get_owners_cleanup(owners: *mut *mut c_char, owner_count: usize);

        fn rbd_snap_list(image: ImageHandle, snaps: *mut RbdSnapInfo, max_snaps: *mut c_int) -> c_int;
        fn rbd_snap_list_end(snaps: *mut RbdSnapInfo);
        fn rbd_snap_get_namespace_type(image: ImageHandle, snap_id: u64, namespace_type: *mut SnapNamespace) -> c_int;
        fn rbd_snap_get_timestamp(image: ImageHandle, snap_id: u64, timestamp: *mut libc::timespec) -> c_int;
        fn rbd_snap_create2(
            image: ImageHandle, name: *const c_char, flags: u32, progress: ProgressFn, arg: *mut c_void,
        ) -> c_int;
        fn rbd_snap_rename(image: ImageHandle, from: *const c_char, to: *const c_char) -> c_int;
        fn rbd_snap_remove2(
            image: ImageHandle, name: *const c_char, flags: u32, progress: ProgressFn, arg: *mut c_void,
        ) -> c_int;
        fn rbd_snap_remove_by_id(image: ImageHandle, snap_id: u64) -> c_int;
        fn rbd_snap_rollback_with_progress(
            image: ImageHandle, name: *const c_char, progress: ProgressFn, arg: *mut c_void,
        ) -> c_int;

        fn rbd_image_options_create(options: *mut ImageOptionsHandle);
        fn rbd_image_options_set_uint64(options: ImageOptionsHandle, option: c_int, value: u64) -> c_int;
        fn rbd_image_options_destroy(options: ImageOptionsHandle);
        fn rbd_clone3(
            parent: IoctxHandle, parent_name: *const c_char, parent_snap: *const c_char, child: IoctxHandle,
            child_name: *const c_char, options: ImageOptionsHandle,
        ) -> c_int;
        fn rbd_get_parent(image: ImageHandle, parent: *mut RbdLinkedImageSpec, snap: *mut RbdSnapSpec) -> c_int;
        fn rbd_linked_image_spec_cleanup(image: *mut RbdLinkedImageSpec);
        fn rbd_snap_spec_cleanup(snap: *mut RbdSnapSpec);
        fn rbd_list_children3(image: ImageHandle, images: *mut RbdLinkedImageSpec, max_images: *mut usize) -> c_int;
        fn rbd_linked_image_spec_list_cleanup(images: *mut RbdLinkedImageSpec, num_images: usize);
        fn rbd_flatten_with_progress(image: ImageHandle, progress: ProgressFn, arg: *mut c_void) -> c_int;
    }
}

/// Both libraries.
pub(super) struct Api {
    pub(super) rados: RadosApi,
    pub(super) rbd: RbdApi,
}

/// Returns the function tables, opening the libraries on the first call.
///
/// A failure is not remembered: once the packages are installed the next call succeeds, without a restart.
pub(super) fn api() -> Result<&'static Api, CephError> {
    static API: OnceLock<Api> = OnceLock::new();
    static LOADING: Mutex<()> = Mutex::new(());

    if let Some(api) = API.get() {
        return Ok(api);
    }
    let _loading = LOADING.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(api) = API.get() {
        return Ok(api);
    }
    let loaded = Api { rados: RadosApi::load()?, rbd: RbdApi::load()? };
    limit_arenas();
    Ok(API.get_or_init(|| loaded))
}

/// Keeps the memory of this process from growing with the number of its cores.
///
/// librados runs dozens of threads, and glibc gives threads that allocate at the same time an arena each, up to eight a
/// core, of which what is freed is not used by the others (`mallopt(3)`, `M_ARENA_MAX`).
fn limit_arenas() {
    #[cfg(target_env = "gnu")]
    // SAFETY: the function takes two integers and may be called at any time; it concerns arenas made later. Where it
    // fails, everything is as before.
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 4);
    }
}

/// A progress callback that reports nothing and lets the operation go on.
///
/// librbd 16.2 calls the progress callback of several operations without checking it for null.
pub(super) unsafe extern "C" fn no_progress(_offset: u64, _total: u64, _arg: *mut c_void) -> c_int {
    0
}

#[cfg(test)]
mod tests {
    use super::*;

    function_table! {
        /// A library that no machine has.
        MissingApi in "libnot-installed.so.2" { fn getpid() -> c_int; }
    }

    function_table! {
        /// A library that every machine has, with a function that it lacks.
        OldApi in "libc.so.6" { fn getpid() -> c_int; fn rados_of_the_future(); }
    }

    #[test]
    fn missing_library_names_the_packages() {
        assert_eq!(MissingApi::FUNCTIONS[0].name, "getpid");
        let error = MissingApi::load().map(|api| api.getpid).unwrap_err();
        assert_eq!(
            error.to_string(),
            "cannot load libnot-installed.so.2; are the Ceph client libraries installed (packages librados2 and librbd1)?"
        );
        assert!(
            std::error::Error::source(&error).is_some()
                && error.errno().is_none()
                && !error.is_not_found()
        );
    }

    #[test]
    fn missing_function_is_named() {
        assert_eq!(OldApi::FUNCTIONS.len(), 2);
        let error = OldApi::load().map(|api| (api.getpid, api.rados_of_the_future)).unwrap_err();
        assert!(matches!(
            error,
            CephError::FunctionMissing {
                library: "libc.so.6",
                function: "rados_of_the_future",
                ..
            }
        ));
    }
}
