//! `LinuxHost` and what is on the device: other file systems, none, and damaged ones.

#![expect(clippy::unwrap_used, reason = "what helps a test panics as the test does")]

mod host_support;

use std::os::unix::fs::FileExt;
use std::path::Path;

use host_support::{Bed, MIB, map, mount, path_of, run};
use volstorage::host::{HostDriver, HostError, Mode};
use volstorage::image::ImageSource;

/// The type and options under which something is mounted.
fn mounted_as(target: &Path) -> (String, String) {
    let line = run("findmnt", &["-nro", "FSTYPE,OPTIONS", target.to_str().unwrap()]);
    let (kind, options) = line.trim().split_once(' ').unwrap();
    (kind.to_owned(), options.to_owned())
}

fn set_byte(source: &ImageSource, offset: u64, byte: u8) {
    let file = std::fs::OpenOptions::new().write(true).open(path_of(source)).unwrap();
    file.write_at(&[byte], offset).unwrap();
}

/// A file as a crash would have left it: with what is in the journal only.
async fn crashed(bed: &Bed, name: &str, source: &ImageSource) -> ImageSource {
    let (host, target) = (bed.host(), bed.target("crash"));
    let mapping = host.map(&map(source)).await.unwrap();
    host.mount(&mapping, &mount(&target)).await.unwrap();
    std::fs::write(target.join("kept"), "something").unwrap();
    std::fs::File::open(target.join("kept")).unwrap().sync_all().unwrap();
    std::fs::File::open(&target).unwrap().sync_all().unwrap();
    let copy = bed.path(name);
    std::fs::copy(path_of(source), &copy).unwrap();
    host.unmount(&target).await.unwrap();
    host.unmap(source).await.unwrap();
    ImageSource::File { path: copy }
}

#[tokio::test]
async fn the_superblock_decides_the_type() {
    let bed = Bed::new();
    let host = bed.host();
    for (mkfs, size, kind) in [
        (&["mkfs.ext4", "-q", "-F"][..], 64, "ext4"),
        (&["mkfs.ext2", "-q", "-F"], 64, "ext4"),
        (&["mkfs.xfs", "-q"], 320, "xfs"),
        (&["mkfs.btrfs", "-q"], 128, "btrfs"),
    ] {
        let source = bed.blank(mkfs[0], size * MIB);
        let args = [&mkfs[1..], &[path_of(&source).to_str().unwrap()]].concat();
        run(mkfs[0], &args);
        for mode in [Mode::ReadWrite, Mode::ReadOnly] {
            let target = bed.target(mkfs[0]);
            let mut request = map(&source);
            request.mode = mode;
            let mapping = host.map(&request).await.unwrap();
            let mut request = mount(&target);
            request.mode = mode;
            request.options = vec!["noatime".parse().unwrap(), "nosuid".parse().unwrap()];
            host.mount(&mapping, &request).await.unwrap();
            let (found, options) = mounted_as(&target);
            assert_eq!(found, kind);
            // Docker copies an image's content to an empty volume only.
            let entries = std::fs::read_dir(&target).unwrap().count();
            assert_eq!(entries, 0, "{mkfs:?}");
            let options: Vec<&str> = options.split(',').collect();
            assert!(options.contains(&"noatime") && options.contains(&"nosuid"), "{options:?}");
            assert_eq!(options.contains(&"ro"), mode == Mode::ReadOnly, "{options:?}");
            // btrfs has numbers of its own, and is known by its device all the same.
            assert_eq!(host.users(&mapping.device, &bed.target("none")).await.unwrap(), [""; 0]);
            assert_eq!(host.inventory().await.unwrap().mounts.len(), 1);
            host.mount(&mapping, &request).await.unwrap();
            host.unmount(&target).await.unwrap();
            host.unmap(&source).await.unwrap();
            bed.assert_clean();
        }
    }
}

#[tokio::test]
async fn a_blank_image_is_refused_and_left_as_it_is() {
    let bed = Bed::new();
    let host = bed.host();
    let source = bed.blank("t.v", MIB);
    let mapping = host.map(&map(&source)).await.unwrap();
    let error = host.mount(&mapping, &mount(&bed.target("v"))).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        format!(
            "{} cannot be mounted: no file system was found on it (image {}); it was left as it is",
            mapping.device.display(),
            path_of(&source).display()
        )
    );
    host.unmap(&source).await.unwrap();
    assert!(std::fs::read(path_of(&source)).unwrap().iter().all(|byte| *byte == 0));
    bed.assert_clean();
}

