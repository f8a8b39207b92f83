//! A volmaster with state and a fault plan, and a plugin over it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use jiff::Timestamp;
use uuid::Uuid;
use volapi::hosts::{
    HeldLimits, HostSession, OpenSession, Order, OrderState, Orders, OrdersQuery, ReportOrder,
    SessionGranted,
};
use volapi::mounts::{ClaimMount, Mount};
use volapi::volumes::{Image, Volume, VolumeBrief};
use volcore::Kind;
use volcore::claim::{
    Claim, ClaimDecision, ClaimFacts, ReleaseDecision, mount_claim, mount_release,
};
use volcore::host::{MasterId, Session};
use volcore::live::LiveChange;
use volcore::name::{BootId, HostName, VolumeId};
use volcore::options::{Access, OptionSet};
use volcore::policy::TenantPolicy;
use volcore::spec::VolumeSpec;
use volcore::takeover::Witness;
use volcore::volume::{self, Disposal, Flattening, ImageFit, VolumeState};
use volplugin::app::cache::Cache;
use volplugin::app::changes::Stunted;
use volplugin::app::orders::Obeying;
use volplugin::app::{Me, Plugin};
use volplugin::host::locks::Locks;
use volplugin::host::standing::{Moment, Standing};
use volplugin::host::uses::Uses;
use volplugin::master::{Briefs, Master, MasterError};
use volstorage::fake::host::FakeHost;

/// What happens to one call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It does not get there.
    Lost,
    /// It is done, and the answer is lost.
    AnswerLost,
}

/// The state behind [`FakeMaster`].
#[derive(Default)]
pub struct State {
    pub volumes: BTreeMap<VolumeId, volume::Volume>,
    pub claims: BTreeMap<VolumeId, Claim>,
    pub epochs: BTreeMap<VolumeId, u64>,
    /// Counts the calls that may fail.
    pub calls: usize,
    /// The call with this number fails so.
    pub fault: Option<(usize, Fault)>,
    /// How often limits and sizes were asked for.
    pub asked_for_changes: usize,
    /// What the host is to do.
    pub orders: Vec<Order>,
    /// Grows with every change of an order.
    pub orders_at: u64,
    /// How often orders were asked for.
    pub asked_for_orders: usize,
    /// It is a volmaster that says nothing of sizes.
    pub silent_of_sizes: bool,
    /// No call gets there.
    pub down: bool,
    /// Images are Ceph's, not local files.
    pub in_ceph: bool,
    /// How volumes are reached.
    pub access: Option<Access>,
}

/// A volmaster in memory, which decides by the rules of `volcore`.
#[derive(Default)]
pub struct FakeMaster {
    state: Mutex<State>,
}

fn unreachable() -> MasterError {
    MasterError::Unreachable { detail: "connection refused".to_owned() }
}

fn refused(kind: Kind, detail: impl ToString) -> MasterError {
    MasterError::Refused { kind, detail: detail.to_string() }
}

impl FakeMaster {
    pub fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }

    /// Changes a live option, as `volcli volume set` does.
    pub fn set(&self, id: &VolumeId, key: &str, value: &str) {
        let change = [(key.to_owned(), value.to_owned())].into();
        let change = LiveChange::from_driver_options(&change).unwrap();
        let mut state = self.state();
        let volume = state.volumes.get_mut(id).unwrap();
        volume.spec = volume.spec.changed(&change).unwrap();
    }

    fn call<T>(
        &self,
        act: impl FnOnce(&mut State) -> Result<T, MasterError>,
    ) -> Result<T, MasterError> {
        let mut state = self.state();
        if state.down {
            return Err(unreachable());
        }
        state.calls += 1;
        let fault =
            state.fault.filter(|(number, _)| *number == state.calls).map(|(_, fault)| fault);
        match fault {
            None => act(&mut state),
            Some(Fault::Lost) => Err(unreachable()),
            Some(Fault::AnswerLost) => act(&mut state).and(Err(unreachable())),
        }
    }
}

fn wire(state: &State, volume: &volume::Volume) -> Volume {
    let name = volume.id.image_name();
    let image = if state.in_ceph {
        Image::Rbd { pool: "rbd".to_owned(), image: name }
    } else {
        Image::File { path: format!("/images/rbd/{name}").into() }
    };
    let mount = state.claims.get(&volume.id).cloned().and_then(Mount::from_claim);
    let mut volume = Volume::new(volume.clone(), image, mount, None);
    volume.options.access = state.access.or(volume.options.access);
    volume
}

