//! Local files.

use std::fs;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use volcore::limit::RateLimits;
use volcore::name::PoolName;
use volcore::volume::ImageName;
use volstorage::fake::Faults;
use volstorage::file::FileImages;
use volstorage::image::{Created, ImageDriver, ImageError, ImageSnapshot};

use super::harness::{Guard, Harness, new_image, tool};

const FOREIGN: &str = "somebody's data";

struct Files(tempfile::TempDir);

async fn harness() -> impl Harness {
    Files(tempfile::tempdir().unwrap())
}

impl Files {
    fn images(&self) -> FileImages {
        FileImages::new(self.0.path(), self.pool()).unwrap()
    }

    fn path(&self, image: &ImageName) -> PathBuf {
        self.0.path().join(image.pool.as_str()).join(&image.name)
    }
}

/// Ends with a command: a loop device, a mount.
struct Undo(Box<dyn Fn() + Send>);

impl Drop for Undo {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[async_trait]
impl Harness for Files {
    fn driver(&self) -> Arc<dyn ImageDriver> {
        Arc::new(self.images())
    }

    fn breakable(&self) -> (Arc<dyn ImageDriver>, Faults) {
        let faults = Faults::counting();
        (Arc::new(self.images().with_faults(&faults)), faults)
    }

    fn pool(&self) -> PoolName {
        "rbd".parse().unwrap()
    }

    async fn add_foreign(&self, image: &ImageName) {
        let path = self.path(image);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, FOREIGN).unwrap();
    }

    async fn assert_foreign(&self, image: &ImageName) {
        assert_eq!(fs::read_to_string(self.path(image)).unwrap(), FOREIGN);
    }

    async fn open(&self, image: &ImageName) -> Guard {
        let path = self.path(image);
        let args = ["--find", "--show", path.to_str().unwrap()];
        let output = tool("losetup", &args).await;
        assert_eq!(output.code, 0, "{}", output.stderr);
        let device = String::from_utf8(output.stdout).unwrap().trim().to_owned();
        Box::new(Undo(Box::new(move || {
            #[expect(clippy::disallowed_methods, reason = "the door for children is asynchronous")]
            let detach = std::process::Command::new("losetup").args(["-d", &device]).status();
            assert!(detach.unwrap().success());
        })))
    }

    async fn export(&self, image: &ImageName, folder: &Path) -> Option<PathBuf> {
        let file = folder.join("image");
        // A copy with holes: the file system check opens it for writing.
        let path = self.path(image);
        let args = ["--sparse=always", path.to_str()?, file.to_str()?];
        assert_eq!(tool("cp", &args).await.code, 0);
        Some(file)
    }

    async fn write(&self, image: &ImageName, offset: usize, data: &[u8]) {
        let file = fs::OpenOptions::new().write(true).open(self.path(image)).unwrap();
        file.write_all_at(data, offset as u64).unwrap();
    }

    async fn content(&self, image: &ImageName) -> Vec<u8> {
        fs::read(self.path(image)).unwrap()
    }

    async fn snapshot_content(&self, at: &ImageSnapshot) -> Vec<u8> {
        let id = self.images().find(&at.image).await.unwrap().expect("the image").id;
        let folder = self.0.path().join(at.image.pool.as_str()).join(".snapshots").join(id);
        fs::read(folder.join(at.snapshot.as_str())).unwrap()
    }

    async fn other_pool(&self) -> PoolName {
        fs::create_dir_all(self.0.path().join("other")).unwrap();
        "other".parse().unwrap()
    }

    async fn names(&self, part: &str) -> Vec<String> {
        let pool = self.0.path().join(self.pool().as_str());
        let names = |folder: PathBuf| fs::read_dir(folder).into_iter().flatten();
        let mut names: Vec<String> = names(pool.clone())
            .chain(names(pool.join(".trash")))
            .chain(names(pool.join(".snapshots")))
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.contains(part))
            .collect();
        names.sort();
        names
    }

    async fn limits(&self, _image: &ImageName) -> Option<RateLimits> {
        None
    }

    async fn full_pool(&self) -> (PoolName, Guard) {
        let folder = self.0.path().join("small");
        fs::create_dir_all(&folder).unwrap();
        let (none, size) = (None::<&str>, Some("size=64k"));
        mount(Some("tmpfs"), &folder, Some("tmpfs"), MsFlags::empty(), size).unwrap();
        mount(none, &folder, none, MsFlags::MS_PRIVATE, none).unwrap();
        let undo = Undo(Box::new(move || umount2(&folder, MntFlags::MNT_DETACH).unwrap()));
        ("small".parse().unwrap(), Box::new(undo))
    }

    /// On ext4: tmpfs and xfs have larger files than volumes can be.
    async fn bounded_pool(&self) -> (PoolName, Guard) {
        let (folder, disk) = (self.0.path().join("ext4"), tempfile::NamedTempFile::new().unwrap());
        fs::create_dir_all(&folder).unwrap();
        disk.as_file().set_len(64 << 20).unwrap();
        let paths = [disk.path().to_str().unwrap(), folder.to_str().unwrap()];
        assert_eq!(tool("mkfs.ext4", &["-q", "-m0", paths[0]]).await.code, 0);
        assert_eq!(tool("mount", &["-o", "loop", paths[0], paths[1]]).await.code, 0);
        let undo = Undo(Box::new(move || umount2(&folder, MntFlags::MNT_DETACH).unwrap()));
        ("ext4".parse().unwrap(), Box::new((undo, disk)))
    }
}

