//! The connection to a Ceph cluster, and what is asked of the cluster as a whole.

use std::ffi::{CStr, c_char};
use std::fmt;
use std::path::PathBuf;
use std::ptr;
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::Duration;

use nix::errno::Errno;
use serde_json::Value;

use super::error::{Cause, CephError, Operation, Subject, cause, check};
use super::ffi::{self, Api, RadosHandle};
use super::pool::Pool;
use super::text::{c_string, copy_c_str, nul_list, until_nul};

/// How long to wait for the cluster; each is rounded up to whole seconds, and at least one. [`Duration::MAX`] is for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// For the first contact with a monitor (`client_mount_timeout`).
    pub connect: Duration,
    /// For the answer to a monitor command (`rados_mon_op_timeout`).
    pub monitor: Duration,
    /// For the answer to one request to an OSD (`rados_osd_op_timeout`). A request that timed out may still be carried
    /// out later.
    pub osd: Duration,
}

impl Default for Timeouts {
    /// Ten seconds to connect, thirty for everything else.
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            monitor: Duration::from_secs(30),
            osd: Duration::from_secs(30),
        }
    }
}

/// A secret key, which is shown nowhere.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(pub String);

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key(…)")
    }
}

/// Where the cluster is and who we are there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnectOptions {
    /// The configuration file, usually `/etc/ceph/ceph.conf`.
    pub conf: PathBuf,
    /// The user without the `client.` in front, such as `admin`.
    pub user: String,
    /// His key; from the keyrings that the configuration names where it is absent.
    pub key: Option<Key>,
    /// How long to wait.
    pub timeouts: Timeouts,
}

/// A connection to a Ceph cluster. Cheap to clone; disconnects (which blocks) when the last clone and the last pool and
/// image opened through it are gone.
#[derive(Clone)]
pub struct Cluster {
    connection: Arc<Connection>,
}

/// The answer to a monitor command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MonReply {
    /// The data: JSON if the command said `"format": "json"`; some commands print two documents one after the other.
    pub output: Vec<u8>,
    /// What the `ceph` tool prints on stderr.
    pub status: String,
}

impl Cluster {
    /// Connects to the cluster.
    ///
    /// # Errors
    /// [`CephError::LibrariesMissing`] where Ceph is not installed; otherwise which step failed: reading the
    /// configuration, or connecting ([`CephError::is_timed_out`] when no monitor answers, [`CephError::is_denied`] when
    /// the key is wrong).
    pub fn connect(options: &ConnectOptions) -> Result<Self, CephError> {
        let api = ffi::api()?;
        let connection = Connection::create(api, options)?;
        connection.read_conf(&options.conf)?;
        for (option, value) in settings(&options.timeouts) {
            connection.set(option, &value)?;
        }
        if let Some(Key(key)) = &options.key {
            connection.set(c"key", key)?;
        }
        // SAFETY: the handle is from rados_create, configured and not connected yet.
        let ret = unsafe { (api.rados.rados_connect)(connection.handle) };
        check(ret, Operation::Connect, || Subject::Cluster).map_err(|error| {
            match error.errno() {
                Some(errno @ (Errno::EACCES | Errno::EPERM | Errno::ENOENT)) => {
                    CephError::Login { user: options.user.clone(), source: Cause(errno) }
                }
                Some(_) | None => error,
            }
        })?;
        Ok(Self { connection: Arc::new(connection) })
    }

