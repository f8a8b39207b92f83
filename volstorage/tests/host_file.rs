//! `LinuxHost` on local image files: maps and mounts as root, without Ceph.

mod host_support;

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use host_support::{Bed, MIB, command, down, map, mount, path_of, run, up, wait_for};
use volcore::Kind;
use volcore::options::Access;
use volstorage::faults::Faults;
use volstorage::host::{Found, HostDriver, HostError, Mapping, Mode, Undone};
use volstorage::image::ImageSource;

#[tokio::test]
async fn what_is_written_is_there_again() {
    let bed = Bed::new();
    let host = bed.host();
    let (source, target) = (bed.ext4("t.v"), bed.target("pool/t.v"));
    let mapping = up(&host, &source, &target).await;
    assert_eq!(mapping.access, Access::Fuse);
    assert_eq!(mapping.clients, [""; 0]);
    std::fs::write(target.join("kept"), "something").unwrap();
    let space = host.space(&target).await.unwrap();
    assert!(space.size > 40 * MIB && space.size < 64 * MIB && space.used < MIB, "{space:?}");
    down(&host, &source, &target).await;
    bed.assert_clean();
    up(&host, &source, &target).await;
    assert_eq!(std::fs::read_to_string(target.join("kept")).unwrap(), "something");
    down(&host, &source, &target).await;
    bed.assert_clean();
}

#[tokio::test]
async fn everything_can_be_done_twice() {
    let bed = Bed::new();
    let (source, target) = (bed.ext4("t.v"), bed.target("pool/t.v"));
    // Each step by a process that was just started, too.
    for host in [&bed.host(), &bed.host()] {
        assert_eq!(host.unmount(&target).await.unwrap(), Undone::Absent);
        assert_eq!(host.unmap(&source).await.unwrap(), Undone::Absent);
        let mapping = host.map(&map(&source)).await.unwrap();
        assert_eq!(host.map(&map(&source)).await.unwrap(), mapping);
        host.mount(&mapping, &mount(&target)).await.unwrap();
        host.mount(&mapping, &mount(&target)).await.unwrap();
        assert_eq!(host.map(&map(&source)).await.unwrap(), mapping);
        assert_eq!(host_support::mounts_below(target.to_str().unwrap()).len(), 1);
        assert_eq!(bed.host().map(&map(&source)).await.unwrap(), mapping);
        bed.host().mount(&mapping, &mount(&target)).await.unwrap();
        down(host, &source, &target).await;
        assert_eq!(host.unmount(&target).await.unwrap(), Undone::Absent);
        assert_eq!(host.unmap(&source).await.unwrap(), Undone::Absent);
        bed.assert_clean();
    }
}

#[tokio::test]
async fn a_mapping_is_held_until_it_is_mounted_and_no_longer_than_its_process() {
    let bed = Bed::new();
    let host = bed.host();
    let source = bed.ext4("t.v");
    let mapping = host.map(&map(&source)).await.unwrap();
    let found = host.inventory().await.unwrap();
    let whole = Found { source: source.clone(), device: Some(mapping.device.clone()) };
    assert_eq!((found.mappings, found.mounts), (vec![whole], vec![]));
    drop(host);
    let folder = bed.path("");
    wait_for("the device to go", || host_support::loops_below(folder.to_str().unwrap()).is_empty());
    let host = bed.host();
    let half = Found { source: source.clone(), device: None };
    assert_eq!(host.inventory().await.unwrap().mappings, [half]);
    let error = host.mount(&mapping, &mount(&bed.target("v"))).await.unwrap_err();
    assert!(matches!(error, HostError::Failed { .. }), "{error:?}");
    assert_eq!(host.unmap(&source).await.unwrap(), Undone::Done);
    bed.assert_clean();
}

#[tokio::test]
async fn a_device_that_became_another_images_is_not_mounted() {
    let bed = Bed::new();
    let host = bed.host();
    let (old, new) = (bed.ext4("old"), bed.ext4("new"));
    let stale = host.map(&map(&old)).await.unwrap();
    host.unmap(&old).await.unwrap();
    let fresh = host.map(&map(&new)).await.unwrap();
    let stale = Mapping { device: fresh.device.clone(), ..stale };
    host.mount(&stale, &mount(&bed.target("v"))).await.unwrap_err();
    host.unmap(&new).await.unwrap();
    bed.assert_clean();
}

#[tokio::test]
async fn what_cannot_be_mapped_leaves_nothing() {
    let bed = Bed::new();
    let host = bed.host();
    let missing = ImageSource::File { path: bed.path("missing") };
    let error = host.map(&map(&missing)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound);
    assert_eq!(
        error.to_string(),
        format!("image {} does not exist", bed.path("missing").display())
    );
    let folder = ImageSource::File { path: bed.path("") };
    host.map(&map(&folder)).await.unwrap_err();
    for (pool, image) in [("rbd", "../x"), ("", "x"), ("rbd", "-o"), ("..", "x"), ("rbd", "a@b")] {
        let source = ImageSource::Rbd { pool: pool.into(), image: image.into() };
        host.map(&map(&source)).await.unwrap_err();
        host.unmap(&source).await.unwrap_err();
    }
    bed.assert_clean();
}

