//! What a tenant has left anywhere: on the hosts, at volmaster, in the store, among the images.
//!
//! Everything is found by the tenant's name, which is in the names of images, folders and keys, so
//! that stories of other tenants may run at the same time.

use std::fmt;
use std::fs;
use std::path::Path;

use serde_json::Value;

use crate::bed::Testbed;
use crate::ceph::Ceph;
use crate::etcd::Etcd;
use crate::host::{Host, walk};
use crate::suite::{Images, Store, Suite};

/// Where to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Where {
    /// On the hosts, and the claims: what is there while volumes are used.
    InUse,
    /// Everywhere: what is there while volumes exist.
    Anywhere,
}

/// What is left, one line each.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Leftovers(pub Vec<String>);

impl fmt::Display for Leftovers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "left are")?;
        self.0.iter().try_for_each(|line| write!(f, "\n  {line}"))
    }
}

impl Leftovers {
    /// What a tenant has left in a suite.
    #[track_caller]
    pub fn of(suite: &Suite, tenant: &str, places: Where) -> Leftovers {
        let mut found = Leftovers::default();
        for host in suite.hosts.iter().filter(|host| host.is_on()) {
            found.on_host(host, tenant);
        }
        found.devices(tenant);
        found.at_master(suite, tenant, "mounts");
        if places == Where::InUse {
            return found;
        }
        found.at_master(suite, tenant, "volumes");
        if let Store::Etcd(etcd) = &suite.store {
            found.in_etcd(etcd, tenant);
        }
        match &suite.images {
            Images::File(root) => found.files("image", root, tenant),
            Images::Ceph(ceph) => found.in_ceph(ceph, tenant),
        }
        found
    }

    /// Nothing, or what there is.
    pub fn none(self) -> Result<(), Leftovers> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }

    fn add(&mut self, what: &str, items: impl IntoIterator<Item = impl fmt::Display>) {
        self.0.extend(items.into_iter().map(|item| format!("{what}: {item}")));
    }

    fn on_host(&mut self, host: &Host, tenant: &str) {
        let image = format!("{tenant}.");
        let mounts = host.mounts();
        let mounts = mounts.iter().filter(|line| line.contains(&image));
        self.add(&format!("mount on {}", host.label()), mounts);
        let traces = host.traces().into_iter().filter(|path| speaks_of(path, tenant));
        let traces = traces.map(|path| path.display().to_string());
        self.add(&format!("file on {}", host.label()), traces);
        let mapped = host.mapped().into_iter().filter(|line| line.contains(&image));
        self.add(&format!("map on {}", host.label()), mapped);
    }

    /// Loop devices, and processes that serve images; they are the machine's, not a host's.
    fn devices(&mut self, tenant: &str) {
        let image = format!("{tenant}.");
        let bed = format!("{}/", Testbed::here().dir().display());
        for device in fs::read_dir("/sys/block").into_iter().flatten().flatten() {
            let backing = fs::read_to_string(device.path().join("loop/backing_file"));
            // What is detached from every folder shows no testbed any more.
            let ours = |file: &String| {
                file.contains(&image) && (file.contains(&bed) || !file.contains("/vp-"))
            };
            if let Some(file) = backing.ok().filter(ours) {
                let name = device.file_name();
                self.add("loop device", [format!("{} on {}", name.display(), file.trim())]);
            }
        }
        for process in fs::read_dir("/proc").into_iter().flatten().flatten() {
            let args = fs::read(process.path().join("cmdline")).unwrap_or_default();
            let args = String::from_utf8_lossy(&args).replace('\0', " ");
            let serves = ["volplugin-serve", "rbd-nbd"].iter().any(|name| args.contains(name));
            if serves && args.contains(&bed) && args.contains(&image) {
                self.add("process", [format!("{} {args}", process.file_name().display())]);
            }
        }
    }

    #[track_caller]
    fn at_master(&mut self, suite: &Suite, tenant: &str, resource: &str) {
        let list = suite.master().get(&format!("/v1/{resource}?tenant={tenant}"));
        let items = list["items"].as_array().cloned().unwrap_or_default();
        let name = |item: &Value| match &item["volume"] {
            Value::String(volume) => format!("{volume} by {}", item["host"]),
            _ => format!("{}, {}", item["name"], item["state"]),
        };
        self.add(&format!("{resource} at volmaster"), items.iter().map(name));
    }

    /// Keys with the tenant in their name or, in the trash, in their value; not those of the tenant itself.
    fn in_etcd(&mut self, etcd: &Etcd, tenant: &str) {
        let keys = etcd.keys("/volplugin/");
        let own = |key: &&String| {
            let mut parts = key.split('/').skip(2);
            let kind = parts.next().unwrap_or_default();
            !kind.starts_with("tenant") && parts.next() == Some(tenant)
        };
        self.add("key", keys.iter().filter(own));
        let trash = etcd.ctl("get --prefix /volplugin/trash/");
        // A note to look once more, after a while, for an image that may still appear ends by itself.
        let trash = trash.lines().filter(|line| !line.contains("\"is\":\"late\""));
        self.add("key in the trash", trash.filter(|line| line.contains(tenant)));
    }

    fn in_ceph(&mut self, ceph: &Ceph, tenant: &str) {
        let image = format!("{tenant}.");
        for pool in ceph.pools() {
            let images = ceph.images(&pool);
            self.add("image", images.iter().filter(|name| name.starts_with(&image)));
            let trash = ceph.trash(&pool);
            self.add("image in the trash", trash.iter().filter(|line| line.contains(&image)));
        }
    }

    /// Files and folders whose names speak of the tenant.
    fn files(&mut self, what: &str, folder: &Path, tenant: &str) {
        let found = walk(folder).into_iter().filter(|path| speaks_of(path, tenant));
        self.add(what, found.map(|path| path.display().to_string()));
    }
}

/// Whether the name of a file or folder speaks of the tenant.
fn speaks_of(path: &Path, tenant: &str) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    name == tenant || name.contains(&format!("{tenant}."))
}
