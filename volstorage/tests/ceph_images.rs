//! `volstorage::ceph` against a real Ceph cluster.

mod ceph_support;

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use ceph_support::{CEPH, FEATURES, MIB, command, wait_for};
use nix::errno::Errno;
use serde_json::json;
use volstorage::ceph::{
    CephError, Cluster, ConnectOptions, Features, Shrink, Step, Timeouts, TrashForce, TrashSource,
    Usage,
};

const GIB: u64 = 1 << 30;

/// Runs a tool of Ceph and returns what it prints.
fn tool(program: &str, args: &[&str]) -> String {
    let output = command(Path::new(program))
        .arg("-c")
        .arg(&CEPH.conf)
        .args(args)
        .output()
        .expect("the tool runs");
    assert!(
        output.status.success(),
        "{program} {args:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("text")
}

/// Creates an image and returns its id.
fn create(name: &str, size: u64) -> String {
    let pool = CEPH.pool();
    pool.create(name, size, FEATURES).expect("the image is created");
    pool.open_image_read_only(name).and_then(|image| image.id()).expect("the image has an id")
}

/// Removes an image.
fn remove(name: &str) {
    tool("rbd", &["--no-progress", "rm", &format!("rbd/{name}")]);
}

fn sources(error: &dyn std::error::Error) -> String {
    error.source().map(ToString::to_string).unwrap_or_default()
}

#[test]
fn cluster_tells_about_itself() {
    let cluster = CEPH.cluster();
    let conf = std::fs::read_to_string(&CEPH.conf).unwrap();
    let fsid = cluster.fsid().unwrap();
    assert!(conf.contains(&fsid), "{fsid} is not in the configuration");
    assert!(cluster.pool_list().unwrap().contains(&"rbd".to_owned()));
    let address = cluster.addresses().unwrap();
    assert!(address.starts_with("127.0.0.1:0/"), "{address}");
    cluster.wait_for_latest_osd_map().unwrap();
    assert_eq!(CEPH.pool().name(), "rbd");
    assert!(CEPH.pool().id() > 0);
}

#[test]
fn pool_that_is_missing_is_named() {
    let error = CEPH.cluster().pool("nowhere").unwrap_err();
    assert!(error.is_not_found() && error.is_pool_not_found());
    assert_eq!(error.to_string(), r#"the Ceph cluster has no pool "nowhere""#);
}

#[test]
fn mon_command_answers_or_says_why_not() {
    let reply =
        CEPH.cluster().mon_command(&json!({"prefix": "osd dump", "format": "json"})).unwrap();
    let dump: serde_json::Value = serde_json::from_slice(&reply.output).unwrap();
    assert_eq!(dump["fsid"], json!(CEPH.cluster().fsid().unwrap()));

    let error = CEPH
        .cluster()
        .mon_command(&json!({"prefix": "osd pool get", "pool": "nowhere", "var": "size"}))
        .unwrap_err();
    assert_eq!(
        error.to_string(),
        r#"monitor command "osd pool get" failed: unrecognized pool 'nowhere'"#
    );
    assert_eq!(error.errno(), Some(Errno::ENOENT));
    let error = CEPH.cluster().mon_command(&json!({"prefix": "make coffee"})).unwrap_err();
    assert!(
        matches!(error, CephError::MonCommand { .. }) && error.errno() == Some(Errno::EINVAL),
        "{error:?}"
    );
}

#[test]
fn connecting_fails_with_the_reason() {
    let timeouts = Timeouts { connect: Duration::from_secs(1), ..Timeouts::default() };
    let connect = |conf: PathBuf, user: &str| {
        Cluster::connect(&ConnectOptions { key: None, conf, user: user.to_owned(), timeouts })
            .unwrap_err()
    };

    let error = connect("/nonexistent/ceph.conf".into(), "admin");
    assert_eq!(error.to_string(), "cannot read the configuration /nonexistent/ceph.conf");
    assert_eq!(error.errno(), Some(Errno::ENOENT));
    assert!(!error.is_not_found(), "a missing file must not look like a missing image");

    let error = connect(CEPH.conf.clone(), "stranger").to_string();
    assert!(error.starts_with("Ceph user client.stranger cannot log in"), "{error}");

    // Nobody listens on port 1; without the timeout this takes five minutes.
    let dir = tempfile::tempdir().unwrap();
    let conf = dir.path().join("ceph.conf");
    std::fs::write(&conf, "[global]\nmon host = [v1:127.0.0.1:1]\nauth client required = none\n")
        .unwrap();
    let begin = Instant::now();
    let error = connect(conf, "admin");
    assert!(error.is_timed_out(), "{error:?}");
    assert!(begin.elapsed() < Duration::from_secs(30), "{:?}", begin.elapsed());
}

#[test]
fn created_image_has_what_was_asked_for() {
    let pool = CEPH.pool();
    create("t.created", GIB);
    let image = pool.open_image("t.created").unwrap();
    let info = image.stat().unwrap();
    assert_eq!((info.size, info.object_size, info.objects), (GIB, 4 * MIB, 256));
    assert_eq!(image.features().unwrap(), FEATURES);
    assert_eq!(image.usage().unwrap(), Usage { provisioned: GIB, used: 0 });
    let id = image.id().unwrap();
    image.close().unwrap();

    let by_id = pool.open_image_by_id(&id).unwrap();
    assert_eq!(by_id.stat().unwrap(), info);
    by_id.close().unwrap();
    assert!(pool.list().unwrap().iter().any(|entry| entry.name == "t.created" && entry.id == id));

    let error = pool.create("t.created", MIB, FEATURES).unwrap_err();
    assert!(error.is_exists(), "{error:?}");
    assert_eq!(error.to_string(), "cannot create image rbd/t.created");
    assert_eq!(pool.open_image_read_only("t.created").unwrap().stat().unwrap().size, GIB);
    remove("t.created");
}

#[test]
fn image_that_is_missing_is_not_found() {
    let pool = CEPH.pool();
    let errors = [
        pool.open_image("t.missing").map(drop).unwrap_err(),
        pool.open_image_read_only("t.missing").map(drop).unwrap_err(),
        pool.open_image_by_id("1234").map(drop).unwrap_err(),
        pool.trash_remove("1234", TrashForce::RespectDeferment).unwrap_err(),
        pool.set_metadata("1234", &[]).unwrap_err(),
    ];
    for error in errors {
        assert!(error.is_not_found() && !error.is_pool_not_found(), "{error:?}");
        assert_eq!(sources(&error), "No such file or directory (ENOENT)");
    }
}

#[test]
fn names_change_step_by_step() {
    let pool = CEPH.pool();
    let id = create(".new.publish", 64 * MIB);
    assert_eq!(pool.linked_id(".new.publish").unwrap().as_deref(), Some(&*id));
    assert_eq!(pool.listed_id(".new.publish").unwrap().as_deref(), Some(&*id));
    assert_eq!(pool.listed_name(&id).unwrap().as_deref(), Some(".new.publish"));
    let image = pool.open_image(".new.publish").unwrap();
    image.acquire_lock().unwrap();
    image.write_extents([(0, b"complete".to_vec())]).unwrap();

    pool.link("t.publish", &id).unwrap();
    let error = pool.link("t.publish", &id).unwrap_err();
    assert!(error.is_exists(), "{error:?}");
    assert_eq!(error.to_string(), "cannot link the name of image rbd/t.publish");
    assert_eq!(pool.unlink(".new.publish", &id).unwrap(), Step::Done);
    assert_eq!(pool.unlink(".new.publish", &id).unwrap(), Step::Stale);
    assert_eq!(pool.relist(&id, ".new.publish", "t.publish").unwrap(), Step::Done);
    assert_eq!(pool.relist(&id, ".new.publish", "t.other").unwrap(), Step::Stale);
    assert!(image.is_lock_owner().unwrap());
    image.close().unwrap();

    // What others see is what librbd's own renaming leaves.
    assert!(pool.open_image_read_only(".new.publish").unwrap_err().is_not_found());
    let image = pool.open_image_read_only("t.publish").unwrap();
    let mut start = [0; 8];
    assert_eq!(image.read_at(0, &mut start).unwrap(), 8);
    assert_eq!((&start, image.id().unwrap()), (b"complete", id.clone()));
    let listed = tool("rbd", &["ls", "rbd"]);
    assert!(listed.lines().any(|name| name == "t.publish"), "{listed}");
    assert!(!listed.lines().any(|name| name == ".new.publish"), "{listed}");
    assert!(tool("rbd", &["info", "rbd/t.publish"]).contains(&id));
    drop(image);
    tool("rbd", &["rename", "rbd/t.publish", "rbd/t.renamed"]);
    assert_eq!(pool.linked_id("t.renamed").unwrap(), Some(id.clone()));
    assert_eq!(pool.listed_name(&id).unwrap().as_deref(), Some("t.renamed"));
    remove("t.renamed");
    assert_eq!(pool.linked_id("t.renamed").unwrap(), None);
    assert_eq!(pool.listed_name(&id).unwrap(), None);
}

#[test]
fn names_of_another_image_are_left_alone() {
    let pool = CEPH.pool();
    let (first, second) = (create("t.first", MIB), create("t.second", MIB));
    assert!(pool.link("t.first", &second).unwrap_err().is_exists());
    assert_eq!(pool.unlink("t.first", &second).unwrap(), Step::Stale);
    assert_eq!(pool.unlist(&second, "t.first").unwrap(), Step::Stale);
    let error = pool.relist(&second, "t.second", "t.first").unwrap_err();
    assert!(error.is_exists(), "{error:?}");
    for (name, id) in [("t.first", first), ("t.second", second)] {
        assert_eq!(pool.open_image_read_only(name).unwrap().id().unwrap(), id);
        assert_eq!(pool.listed_id(name).unwrap().as_deref(), Some(&*id));
        assert_eq!(pool.unlink(name, &id).unwrap(), Step::Done);
        pool.link(name, &id).unwrap();
        remove(name);
    }
}

#[test]
fn of_many_who_list_an_image_anew_one_succeeds() {
    let pool = CEPH.pool();
    let id = create("t.wanted", MIB);
    let names: Vec<String> = (0..8).map(|nth| format!("t.wanted{nth}")).collect();
    let done: Vec<usize> = std::thread::scope(|scope| {
        let all: Vec<_> =
            names.iter().map(|to| scope.spawn(|| pool.relist(&id, "t.wanted", to))).collect();
        let all = all.into_iter().map(|one| one.join().unwrap().unwrap()).enumerate();
        all.filter(|(_, step)| *step == Step::Done).map(|(nth, _)| nth).collect()
    });
    assert_eq!(done.len(), 1, "{done:?}");
    let winner = &names[done[0]];
    assert_eq!(pool.listed_name(&id).unwrap().as_ref(), Some(winner));
    assert_eq!(pool.relist(&id, winner, "t.wanted").unwrap(), Step::Done);
    remove("t.wanted");
}

#[test]
fn a_lease_has_one_holder() {
    let pool = CEPH.pool();
    let inner = pool.exclusively("t.lease", || {
        // From another client, and from this one.
        let stranger = CEPH.connect(Timeouts::default());
        let there = stranger.pool("rbd").unwrap().exclusively("t.lease", || ()).unwrap();
        (there, pool.exclusively("t.lease", || ()).unwrap(), pool.exclusively("t.other", || 7))
    });
    let (there, here, other) = inner.unwrap().unwrap();
    assert_eq!((there, here, other.unwrap()), (None, None, Some(7)));
    assert_eq!(pool.exclusively("t.lease", || 8).unwrap(), Some(8));
    let left = tool("rados", &["-p", "rbd", "ls"]);
    assert!(!left.contains("volplugin.lease.t."), "{left}");
}

#[test]
fn metadata_is_set_without_opening() {
    let pool = CEPH.pool();
    let id = create("t.described", MIB);
    let pairs = [("volplugin.uid", "1"), ("conf_rbd_qos_write_iops_limit", "100")];
    pool.set_metadata(&id, &pairs.map(|(key, value)| (key, Some(value)))).unwrap();
    let image = pool.open_image_read_only("t.described").unwrap();
    assert_eq!(image.metadata("volplugin.uid").unwrap().as_deref(), Some("1"));
    assert!(
        tool("rbd", &["config", "image", "ls", "rbd/t.described"])
            .lines()
            .any(|line| line.contains("rbd_qos_write_iops_limit") && line.contains("image"))
    );
    drop(image);
    remove("t.described");
}

#[test]
fn written_extents_read_back() {
    let pool = CEPH.pool();
    create("t.extents", GIB);
    let image = pool.open_image("t.extents").unwrap();
    // Many more than are in flight at once, of different lengths, borrowed and owned.
    let extents: Vec<(u64, Vec<u8>)> = (0..300u64)
        .map(|i| {
            (
                i * 3 * MIB + i * 512,
                vec![u8::try_from(i % 251).unwrap() + 1; 512 + 64 * usize::try_from(i).unwrap()],
            )
        })
        .collect();
    let total: u64 = extents.iter().map(|(_, data)| data.len() as u64).sum();
    assert_eq!(
        image.write_extents(extents.iter().map(|(offset, data)| (*offset, &data[..]))).unwrap(),
        total
    );
    assert_eq!(image.write_extents(vec![(MIB, vec![9u8; 8192])]).unwrap(), 8192);
    assert_eq!(image.write_extents(Vec::<(u64, Vec<u8>)>::new()).unwrap(), 0);
    image.close().unwrap();

    let image = pool.open_image_read_only("t.extents").unwrap();
    for (offset, data) in &extents {
        let mut got = vec![0; data.len() + 1];
        assert_eq!(image.read_at(*offset, &mut got).unwrap(), got.len());
        assert!(got.starts_with(data) && got.ends_with(&[0]), "at {offset}");
    }
    let mut got = [0; 8193];
    image.read_at(MIB, &mut got).unwrap();
    assert!(got[..8192].iter().all(|byte| *byte == 9) && got[8192] == 0);
    let used = image.usage().unwrap().used;
    assert!((220 * 4 * MIB..=GIB).contains(&used), "{used}");
    drop(image);
    remove("t.extents");
}

#[test]
fn large_pieces_are_bounded_in_flight() {
    let pool = CEPH.pool();
    create("t.large", 128 * MIB);
    let image = pool.open_image("t.large").unwrap();
    let piece = usize::try_from(5 * MIB).unwrap();
    let written = image
        .write_extents((0..8u8).map(|i| (u64::from(i) * 12 * MIB, vec![i + 1; piece])))
        .unwrap();
    assert_eq!(written, 40 * MIB);
    let mut got = vec![0; piece];
    image.read_at(84 * MIB, &mut got).unwrap();
    assert!(got.iter().all(|byte| *byte == 8));
    drop(image);
    remove("t.large");
}

#[test]
fn writing_stops_at_the_first_error() {
    let pool = CEPH.pool();
    create("t.bad", 16 * MIB);
    let image = pool.open_image("t.bad").unwrap();
    let beyond = [(0, vec![1u8; 4096]), (16 * MIB - 1, vec![2; 2]), (4096, vec![3; 4096])];
    let error = image.write_extents(beyond).unwrap_err();
    assert_eq!(
        (error.to_string(), error.errno()),
        ("cannot write image rbd/t.bad".to_owned(), Some(Errno::EINVAL))
    );
    let mut got = [9; 8192];
    image.read_at(0, &mut got).unwrap();
    assert!(got[..4096].iter().all(|byte| *byte == 1) && got[4096..].iter().all(|byte| *byte == 0));
    assert_eq!(image.write_at(16 * MIB - 1, b"no").unwrap_err().errno(), Some(Errno::EINVAL));
    assert_eq!(image.write_at(u64::MAX - 1, b"no").unwrap_err().errno(), Some(Errno::EINVAL));

    #[derive(Debug)]
    enum Failure {
        Ceph,
        Source,
    }
    impl From<CephError> for Failure {
        fn from(_: CephError) -> Self {
            Self::Ceph
        }
    }
    let failing = (0..100u64)
        .map(|i| if i == 70 { Err(Failure::Source) } else { Ok((i * 4096, vec![7u8; 4096])) });
    assert!(matches!(image.try_write_extents(failing), Err(Failure::Source)));
    let read_only = pool.open_image_read_only("t.bad").unwrap();
    assert!(matches!(read_only.try_write_extents([Ok((0, vec![7u8; 4096]))]), Err(Failure::Ceph)));
    assert!(read_only.write_at(0, b"no").unwrap_err().is_read_only());
    drop((image, read_only));
    remove("t.bad");
}

#[test]
fn discard_frees_and_zeroes() {
    let pool = CEPH.pool();
    create("t.discard", 64 * MIB);
    let image = pool.open_image("t.discard").unwrap();
    image.write_at(0, &vec![1; 8 << 20]).unwrap();
    image.flush().unwrap();
    assert_eq!(image.usage().unwrap().used, 8 * MIB);
    image.discard(0, 4 * MIB).unwrap();
    image.flush().unwrap();
    assert_eq!(image.usage().unwrap().used, 4 * MIB);
    let mut got = vec![9; 4 << 20];
    image.read_at(0, &mut got).unwrap();
    assert!(got.iter().all(|byte| *byte == 0));
    // At the end of the image a read is short.
    assert_eq!(image.read_at(64 * MIB - 10, &mut got).unwrap(), 10);
    drop(image);
    remove("t.discard");
}

#[test]
fn resize_grows_and_shrinks_only_when_allowed() {
    let pool = CEPH.pool();
    create("t.resize", 16 * MIB);
    let image = pool.open_image("t.resize").unwrap();
    image.resize(64 * MIB, Shrink::Refuse).unwrap();
    assert_eq!(image.stat().unwrap().size, 64 * MIB);
    assert_eq!(image.resize(MIB, Shrink::Refuse).unwrap_err().errno(), Some(Errno::EINVAL));
    assert_eq!(image.stat().unwrap().size, 64 * MIB);
    image.resize(MIB, Shrink::Allow).unwrap();
    assert_eq!(image.stat().unwrap().size, MIB);
    drop(image);
    remove("t.resize");
}

#[test]
fn metadata_and_config_keys() {
    let pool = CEPH.pool();
    create("t.meta", MIB);
    let image = pool.open_image("t.meta").unwrap();
    assert_eq!(image.metadata("volplugin.tenant").unwrap(), None);
    image.set_metadata("volplugin.tenant", "t").unwrap();
    let long = "x".repeat(3000);
    image.set_metadata("volplugin.spec", &long).unwrap();
    assert_eq!(image.metadata("volplugin.tenant").unwrap().as_deref(), Some("t"));
    assert_eq!(image.metadata("volplugin.spec").unwrap(), Some(long));
    image.remove_metadata("volplugin.tenant").unwrap();
    assert_eq!(image.metadata("volplugin.tenant").unwrap(), None);
    let error = image.remove_metadata("volplugin.tenant").unwrap_err();
    assert!(error.is_not_found(), "{error:?}");
    assert_eq!(
        error.to_string(),
        "cannot remove the metadata of image rbd/t.meta, key volplugin.tenant"
    );

    image.set_config("rbd_qos_write_bps_limit", "5242880").unwrap();
    assert_eq!(
        tool("rbd", &["config", "image", "get", "rbd/t.meta", "rbd_qos_write_bps_limit"]).trim(),
        "5242880"
    );
    image.remove_config("rbd_qos_write_bps_limit").unwrap();
    assert_eq!(image.metadata("conf_rbd_qos_write_bps_limit").unwrap(), None);
    drop(image);
    remove("t.meta");
}

/// A limit that another client writes is felt by the holder of the lock, who keeps it.
#[test]
fn metadata_is_changed_past_the_holder_of_the_lock() {
    const LIMIT: &str = "conf_rbd_qos_write_bps_limit";
    create("t.past", 64 * MIB);
    let holder = CEPH.connect(Timeouts::default());
    let holder = holder.pool("rbd").unwrap().open_image("t.past").unwrap();
    holder.acquire_lock().unwrap();
    let writes = || {
        let began = Instant::now();
        for piece in 0..24 {
            holder.write_at(piece * MIB / 4, &[7; 256 << 10]).unwrap();
        }
        began.elapsed()
    };
    let pool = CEPH.pool();
    let free = writes();
    pool.change_metadata("t.past", &[(LIMIT, Some("2097152")), ("conf_other", None)]).unwrap();
    let limited = writes();
    assert!(limited > Duration::from_secs(2), "6 MiB at 2 MiB/s took {limited:?}, {free:?} before");
    assert_eq!(holder.metadata(LIMIT).unwrap().as_deref(), Some("2097152"));
    pool.change_metadata("t.past", &[(LIMIT, None)]).unwrap();
    pool.change_metadata("t.past", &[(LIMIT, None)]).unwrap();
    let free = writes();
    assert!(free < limited / 2, "without a limit it took {free:?}, {limited:?} with one");
    assert_eq!(holder.metadata(LIMIT).unwrap(), None);
    assert!(holder.is_lock_owner().unwrap());
    assert!(pool.change_metadata("t.none", &[(LIMIT, None)]).unwrap_err().is_not_found());
    drop(holder);
    remove("t.past");
}

#[test]
fn trash_keeps_and_removes() {
    let pool = CEPH.pool();
    let id = create("t.trash", 64 * MIB);
    let before = jiff::Timestamp::now();
    pool.trash_add(&id, "t.trash", Duration::from_secs(3600)).unwrap();
    pool.trash_add(&id, "t.again", Duration::ZERO).unwrap();
    assert!(pool.is_in_trash(&id).unwrap());
    assert_eq!(pool.unlink("t.trash", &id).unwrap(), Step::Done);
    assert_eq!(pool.unlist(&id, "t.trash").unwrap(), Step::Done);
    assert!(pool.open_image_read_only("t.trash").unwrap_err().is_not_found());
    let entry = pool
        .trash_list()
        .unwrap()
        .into_iter()
        .find(|entry| entry.id == id)
        .expect("the image is in the trash");
    assert_eq!((entry.name.as_str(), entry.source), ("t.trash", TrashSource::User));
    assert!((entry.deleted_at.as_second() - before.as_second()).abs() <= 2, "{entry:?}");
    assert_eq!(entry.removable_from.as_second() - entry.deleted_at.as_second(), 3600);
    assert_eq!(pool.open_image_by_id(&id).unwrap().stat().unwrap().size, 64 * MIB);

    let error = pool.trash_remove(&id, TrashForce::RespectDeferment).unwrap_err();
    assert!(error.is_denied(), "{error:?}");
    // The name is free meanwhile.
    create("t.trash", MIB);
    // The tool reads the entry as one of librbd's own, and can undo it.
    let listed = tool("rbd", &["trash", "ls", "-l", "rbd"]);
    assert!(listed.lines().any(|line| line.contains(&id) && line.contains("USER")), "{listed}");
    tool("rbd", &["trash", "restore", "--pool", "rbd", "--image-id", &id, "--image", "t.back"]);
    assert_eq!(pool.listed_name(&id).unwrap().as_deref(), Some("t.back"));
    assert!(!pool.is_in_trash(&id).unwrap());
    assert_eq!(pool.trash_forget(&id).unwrap(), Step::Stale);
    tool("rbd", &["trash", "mv", "rbd/t.back"]);
    assert!(pool.is_in_trash(&id).unwrap());

    assert!(pool.has_image(&id).unwrap());
    pool.trash_remove(&id, TrashForce::IgnoreDeferment).unwrap();
    assert!(!pool.has_image(&id).unwrap());
    assert!(pool.open_image_by_id(&id).unwrap_err().is_not_found());
    assert!(!pool.trash_list().unwrap().iter().any(|entry| entry.id == id));
    remove("t.trash");
}

#[test]
fn image_in_use_is_busy() {
    let pool = CEPH.pool();
    let id = create("t.busy", 16 * MIB);
    let other = CEPH.connect(Timeouts::default());
    let held = other.pool("rbd").unwrap().open_image("t.busy").unwrap();
    held.write_at(0, b"mine").unwrap();

    // Once in the trash it has no name, and cannot be removed while it is open.
    pool.trash_add(&id, "t.busy", Duration::ZERO).unwrap();
    let error = pool.trash_remove(&id, TrashForce::RespectDeferment).unwrap_err();
    assert!(error.is_busy(), "{error:?}");
    pool.trash_forget(&id).unwrap();
    let watchers = pool.open_image_read_only("t.busy").unwrap().watchers().unwrap();
    assert_eq!(watchers.len(), 1, "{watchers:?}");
    assert_eq!(watchers[0].address, other.addresses().unwrap());
    assert_eq!(pool.open_image_read_only("t.busy").unwrap().id().unwrap(), id);
    held.close().unwrap();
    assert_eq!(pool.open_image_read_only("t.busy").unwrap().watchers().unwrap(), []);
    remove("t.busy");
}

#[test]
fn exclusive_lock_is_kept_by_its_holder() {
    create("t.lock", 16 * MIB);
    let (one, two) = (CEPH.connect(Timeouts::default()), CEPH.connect(Timeouts::default()));
    let first = one.pool("rbd").unwrap().open_image("t.lock").unwrap();
    let second = two.pool("rbd").unwrap().open_image("t.lock").unwrap();
    assert_eq!(second.lock_owners().unwrap(), Vec::<String>::new());

    // Taken by writing: given up on request.
    second.write_at(0, b"second").unwrap();
    assert!(second.is_lock_owner().unwrap());
    assert_eq!(first.lock_owners().unwrap(), [two.addresses().unwrap()]);
    first.acquire_lock().unwrap();
    assert!(first.is_lock_owner().unwrap() && !second.is_lock_owner().unwrap());

    // Taken explicitly: kept.
    assert_eq!(second.lock_owners().unwrap(), [one.addresses().unwrap()]);
    let error = second.acquire_lock().unwrap_err();
    assert!(error.is_read_only(), "{error:?}");
    assert!(second.write_at(0, b"second").unwrap_err().is_read_only());
    first.release_lock().unwrap();
    second.acquire_lock().unwrap();

    let read_only = CEPH.pool().open_image_read_only("t.lock").unwrap();
    assert_eq!(read_only.lock_owners().unwrap_err().errno(), Some(Errno::EINVAL));
    first.close().unwrap();
    second.close().unwrap();
    drop(read_only);
    remove("t.lock");
}

#[test]
fn image_without_features_works_too() {
    let pool = CEPH.pool();
    pool.create("t.plain", 16 * MIB, Features::LAYERING).unwrap();
    let image = pool.open_image("t.plain").unwrap();
    image.write_at(4 * MIB, b"data").unwrap();
    image.flush().unwrap();
    assert_eq!(image.usage().unwrap().used, 4 * MIB);
    assert_eq!(image.acquire_lock().unwrap_err().errno(), Some(Errno::EINVAL));
    drop(image);
    remove("t.plain");
}

#[test]
fn fenced_client_says_so() {
    create("t.fenced", 16 * MIB);
    let other = CEPH.connect(Timeouts::default());
    let image = other.pool("rbd").unwrap().open_image("t.fenced").unwrap();
    image.write_at(0, b"before").unwrap();
    let address = other.addresses().unwrap();
    CEPH
        .cluster()
        .mon_command(&json!({"prefix": "osd blocklist", "blocklistop": "add", "addr": address, "expire": 3600.0}))
        .unwrap();
    other.wait_for_latest_osd_map().unwrap();
    let error = image.write_at(0, b"after").unwrap_err();
    assert!(error.is_shutdown(), "{error:?}");
    assert_eq!(sources(&error), "this client was fenced off by the cluster (ESHUTDOWN)");
    drop(image);
    let pool = CEPH.pool();
    let mut got = [0; 6];
    pool.open_image_read_only("t.fenced").unwrap().read_at(0, &mut got).unwrap();
    assert_eq!(&got, b"before");
}

#[test]
fn many_images_list() {
    CEPH.cluster()
        .mon_command(&json!({"prefix": "osd pool create", "pool": "many", "pg_num": 8}))
        .unwrap();
    CEPH.cluster().wait_for_latest_osd_map().unwrap();
    let pool = CEPH.cluster().pool("many").unwrap();
    assert_eq!(pool.list().unwrap(), []);
    assert_eq!(pool.trash_list().unwrap(), []);
    // More than the first guess of the list has room for, from several threads on one handle.
    std::thread::scope(|scope| {
        for thread in 0..10 {
            let pool = &pool;
            scope.spawn(move || {
                for i in 0..30 {
                    pool.create(&format!("t.{thread:02}.{i:02}"), MIB, Features::LAYERING).unwrap();
                }
            });
        }
    });
    let mut list = pool.list().unwrap();
    list.sort();
    assert_eq!(list.len(), 300);
    assert_eq!((list[0].name.as_str(), list[299].name.as_str()), ("t.00.00", "t.09.29"));
}

#[test]
fn full_pool_is_an_error_in_bounded_time() {
    CEPH.cluster()
        .mon_command(&json!({"prefix": "osd pool create", "pool": "small", "pg_num": 8}))
        .unwrap();
    CEPH.cluster().wait_for_latest_osd_map().unwrap();
    let pool = CEPH.cluster().pool("small").unwrap();
    pool.create("t.v", 64 * MIB, FEATURES).unwrap();
    let image = pool.open_image("t.v").unwrap();
    image.write_at(0, &vec![1; 8 << 20]).unwrap();
    image.flush().unwrap();
    let quota = json!({"prefix": "osd pool set-quota", "pool": "small", "field": "max_bytes", "val": "4194304"});
    CEPH.cluster().mon_command(&quota).unwrap();
    wait_for("the pool to be full", || {
        let dump = CEPH.ask(&json!({"prefix": "osd dump", "format": "json"}));
        let pools = dump["pools"].as_array().expect("pools");
        let flags = &pools.iter().find(|pool| pool["pool_name"] == "small").expect("the pool")["flags_names"];
        if flags.as_str().is_some_and(|flags| flags.contains("full")) {
            Ok(())
        } else {
            Err(flags.to_string())
        }
    });
    CEPH.cluster().wait_for_latest_osd_map().unwrap();

    let begin = Instant::now();
    let error = image.write_extents([(32 * MIB, vec![1u8; 4096])]).unwrap_err();
    assert!(error.is_no_space(), "{error:?}");
    let error = pool.create("t.second", 64 * MIB, FEATURES).unwrap_err();
    assert!(error.is_no_space(), "{error:?}");
    assert_eq!(pool.list().unwrap().len(), 1, "nothing is left of an image that did not fit");
    // A call that waits for room would time out, after 30 s.
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());

    // What makes room still works.
    image.close().unwrap();
    assert_eq!(pool.exclusively("t.v", || 1).unwrap(), Some(1));
    let id = pool.open_image_read_only("t.v").unwrap().id().unwrap();
    pool.trash_add(&id, "t.v", Duration::ZERO).unwrap();
    pool.unlink("t.v", &id).unwrap();
    pool.unlist(&id, "t.v").unwrap();
    pool.trash_remove(&id, TrashForce::RespectDeferment).unwrap();
}
