//! The contract of `HostDriver`, kept by `LinuxHost` and by the fake alike.

#![expect(clippy::unwrap_used, reason = "what helps a test panics as the test does")]

mod host_support;

use std::num::NonZeroU64;
use std::path::Path;

use host_support::{Bed, map, mount, path_of};
use uuid::Uuid;
use volcore::Kind;
use volcore::limit::RateLimits;
use volcore::options::Access;
use volstorage::fake::host::FakeHost;
use volstorage::host::{
    Found, Grown, HostDriver, HostError, MapRequest, Mapping, Mode, MountRequest, Undone,
};
use volstorage::image::ImageSource;

/// Two images with a file system, one without, and one that does not exist.
struct Images {
    one: ImageSource,
    other: ImageSource,
    blank: ImageSource,
    missing: ImageSource,
}

/// Makes an image as large as that.
type Resize<'a> = &'a dyn Fn(&ImageSource, u64);

async fn contract(host: &dyn HostDriver, images: &Images, root: &Path, resize: Resize<'_>) {
    nothing_is_there(host, images, root).await;
    done_twice(host, images, root).await;
    nothing_is_there(host, images, root).await;
    made_ready(host, images, root).await;
    nothing_is_there(host, images, root).await;
    given_up(host, images, root).await;
    nothing_is_there(host, images, root).await;
    in_the_way(host, images, root).await;
    nothing_is_there(host, images, root).await;
    refused(host, images, root).await;
    nothing_is_there(host, images, root).await;
    grown(host, images, root, resize).await;
    nothing_is_there(host, images, root).await;
}

async fn nothing_is_there(host: &dyn HostDriver, images: &Images, root: &Path) {
    for source in [&images.one, &images.missing] {
        assert_eq!(host.unmap(source).await.unwrap(), Undone::Absent);
    }
    let target = root.join("pool/one");
    assert_eq!(host.unmount(&target).await.unwrap(), Undone::Absent);
    assert!(host.space(&target).await.is_err());
    let inventory = host.inventory().await.unwrap();
    assert_eq!((inventory.mappings, inventory.mounts), (vec![], vec![]));
}

async fn done_twice(host: &dyn HostDriver, images: &Images, root: &Path) {
    let (source, target) = (&images.one, root.join("pool/one"));
    let mapping = host.map(&map(source)).await.unwrap();
    assert_eq!(mapping.source, *source);
    assert_eq!(host.map(&map(source)).await.unwrap(), mapping);
    let whole = Found { source: source.clone(), device: Some(mapping.device.clone()) };
    assert_eq!(host.inventory().await.unwrap().mappings, [whole]);
    host.mount(&mapping, &mount(&target)).await.unwrap();
    host.mount(&mapping, &mount(&target)).await.unwrap();
    assert_eq!(host.map(&map(source)).await.unwrap(), mapping);
    host.mount(&mapping, &mount(&target)).await.unwrap();
    let inventory = host.inventory().await.unwrap();
    assert_eq!(inventory.mounts, [(mapping.device.clone(), target.clone())]);
    assert!(host.space(&target).await.unwrap().size > 0);
    // Where somebody else holds the limits, there is nothing to do.
    let limits = RateLimits { write_bps: NonZeroU64::new(1), ..RateLimits::default() };
    host.limit(&mapping, &limits).await.unwrap();
    host.limit(&mapping, &limits).await.unwrap();
    assert_eq!(host.users(&mapping.device, &target).await.unwrap(), [""; 0]);
    assert_eq!(host.unmount(&target).await.unwrap(), Undone::Done);
    assert_eq!(host.unmount(&target).await.unwrap(), Undone::Absent);
    // The device went with its mount: what is left waits for `unmap`, or for the next `map`.
    let half = Found { source: source.clone(), device: None };
    assert_eq!(host.inventory().await.unwrap().mappings, [half]);
    let error = host.mount(&mapping, &mount(&target)).await.unwrap_err();
    assert!(matches!(error, HostError::Failed { .. }), "{error:?}");
    let mapping = host.map(&map(source)).await.unwrap();
    host.mount(&mapping, &mount(&target)).await.unwrap();
    assert_eq!(host.unmount(&target).await.unwrap(), Undone::Done);
    assert_eq!(host.unmap(source).await.unwrap(), Undone::Done);
    assert_eq!(host.unmap(source).await.unwrap(), Undone::Absent);
}

