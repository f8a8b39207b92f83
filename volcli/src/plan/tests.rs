//! Which command line means what, and which mean nothing.

use clap::{CommandFactory, Parser};
use volapi::volumes::SetVolume;
use volcore::name::VolumeId;

use super::*;

fn read_with(line: &str, environment: Option<&str>) -> Result<Plan, String> {
    let cli = Cli::try_parse_from(line.split_whitespace()).map_err(|error| error.to_string())?;
    plan(cli, environment).map_err(|error| error.to_string())
}

fn read(line: &str) -> Result<Plan, String> {
    read_with(line, None)
}

fn action_of(line: &str) -> Action {
    read(line).unwrap().action
}

fn id(text: &str) -> VolumeId {
    text.parse().unwrap()
}

#[test]
fn the_definition_holds_together() {
    Cli::command().debug_assert();
}

#[test]
fn a_volume_is_one_argument_or_two() {
    for line in ["volcli volume get t/v", "volcli volume get t v", "volcli volume get t t/v"] {
        assert_eq!(action_of(line), Action::VolumeGet(id("t/v")), "{line}");
    }
    let remove = |ids: &[&str]| {
        Action::VolumeRemove(ids.iter().map(|text| id(text)).collect(), Care::Ask, None)
    };
    assert_eq!(action_of("volcli volume remove t v"), remove(&["t/v"]));
    assert_eq!(action_of("volcli volume rm t/v t/w t/v"), remove(&["t/v", "t/w"]));
    for (line, expected) in [
        ("volcli volume get v", "names no tenant"),
        ("volcli volume get a/b c", "do not go together"),
        ("volcli volume get t u/v", "do not go together"),
        ("volcli volume remove t v w", "names no tenant"),
        ("volcli volume get t/-", "volume name \"-\" is not valid"),
        ("volcli volume get a/b/c", "is not valid"),
    ] {
        let error = read(line).unwrap_err();
        assert!(error.contains(expected), "{line}: {error}");
    }
}

#[test]
fn options_are_checked_before_they_are_sent() {
    let Action::VolumeCreate(body) =
        action_of("volcli volume create t v --opt size=1GB --opt ephemeral=T")
    else {
        panic!()
    };
    assert_eq!(body.options["size"], "1GB");
    for (line, expected) in [
        ("volcli volume create t/v --opt sise=1GB", "unknown option \"sise\""),
        ("volcli volume create t/v --opt size=1XB", "option size=\"1XB\""),
        ("volcli volume create t/v --opt size=1 --opt size=2", "more than once"),
        ("volcli volume create t/v --opt size", "KEY=VALUE"),
    ] {
        let error = read(line).unwrap_err();
        assert!(error.contains(expected), "{line}: {error}");
    }
}

#[test]
fn changes_are_checked_before_they_are_sent() {
    let expected = |options: &[(&str, &str)]| {
        let options = options.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned()));
        Action::VolumeSet(id("t/v"), SetVolume { options: options.collect() })
    };
    let limit = expected(&[("rate-limit.write.bps", "2MB")]);
    for line in ["t/v rate-limit.write.bps=2MB", "t v rate-limit.write.bps=2MB"] {
        assert_eq!(action_of(&format!("volcli volume set {line}")), limit, "{line}");
    }
    let two = expected(&[("rate-limit.read.iops", "0"), ("snapshots", "false")]);
    assert_eq!(action_of("volcli volume set t/v snapshots=false rate-limit.read.iops=0"), two);
    for (line, expected) in [
        ("t/v", "KEY=VALUE"),
        ("t v", "nothing is to be changed"),
        ("v snapshots=false", "names no tenant"),
        ("t/v w snapshots=false", "\"w\" is not written KEY=VALUE"),
        ("t/v =5", "\"=5\" is not written KEY=VALUE"),
        ("t/v snapshots=0 snapshots=1", "more than once"),
        ("t/v pool=fast", "option pool cannot be changed by set"),
        ("t/v from=t/w", "option from cannot be changed by set"),
        ("t/v size=1XB", "option size=\"1XB\""),
        ("t/v sise=1GB", "unknown option \"sise\""),
        ("t/v snapshots=maybe", "true or false"),
        ("t/v snapshots=0 --etcd http://e:1", "needs a volmaster"),
    ] {
        let error = read(&format!("volcli volume set {line}")).unwrap_err();
        assert!(error.contains(expected), "{line}: {error}");
    }
}

