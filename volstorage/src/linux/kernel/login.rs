//! How the kernel reaches Ceph: monitors and key, which `rbd map` would find out each time.

use std::fmt;
use std::net::ToSocketAddrs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;

use crate::host::HostError;
use crate::linux::{Operation, failed};

/// The port of monitors that speak the first protocol, and the second.
const PORTS: [u16; 2] = [6789, 3300];

/// What Ceph's configuration says, as far as the kernel needs to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Login {
    monitors: Vec<Monitor>,
    /// Where the key may be; empty where the cluster wants none.
    keyrings: Vec<PathBuf>,
}

/// The address of a monitor, and the protocols that it speaks there.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Monitor {
    /// `10.0.0.1` or `[2001:db8::1]` or a name.
    host: String,
    /// As the port says it: none means both, each at its own.
    port: Option<u16>,
    protocol: Option<Protocol>,
}

/// How monitors and OSDs are spoken to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    /// The first, which every kernel speaks.
    V1,
    /// The second, since Linux 5.11 (`ms_mode`).
    V2,
}

/// What may keep a client from Ceph, in words; found out before it tries, while there is time.
#[derive(Debug, Default)]
pub(in crate::linux) struct Missing {
    /// Why there is no key for it, if there is none.
    pub(in crate::linux) key: Option<String>,
    /// Who has to answer it.
    pub(in crate::linux) monitors: String,
}

/// A key, in the form that the kernel keeps. Shown nowhere.
pub(super) struct Secret(pub(super) Vec<u8>);

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// What was read of the configuration last, and of which state of it.
#[derive(Debug, Default)]
pub(in crate::linux) struct LastLogin(Mutex<Option<(State, Arc<Login>)>>);

/// When a file was changed last, which one it is, and how long.
type State = (i64, i64, u64, u64);

fn state(file: &Path) -> Option<State> {
    let metadata = file.metadata().ok()?;
    Some((metadata.mtime(), metadata.mtime_nsec(), metadata.ino(), metadata.len()))
}

impl LastLogin {
    fn of(&self, now: &State) -> Option<Arc<Login>> {
        let last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        last.as_ref().filter(|(state, _)| state == now).map(|(_, login)| login.clone())
    }

    fn keep(&self, state: State, login: &Arc<Login>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some((state, login.clone()));
    }
}

impl Operation<'_> {
    /// Reads the configuration, unless it is the same as the last time.
    pub(super) async fn login(&self) -> Result<Arc<Login>, HostError> {
        let conf = &self.shared.config.ceph_conf;
        let now = state(conf);
        if let Some(login) = now.as_ref().and_then(|now| self.shared.login.of(now)) {
            return Ok(login);
        }
        let login = Arc::new(self.read_login().await?);
        if let Some(now) = now {
            self.shared.login.keep(now, &login);
        }
        Ok(login)
    }

    /// What a program that reaches Ceph through librados says badly, or not at all: see [`Missing`].
    pub(in crate::linux) async fn missing(&self) -> Missing {
        let Ok(login) = self.login().await else { return Missing::default() };
        let hosts: Vec<&str> = login.monitors.iter().map(|monitor| monitor.host.as_str()).collect();
        Missing { key: login.key(&self.shared.config.ceph_user).err(), monitors: hosts.join(", ") }
    }

    async fn read_login(&self) -> Result<Login, HostError> {
        let conf = self.shared.config.ceph_conf.display();
        let action = format!("read {conf}");
        let monitors = self.ceph_option("mon_host").await?;
        let monitors = monitors_of(&monitors).ok_or_else(|| {
            let reason = if monitors.is_empty() {
                "it has no `mon host`, which the kernel's rbd needs".to_owned()
            } else {
                format!("its `mon host` is not understood: {monitors}")
            };
            failed(action.clone())(reason)
        })?;
        let wanted = self.ceph_option("auth_client_required").await?;
        let keyrings = if wanted.trim() == "none" {
            Vec::new()
        } else {
            let all = self.ceph_option("keyring").await?;
            all.split(',')
                .map(str::trim)
                .filter(|path| !path.is_empty())
                .map(PathBuf::from)
                .collect()
        };
        Ok(Login { monitors, keyrings })
    }

    /// An option as Ceph's programs understand the configuration.
    async fn ceph_option(&self, name: &str) -> Result<String, HostError> {
        let config = &self.shared.config;
        let action = format!("read {name} in {}", config.ceph_conf.display());
        let asked = self
            .run(&self.shared.programs.ceph_conf)
            .arg("-c")
            .arg(&config.ceph_conf)
            .args(["--id", &config.ceph_user, "--show-config-value", name]);
        let said = asked.output().await.map_err(self.program_failed(action))?;
        Ok(String::from_utf8_lossy(&said.stdout).trim().to_owned())
    }
}

