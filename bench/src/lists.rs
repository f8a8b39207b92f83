//! List and Get with ten thousand volumes, against etcd's bare range and get.

use std::sync::Arc;

use jiff::Timestamp;
use serde_json::json;
use testkit::{Suite, poll};
use uuid::Uuid;
use volcore::name::VolumeId;
use volcore::options::OptionSet;
use volcore::policy::TenantPolicy;
use volcore::spec::VolumeSpec;
use volcore::volume::{Flattening, ImageFit, Volume, VolumeState};
use volstore::etcd::{EtcdOptions, EtcdStore};
use volstore::keys::Keys;
use volstore::records::{Changes, Records};
use volstore::store::{Expect, Store, list_all};

use crate::bare::timed;
use crate::table::{Table, Times};
use crate::volumes::call;

const VOLUMES: usize = 10_000;
const ROUNDS: usize = 200;

/// Ten thousand records, put into etcd as volmaster writes them; there is no image behind them.
pub fn ten_thousand(suite: &Suite, table: &mut Table) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let keys = Keys::default();
    let urls = vec![suite.etcd().url().to_owned()];
    let options = EtcdOptions::new(urls, &keys);
    let store: Arc<dyn Store> =
        Arc::new(runtime.block_on(EtcdStore::new(options)).expect("etcd's address"));
    let records = Records::new(Arc::clone(&store), keys.clone());
    let volumes: Vec<Volume> = (0..VOLUMES).map(volume).collect();
    for chunk in volumes.chunks(100) {
        let put = |changes: Changes, volume| changes.put_volume(volume, Expect::Absent);
        let steps =
            chunk.iter().fold(records.changes(), put).into_steps().expect("they can be written");
        runtime.block_on(store.commit(steps)).expect("etcd takes the records");
    }
    let host = suite.h1();
    poll::until("the list to have all", std::time::Duration::from_secs(20), || {
        let listed = host.plugin_call("VolumeDriver.List", &json!({})).ok();
        let count = listed["Volumes"].as_array().map_or(0, Vec::len);
        if count >= VOLUMES { Ok(()) } else { Err(format!("it has {count}")) }
    });
    let list = Times::of(ROUNDS, |_| call(host, "List", &json!({})));
    let range = Times::of(20, |_| {
        let (took, listed) = timed(|| runtime.block_on(list_all(&*store, &keys.volumes())));
        assert!(listed.expect("etcd lists").0.len() >= VOLUMES);
        took
    });
    table.row(
        "List of 10,000 volumes",
        "≤ 15 ms",
        list.to_string(),
        range.to_string(),
        "one etcd range of the same keys",
    );
    let get = Times::of(1_000, |round| {
        call(host, "Get", &json!({ "Name": format!("lists/v{}", round * 7 % VOLUMES) }))
    });
    let bare = Times::of(1_000, |round| {
        let key = keys.volume(&id(round * 7 % VOLUMES));
        let (took, entry) = timed(|| runtime.block_on(store.get(&key)));
        assert!(entry.expect("etcd answers").is_some());
        took
    });
    table.row(
        "Get with 10,000 volumes",
        "≤ 2 ms p99",
        get.to_string(),
        bare.to_string(),
        "one etcd get",
    );
}

fn id(number: usize) -> VolumeId {
    format!("lists/v{number}").parse().expect("a name")
}

fn volume(number: usize) -> Volume {
    let policy: TenantPolicy =
        serde_json::from_value(json!({ "default-options": { "size": "1GB" } })).expect("a policy");
    let pool = "rbd".parse().expect("a pool");
    Volume {
        id: id(number),
        uid: Uuid::new_v4(),
        spec: VolumeSpec::freeze(&policy, OptionSet::default(), &pool).expect("a spec"),
        policy_revision: 1,
        created_at: Timestamp::now(),
        state: VolumeState::Ready { image_id: format!("{number:012x}"), fit: ImageFit::Fits },
        flattening: Flattening::NotAsked,
        last_error: None,
    }
}
