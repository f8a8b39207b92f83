//! The layout of the keys, and the only place where keys are built or taken apart.
//!
//! Called by whoever reads or writes records. Names arrive parsed (`volcore::name`),
//! so none of them can contain a slash and every key maps back to one place.
//! Never knows what stands at a key.
//!
//! Below the prefix (default `/volplugin`), after DESIGN §5:
//!
//! ```text
//! tenants/<tenant>
//! tenant-revisions/<tenant>/<number, ten digits>
//! volumes/<tenant>/<volume>
//! mounts/<tenant>/<volume>
//! epochs/<tenant>/<volume>
//! snapshots/<tenant>/<volume>
//! orders/<tenant>/<volume>      (leased)
//! hosts/<host>                  (leased)
//! trash/<id>
//! global
//! .head                         (kept by the etcd store alone, see `etcd`)
//! ```

use volcore::host::MasterId;
use volcore::name::{HostName, TenantName, VolumeId, VolumeName};

use crate::store::Key;

/// The prefix when none is configured.
pub const DEFAULT_PREFIX: &str = "/volplugin";

/// A prefix that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the key prefix {given:?} is not valid: {rule}")]
pub struct PrefixError {
    /// What was given, cut to 80 characters.
    pub given: String,
    /// The rule it breaks.
    pub rule: &'static str,
}

/// Builds the keys below one prefix, and reads them back.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// With a trailing slash, so that `/a` never covers `/ab`.
    root: String,
}

/// What a key stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// A tenant.
    Tenant(TenantName),
    /// One upload of a tenant's policy, by its number.
    TenantRevision(TenantName, u32),
    /// A volume.
    Volume(VolumeId),
    /// The claim on a volume.
    Mount(VolumeId),
    /// The epoch of the last claim on a volume.
    Epoch(VolumeId),
    /// What came of a volume's snapshots on schedule.
    Snapshots(VolumeId),
    /// What the holder of a volume is to do.
    Order(VolumeId),
    /// A host's session.
    Host(HostName),
    /// A volmaster that lives.
    Master(MasterId),
    /// What a host has lost of a volume under an epoch.
    Fence(HostName, VolumeId, u64),
    /// An image on its way out.
    Trash(String),
    /// The settings for all.
    Global,
}

impl Default for Keys {
    fn default() -> Self {
        Keys { root: format!("{DEFAULT_PREFIX}/") }
    }
}

impl Keys {
    /// Keys below `prefix`: a slash first, none last, segments of letters, digits, `_`, `-` and `.`.
    pub fn new(prefix: &str) -> Result<Self, PrefixError> {
        match broken_rule(prefix) {
            None => Ok(Keys { root: format!("{prefix}/") }),
            Some(rule) => Err(PrefixError { given: prefix.chars().take(80).collect(), rule }),
        }
    }

    /// Everything of ours, as a prefix: what a mirror watches.
    pub fn root(&self) -> Key {
        Key(self.root.clone())
    }

    /// A tenant.
    pub fn tenant(&self, tenant: &TenantName) -> Key {
        self.key(&format!("tenants/{tenant}"))
    }

    /// All tenants, as a prefix.
    pub fn tenants(&self) -> Key {
        self.key("tenants/")
    }

    /// One upload of a tenant's policy. Ten digits, so that the order of the keys is the order of the numbers.
    pub fn tenant_revision(&self, tenant: &TenantName, number: u32) -> Key {
        self.key(&format!("tenant-revisions/{tenant}/{number:010}"))
    }

    /// All uploads of a tenant's policy, as a prefix.
    pub fn tenant_revisions(&self, tenant: &TenantName) -> Key {
        self.key(&format!("tenant-revisions/{tenant}/"))
    }

    /// A volume.
    pub fn volume(&self, id: &VolumeId) -> Key {
        self.key(&format!("volumes/{}/{}", id.tenant, id.volume))
    }