impl Login {
    #[cfg(test)]
    pub(super) fn for_tests(mon_host: &str) -> Login {
        let monitors = monitors_of(mon_host).unwrap_or_default();
        Login { monitors, keyrings: Vec::new() }
    }

    /// The monitors, as the kernel takes them.
    pub(super) fn addresses(&self, protocol: Protocol) -> Result<String, String> {
        let (port, name) = match protocol {
            Protocol::V1 => (PORTS[0], "v1"),
            Protocol::V2 => (PORTS[1], "v2"),
        };
        let speak = |monitor: &&Monitor| monitor.protocol.is_none_or(|spoken| spoken == protocol);
        let mut all = Vec::new();
        for monitor in self.monitors.iter().filter(speak) {
            all.push(resolve(&monitor.host, monitor.port.unwrap_or(port))?);
        }
        if all.is_empty() {
            return Err(format!(
                "`mon host` has no {name} address (map-options: ms_mode says which protocol is spoken)"
            ));
        }
        Ok(all.join(","))
    }

    /// The key of a user. `None` where the cluster wants none.
    pub(super) fn key(&self, user: &str) -> Result<Option<Secret>, String> {
        if self.keyrings.is_empty() {
            return Ok(None);
        }
        let mut said = Vec::new();
        for path in &self.keyrings {
            match std::fs::read_to_string(path) {
                Ok(text) => match key_in(&text, user) {
                    Some(key) => return Ok(Some(key)),
                    None => said.push(format!("{} has no key of client.{user}", path.display())),
                },
                Err(error) => said.push(format!("{}: {error}", path.display())),
            }
        }
        Err(format!("there is no key of client.{user}: {}", said.join("; ")))
    }
}

/// Kernels look up no names as a rule.
fn resolve(host: &str, port: u16) -> Result<String, String> {
    if host.starts_with('[') || host.parse::<std::net::Ipv4Addr>().is_ok() {
        return Ok(format!("{host}:{port}"));
    }
    let mut found =
        (host, port).to_socket_addrs().map_err(|error| format!("monitor {host}: {error}"))?;
    found
        .next()
        .map(|address| address.to_string())
        .ok_or_else(|| format!("monitor {host}: no address"))
}

/// The monitors in `mon host`: `10.0.0.1,10.0.0.2:6789` or `[v2:10.0.0.1:3300/0,v1:10.0.0.1:6789/0]` or names
/// (Ceph's "Monitor config reference").
fn monitors_of(text: &str) -> Option<Vec<Monitor>> {
    let mut all = Vec::new();
    for word in text.split([',', ';', ' ', '\t']).filter(|word| !word.is_empty()) {
        all.push(monitor(word)?);
    }
    (!all.is_empty()).then_some(all)
}

/// One address; brackets around several of one monitor are none of its own.
fn monitor(word: &str) -> Option<Monitor> {
    let word = word.strip_prefix('[').filter(|rest| rest.starts_with('v')).unwrap_or(word);
    let (protocol, word) = match word.split_once(':') {
        Some(("v1", rest)) => (Some(Protocol::V1), rest),
        Some(("v2", rest)) => (Some(Protocol::V2), rest),
        _ => (None, word),
    };
    // What follows the slash is a nonce, and the bracket at the end the group's, unless it is IPv6's.
    let word = word.split_once('/').map_or(word, |(address, _)| address);
    let word = if word.starts_with('[') { word } else { word.trim_end_matches(']') };
    let (host, port) = if let Some(inner) = word.strip_prefix('[') {
        let (address, rest) = inner.split_once(']')?;
        (format!("[{address}]"), rest.strip_prefix(':'))
    } else {
        match word.split_once(':') {
            Some((host, port)) => (host.to_owned(), Some(port)),
            None => (word.to_owned(), None),
        }
    };
    let port = port.map(str::parse).transpose().ok()?;
    let protocol = protocol.or(match port {
        Some(port) if port == PORTS[1] => Some(Protocol::V2),
        Some(_) => Some(Protocol::V1),
        None => None,
    });
    (!host.is_empty()).then_some(Monitor { host, port, protocol })
}