async fn made_ready(host: &dyn HostDriver, images: &Images, root: &Path) {
    let (source, target) = (&images.one, root.join("pool/one"));
    let clients = host.ready(&map(source)).await.unwrap();
    assert_eq!(host.ready(&map(source)).await.unwrap(), clients);
    // There is something exactly if somebody can be named.
    let known = if clients.is_empty() { Undone::Absent } else { Undone::Done };
    assert_eq!(host.unmap(source).await.unwrap(), known);
    assert_eq!(host.unmap(source).await.unwrap(), Undone::Absent);
    let clients = host.ready(&map(source)).await.unwrap();
    let half = Found { source: source.clone(), device: None };
    let found = host.inventory().await.unwrap().mappings;
    assert_eq!(found, if clients.is_empty() { vec![] } else { vec![half] });
    let mapping = host.map(&map(source)).await.unwrap();
    assert_eq!(mapping.clients, clients);
    assert_eq!(host.ready(&map(source)).await.unwrap(), clients);
    host.mount(&mapping, &mount(&target)).await.unwrap();
    assert_eq!(host.ready(&map(source)).await.unwrap(), clients);
    let read_only = MapRequest { mode: Mode::ReadOnly, ..map(source) };
    let other = host.ready(&read_only).await;
    assert!(other.is_err() || clients.is_empty(), "it is in use in another mode");
    assert_eq!(host.unmount(&target).await.unwrap(), Undone::Done);
    host.ready(&read_only).await.unwrap();
    assert_eq!(host.map(&map(source)).await.unwrap().source, *source);
    assert_eq!(host.unmap(source).await.unwrap(), Undone::Done);
}

async fn given_up(host: &dyn HostDriver, images: &Images, root: &Path) {
    let (source, target) = (&images.one, root.join("pool/one"));
    assert_eq!(host.abandon(source, &target).await.unwrap(), Undone::Absent);
    let mapping = host.map(&map(source)).await.unwrap();
    host.mount(&mapping, &mount(&target)).await.unwrap();
    assert_eq!(host.abandon(source, &target).await.unwrap(), Undone::Done);
    assert_eq!(host.abandon(source, &target).await.unwrap(), Undone::Absent);
    assert_eq!(host.inventory().await.unwrap().mounts, []);
    // The record waits for those who tidy up.
    let half = Found { source: source.clone(), device: None };
    assert_eq!(host.inventory().await.unwrap().mappings, [half]);
    host.unmount(&target).await.unwrap();
    assert_eq!(host.unmap(source).await.unwrap(), Undone::Done);
    let mapping = host.map(&map(source)).await.unwrap();
    host.mount(&mapping, &mount(&target)).await.unwrap();
    assert_eq!(host.unmount(&target).await.unwrap(), Undone::Done);
    assert_eq!(host.unmap(source).await.unwrap(), Undone::Done);
}

async fn in_the_way(host: &dyn HostDriver, images: &Images, root: &Path) {
    let target = root.join("pool/one");
    let one = host.map(&map(&images.one)).await.unwrap();
    let other = host.map(&map(&images.other)).await.unwrap();
    assert_ne!(one.device, other.device);
    host.mount(&one, &mount(&target)).await.unwrap();
    // The folder is taken, the device is in use, its mode is what it is.
    let busy = |error: HostError| assert_eq!(error.kind(), Kind::Busy, "{error:?}");
    busy(host.mount(&other, &mount(&target)).await.unwrap_err());
    busy(host.unmap(&images.one).await.unwrap_err());
    let mut read_only = map(&images.one);
    read_only.mode = Mode::ReadOnly;
    busy(host.map(&read_only).await.unwrap_err());
    // One image's device is never mounted as another's.
    let swapped = Mapping { device: one.device.clone(), ..other };
    host.mount(&swapped, &mount(&root.join("pool/other"))).await.unwrap_err();
    assert_eq!(host.unmount(&target).await.unwrap(), Undone::Done);
    // Not in use any more, it is mapped in the other mode.
    let mapping = host.map(&read_only).await.unwrap();
    let error = host.mount(&mapping, &mount(&target)).await.unwrap_err();
    assert!(matches!(error, HostError::Unmountable { .. }), "{error:?}");
    let mut request = mount(&target);
    request.mode = Mode::ReadOnly;
    host.mount(&mapping, &request).await.unwrap();
    assert_eq!(host.unmount(&target).await.unwrap(), Undone::Done);
    for source in [&images.one, &images.other] {
        assert_eq!(host.unmap(source).await.unwrap(), Undone::Done);
    }
}

async fn refused(host: &dyn HostDriver, images: &Images, root: &Path) {
    let error = host.map(&map(&images.missing)).await.unwrap_err();
    assert_eq!(error.kind(), Kind::NotFound, "{error:?}");
    let mapping = host.map(&map(&images.blank)).await.unwrap();
    let error = host.mount(&mapping, &mount(&root.join("pool/blank"))).await.unwrap_err();
    assert!(matches!(error, HostError::Unmountable { .. }), "{error:?}");
    assert_eq!(host.unmap(&images.blank).await.unwrap(), Undone::Done);
}

