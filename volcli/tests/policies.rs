//! Every policy in `policies/` is one that can be uploaded, and the README speaks of each.

#![expect(clippy::unwrap_used, reason = "a test that cannot read its files has failed")]

use std::path::PathBuf;

use volcore::options::{OnRemove, OptionSet, Sharing};
use volcore::policy::TenantPolicy;
use volcore::spec::{Retention, VolumeSpec};

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../policies")
}

fn policy(name: &str) -> TenantPolicy {
    let text = std::fs::read_to_string(folder().join(name)).unwrap();
    let policy: TenantPolicy = serde_json::from_str(&text).unwrap();
    policy.check().unwrap();
    policy
}

fn spec(name: &str) -> VolumeSpec {
    VolumeSpec::freeze(&policy(name), OptionSet::default(), &"rbd".parse().unwrap()).unwrap()
}

#[test]
fn every_policy_is_valid_and_explained() {
    let readme = std::fs::read_to_string(folder().join("README.md")).unwrap();
    let mut names: Vec<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".json"))
        .collect();
    names.sort();
    assert_eq!(
        names,
        [
            "database.json",
            "default.json",
            "limits.json",
            "old-kernel.json",
            "scratch.json",
            "shared-readonly.json"
        ]
    );
    for name in names {
        // A volume can be made from each without any option.
        spec(&name);
        assert!(readme.contains(&format!("## {name}")), "README.md does not explain {name}");
        let text = std::fs::read_to_string(folder().join(&name)).unwrap();
        assert!(readme.contains(text.trim()), "README.md shows another {name} than the file");
    }
}

#[test]
fn the_policies_say_what_the_readme_says() {
    let default = spec("default.json");
    assert_eq!(
        (default.size.to_string().as_str(), default.filesystem.as_str()),
        ("10 MiB", "ext4")
    );
    assert_eq!(default.on_remove, OnRemove::Keep);
    assert_eq!(default.schedule.unwrap().retention, Retention::Keep(20));

    let database = spec("database.json");
    assert_eq!((database.sharing, database.on_remove), (Sharing::Container, OnRemove::Trash));
    let schedule = database.schedule.unwrap();
    assert!(schedule.freeze && matches!(schedule.retention, Retention::Tiers(_)));

    assert_eq!(spec("scratch.json").on_remove, OnRemove::Delete);
    assert!(spec("scratch.json").schedule.is_none());
    assert_eq!(spec("shared-readonly.json").sharing, Sharing::ReadOnly);
    assert_eq!(spec("old-kernel.json").access.as_str(), "kernel");
    assert_eq!(spec("limits.json").rate_limits.write_iops.unwrap().get(), 200);
}

/// The example of the documentation, which the demonstration uploads.
#[test]
fn the_default_policy_is_the_documented_one() {
    let documented: TenantPolicy = serde_json::from_str(
        r#"{
          "default-options": {
            "pool": "rbd", "size": "10MB", "filesystem": "ext4", "ephemeral": false,
            "snapshots": true, "snapshot": { "frequency": "30m", "keep": 20 },
            "rate-limit": { "write-iops": 1000, "read-iops": 1000, "write-bps": 100000000, "read-bps": 100000000 }
          },
          "filesystems": { "btrfs": "mkfs.btrfs %", "ext4": "mkfs.ext4 -m0 %" }
        }"#,
    )
    .unwrap();
    assert_eq!(policy("default.json"), documented);
}