#[tokio::test]
async fn a_journal_is_replayed_before_mounting() {
    let bed = Bed::new();
    let host = bed.host();
    let original = bed.ext4("original");
    let source = crashed(&bed, "t.v", &original).await;
    let state = |name: &str| run("dumpe2fs", &["-h", bed.path(name).to_str().unwrap()]);
    assert!(state("t.v").contains("needs_recovery"));
    // Nothing is written for a read-only mount.
    let before = std::fs::read(path_of(&source)).unwrap();
    let mut request = map(&source);
    request.mode = Mode::ReadOnly;
    let mapping = host.map(&request).await.unwrap();
    let target = bed.target("v");
    let mut read_only = mount(&target);
    read_only.mode = Mode::ReadOnly;
    host.mount(&mapping, &read_only).await.unwrap();
    host.unmount(&target).await.unwrap();
    host.unmap(&source).await.unwrap();
    assert!(std::fs::read(path_of(&source)).unwrap() == before, "a read-only mount wrote");
    let mapping = host.map(&map(&source)).await.unwrap();
    host.mount(&mapping, &mount(&target)).await.unwrap();
    assert_eq!(std::fs::read_to_string(target.join("kept")).unwrap(), "something");
    host.unmount(&target).await.unwrap();
    host.unmap(&source).await.unwrap();
    assert!(!state("t.v").contains("needs_recovery"));
    bed.assert_clean();
}

/// `s_state` of the superblock: bit 0 unmounted in order, bit 1 errors were found.
const STATE: u64 = 1024 + 0x3A;

#[tokio::test]
async fn an_error_flag_is_cleared_by_a_check() {
    let bed = Bed::new();
    let host = bed.host();
    let (source, target) = (bed.ext4("t.v"), bed.target("v"));
    run("debugfs", &["-w", "-R", "ssv state 3", path_of(&source).to_str().unwrap()]);
    let mapping = host.map(&map(&source)).await.unwrap();
    host.mount(&mapping, &mount(&target)).await.unwrap();
    host.unmount(&target).await.unwrap();
    host.unmap(&source).await.unwrap();
    assert_eq!(std::fs::read(path_of(&source)).unwrap()[STATE as usize], 1);
    bed.assert_clean();
}

#[tokio::test]
async fn what_cannot_be_repaired_is_not_mounted() {
    let bed = Bed::new();
    let host = bed.host();
    let (source, target) = (bed.ext4("t.v"), bed.target("v"));
    // The root directory's inode is wiped: no machine decides what to do about that.
    let image = path_of(&source).to_str().unwrap();
    run("debugfs", &["-w", "-R", "clri <2>", image]);
    run("debugfs", &["-w", "-R", "ssv state 2", image]);
    let mapping = host.map(&map(&source)).await.unwrap();
    let error = host.mount(&mapping, &mount(&target)).await.unwrap_err();
    let HostError::Unmountable { reason, .. } = &error else { panic!("{error:?}") };
    assert!(reason.contains("e2fsck") && reason.contains("exit status 4"), "{reason}");
    host.unmap(&source).await.unwrap();
    bed.assert_clean();
}

#[tokio::test]
async fn what_the_kernel_refuses_is_said_with_the_options() {
    let bed = Bed::new();
    let host = bed.host();
    let (source, target) = (bed.ext4("t.v"), bed.target("pool/v"));
    let mapping = host.map(&map(&source)).await.unwrap();
    let mut request = mount(&target);
    request.options = vec!["nonsense=1".parse().unwrap()];
    let error = host.mount(&mapping, &request).await.unwrap_err();
    assert!(error.to_string().contains("options `nonsense=1`"), "{error}");
    // Still mapped, and nothing left of the mount.
    assert!(!bed.target("pool").exists());
    // A superblock that is only a magic number.
    host.unmap(&source).await.unwrap();
    let broken = bed.blank("broken", MIB);
    for (offset, byte) in [(1024 + 0x38, 0x53), (1024 + 0x39, 0xEF), (STATE, 1)] {
        set_byte(&broken, offset, byte);
    }
    let mapping = host.map(&map(&broken)).await.unwrap();
    host.mount(&mapping, &mount(&target)).await.unwrap_err();
    host.unmap(&broken).await.unwrap();
    bed.assert_clean();
}