async fn grown(host: &dyn HostDriver, images: &Images, root: &Path, resize: Resize<'_>) {
    let (source, target) = (&images.one, root.join("pool/one"));
    let mapping = host.map(&map(source)).await.unwrap();
    host.grow(&mapping, &target, 0).await.unwrap_err();
    let request = MountRequest { identity: Some(Uuid::new_v4()), ..mount(&target) };
    let mounted = host.mount(&mapping, &request).await.unwrap();
    let (Some(had), None) = (mounted.fills, mounted.flaw) else { panic!("not full") };
    // There is nothing to do, and an image that is not so large is waited for, and not for ever.
    assert_eq!(host.grow(&mapping, &target, had).await.unwrap(), Grown::AsItWas(had));
    host.grow(&mapping, &target, had + (1 << 20)).await.unwrap_err();
    assert_eq!(host.unmount(&target).await.unwrap(), Undone::Done);
    let size = 2 * had;
    resize(source, size);
    // Read-only nothing grows.
    let read_only = MapRequest { mode: Mode::ReadOnly, ..map(source) };
    let mapping = host.map(&read_only).await.unwrap();
    let request = MountRequest { mode: Mode::ReadOnly, ..request };
    let mounted = host.mount(&mapping, &request).await.unwrap();
    assert!(mounted.fills.is_none() && mounted.flaw.is_none(), "{mounted:?}");
    assert_eq!(host.grow(&mapping, &target, size).await.unwrap(), Grown::AsItWas(size));
    let before = host.space(&target).await.unwrap().size;
    assert!(before <= had);
    assert_eq!(host.unmount(&target).await.unwrap(), Undone::Done);
    let mapping = host.map(&map(source)).await.unwrap();
    let request = MountRequest { mode: Mode::ReadWrite, ..request };
    for _ in 0..2 {
        let mounted = host.mount(&mapping, &request).await.unwrap();
        assert_eq!((mounted.fills, mounted.flaw.is_none()), (Some(size), true));
    }
    assert!(host.space(&target).await.unwrap().size > had);
    assert_eq!(host.grow(&mapping, &target, size).await.unwrap(), Grown::AsItWas(size));
    host.grow(&mapping, &root.join("pool/other"), size).await.unwrap_err();
    assert_eq!(host.unmount(&target).await.unwrap(), Undone::Done);
    host.grow(&mapping, &target, size).await.unwrap_err();
    assert_eq!(host.unmap(source).await.unwrap(), Undone::Done);
}

#[tokio::test]
async fn the_real_host_keeps_it() {
    let bed = Bed::new();
    let images = Images {
        one: bed.ext4("one"),
        other: bed.ext4("other"),
        blank: bed.blank("blank", 1 << 20),
        missing: ImageSource::File { path: bed.path("missing") },
    };
    let resize = |source: &ImageSource, size: u64| {
        let file = std::fs::OpenOptions::new().write(true).open(path_of(source)).unwrap();
        file.set_len(size).unwrap();
    };
    contract(&bed.host(), &images, &bed.config.mount_root, &resize).await;
    bed.assert_clean();
}

#[tokio::test]
async fn the_fake_keeps_it() {
    let host = FakeHost::new();
    let image = |name: &str| ImageSource::Rbd { pool: "rbd".into(), image: name.into() };
    let images = Images {
        one: image("one"),
        other: image("other"),
        blank: image("blank"),
        missing: image("missing"),
    };
    host.set_missing(&images.missing);
    host.set_blank(&images.blank);
    let resize = |source: &ImageSource, size: u64| host.set_size(source, size);
    contract(&host, &images, Path::new("/mnt/volplugin"), &resize).await;
}

/// As the kernel's rbd has it: the limits are the mount's, follow a change, and are nobody's when the device has gone.
#[tokio::test]
async fn the_fake_holds_limits_of_the_kernels_devices() {
    let host = FakeHost::new();
    let source = ImageSource::Rbd { pool: "rbd".into(), image: "one".into() };
    let target = Path::new("/mnt/volplugin/one");
    let limits = |bps| RateLimits { write_bps: NonZeroU64::new(bps), ..RateLimits::default() };
    let mapping = host.map(&MapRequest { access: Access::Kernel, ..map(&source) }).await.unwrap();
    assert!(host.holds_limits(mapping.access));
    let request = MountRequest { limits: limits(1), ..mount(target) };
    host.mount(&mapping, &request).await.unwrap();
    assert_eq!(host.limits(&source), limits(1));
    host.limit(&mapping, &limits(2)).await.unwrap();
    assert_eq!(host.limits(&source), limits(2));
    let stale = Mapping { device: "/dev/fake9".into(), ..mapping.clone() };
    host.limit(&stale, &limits(3)).await.unwrap_err();
    host.limit(&mapping, &limits(0)).await.unwrap();
    assert!(host.limits(&source).is_unlimited());
    host.limit(&mapping, &limits(4)).await.unwrap();
    host.unmount(target).await.unwrap();
    assert!(host.limits(&source).is_unlimited());
    host.limit(&mapping, &limits(5)).await.unwrap_err();
}