#[tokio::test]
async fn a_file_that_others_have_attached_is_not_attached_again() {
    let bed = Bed::new();
    let host = bed.host();
    let (source, target) = (bed.ext4("t.v"), bed.target("v"));
    let theirs = run("losetup", &["-f", "--show", path_of(&source).to_str().unwrap()]);
    let mapping = up(&host, &source, &target).await;
    assert_eq!(mapping.device, Path::new(theirs.trim()));
    down(&host, &source, &target).await;
    bed.assert_clean();
    // Also when only `unmap` is told of it.
    run("losetup", &["-f", path_of(&source).to_str().unwrap()]);
    assert_eq!(bed.host().unmap(&source).await.unwrap(), Undone::Done);
    bed.assert_clean();
}

#[tokio::test]
async fn a_renamed_file_stays_mapped() {
    let bed = Bed::new();
    let host = bed.host();
    let (source, target) = (bed.ext4("t.v"), bed.target("v"));
    up(&host, &source, &target).await;
    std::fs::rename(path_of(&source), bed.path("renamed")).unwrap();
    assert!(host.inventory().await.unwrap().mappings[0].device.is_some());
    down(&host, &source, &target).await;
    bed.assert_clean();
}

#[tokio::test]
async fn a_busy_mount_names_who_holds_it() {
    let bed = Bed::new();
    let host = bed.host();
    let (source, target) = (bed.ext4("t.v"), bed.target("v"));
    let mapping = up(&host, &source, &target).await;
    let mut in_it = command("sleep").arg("1000").current_dir(&target).spawn().unwrap();
    let open = std::fs::File::create(target.join("open")).unwrap();
    let error = host.unmount(&target).await.unwrap_err();
    let HostError::Busy { what, holders } = &error else { panic!("{error:?}") };
    assert_eq!(Path::new(what), target);
    assert!(holders.contains(&format!("sleep ({})", in_it.id())), "{holders:?}");
    assert!(holders.iter().any(|name| name.ends_with(&format!("({})", std::process::id()))));
    drop(open);
    in_it.kill().unwrap();
    in_it.wait().unwrap();
    let error = host.unmap(&source).await.unwrap_err();
    let HostError::Busy { what, holders } = &error else { panic!("{error:?}") };
    assert_eq!(Path::new(what), mapping.device);
    assert_eq!(holders, &[format!("the mount {}", target.display())]);
    down(&host, &source, &target).await;
    bed.assert_clean();
}

#[tokio::test]
async fn short_uses_are_waited_for() {
    let mut bed = Bed::new();
    bed.config.deadlines.release = Duration::from_secs(20);
    let faults = Faults::counting();
    let host = bed.breaking(&faults);
    // A use goes on until the driver has met it.
    let tried = async |step: &str, times: usize| {
        let end = Instant::now() + Duration::from_secs(60);
        while faults.effects().iter().filter(|done| **done == step).count() < times {
            assert!(Instant::now() < end, "it does not {step}: {:?}", faults.effects());
            tokio::task::yield_now().await;
        }
    };
    let (source, target) = (bed.ext4("t.v"), bed.target("v"));
    up(&host, &source, &target).await;
    let open = std::fs::File::create(target.join("open")).unwrap();
    let (unmounted, ()) = tokio::join!(host.unmount(&target), async {
        tried("unmount", 3).await;
        drop(open);
    });
    unmounted.unwrap();
    // A device that somebody looks at goes when they have seen enough.
    let mapping = host.map(&map(&source)).await.unwrap();
    let open = std::fs::File::open(&mapping.device).unwrap();
    let (unmapped, ()) = tokio::join!(host.unmap(&source), async {
        tried("detach the loop device", 1).await;
        drop(open);
    });
    unmapped.unwrap();
    bed.assert_clean();
}

#[tokio::test]
async fn stacked_mounts_are_all_unmounted_and_foreign_ones_none() {
    let bed = Bed::new();
    let host = bed.host();
    let (source, target) = (bed.ext4("t.v"), bed.target("pool/v"));
    let mapping = up(&host, &source, &target).await;
    let folder = target.to_str().unwrap();
    run("mount", &["-t", "tmpfs", "none", folder]);
    let error = host.unmount(&target).await.unwrap_err();
    assert!(matches!(error, HostError::Busy { .. }), "{error:?}");
    let error = host.mount(&mapping, &mount(&target)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Busy, "{error:?}");
    run("umount", &[folder]);
    run("mount", &["--bind", folder, folder]);
    run("mount", &["--bind", folder, folder]);
    down(&host, &source, &target).await;
    bed.assert_clean();
}

#[tokio::test]
async fn only_what_is_below_the_mount_root_is_touched() {
    let bed = Bed::new();
    let host = bed.host();
    let source = bed.ext4("t.v");
    let mapping = host.map(&map(&source)).await.unwrap();
    for target in [bed.path("elsewhere"), bed.target(""), PathBuf::from("/"), bed.target("../x")] {
        host.mount(&mapping, &mount(&target)).await.unwrap_err();
        host.unmount(&target).await.unwrap_err();
        assert!(!bed.path("elsewhere").exists());
    }
    host.unmap(&source).await.unwrap();
    bed.assert_clean();
}