/// The key of a user in a keyring, which is an INI file with a section for each.
fn key_in(keyring: &str, user: &str) -> Option<Secret> {
    let section = format!("[client.{user}]");
    let mut lines = keyring.lines().map(str::trim).skip_while(|line| *line != section).skip(1);
    lines
        .by_ref()
        .take_while(|line| !line.starts_with('['))
        .filter_map(|line| line.split_once('='))
        .find(|(name, _)| name.trim() == "key")
        .and_then(|(_, value)| BASE64.decode(value.trim().trim_matches('"')).ok())
        .map(Secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addresses(mon_host: &str) -> (Option<String>, Option<String>) {
        let login = Login::for_tests(mon_host);
        (login.addresses(Protocol::V1).ok(), login.addresses(Protocol::V2).ok())
    }

    #[test]
    fn monitors_are_read_as_ceph_writes_them() {
        let both = |v1: &str, v2: &str| {
            (
                Some(v1.to_owned()).filter(|a| !a.is_empty()),
                Some(v2.to_owned()).filter(|a| !a.is_empty()),
            )
        };
        for (text, wanted) in [
            ("10.0.0.1", both("10.0.0.1:6789", "10.0.0.1:3300")),
            ("10.0.0.1:6789", both("10.0.0.1:6789", "")),
            ("10.0.0.1:3300, 10.0.0.2", both("10.0.0.2:6789", "10.0.0.1:3300,10.0.0.2:3300")),
            (
                "[v2:10.0.0.1:3300/0,v1:10.0.0.1:6789/0],[v2:10.0.0.2:3300/0,v1:10.0.0.2:6789/0]",
                both("10.0.0.1:6789,10.0.0.2:6789", "10.0.0.1:3300,10.0.0.2:3300"),
            ),
            ("v1:127.0.0.1:40001/0", both("127.0.0.1:40001", "")),
            ("[v1:127.0.0.1:40001]", both("127.0.0.1:40001", "")),
            ("[2001:db8::1]", both("[2001:db8::1]:6789", "[2001:db8::1]:3300")),
            ("[v2:[::1]:3300/0,v1:[::1]:6789/0]", both("[::1]:6789", "[::1]:3300")),
            ("localhost:6789", (Some("127.0.0.1:6789".into()), None)),
        ] {
            let (v1, v2) = addresses(text);
            let v1 = v1.map(|v1| {
                if text.starts_with("local") { v1.replace("[::1]", "127.0.0.1") } else { v1 }
            });
            assert_eq!((v1, v2), wanted, "{text}");
        }
        for bad in ["", " , ", "10.0.0.1:port", "v1:", "[2001:db8::1"] {
            assert_eq!(monitors_of(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_key_is_found_by_its_user() {
        let keyring =
            "[client.admin]\n\tkey = QUJD\n\tcaps mon = \"allow *\"\n[client.host]\nkey=REVG\n";
        let key = |user: &str| key_in(keyring, user).map(|key| key.0);
        assert_eq!(key("admin").unwrap(), b"ABC");
        assert_eq!(key("host").unwrap(), b"DEF");
        assert_eq!(key("nobody"), None);
        assert_eq!(
            key_in("[client.a]\ncaps = x\n[client.b]\nkey = QUJD\n", "a").map(|key| key.0),
            None
        );
        let login = Login { monitors: Vec::new(), keyrings: vec!["/nonexistent/keyring".into()] };
        let error = login.key("host").unwrap_err();
        assert!(error.contains("client.host") && error.contains("/nonexistent/keyring"), "{error}");
    }
}