fn find<'s>(state: &'s State, id: &VolumeId) -> Result<&'s volume::Volume, MasterError> {
    state
        .volumes
        .get(id)
        .ok_or_else(|| refused(Kind::NotFound, format!("volume {id} does not exist")))
}

#[async_trait]
impl Master for FakeMaster {
    async fn volume_get(&self, id: &VolumeId, _: Duration) -> Result<Volume, MasterError> {
        self.call(|state| Ok(wire(state, find(state, id)?)))
    }

    async fn volume_list(&self, _: Option<&str>, _: Duration) -> Result<Briefs, MasterError> {
        self.call(|state| {
            let volumes = state.volumes.values().map(VolumeBrief::from).collect();
            Ok(Briefs::List { tag: None, volumes })
        })
    }

    async fn volume_create(
        &self,
        id: &VolumeId,
        options: BTreeMap<String, String>,
        _: Duration,
    ) -> Result<Volume, MasterError> {
        self.call(|state| {
            let policy: TenantPolicy =
                serde_json::from_str(r#"{"default-options": {"size": "10MB"}}"#).unwrap();
            let options = OptionSet::from_driver_options(&options)
                .map_err(|error| refused(Kind::Invalid, error))?;
            let pool = "rbd".parse().unwrap();
            let volume = state.volumes.entry(id.clone()).or_insert_with(|| volume::Volume {
                id: id.clone(),
                uid: Uuid::new_v4(),
                spec: VolumeSpec::freeze(&policy, options, &pool).unwrap(),
                policy_revision: 1,
                created_at: Timestamp::UNIX_EPOCH,
                state: VolumeState::Ready { image_id: "1".to_owned(), fit: ImageFit::Fits },
                flattening: Flattening::NotAsked,
                last_error: None,
            });
            let volume = volume.clone();
            Ok(wire(state, &volume))
        })
    }

    async fn volume_remove(
        &self,
        id: &VolumeId,
        _: Disposal,
        _: Duration,
    ) -> Result<(), MasterError> {
        self.call(|state| {
            find(state, id)?;
            if let Some(claim) = state.claims.get(id) {
                return Err(refused(Kind::InUse, claim.holders_shown()));
            }
            state.volumes.remove(id);
            Ok(())
        })
    }

    async fn mount_claim(
        &self,
        id: &VolumeId,
        claim: ClaimMount,
        _: Duration,
    ) -> Result<Mount, MasterError> {
        self.call(|state| {
            let session = claim.instance_id.map(|instance| Session {
                host: claim.host.clone(),
                instance,
                boot: claim.boot_id.clone(),
                since: Timestamp::UNIX_EPOCH,
                version: String::new(),
            });
            let facts = ClaimFacts {
                volume: find(state, id)?,
                claim: state.claims.get(id),
                session: session.as_ref(),
                last_epoch: state.epochs.get(id).copied().unwrap_or(0),
                witness: Witness {
                    me: MasterId(Uuid::nil()),
                    masters: &BTreeSet::new(),
                    sessions: &BTreeMap::new(),
                    steady: false,
                    fences: true,
                },
            };
            let decision = mount_claim(facts, claim.into(), Timestamp::now())
                .map_err(|refusal| refused(refusal.kind(), refusal))?;
            let claim = match decision {
                ClaimDecision::Claimed(claim)
                | ClaimDecision::Updated(claim)
                | ClaimDecision::AlreadyYours(claim) => claim,
                ClaimDecision::Fence(_) | ClaimDecision::Wait => panic!("nobody is fenced here"),
            };
            state.epochs.insert(id.clone(), claim.epoch);
            state.claims.insert(id.clone(), claim.clone());
            Ok(Mount::from_claim(claim).unwrap())
        })
    }

    async fn mount_release(
        &self,
        id: &VolumeId,
        host: &HostName,
        boot: &BootId,
        _: Duration,
    ) -> Result<(), MasterError> {
        self.call(|state| {
            match mount_release(state.claims.get(id), host, boot, None) {
                ReleaseDecision::Delete => drop(state.claims.remove(id)),
                ReleaseDecision::Keep(claim) => drop(state.claims.insert(id.clone(), claim)),
                ReleaseDecision::Absent => {}
            }
            Ok(())
        })
    }

    async fn mount_list(&self, _: Duration) -> Result<Vec<Mount>, MasterError> {
        self.call(|state| {
            Ok(state.claims.values().cloned().filter_map(Mount::from_claim).collect())
        })
    }

    async fn host_limit_list(
        &self,
        host: &HostName,
        _: Duration,
    ) -> Result<Vec<HeldLimits>, MasterError> {
        self.call(|state| {
            state.asked_for_changes += 1;
            let held = state
                .claims
                .values()
                .filter(|claim| claim.holders.iter().any(|holder| holder.host == *host));
            let one = |claim: &Claim| {
                let volume = find(state, &claim.volume)?;
                let size = if state.silent_of_sizes { 0 } else { volume.spec.size.bytes() };
                let rate_limit = (&volume.spec.rate_limits).into();
                let epoch = state.claims.get(&volume.id).map_or(0, |claim| claim.epoch);
                Ok(HeldLimits {
                    volume: volume.id.clone(),
                    uid: volume.uid,
                    epoch,
                    size,
                    rate_limit,
                })
            };
            held.map(one).collect()
        })
    }

    async fn host_order_list(
        &self,
        _: &HostName,
        query: OrdersQuery,
        _: Duration,
    ) -> Result<Orders, MasterError> {
        let end = tokio::time::Instant::now() + Duration::from_secs(query.wait.unwrap_or(0));
        loop {
            // Not counted among the calls that may fail: there are many.
            if self.state().down {
                return Err(unreachable());
            }
            let orders = {
                let state = self.state();
                Orders { items: state.orders.clone(), at: state.orders_at }
            };
            let is_news = query.after.is_none_or(|after| orders.at > after);
            if is_news || tokio::time::Instant::now() >= end {
                self.state().asked_for_orders += 1;
                return Ok(orders);
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn host_order_report(
        &self,
        _: &HostName,
        id: Uuid,
        report: ReportOrder,
        _: Duration,
    ) -> Result<(), MasterError> {
        self.call(|state| {
            let order = state.orders.iter_mut().find(|order| order.id == id);
            let order = order.ok_or_else(|| refused(Kind::NotFound, "it is over"))?;
            order.state = match report.clone() {
                ReportOrder::Frozen => OrderState::Frozen,
                ReportOrder::Failed { reason } => OrderState::Failed { reason },
                ReportOrder::Thawed { held_ms, by_itself } => {
                    OrderState::Thawed { held_ms, by_itself }
                }
            };
            state.orders_at += 1;
            Ok(())
        })
    }

    async fn host_session(
        &self,
        host: &HostName,
        session: OpenSession,
        _: Duration,
    ) -> Result<SessionGranted, MasterError> {
        self.call(|_| {
            let OpenSession { instance_id, boot_id, version } = session;
            let session = HostSession { instance_id, boot_id, since: Timestamp::now(), version };
            Ok(SessionGranted { host: host.clone(), session, ttl: Default::default() })
        })
    }
}

/// A session that outlives the test.
fn standing() -> Standing {
    let standing = Standing::default();
    standing.granted(Moment::now(), "1h".parse().unwrap());
    standing
}

/// A plugin on a host, over fakes that outlive it.
pub struct World {
    pub master: Arc<FakeMaster>,
    pub host: Arc<FakeHost>,
    pub folder: tempfile::TempDir,
}

impl World {
    pub fn new() -> World {
        World {
            master: Arc::new(FakeMaster::default()),
            host: Arc::new(FakeHost::new()),
            folder: tempfile::tempdir().unwrap(),
        }
    }

    /// Starts a plugin, as after a restart: everything in memory is new.
    pub fn start(&self) -> Arc<Plugin> {
        self.start_as("h1", self.folder.path())
    }

    pub fn start_as(&self, host: &str, folder: &Path) -> Arc<Plugin> {
        Arc::new(Plugin {
            me: Me {
                host: host.parse().unwrap(),
                instance: Uuid::nil(),
                boot: format!("boot-{host}").parse().unwrap(),
            },
            master: Arc::clone(&self.master) as Arc<dyn Master>,
            driver: Arc::clone(&self.host) as Arc<_>,
            uses: Uses::load(folder).unwrap(),
            cache: Cache::load(folder.join("volumes.json")),
            locks: Locks::default(),
            mount_root: "/mnt/volplugin".into(),
            access: Access::Auto,
            default_tenant: None,
            standing: standing(),
            nudge: tokio::sync::Notify::new(),
            stunted: Stunted::default(),
            obeying: Obeying::default(),
        })
    }
}

pub fn id(text: &str) -> VolumeId {
    text.parse().unwrap()
}
