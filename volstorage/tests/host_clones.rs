//! `LinuxHost` and clones: copies whose file system has the UUID of another one, until they are mounted.

#![expect(clippy::unwrap_used, reason = "what helps a test panics as the test does")]

mod host_support;

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::Path;

use host_support::{Bed, MIB, down, map, mount, path_of, run, up};
use uuid::Uuid;
use volstorage::faults::{Fault, Faults};
use volstorage::host::{HostDriver, HostError, Mapping, Mode, Mounted};
use volstorage::image::ImageSource;
use volstorage::linux::LinuxHost;

const FILESYSTEMS: [&str; 3] = ["ext4", "xfs", "btrfs"];
const SET: &str = "set the file system's UUID";
const REPLAY: &str = "replay the log";

impl Bed {
    /// The UUID that a volume has: another for each number, and in each test, as they share a kernel.
    fn uid(&self, number: u8) -> Uuid {
        let folder = self.path("").into_os_string().into_encoded_bytes();
        let mut bytes = [number; 16];
        for (byte, of_name) in bytes.iter_mut().skip(1).zip(folder.iter().rev()) {
            *byte = *of_name;
        }
        Uuid::from_bytes(bytes)
    }
}

/// Maps and mounts a clone.
async fn try_up_clone(
    host: &LinuxHost,
    source: &ImageSource,
    target: &Path,
    identity: Uuid,
) -> Result<(Mapping, Mounted), HostError> {
    let mapping = host.map(&map(source)).await?;
    let mut request = mount(target);
    request.identity = Some(identity);
    let mounted = host.mount(&mapping, &request).await?;
    Ok((mapping, mounted))
}

async fn up_clone(host: &LinuxHost, source: &ImageSource, target: &Path, identity: Uuid) {
    let (_, mounted) = try_up_clone(host, source, target, identity).await.unwrap();
    assert!(mounted.flaw.is_none(), "{:?}", mounted.flaw);
}

/// What the superblock says, by other means than the driver's own.
fn uuid_of(source: &ImageSource) -> Uuid {
    let path = path_of(source).to_str().unwrap();
    run("blkid", &["-p", "-s", "UUID", "-o", "value", path]).trim().parse().unwrap()
}

/// The file system is what its own tool takes for sound.
fn check(filesystem: &str, source: &ImageSource) {
    let path = path_of(source).to_str().unwrap();
    match filesystem {
        "xfs" => run("xfs_repair", &["-n", path]),
        "btrfs" => run("btrfs", &["check", "-q", path]),
        _ => run("e2fsck", &["-f", "-n", path]),
    };
}

/// Some files, the last ones synced and not yet where they belong.
fn fill(target: &Path) {
    std::fs::create_dir_all(target.join("folder")).unwrap();
    for n in 0..50 {
        let path = target.join(format!("folder/{n}"));
        std::fs::write(&path, vec![n; 5000]).unwrap();
        if n == 20 {
            run("sync", &["-f", path.to_str().unwrap()]);
        }
        std::fs::File::open(&path).unwrap().sync_all().unwrap();
    }
}

/// All files below a folder.
fn content(target: &Path) -> BTreeMap<String, Vec<u8>> {
    let entries = std::fs::read_dir(target.join("folder")).unwrap().map(Result::unwrap);
    let read = |entry: std::fs::DirEntry| {
        (entry.file_name().into_string().unwrap(), std::fs::read(entry.path()).unwrap())
    };
    let content: BTreeMap<_, _> = entries.map(read).collect();
    assert_eq!(content.len(), 50);
    content
}