#[test]
fn masters_come_from_flags_and_default_to_this_machine() {
    let reached = |line: &str, environment| match read_with(line, environment).unwrap().reach {
        Reach::Masters { masters, .. } => {
            masters.iter().map(ToString::to_string).collect::<Vec<_>>()
        }
        Reach::Etcd { .. } => panic!(),
    };
    let masters = |line: &str| reached(line, None);
    let environment = Some("http://a:1, http://b:2");
    assert_eq!(reached("volcli status", environment), ["http://a:1", "http://b:2"]);
    assert_eq!(reached("volcli status --master http://c:3", environment), ["http://c:3"]);
    assert_eq!(reached("volcli status", Some("")), ["http://127.0.0.1:9005"]);
    assert!(read_with("volcli status", Some("a:1")).unwrap_err().starts_with("VOLCLI_MASTER"));
    assert!(read_with("volcli tenant list --etcd http://e:1", environment).is_ok());
    assert_eq!(masters("volcli status"), ["http://127.0.0.1:9005"]);
    assert_eq!(
        masters("volcli status --master http://a:1,http://b:2"),
        ["http://a:1", "http://b:2"]
    );
    assert_eq!(
        masters("volcli --master http://a:1 --master http://b:2 status"),
        ["http://a:1", "http://b:2"]
    );
    assert!(read("volcli status --master a:1").unwrap_err().contains("begin with http://"));
}

#[test]
fn etcd_is_for_metadata_only() {
    let url = "--etcd http://127.0.0.1:2379";
    for line in ["volume list-all", "tenant list", "mount force-remove t/v"] {
        assert!(read(&format!("volcli {url} {line}")).is_ok(), "{line}");
    }
    for line in ["status", "volume create t/v", "volume remove t/v", "host list", "global get"] {
        let error = read(&format!("volcli {line} {url}")).unwrap_err();
        assert!(error.contains("needs a volmaster"), "{line}: {error}");
    }
    for (line, expected) in [
        ("volcli tenant list --etcd 127.0.0.1:2379", "is not like"),
        ("volcli tenant list --prefix /x", "for --etcd only"),
        ("volcli tenant list --etcd http://e:1 --prefix x", "must start with '/'"),
        ("volcli tenant list --etcd http://e:1 --master http://m:1", "exclude each other"),
    ] {
        let error = read(line).unwrap_err();
        assert!(error.contains(expected), "{line}: {error}");
    }
}

#[test]
fn removals_are_as_careful_as_they_are_told() {
    let of = |flags: &str| action_of(&format!("volcli tenant delete t {flags}"));
    let tenants = || vec!["t".parse().unwrap()];
    assert_eq!(of(""), Action::TenantDelete(tenants(), Care::Ask));
    assert_eq!(of("--yes"), Action::TenantDelete(tenants(), Care::Go));
    assert_eq!(of("--dry-run -y"), Action::TenantDelete(tenants(), Care::DryRun));
}

#[test]
fn a_snapshot_is_one_argument_two_or_three() {
    let snapshot = |volume: &str, name: &str| SnapshotId {
        volume: id(volume),
        snapshot: name.parse().unwrap(),
    };
    for line in ["t/v@s", "t/v s", "t v s", "t v@s", "t t/v s", "t t/v@s"] {
        let (create, rollback) = (format!("create {line}"), format!("rollback {line}"));
        let one = snapshot("t/v", "s");
        assert_eq!(
            action_of(&format!("volcli snapshot {create}")),
            Action::SnapshotCreate(one.clone()),
            "{line}"
        );
        assert_eq!(
            action_of(&format!("volcli snapshots {rollback} --yes")),
            Action::SnapshotRollback(one.clone(), Care::Go),
            "{line}"
        );
        assert_eq!(
            action_of(&format!("volcli snapshot rm {line} --dry-run")),
            Action::SnapshotRemove(vec![one], Care::DryRun),
            "{line}"
        );
    }
    let several = vec![snapshot("t/v", "s"), snapshot("t/w", "s"), snapshot("t/v", "r")];
    assert_eq!(
        action_of("volcli snapshot remove t/v@s t/w@s t/v@r t/v@s"),
        Action::SnapshotRemove(several, Care::Ask)
    );
    assert_eq!(action_of("volcli snapshot list t v"), Action::SnapshotList(id("t/v")));
    for (line, expected) in [
        ("get t/v", "\"t/v\" names no snapshot: write it as tenant/volume@snapshot"),
        ("get v s", "\"v s\" names no snapshot"),
        ("get v@s", "volume \"v\" names no tenant"),
        ("get t/v@", "snapshot name \"\" is not valid"),
        ("get t/v@a@b", "snapshot name \"a@b\" is not valid"),
        ("get t/v@s s", "t/v@s names a snapshot already: s is one argument too many"),
        ("get t/v a b", "names no snapshot"),
        ("get t u/v s", "do not go together"),
        ("get t v@w s", "volume name \"v@w\" is not valid"),
        ("remove t/v", "names no snapshot"),
        ("remove t/v a b", "names no snapshot"),
        ("remove t/v t/w@s", "\"t/v\" names no snapshot"),
        ("remove t/v@s w", "\"w\" names no snapshot"),
        ("remove", "required"),
        ("create t/v auto-2026-11-21T203007Z", "kept for snapshots on schedule"),
        ("create t/v@auto-", "kept for snapshots on schedule"),
        ("create t/v@s --etcd http://e:1", "needs a volmaster"),
    ] {
        let error = read(&format!("volcli snapshot {line}")).unwrap_err();
        assert!(error.contains(expected), "{line}: {error}");
    }
    // What the schedule has taken may be looked at, removed and gone back to.
    for verb in ["get", "remove", "rollback"] {
        assert!(read(&format!("volcli snapshot {verb} t/v@auto-x")).is_ok(), "{verb}");
    }
}