#[tokio::test]
async fn other_namespaces_with_the_device_are_users() {
    let bed = Bed::new();
    let host = bed.host();
    let (source, target) = (bed.ext4("t.v"), bed.target("v"));
    let mapping = up(&host, &source, &target).await;
    let folder = target.to_str().unwrap();
    // A clone of our namespace shows the mount where we have it.
    let clone = ["-m", "--propagation", "slave", "sleep", "1000"];
    let mut clone = command("unshare").args(clone).spawn().unwrap();
    let other = bed.path("elsewhere");
    std::fs::create_dir(&other).unwrap();
    let script = format!("mount --bind {folder} {}; exec sleep 1000", other.display());
    let mut container = command("unshare");
    let container = container.args(["-m", "--propagation", "slave", "sh", "-c", &script]);
    let mut container = container.spawn().unwrap();
    let name = format!("sleep ({})", container.id());
    let end = Instant::now() + Duration::from_secs(60);
    let users = loop {
        let users = host.users(&mapping.device, &target).await.unwrap();
        if users == [name.as_str()] || Instant::now() > end {
            break users;
        }
    };
    for child in [&mut clone, &mut container] {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    assert_eq!(users, [name]);
    assert_eq!(host.users(&mapping.device, &target).await.unwrap(), [""; 0]);
    down(&host, &source, &target).await;
    bed.assert_clean();
}

/// What the tasks gave. All have ended before one may fail the test, so that none goes on without its bed.
async fn all_of<T>(tasks: Vec<tokio::task::JoinHandle<T>>) -> Vec<T> {
    let mut ended = Vec::new();
    for task in tasks {
        ended.push(task.await);
    }
    ended.into_iter().map(Result::unwrap).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn twenty_images_at_once_take_more_devices_than_there_were() {
    let bed = Bed::new();
    let host = bed.host();
    let all: Vec<_> =
        (0..20).map(|n| (bed.ext4(&format!("v{n}")), bed.target(&format!("pool/v{n}")))).collect();
    for _ in 0..2 {
        let tasks = all.iter().cloned().map(|(source, target)| {
            let host = host.clone();
            tokio::spawn(async move { up(&host, &source, &target).await.device })
        });
        let devices = all_of(tasks.collect()).await;
        let devices: std::collections::HashSet<_> = devices.into_iter().collect();
        assert_eq!(devices.len(), 20);
        assert_eq!(host.inventory().await.unwrap().mounts.len(), 20);
        let tasks = all.iter().cloned().map(|(source, target)| {
            let host = host.clone();
            tokio::spawn(async move { down(&host, &source, &target).await })
        });
        all_of(tasks.collect()).await;
        bed.assert_clean();
    }
}

#[tokio::test]
async fn an_inventory_without_records_finds_what_is_mounted() {
    let bed = Bed::new();
    let host = bed.host();
    let (source, target) = (bed.ext4("t.v"), bed.target("v"));
    let mapping = up(&host, &source, &target).await;
    std::fs::remove_dir_all(bed.config.map_root.join(".records")).unwrap();
    let found = host.inventory().await.unwrap();
    let whole = Found { source: source.clone(), device: Some(mapping.device.clone()) };
    assert_eq!(found.mappings, [whole]);
    assert_eq!(found.mounts, [(mapping.device.clone(), target.clone())]);
    // The device goes with the mount, and nothing else was left to undo.
    assert_eq!(host.unmount(&target).await.unwrap(), Undone::Done);
    assert_eq!(host.unmap(&source).await.unwrap(), Undone::Absent);
    bed.assert_clean();
}

#[tokio::test]
async fn read_only_is_kept_by_the_device() {
    let bed = Bed::new();
    let host = bed.host();
    let (source, target) = (bed.ext4("t.v"), bed.target("v"));
    let mut request = map(&source);
    request.mode = Mode::ReadOnly;
    let mapping = host.map(&request).await.unwrap();
    let device = std::fs::OpenOptions::new().write(true).open(&mapping.device);
    assert!(device.and_then(|device| device.write_at(b"x", 0)).is_err());
    let error = host.mount(&mapping, &mount(&target)).await.unwrap_err();
    assert!(matches!(error, HostError::Unmountable { .. }), "{error:?}");
    let mut read_only = mount(&target);
    read_only.mode = Mode::ReadOnly;
    host.mount(&mapping, &read_only).await.unwrap();
    std::fs::write(target.join("x"), "x").unwrap_err();
    // The other mode is another mapping, refused while this one is in use.
    let error = host.map(&map(&source)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::Busy, "{error:?}");
    host.unmount(&target).await.unwrap();
    up(&host, &source, &target).await;
    std::fs::write(target.join("x"), "x").unwrap();
    down(&host, &source, &target).await;
    bed.assert_clean();
}