/// A source with content and a copy of it from when it was mounted, or after.
async fn cloned(bed: &Bed, filesystem: &str, when: When) -> (ImageSource, ImageSource) {
    let source = bed.formatted(&format!("source.{filesystem}"), filesystem);
    let (host, target, name) = (bed.host(), bed.target("source"), format!("clone.{filesystem}"));
    up(&host, &source, &target).await;
    fill(&target);
    let clone = match when {
        When::InUse => bed.copy(&source, &name),
        When::AtRest => source.clone(),
    };
    down(&host, &source, &target).await;
    let clone = if when == When::AtRest { bed.copy(&source, &name) } else { clone };
    assert_eq!(uuid_of(&clone), uuid_of(&source));
    (source, clone)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum When {
    InUse,
    AtRest,
}

#[tokio::test]
async fn a_clone_is_mounted_beside_its_source() {
    for filesystem in FILESYSTEMS {
        for when in [When::InUse, When::AtRest] {
            let bed = Bed::new();
            let (source, clone) = cloned(&bed, filesystem, when).await;
            let faults = Faults::counting();
            let host = bed.breaking(&faults);
            let targets = [bed.target("source"), bed.target("clone"), bed.target("second")];
            up(&host, &source, &targets[0]).await;
            let second = bed.copy(&clone, "second");
            faults.revive();
            up_clone(&host, &clone, &targets[1], bed.uid(1)).await;
            let effects = faults.effects();
            assert!(effects.contains(&SET), "{effects:?}");
            let replayed = (filesystem, when) == ("xfs", When::InUse);
            assert_eq!(effects.contains(&REPLAY), replayed, "{filesystem}: {effects:?}");
            up_clone(&host, &second, &targets[2], bed.uid(2)).await;
            // All three at once, and what is written to one is in no other.
            for target in &targets {
                assert_eq!(content(target), content(&targets[0]), "{filesystem} {when:?}");
            }
            std::fs::write(targets[1].join("mine"), "mine").unwrap();
            assert!(!targets[0].join("mine").exists() && !targets[2].join("mine").exists());
            for (source, target) in [&source, &clone, &second].into_iter().zip(&targets) {
                down(&host, source, target).await;
                check(filesystem, source);
            }
            assert_eq!((uuid_of(&clone), uuid_of(&second)), (bed.uid(1), bed.uid(2)));
            assert_ne!(uuid_of(&source), bed.uid(1));
            // Nothing is left to be done.
            faults.revive();
            up_clone(&host, &clone, &targets[1], bed.uid(1)).await;
            assert!(!faults.effects().contains(&SET), "{:?}", faults.effects());
            assert_eq!(std::fs::read_to_string(targets[1].join("mine")).unwrap(), "mine");
            down(&host, &clone, &targets[1]).await;
            bed.assert_clean();
        }
    }
}

#[tokio::test]
async fn a_clone_that_was_rolled_back_or_cloned_is_changed_again() {
    for filesystem in FILESYSTEMS {
        let bed = Bed::new();
        let (source, clone) = cloned(&bed, filesystem, When::InUse).await;
        let (host, target) = (bed.host(), bed.target("clone"));
        let snapshot = bed.copy(&clone, "snapshot");
        up_clone(&host, &clone, &target, bed.uid(1)).await;
        // In use, so that there is a log with the new UUID.
        std::fs::write(target.join("later"), "later").unwrap();
        std::fs::File::open(target.join("later")).unwrap().sync_all().unwrap();
        let of_clone = bed.copy(&clone, "of-clone");
        up_clone(&host, &of_clone, &bed.target("of-clone"), bed.uid(2)).await;
        assert_eq!(std::fs::read_to_string(bed.target("of-clone/later")).unwrap(), "later");
        assert_eq!(content(&bed.target("of-clone")), content(&target));
        down(&host, &of_clone, &bed.target("of-clone")).await;
        down(&host, &clone, &target).await;
        std::fs::rename(path_of(&snapshot), path_of(&clone)).unwrap();
        assert_eq!(uuid_of(&clone), uuid_of(&source));
        up_clone(&host, &clone, &target, bed.uid(1)).await;
        assert_eq!(content(&target).len(), 50);
        down(&host, &clone, &target).await;
        for (source, identity) in [(&clone, bed.uid(1)), (&of_clone, bed.uid(2))] {
            assert_eq!(uuid_of(source), identity, "{filesystem}");
            check(filesystem, source);
        }
        bed.assert_clean();
    }
}

#[tokio::test]
async fn whatever_breaks_the_next_mount_goes_on() {
    for filesystem in FILESYSTEMS {
        let bed = Bed::new();
        let (_, clone) = cloned(&bed, filesystem, When::InUse).await;
        let target = bed.target("clone");
        for fault in [Fault::Fails, Fault::AnswerLost, Fault::Dies] {
            for n in 1.. {
                let broken = bed.copy(&clone, "broken");
                let faults = Faults::counting();
                let host = bed.breaking(&faults);
                let mapping = host.map(&map(&broken)).await.unwrap();
                faults.break_nth(n, fault);
                let mut request = mount(&target);
                request.identity = Some(bed.uid(1));
                let mounted = host.mount(&mapping, &request).await;
                let (over, effects) = (faults.is_ahead(), faults.effects());
                let step = effects.get(n - 1).copied().unwrap_or_default();
                let context = format!("{filesystem}: {fault:?} at {step}: {mounted:?}");
                // btrfs is never mounted with the UUID of another.
                if filesystem == "btrfs" && step == SET {
                    assert!(mounted.is_err(), "{context}");
                }
                drop(host);
                let host = bed.host();
                host.unmount(&target).await.unwrap();
                host.unmap(&broken).await.unwrap();
                up_clone(&host, &broken, &target, bed.uid(1)).await;
                assert_eq!(content(&target).len(), 50, "{context}");
                down(&host, &broken, &target).await;
                assert_eq!(uuid_of(&broken), bed.uid(1), "{context}");
                check(filesystem, &broken);
                bed.assert_clean();
                if over {
                    break;
                }
            }
        }
    }
}

/// The sectors in which two files differ.
fn changed(before: &ImageSource, after: &ImageSource) -> Vec<(u64, Vec<u8>)> {
    const SECTOR: usize = 512;
    let (before, after) =
        (std::fs::read(path_of(before)).unwrap(), std::fs::read(path_of(after)).unwrap());
    let sectors = before.chunks(SECTOR).zip(after.chunks(SECTOR)).zip(0..);
    let differing = sectors.filter(|((before, after), _)| before != after);
    differing.map(|((_, after), number)| (number * SECTOR as u64, after.to_vec())).collect()
}

/// Dies between any two sectors that are written: the log's first, the first superblock last.
#[tokio::test]
async fn killed_between_two_writes_the_next_mount_goes_on() {
    for (filesystem, first) in [("xfs", 0), ("btrfs", 64 << 10)] {
        let bed = Bed::new();
        let (_, clone) = cloned(&bed, filesystem, When::AtRest).await;
        let (host, target) = (bed.host(), bed.target("clone"));
        let done = bed.copy(&clone, "done");
        // It writes the UUID and then dies, so that nothing else is changed.
        let faults = Faults::counting();
        let dying = bed.breaking(&faults);
        let mapping = dying.map(&map(&done)).await.unwrap();
        faults.break_nth(1, Fault::Dies);
        let mut request = mount(&target);
        request.identity = Some(bed.uid(1));
        dying.mount(&mapping, &request).await.unwrap_err();
        assert_eq!(faults.effects(), [SET]);
        drop(dying);
        host.unmap(&done).await.unwrap();
        let mut sectors = changed(&clone, &done);
        // Another superblock is another time of the same; those of btrfs are several sectors, written as one.
        sectors.sort_by_key(|(offset, bytes)| {
            let is_log = bytes.starts_with(&0xFEED_BABE_u32.to_be_bytes());
            (!is_log, (first..first + 4096).contains(offset), *offset)
        });
        let blocks: Vec<&[(u64, Vec<u8>)]> = sectors
            .chunk_by(|(a, _), (b, _)| filesystem == "btrfs" && a / 4096 == b / 4096)
            .collect();
        assert!(blocks.len() >= 2, "{filesystem}: {}", blocks.len());
        for written in 0..=blocks.len() {
            let broken = bed.copy(&clone, "broken");
            let file = std::fs::OpenOptions::new().write(true).open(path_of(&broken)).unwrap();
            for (offset, bytes) in blocks[..written].iter().copied().flatten() {
                file.write_all_at(bytes, *offset).unwrap();
            }
            up_clone(&host, &broken, &target, bed.uid(1)).await;
            assert_eq!(content(&target).len(), 50, "{filesystem}: after {written}");
            down(&host, &broken, &target).await;
            assert_eq!(uuid_of(&broken), bed.uid(1));
            check(filesystem, &broken);
        }
        bed.assert_clean();
    }
}

#[tokio::test]
async fn read_only_nothing_is_written_and_xfs_is_mounted_all_the_same() {
    for filesystem in FILESYSTEMS {
        let bed = Bed::new();
        let (source, clone) = cloned(&bed, filesystem, When::InUse).await;
        let (host, target) = (bed.host(), bed.target("clone"));
        // btrfs with a UUID that is in use is the kernel's to decide, and newer ones take it.
        if filesystem != "btrfs" {
            up(&host, &source, &bed.target("source")).await;
        }
        let before = std::fs::read(path_of(&clone)).unwrap();
        let mut request = map(&clone);
        request.mode = Mode::ReadOnly;
        let mapping = host.map(&request).await.unwrap();
        let mut request = mount(&target);
        (request.mode, request.identity) = (Mode::ReadOnly, Some(bed.uid(1)));
        let mounted = host.mount(&mapping, &request).await.unwrap();
        assert!((mounted.fills, mounted.flaw.is_none()) == (None, true));
        host.unmount(&target).await.unwrap();
        host.unmap(&clone).await.unwrap();
        assert!(std::fs::read(path_of(&clone)).unwrap() == before, "{filesystem}: it wrote");
        if filesystem != "btrfs" {
            down(&host, &source, &bed.target("source")).await;
        }
        bed.assert_clean();
    }
}

#[tokio::test]
async fn older_kinds_of_ext_are_changed_too() {
    for options in
        ["^metadata_csum", "^metadata_csum,uninit_bg", "^has_journal", "metadata_csum_seed"]
    {
        let bed = Bed::new();
        let source = bed.blank("t.v", 64 * MIB);
        run("mkfs.ext4", &["-q", "-F", "-O", options, path_of(&source).to_str().unwrap()]);
        let (host, target) = (bed.host(), bed.target("v"));
        up_clone(&host, &source, &target, bed.uid(1)).await;
        fill(&target);
        down(&host, &source, &target).await;
        assert_eq!(uuid_of(&source), bed.uid(1), "{options}");
        check("ext4", &source);
        bed.assert_clean();
    }
}

/// What is not understood is left as it is: btrfs then is not mounted, xfs is.
#[tokio::test]
async fn what_is_not_understood_is_not_touched() {
    let bed = Bed::new();
    let (host, target) = (bed.host(), bed.target("v"));
    let source = bed.blank("t.b", 128 * MIB);
    run("mkfs.btrfs", &["-q", "--csum", "sha256", path_of(&source).to_str().unwrap()]);
    let before = std::fs::read(path_of(&source)).unwrap();
    let error = try_up_clone(&host, &source, &target, bed.uid(1)).await.unwrap_err();
    assert!(format!("{error:?}").contains("not crc32c"), "{error:?}");
    host.unmap(&source).await.unwrap();
    assert!(std::fs::read(path_of(&source)).unwrap() == before);
    bed.assert_clean();
    // A copy of the superblock is damaged, which matters to xfs_repair only; then the first one.
    let source = bed.formatted("t.x", "xfs");
    let file = std::fs::OpenOptions::new().write(true).open(path_of(&source)).unwrap();
    file.write_all_at(&[0xFF; 16], 80 * MIB + 108).unwrap();
    up_clone(&host, &source, &target, bed.uid(1)).await;
    down(&host, &source, &target).await;
    file.write_all_at(&[0xFF; 4], 108).unwrap();
    let error = try_up_clone(&host, &source, &target, bed.uid(2)).await.unwrap_err();
    assert!(matches!(error, HostError::Unmountable { .. }), "{error:?}");
    host.unmap(&source).await.unwrap();
    assert_eq!(uuid_of(&bed.copy(&source, "readable")), bed.uid(1));
    bed.assert_clean();
}