#[test]
fn a_clone_is_a_create_with_its_origin() {
    let options = |line: &str| match action_of(line) {
        Action::VolumeCreate(body) => (format!("{}/{}", body.tenant, body.name), body.options),
        other => panic!("{other:?}"),
    };
    let (id, body) = options("volcli snapshot clone t/v@s u/w --opt size=1GB");
    assert_eq!(
        (id.as_str(), body["from"].as_str(), body["size"].as_str()),
        ("u/w", "t/v@s", "1GB")
    );
    assert_eq!(options("volcli snapshot clone t/v t/w").1["from"], "t/v");
    assert_eq!(options("volcli volume create t/w --opt from=t/v").1["from"], "t/v");
    for (line, expected) in [
        ("snapshot clone t/v t/v", "volume t/v cannot be cloned onto itself"),
        ("snapshot clone t/v@s t/v", "`volcli snapshot rollback`"),
        ("volume adopt t/v --opt from=t/w", "leave --opt from out"),
        ("volume adopt t/v --opt colour=red", "colour"),
        ("volume create t/v --opt from=t/v@s", "cannot be cloned onto itself"),
        ("snapshot clone t/v t/w --opt from=t/x", "--opt from is given by the first argument"),
        ("snapshot clone v t/w", "\"v\" cannot be cloned: it is tenant/volume"),
        ("snapshot clone t/v@ t/w", "snapshot name"),
        ("snapshot clone t/v w", "volume \"w\" names no tenant"),
        ("snapshot clone t/v t/w@s", "volume name \"w@s\" is not valid"),
        ("snapshot clone t/v t/w --opt sise=1", "unknown option"),
        ("snapshot clone t/v", "required"),
        ("snapshot clone t/v t/w --etcd http://e:1", "needs a volmaster"),
    ] {
        let error = read(&format!("volcli {line}")).unwrap_err();
        assert!(error.contains(expected), "{line}: {error}");
    }
}

#[test]
fn a_volume_is_resized_as_it_is_set() {
    let set = action_of("volcli volume set t/v size=20GB");
    for line in ["t/v 20GB", "t v 20GB", "t t/v 20GB"] {
        assert_eq!(action_of(&format!("volcli volume resize {line}")), set, "{line}");
    }
    for (line, expected) in [
        ("t/v", "required"),
        ("t/v 20XB", "option size=\"20XB\""),
        ("t/v 0", "out of range"),
        ("t/v +20GB", "option size"),
        ("t v", "names no tenant"),
        ("t/v w 20GB", "do not go together"),
        ("t/v 20GB --etcd http://e:1", "needs a volmaster"),
    ] {
        let error = read(&format!("volcli volume resize {line}")).unwrap_err();
        assert!(error.contains(expected), "{line}: {error}");
    }
}