    /// All volumes, as a prefix.
    pub fn volumes(&self) -> Key {
        self.key("volumes/")
    }

    /// A tenant's volumes, as a prefix.
    pub fn volumes_of(&self, tenant: &TenantName) -> Key {
        self.key(&format!("volumes/{tenant}/"))
    }

    /// The claim on a volume.
    pub fn mount(&self, id: &VolumeId) -> Key {
        self.key(&format!("mounts/{}/{}", id.tenant, id.volume))
    }

    /// All claims, as a prefix.
    pub fn mounts(&self) -> Key {
        self.key("mounts/")
    }

    /// The claims on a tenant's volumes, as a prefix.
    pub fn mounts_of(&self, tenant: &TenantName) -> Key {
        self.key(&format!("mounts/{tenant}/"))
    }

    /// The epoch of the last claim on a volume; it goes with the volume, not with the claim.
    pub fn epoch(&self, id: &VolumeId) -> Key {
        self.key(&format!("epochs/{}/{}", id.tenant, id.volume))
    }

    /// What came of a volume's snapshots on schedule; it goes with the volume.
    pub fn snapshots(&self, id: &VolumeId) -> Key {
        self.key(&format!("snapshots/{}/{}", id.tenant, id.volume))
    }

    /// What came of all volumes' snapshots on schedule, as a prefix.
    pub fn snapshots_all(&self) -> Key {
        self.key("snapshots/")
    }

    /// What the holder of a volume is to do: by the volume, so that it has one order at a time.
    pub fn order(&self, id: &VolumeId) -> Key {
        self.key(&format!("orders/{}/{}", id.tenant, id.volume))
    }

    /// What all holders are to do, as a prefix.
    pub fn orders(&self) -> Key {
        self.key("orders/")
    }

    /// A host's session.
    pub fn host(&self, host: &HostName) -> Key {
        self.key(&format!("hosts/{host}"))
    }

    /// All hosts' sessions, as a prefix.
    pub fn hosts(&self) -> Key {
        self.key("hosts/")
    }

    /// A volmaster that lives.
    pub fn master(&self, id: MasterId) -> Key {
        self.key(&format!("masters/{}", id.0))
    }

    /// All volmasters that live, as a prefix.
    pub fn masters(&self) -> Key {
        self.key("masters/")
    }

    /// The clients of a host that were cut off from a volume which it held under this epoch. Twenty digits, so that
    /// the order of the keys is the order of the epochs.
    pub fn fence(&self, host: &HostName, id: &VolumeId, epoch: u64) -> Key {
        self.key(&format!("fences/{host}/{}/{}/{epoch:020}", id.tenant, id.volume))
    }

    /// What a host has lost, as a prefix.
    pub fn fences_of(&self, host: &HostName) -> Key {
        self.key(&format!("fences/{host}/"))
    }

    /// What all hosts have lost, as a prefix.
    pub fn fences(&self) -> Key {
        self.key("fences/")
    }

    /// An image on its way out. `id` is ours (never user input) and has no slash.
    pub fn trash(&self, id: &str) -> Key {
        debug_assert!(!id.is_empty() && !id.contains('/'), "a trash id is one segment: {id:?}");
        self.key(&format!("trash/{id}"))
    }

    /// All of the trash, as a prefix.
    pub fn trash_all(&self) -> Key {
        self.key("trash/")
    }

    /// The settings for all.
    pub fn global(&self) -> Key {
        self.key("global")
    }

    /// The key that the etcd store writes with every commit.
    pub(crate) fn head(root: &Key) -> Key {
        Key(format!("{}.head", root.0))
    }

