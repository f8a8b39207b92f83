//! Disaster recovery: the commands of `--etcd` on a real etcd, without any volmaster.

#![expect(clippy::unwrap_used, reason = "a test that cannot run its programs has failed")]
#![expect(
    clippy::disallowed_methods,
    reason = "the test starts etcd; the one door for processes is in a crate above"
)]

use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Arc;

use assert_cmd::cargo::cargo_bin;
use volcore::claim::{Claim, HoldState, Holder};
use volcore::name::VolumeId;
use volcore::options::OptionSet;
use volcore::policy::TenantPolicy;
use volcore::spec::VolumeSpec;
use volcore::volume::{Flattening, ImageFit, Volume, VolumeState};
use volstore::etcd::{EtcdOptions, EtcdStore};
use volstore::keys::Keys;
use volstore::records::Records;
use volstore::store::{Commit, Expect};

const POLICY: &str = r#"{"default-options": {"size": "10MB"}}"#;

/// A real etcd in a folder of its own, ended when the test is.
struct Etcd {
    folder: tempfile::TempDir,
    url: String,
}

impl Etcd {
    fn start() -> Etcd {
        let folder = tempfile::tempdir().unwrap();
        let printed = script("up", folder.path());
        let url = printed.trim().strip_prefix("ETCD_URL=").unwrap().to_owned();
        Etcd { folder, url }
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        script("kill", self.folder.path());
    }
}

fn script(verb: &str, folder: &Path) -> String {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/etcd");
    let mut command = Command::new(program);
    command.arg(verb).arg(folder).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().unwrap();
    assert!(output.status.success(), "scripts/etcd {verb}: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// A held volume, as volmaster stores it.
async fn furnish(url: &str) {
    let keys = Keys::default();
    let store = EtcdStore::new(EtcdOptions::new([url], &keys)).await.unwrap();
    let records = Records::new(Arc::new(store), keys);
    let policy: TenantPolicy = serde_json::from_str(POLICY).unwrap();
    let id: VolumeId = "t/v".parse().unwrap();
    let volume = Volume {
        id: id.clone(),
        uid: uuid::Uuid::nil(),
        spec: VolumeSpec::freeze(&policy, OptionSet::default(), &"rbd".parse().unwrap()).unwrap(),
        policy_revision: 1,
        created_at: "2026-01-02T03:04:05Z".parse().unwrap(),
        state: VolumeState::Ready { image_id: "1".into(), fit: ImageFit::Fits },
        flattening: Flattening::NotAsked,
        last_error: None,
    };
    let holder = Holder {
        host: "h1".parse().unwrap(),
        boot: "b1".parse().unwrap(),
        instance: None,
        state: HoldState::Mounted,
        mounts: ["m1".parse().unwrap()].into(),
        clients: vec![],
        since: "2026-01-02T03:04:05Z".parse().unwrap(),
    };
    let claim = Claim { volume: id.clone(), epoch: 3, holders: vec![holder] };
    let changes = records
        .changes()
        .put_volume(&volume, Expect::Absent)
        .put_claim(&claim, Expect::Absent)
        .put_epoch(&id, 3, Expect::Absent);
    assert!(matches!(records.commit(changes).await.unwrap(), Commit::Done(_)));
}

fn transcript(url: &str, lines: &[&str]) -> String {
    let mut told = String::new();
    for line in lines {
        let output = assert_cmd::Command::new(cargo_bin("volcli"))
            .args(line.split_whitespace())
            .args(["--etcd", url])
            .write_stdin(POLICY)
            .output()
            .unwrap();
        let code = output.status.code().unwrap();
        told.push_str(&format!("$ volcli {line}\n{}", String::from_utf8(output.stdout).unwrap()));
        for line in String::from_utf8(output.stderr).unwrap().lines() {
            told.push_str(&format!("2> {line}\n"));
        }
        if code != 0 {
            told.push_str(&format!("exit {code}\n"));
        }
    }
    told
}

#[test]
fn metadata_is_recovered_without_a_volmaster() {
    let etcd = Etcd::start();
    tokio::runtime::Runtime::new().unwrap().block_on(furnish(&etcd.url));
    insta::assert_snapshot!(transcript(
        &etcd.url,
        &[
            "tenant upload t",
            "tenant upload t",
            "tenant list",
            "tenant get t",
            "tenant history t -o name",
            "tenant history t --diff 1 1",
            "tenant upload t --from-revision 1",
            "tenant upload t --from-revision 2",
            "tenant get other",
            "volume list-all",
            "volume list t -o table",
            "volume get t v -o yaml",
            "volume force-remove t/v",
            "mount list",
            "mount get t/v",
            "mount force-remove t/v --dry-run",
            "mount force-remove t/v",
            "volume force-remove t/v",
            "volume list-all --prefix /other",
            "volume get t/v",
            "tenant delete t",
            "tenant list -o json",
        ]
    ));
}

#[test]
fn an_etcd_that_is_away_is_told() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{address}");
    let told = transcript(&url, &["tenant list"]);
    for part in ["is unavailable", &url, "--etcd URL", "exit 1"] {
        assert!(told.contains(part), "{part}: {told}");
    }
}