    /// The id of the cluster, a UUID.
    ///
    /// # Errors
    /// When the call fails.
    pub fn fsid(&self) -> Result<String, CephError> {
        let mut buffer = [0u8; 64];
        // SAFETY: the handle is connected; the function writes at most the length given, a NUL included.
        let ret = unsafe {
            (self.api().rados.rados_cluster_fsid)(
                self.handle(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
            )
        };
        check(ret, Operation::ReadFsid, || Subject::Cluster)?;
        Ok(until_nul(&buffer))
    }

    /// The addresses of this client as the cluster knows them, as `rados_getaddrs` prints them.
    ///
    /// # Errors
    /// When the call fails.
    pub fn addresses(&self) -> Result<String, CephError> {
        let mut text: *mut c_char = ptr::null_mut();
        // SAFETY: the handle is connected; on success the function stores a string from malloc.
        let ret = unsafe { (self.api().rados.rados_getaddrs)(self.handle(), &raw mut text) };
        check(ret, Operation::ReadAddresses, || Subject::Cluster)?;
        // SAFETY: a NUL-terminated string that is ours until it is freed below.
        let addresses = unsafe { copy_c_str(text) };
        // SAFETY: it came from librados, and this is its `free`; null is allowed.
        unsafe { (self.api().rados.rados_buffer_free)(text) };
        Ok(addresses)
    }

    /// Waits until this client has the newest OSD map, for instance the one with a fencing that was just ordered.
    ///
    /// # Errors
    /// When the monitors do not answer in time.
    pub fn wait_for_latest_osd_map(&self) -> Result<(), CephError> {
        self.connection.within_timeout(Operation::WaitForOsdMap, Subject::Cluster, |connection| {
            // SAFETY: the handle is connected.
            let ret =
                unsafe { (connection.api.rados.rados_wait_for_latest_osdmap)(connection.handle) };
            check(ret, Operation::WaitForOsdMap, || Subject::Cluster)?;
            Ok(())
        })
    }

    /// Sends a command to the monitors, such as `{"prefix": "osd dump", "format": "json"}`.
    ///
    /// # Errors
    /// [`CephError::MonCommand`] with the monitor's words when it refuses. After a timeout a command that changes
    /// something may have been carried out.
    pub fn mon_command(&self, command: &Value) -> Result<MonReply, CephError> {
        let text = c_string("monitor command", &command.to_string())?;
        let words = [text.as_ptr()];
        let rados = &self.api().rados;
        let (mut output, mut output_len): (*mut c_char, usize) = (ptr::null_mut(), 0);
        let (mut status, mut status_len): (*mut c_char, usize) = (ptr::null_mut(), 0);
        // SAFETY: the handle is connected, the command is one NUL-terminated string that outlives the call, there is
        // no input, and the four results are written whether the command succeeds or not, or left null.
        let ret = unsafe {
            (rados.rados_mon_command)(
                self.handle(),
                words.as_ptr(),
                words.len(),
                c"".as_ptr(),
                0,
                &raw mut output,
                &raw mut output_len,
                &raw mut status,
                &raw mut status_len,
            )
        };
        // SAFETY: both are null or buffers of these lengths from librados, and each is taken once.
        let (output, status) =
            unsafe { (self.take_buffer(output, output_len), self.take_buffer(status, status_len)) };
        let status = String::from_utf8_lossy(&status).trim_end().to_owned();
        if ret < 0 {
            let prefix =
                command.get("prefix").and_then(Value::as_str).unwrap_or_default().to_owned();
            return Err(CephError::MonCommand { prefix, status, source: cause(ret.into()) });
        }
        Ok(MonReply { output, status })
    }

    /// The names of all pools.
    ///
    /// # Errors
    /// When the call fails.
    pub fn pool_list(&self) -> Result<Vec<String>, CephError> {
        let mut buffer = vec![0u8; 4096];
        loop {
            // SAFETY: the handle is connected; the function writes at most the length given.
            let ret = unsafe {
                (self.api().rados.rados_pool_list)(
                    self.handle(),
                    buffer.as_mut_ptr().cast(),
                    buffer.len(),
                )
            };
            let needed = check(ret, Operation::ListPools, || Subject::Cluster)?;
            match usize::try_from(needed) {
                Ok(needed) if needed > buffer.len() => buffer.resize(needed, 0),
                _ => return Ok(nul_list(&buffer)),
            }
        }
    }

    /// Opens a pool.
    ///
    /// # Errors
    /// [`CephError::PoolNotFound`] when there is none of that name, which only the monitors can say for sure:
    /// [`CephError::is_timed_out`] when they do not answer.
    pub fn pool(&self, name: &str) -> Result<Pool, CephError> {
        let (c_name, name) = (c_string("pool name", name)?, name.to_owned());
        // An unknown name makes librados ask the monitors for a newer list.
        let subject = Subject::Pool(name.clone());
        self.connection.within_timeout(Operation::OpenPool, subject, move |connection| {
            Pool::open(connection, &c_name, name)
        })
    }

    fn api(&self) -> &'static Api {
        self.connection.api
    }

    fn handle(&self) -> RadosHandle {
        self.connection.handle
    }

    /// Copies and frees a buffer that librados allocated.
    ///
    /// # Safety
    /// `buffer` is null or holds `len` bytes, came from librados, and is not used afterwards.
    unsafe fn take_buffer(&self, buffer: *mut c_char, len: usize) -> Vec<u8> {
        if buffer.is_null() {
            return Vec::new();
        }
        // SAFETY: the caller vouches for the length.
        let bytes = unsafe { std::slice::from_raw_parts(buffer.cast::<u8>(), len) }.to_vec();
        // SAFETY: the caller vouches for the origin, and that nobody uses it afterwards.
        unsafe { (self.api().rados.rados_buffer_free)(buffer) };
        bytes
    }
}

impl fmt::Debug for Cluster {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cluster").finish_non_exhaustive()
    }
}