#[test]
fn a_removal_waits_as_long_as_it_is_told() {
    let waits = |line: &str| match action_of(line) {
        Action::VolumeRemove(_, Care::Ask, wait) => wait.map(|wait| wait.as_millis()),
        other => panic!("{other:?}"),
    };
    assert_eq!(waits("volcli volume remove t/v"), None);
    assert_eq!(waits("volcli volume remove t/v --timeout 1m30s"), Some(90_000));
    assert_eq!(waits("volcli --timeout 500ms volume remove t/v"), Some(500));
    assert!(read("volcli volume remove t/v --timeout soon").is_err());
    let limit = |line: &str| match read(line).unwrap().reach {
        Reach::Masters { timeout, .. } => timeout.as_secs(),
        Reach::Etcd { .. } => panic!(),
    };
    assert_eq!(limit("volcli volume list-all"), 120);
    assert_eq!(limit("volcli volume list-all --timeout 5s"), 5);
    assert_eq!(limit("volcli --timeout 5s volume list-all"), 5);
}

#[test]
fn the_trash_is_known_by_ids() {
    let trash = |text: &str| text.parse::<TrashId>().unwrap();
    let body = |volume: Option<&str>| volapi::trash::RestoreTrash { volume: volume.map(id) };
    let purge = |ids: &[&str]| Purge::These(ids.iter().map(|text| trash(text)).collect());
    for (line, expected) in [
        ("volume restore t/v", Action::VolumeRestore(id("t/v"), None, body(None))),
        ("volume restore t v", Action::VolumeRestore(id("t/v"), None, body(None))),
        (
            "volume restore t/v --as u/w --id 6f-9",
            Action::VolumeRestore(id("t/v"), Some(trash("6f-9")), body(Some("u/w"))),
        ),
        ("trash restore 6f --as t/w", Action::TrashRestore(trash("6f"), body(Some("t/w")))),
        (
            "trash purge 6f 7a 6f",
            Action::TrashPurge(purge(&["6f", "7a"]), Care::Ask, Waiting::Detach),
        ),
        ("trash purge --all --yes", Action::TrashPurge(Purge::All, Care::Go, Waiting::Detach)),
        ("trash purge --all --wait", Action::TrashPurge(Purge::All, Care::Ask, Waiting::Wait)),
        ("trash get 6f", Action::TrashGet(trash("6f"))),
    ] {
        assert_eq!(action_of(&format!("volcli {line}")), expected, "{line}");
    }
    for (line, expected) in [
        ("volume restore v", "names no tenant"),
        ("volume restore t/v --as w", "volume \"w\" names no tenant"),
        ("volume restore t/v --id ../x", "letters, digits or '-'"),
        ("trash purge", "required"),
        ("trash purge 6f --all", "cannot be used with"),
        ("trash purge 6f/restore", "letters, digits or '-'"),
        ("trash get a?b", "letters, digits or '-'"),
        ("trash restore 6f --as t/-", "volume name \"-\" is not valid"),
        ("trash list --etcd http://e:1", "needs a volmaster"),
        ("volume restore t/v --etcd http://e:1", "needs a volmaster"),
        ("schedule list --etcd http://e:1", "needs a volmaster"),
    ] {
        let error = read(&format!("volcli {line}")).unwrap_err();
        assert!(error.contains(expected), "{line}: {error}");
    }
    assert!(read(&format!("volcli trash get {}", "a".repeat(129))).is_err());
}

#[test]
fn uploads_are_compared_and_brought_back() {
    let tenant = || "t".parse().unwrap();
    let diff = Action::TenantDiff(tenant(), 1, 3);
    for line in ["t --diff 1 3", "--diff 1 3 t"] {
        assert_eq!(action_of(&format!("volcli tenant history {line}")), diff, "{line}");
    }
    assert_eq!(
        action_of("volcli tenant upload t --from-revision 2"),
        Action::TenantUploadRevision(tenant(), 2)
    );
    assert_eq!(action_of("volcli tenant history t 2"), Action::TenantRevision(tenant(), 2));
    assert!(read("volcli tenant history t --diff 1 2 --etcd http://e:1").is_ok());
    for (line, expected) in [
        ("history t --diff 1", "2 values required"),
        ("history t 1 --diff 1 2", "cannot be used with"),
        ("history t --diff 1 x", "invalid digit"),
        ("history t --diff 1 2 --diff 3 4", "cannot be used multiple times"),
        ("upload t --from-revision x", "invalid digit"),
        ("upload t p.json --from-revision 1", "cannot be used with"),
        ("upload t --check --from-revision 1", "cannot be used with"),
    ] {
        let error = read(&format!("volcli tenant {line}")).unwrap_err();
        assert!(error.contains(expected), "{line}: {error}");
    }
}