crate::contract!();

#[tokio::test]
async fn only_the_default_pool_is_made() {
    let files = Files(tempfile::tempdir().unwrap());
    let new = new_image("ssd".parse().unwrap(), "v");
    let error = files.images().create(&new).await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "pool ssd does not exist; make a folder of that name in the image root"
    );
    fs::create_dir(files.0.path().join("ssd")).unwrap();
    files.images().create(&new).await.unwrap();
    assert_eq!(
        files.images().check().await.unwrap(),
        format!("local files in {}, pools rbd, ssd", files.0.path().display())
    );
}

#[tokio::test]
async fn an_attempt_that_is_under_way_is_not_dropped() {
    let files = Files(tempfile::tempdir().unwrap());
    let (driver, mut new) = (files.images(), new_image("rbd".parse().unwrap(), "v"));
    let go = files.0.path().join("go");
    let format = format!("until [ -e {} ]; do :; done; mkfs.ext4 -q %", go.display());
    new.format = format.parse().unwrap();
    let create = tokio::spawn({
        let (driver, new) = (driver.clone(), new.clone());
        async move { driver.create(&new).await }
    });
    let left =
        super::harness::until("the draft", || async { driver.unfinished().await.unwrap().pop() })
            .await;
    let error = driver.drop_unfinished(&left).await.unwrap_err();
    assert!(matches!(error, ImageError::InUse { .. }), "{error:?}");
    fs::write(go, "").unwrap();
    assert!(matches!(create.await.unwrap().unwrap(), Created::Created { .. }));
}

#[tokio::test]
async fn what_is_no_file_is_foreign() {
    let files = Files(tempfile::tempdir().unwrap());
    let (driver, new) = (files.images(), new_image("rbd".parse().unwrap(), "v"));
    driver.check().await.unwrap();
    std::os::unix::fs::symlink("/dev/null", files.path(&new.image)).unwrap();
    assert!(matches!(driver.create(&new).await, Err(ImageError::Foreign { .. })));
    fs::remove_file(files.path(&new.image)).unwrap();
    fs::create_dir(files.path(&new.image)).unwrap();
    assert!(matches!(driver.create(&new).await, Err(ImageError::Foreign { .. })));
}

#[tokio::test]
async fn a_root_that_a_shell_would_read_is_refused() {
    let pool: PoolName = "rbd".parse().unwrap();
    for root in ["/a b", "/$(reboot)", "relative", "/a;b", "/a'b"] {
        assert!(FileImages::new(Path::new(root), pool.clone()).is_err(), "{root}");
    }
}

/// xfs shares the data of copies.
#[tokio::test]
async fn copies_are_shared_where_the_file_system_can() {
    let files = Files(tempfile::tempdir().unwrap());
    let root = files.0.path().to_owned();
    let disk = tempfile::NamedTempFile::new().unwrap();
    disk.as_file().set_len(400 << 20).unwrap();
    let (disk, pool) = (disk.path().to_str().unwrap().to_owned(), root.join("rbd"));
    fs::create_dir(&pool).unwrap();
    let folder = pool.to_str().unwrap();
    assert_eq!(tool("mkfs.xfs", &["-q", "-f", "-m", "reflink=1", &disk]).await.code, 0);
    assert_eq!(tool("mount", &["-o", "loop", &disk, folder]).await.code, 0);
    let mounted = pool.clone();
    let _undo = Undo(Box::new(move || umount2(&mounted, MntFlags::MNT_DETACH).unwrap()));
    let used = || {
        let stat = nix::sys::statvfs::statvfs(&pool).unwrap();
        (stat.blocks() - stat.blocks_free()) * stat.fragment_size()
    };
    let new = new_image("rbd".parse().unwrap(), "v");
    let driver = files.images();
    driver.create(&new).await.unwrap();
    files.write(&new.image, 8 << 20, &vec![7; 32 << 20]).await;
    nix::unistd::sync();
    let (before, one) = (used(), super::snapshots::at(&new.image, "one"));
    driver.snapshot_create(&one).await.unwrap();
    let clone = super::snapshots::new_clone(one.clone(), "clone");
    let clone = volstorage::image::NewClone { size: new.size, ..clone };
    driver.snapshot_clone(&clone).await.unwrap();
    driver.snapshot_rollback(&one).await.unwrap();
    nix::unistd::sync();
    assert!(used() < before + (8 << 20), "{} bytes, {before} before", used());
    assert!(files.content(&clone.image).await == files.content(&new.image).await);
}