/// The settings that make a client fit for a server process.
///
/// The timeouts are infinite or five minutes by default. With an admin socket under a name from the configuration
/// file, all clients of a host but one would print an error when they bind it.
fn settings(timeouts: &Timeouts) -> [(&'static CStr, String); 4] {
    let seconds = |time: Duration| match time {
        Duration::MAX => "0".to_owned(),
        time => (time.as_secs() + u64::from(time.subsec_nanos() > 0)).max(1).to_string(),
    };
    [
        (c"client_mount_timeout", seconds(timeouts.connect)),
        (c"rados_mon_op_timeout", seconds(timeouts.monitor)),
        (c"rados_osd_op_timeout", seconds(timeouts.osd)),
        (c"admin_socket", String::new()),
    ]
}

/// A `rados_t`, shut down on drop.
pub(super) struct Connection {
    pub(super) api: &'static Api,
    pub(super) handle: RadosHandle,
    monitor_timeout: Duration,
}

// SAFETY: librados documents a connected cluster handle as usable by any number of threads at once. Configuration,
// which is not, happens in `Cluster::connect` before the value is shared; shutdown happens in `drop`, when it is not
// shared any more. No function ties the handle to a thread.
unsafe impl Send for Connection {}
// SAFETY: as above.
unsafe impl Sync for Connection {}

impl Connection {
    fn create(api: &'static Api, options: &ConnectOptions) -> Result<Self, CephError> {
        let user = c_string("Ceph user", &options.user)?;
        let mut handle: RadosHandle = ptr::null_mut();
        // SAFETY: the id is a NUL-terminated string; on success a new handle is stored.
        let ret = unsafe { (api.rados.rados_create)(&raw mut handle, user.as_ptr()) };
        check(ret, Operation::CreateClient, || Subject::Cluster)?;
        Ok(Self { api, handle, monitor_timeout: options.timeouts.monitor })
    }

    /// Runs a call that waits for the monitors, and for them alone: no timeout of librados covers those.
    ///
    /// The call goes on in its own thread when the time is over, until a monitor answers; what it returns is dropped.
    fn within_timeout<T: Send + 'static>(
        self: &Arc<Self>,
        operation: Operation,
        subject: Subject,
        call: impl FnOnce(Arc<Self>) -> Result<T, CephError> + Send + 'static,
    ) -> Result<T, CephError> {
        let failed = |errno| CephError::Call { operation, subject, source: Cause(errno) };
        let (sender, receiver) = mpsc::sync_channel(1);
        let connection = self.clone();
        let thread = thread::Builder::new().name("ceph-monitors".to_owned()).spawn(move || {
            // Nobody receives when the time is over.
            drop(sender.send(call(connection)));
        });
        if thread.is_err() {
            return Err(failed(Errno::EAGAIN));
        }
        match receiver.recv_timeout(self.monitor_timeout) {
            Ok(result) => result,
            Err(_) => Err(failed(Errno::ETIMEDOUT)),
        }
    }

    fn read_conf(&self, conf: &std::path::Path) -> Result<(), CephError> {
        let path = c_string("path of the Ceph configuration", &conf.to_string_lossy())?;
        // SAFETY: the handle is not connected yet, and the path is a NUL-terminated string.
        let ret = unsafe { (self.api.rados.rados_conf_read_file)(self.handle, path.as_ptr()) };
        check(ret, Operation::ReadConfig, || Subject::File(conf.to_owned()))?;
        Ok(())
    }

    fn set(&self, option: &CStr, value: &str) -> Result<(), CephError> {
        let value = c_string("Ceph setting", value)?;
        // SAFETY: the handle is not connected yet, and both are NUL-terminated strings.
        let ret = unsafe {
            (self.api.rados.rados_conf_set)(self.handle, option.as_ptr(), value.as_ptr())
        };
        check(ret, Operation::Configure, || Subject::Cluster)?;
        Ok(())
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // SAFETY: pools and images hold an `Arc` of this value, so none is left that uses the handle; it is not used
        // afterwards. Shutting down a handle that never got connected is allowed.
        unsafe { (self.api.rados.rados_shutdown)(self.handle) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeouts_round_up_to_whole_seconds() {
        let timeouts = Timeouts {
            connect: Duration::ZERO,
            monitor: Duration::from_millis(1500),
            osd: Duration::from_secs(7),
        };
        let values: Vec<String> = settings(&timeouts).into_iter().map(|(_, value)| value).collect();
        assert_eq!(values, ["1", "2", "7", ""]);
        let for_ever = Timeouts { osd: Duration::MAX, ..timeouts };
        assert_eq!(settings(&for_ever)[2].1, "0");
    }
}