    /// What `key` stands for; `None` for a key that this layout does not have.
    pub fn place(&self, key: &Key) -> Option<Place> {
        let mut parts = key.0.strip_prefix(&self.root)?.split('/');
        let place = match parts.next()? {
            "tenants" => Place::Tenant(parts.next()?.parse().ok()?),
            "tenant-revisions" => {
                let tenant = parts.next()?.parse().ok()?;
                Place::TenantRevision(tenant, digits(parts.next()?, 10)?)
            }
            "volumes" => Place::Volume(volume_id(&mut parts)?),
            "mounts" => Place::Mount(volume_id(&mut parts)?),
            "epochs" => Place::Epoch(volume_id(&mut parts)?),
            "snapshots" => Place::Snapshots(volume_id(&mut parts)?),
            "orders" => Place::Order(volume_id(&mut parts)?),
            "hosts" => Place::Host(parts.next()?.parse().ok()?),
            "masters" => Place::Master(MasterId(parts.next()?.parse().ok()?)),
            "fences" => {
                let host = parts.next()?.parse().ok()?;
                let id = volume_id(&mut parts)?;
                Place::Fence(host, id, digits(parts.next()?, 20)?)
            }
            "trash" => Place::Trash(parts.next().filter(|id| !id.is_empty())?.to_owned()),
            "global" => Place::Global,
            _ => return None,
        };
        parts.next().is_none().then_some(place)
    }

    fn key(&self, rest: &str) -> Key {
        Key(format!("{}{rest}", self.root))
    }
}

fn volume_id<'a>(parts: &mut impl Iterator<Item = &'a str>) -> Option<VolumeId> {
    let tenant: TenantName = parts.next()?.parse().ok()?;
    let volume: VolumeName = parts.next()?.parse().ok()?;
    Some(VolumeId::new(tenant, volume))
}

/// A number of exactly so many digits.
fn digits<T: std::str::FromStr>(text: &str, count: usize) -> Option<T> {
    (text.len() == count && text.bytes().all(|b| b.is_ascii_digit())).then(|| text.parse().ok())?
}