/// What is in an image outlives its mappings, and a reboot.
#[tokio::test]
async fn the_fake_grows_and_gives_clones_their_uuid() {
    let host = FakeHost::new();
    let source = ImageSource::Rbd { pool: "rbd".into(), image: "one".into() };
    let target = Path::new("/mnt/volplugin/one");
    let request = MountRequest { identity: Some(Uuid::from_u128(1)), ..mount(target) };
    let mapping = host.map(&map(&source)).await.unwrap();
    host.mount(&mapping, &request).await.unwrap();
    host.set_size(&source, 20 << 20);
    assert_eq!(host.filesystem_size(&source), 10 << 20);
    assert_eq!(host.grow(&mapping, target, 20 << 20).await.unwrap(), Grown::Larger(20 << 20));
    let effects = ["map", "set the file system's UUID", "mount", "grow the file system"];
    assert_eq!(host.faults().effects(), effects);
    host.reboot();
    assert_eq!(host.filesystem_size(&source), 20 << 20);
    assert_eq!(host.identity(&source), Uuid::from_u128(1));
    host.set_identity(&source, Uuid::from_u128(2));
    let mapping = host.map(&map(&source)).await.unwrap();
    host.mount(&mapping, &request).await.unwrap();
    assert_eq!(host.identity(&source), Uuid::from_u128(1));
}

#[tokio::test]
async fn a_restart_of_the_fake_loses_what_was_not_mounted() {
    let host = FakeHost::new();
    let image = |name: &str| ImageSource::Rbd { pool: "rbd".into(), image: name.into() };
    let target = Path::new("/mnt/volplugin/one");
    let one = host.map(&map(&image("one"))).await.unwrap();
    host.map(&map(&image("other"))).await.unwrap();
    host.mount(&one, &mount(target)).await.unwrap();
    host.restart();
    let devices: Vec<_> =
        host.inventory().await.unwrap().mappings.into_iter().map(|found| found.device).collect();
    assert_eq!(devices, [Some(one.device), None]);
    host.set_users(target, &["sh (1234)"]);
    host.unmount(target).await.unwrap();
    let error = host.unmap(&image("one")).await.unwrap_err();
    assert!(error.to_string().ends_with("in use by sh (1234)"), "{error}");
    host.set_users(target, &[]);
    assert_eq!(host.unmap(&image("one")).await.unwrap(), Undone::Done);
    host.reboot();
    assert!(host.mapped().is_empty() && host.mounted().is_empty());
}

/// A server that is only ready dies with who started it; one that serves does not, until it is fenced off.
#[tokio::test]
async fn the_fake_has_servers() {
    let host = FakeHost::new();
    let source = ImageSource::Rbd { pool: "rbd".into(), image: "one".into() };
    let target = Path::new("/mnt/volplugin/one");
    let clients = host.ready(&map(&source)).await.unwrap();
    assert_eq!(host.faults().effects(), ["make ready"]);
    host.restart();
    // What is left is found, and made anew.
    assert_eq!(host.mapped(), std::slice::from_ref(&source));
    let anew = host.ready(&map(&source)).await.unwrap();
    assert_ne!(anew, clients);
    let mapping = host.map(&map(&source)).await.unwrap();
    assert_eq!(mapping.clients, anew);
    host.mount(&mapping, &mount(target)).await.unwrap();
    host.restart();
    host.serves(&source).await.unwrap();
    host.fence(&source);
    host.set_users(target, &["sh (1234)"]);
    for undone in [Undone::Done, Undone::Absent] {
        assert_eq!(host.abandon(&source, target).await.unwrap(), undone);
        let error = host.serves(&source).await.unwrap_err();
        assert!(matches!(error, HostError::Fenced { .. }), "{error:?}");
    }
    assert_eq!(host.unmap(&source).await.unwrap_err().kind(), Kind::Busy);
    host.set_users(target, &[]);
    assert_eq!(host.unmap(&source).await.unwrap(), Undone::Done);
    host.serves(&source).await.unwrap();
    // The kernel's client is known only when it has mapped.
    let kernel = MapRequest { access: Access::Kernel, ..map(&source) };
    assert_eq!(host.ready(&kernel).await.unwrap(), [""; 0]);
    assert_eq!(host.map(&kernel).await.unwrap().clients.len(), 1);
}