fn broken_rule(prefix: &str) -> Option<&'static str> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    let Some(segments) = prefix.strip_prefix('/') else {
        return Some("it must start with '/'");
    };
    if prefix.len() > 200 {
        return Some("it may have at most 200 characters");
    }
    if segments.split('/').any(|s| s.is_empty() || s == "." || s == "..") {
        return Some("it may have no trailing '/' and no segment that is empty, '.' or '..'");
    }
    if !segments.split('/').all(|s| s.chars().all(plain)) {
        return Some("it may have letters, digits, '_', '-', '.' and '/' only");
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(text: &str) -> VolumeId {
        text.parse().unwrap()
    }

    /// A promise to other versions and to operators with `etcdctl`: never change a line.
    #[test]
    fn the_layout() {
        let keys = Keys::default();
        let t: TenantName = "tenant1".parse().unwrap();
        let layout = [
            keys.root(),
            keys.tenant(&t),
            keys.tenants(),
            keys.tenant_revision(&t, 42),
            keys.tenant_revisions(&t),
            keys.volume(&id("tenant1/db.data")),
            keys.volumes(),
            keys.volumes_of(&t),
            keys.mount(&id("tenant1/db.data")),
            keys.mounts(),
            keys.mounts_of(&t),
            keys.epoch(&id("tenant1/db.data")),
            keys.snapshots(&id("tenant1/db.data")),
            keys.snapshots_all(),
            keys.order(&id("tenant1/db.data")),
            keys.orders(),
            keys.host(&"host-1.example".parse().unwrap()),
            keys.hosts(),
            keys.master(MasterId(uuid::Uuid::from_u128(7))),
            keys.masters(),
            keys.fence(&"host-1.example".parse().unwrap(), &id("tenant1/db.data"), 3),
            keys.fences_of(&"host-1.example".parse().unwrap()),
            keys.fences(),
            keys.trash("6f9619ff"),
            keys.trash_all(),
            keys.global(),
            Keys::head(&keys.root()),
        ];
        let lines: Vec<&str> = layout.iter().map(Key::as_str).collect();
        insta::assert_snapshot!(lines.join("\n"), @r"
        /volplugin/
        /volplugin/tenants/tenant1
        /volplugin/tenants/
        /volplugin/tenant-revisions/tenant1/0000000042
        /volplugin/tenant-revisions/tenant1/
        /volplugin/volumes/tenant1/db.data
        /volplugin/volumes/
        /volplugin/volumes/tenant1/
        /volplugin/mounts/tenant1/db.data
        /volplugin/mounts/
        /volplugin/mounts/tenant1/
        /volplugin/epochs/tenant1/db.data
        /volplugin/snapshots/tenant1/db.data
        /volplugin/snapshots/
        /volplugin/orders/tenant1/db.data
        /volplugin/orders/
        /volplugin/hosts/host-1.example
        /volplugin/hosts/
        /volplugin/masters/00000000-0000-0000-0000-000000000007
        /volplugin/masters/
        /volplugin/fences/host-1.example/tenant1/db.data/00000000000000000003
        /volplugin/fences/host-1.example/
        /volplugin/fences/
        /volplugin/trash/6f9619ff
        /volplugin/trash/
        /volplugin/global
        /volplugin/.head
        ");
    }

    #[test]
    fn keys_read_back() {
        let keys = Keys::new("/a/b").unwrap();
        let t: TenantName = "t".parse().unwrap();
        let h: HostName = "h".parse().unwrap();
        let there_and_back = [
            (keys.tenant(&t), Place::Tenant(t.clone())),
            (keys.tenant_revision(&t, u32::MAX), Place::TenantRevision(t.clone(), u32::MAX)),
            (keys.volume(&id("t/v")), Place::Volume(id("t/v"))),
            (keys.mount(&id("t/v")), Place::Mount(id("t/v"))),
            (keys.epoch(&id("t/v")), Place::Epoch(id("t/v"))),
            (keys.snapshots(&id("t/v")), Place::Snapshots(id("t/v"))),
            (keys.order(&id("t/v")), Place::Order(id("t/v"))),
            (keys.host(&h), Place::Host(h.clone())),
            (keys.master(MasterId(uuid::Uuid::nil())), Place::Master(MasterId(uuid::Uuid::nil()))),
            (keys.fence(&h, &id("t/v"), u64::MAX), Place::Fence(h.clone(), id("t/v"), u64::MAX)),
            (keys.trash("x"), Place::Trash("x".to_owned())),
            (keys.global(), Place::Global),
        ];
        for (key, place) in there_and_back {
            assert_eq!(keys.place(&key), Some(place), "{key:?}");
            assert_eq!(Keys::default().place(&key), None, "{key:?}");
        }
    }

    #[test]
    fn strange_keys_stand_for_nothing() {
        let keys = Keys::default();
        for rest in [
            "",
            ".head",
            "tenants/",
            "tenants/a.b",
            "tenants/a/b",
            "volumes/t",
            "volumes/t/",
            "volumes/t/v/w",
            "tenant-revisions/t/7",
            "tenant-revisions/t/+000000007",
            "tenant-revisions/t/9999999999",
            "trash/",
            "global/x",
            "other/x",
        ] {
            assert_eq!(keys.place(&Key(format!("/volplugin/{rest}"))), None, "{rest:?}");
        }
    }

    #[test]
    fn revisions_sort_as_numbers() {
        let keys = Keys::default();
        let t: TenantName = "t".parse().unwrap();
        let numbers = [0, 1, 9, 10, 99, 100, 1_000_000, u32::MAX];
        assert!(numbers.map(|n| keys.tenant_revision(&t, n)).is_sorted());
    }

    #[test]
    fn prefixes() {
        for good in ["/volplugin", "/a/b", "/a.b-c_d"] {
            assert!(Keys::new(good).is_ok(), "{good:?}");
        }
        let long = format!("/{}", "a".repeat(200));
        for bad in ["", "/", "a", "/a/", "//a", "/a//b", "/./a", "/..", "/a b", "/ä", "/a\0", &long]
        {
            assert!(Keys::new(bad).is_err(), "{bad:?}");
        }
    }
}
