//! What the suite needs to know of a driver that the driver itself does not tell.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use uuid::Uuid;
use volcore::limit::RateLimits;
use volcore::name::PoolName;
use volcore::options::Access;
use volcore::size::Size;
use volcore::volume::ImageName;
use volstorage::fake::Faults;
use volstorage::image::{ImageDriver, ImageSnapshot, NewImage};
use volstorage::process::{Output, Program, Run};

/// Something that is done when it is dropped.
pub type Guard = Box<dyn Send>;

/// A driver, and the way behind it. Tests share what is behind, so they look at their own volumes only.
#[async_trait]
pub trait Harness: Send + Sync {
    /// A new driver, as after a start of the program, without faults.
    fn driver(&self) -> Arc<dyn ImageDriver>;

    /// The same with a fault plan.
    fn breakable(&self) -> (Arc<dyn ImageDriver>, Faults);

    /// A pool that is there.
    fn pool(&self) -> PoolName;

    /// Puts an image there that no driver has made.
    async fn add_foreign(&self, image: &ImageName);

    /// That image is as it was.
    async fn assert_foreign(&self, image: &ImageName);

    /// Opens an image as a host would, until the guard is dropped.
    async fn open(&self, image: &ImageName) -> Guard;

    /// Copies the content of an image into a file; `None` where images have no content.
    async fn export(&self, image: &ImageName, folder: &Path) -> Option<PathBuf>;

    /// Writes on an image as a host would.
    async fn write(&self, image: &ImageName, offset: usize, data: &[u8]);

    /// All that is on an image now.
    async fn content(&self, image: &ImageName) -> Vec<u8>;

    /// All that was on it at a snapshot.
    async fn snapshot_content(&self, at: &ImageSnapshot) -> Vec<u8>;

    /// Another pool that is there.
    async fn other_pool(&self) -> PoolName;

    /// The names of all that is in the pool or its trash and has this in its name.
    async fn names(&self, part: &str) -> Vec<String>;

    /// Those of the limits that the driver keeps itself, as the image has them; `None` where the
    /// driver keeps none.
    async fn limits(&self, image: &ImageName) -> Option<RateLimits>;

    /// A pool into which nothing more fits.
    async fn full_pool(&self) -> (PoolName, Guard);

    /// A pool in which no image can have 1 EiB.
    async fn bounded_pool(&self) -> (PoolName, Guard);
}

/// An image of 64 MiB with ext4, of a volume that is new.
pub fn new_image(pool: PoolName, name: &str) -> NewImage {
    let uid = Uuid::new_v4();
    NewImage {
        image: ImageName { pool, name: format!("t.{name}-{}", &uid.simple().to_string()[..12]) },
        uid,
        size: mib(64),
        format: "mkfs.ext4 -q -m0 %".parse().unwrap(),
        access: Access::Auto,
        limits: RateLimits::default(),
    }
}

pub fn mib(count: u64) -> Size {
    Size::from_bytes(count << 20).unwrap()
}

/// Runs a tool and says how it ended.
pub async fn tool(name: &'static str, args: &[&str]) -> Output {
    let run = Run::new(&Program::find(name, "a Debian package"), Duration::from_secs(120));
    run.args(args).any_exit().output().await.unwrap()
}

/// Waits until `probe` gives something.
pub async fn until<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut probe: impl FnMut() -> F,
) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = probe().await {
            return found;
        }
        assert!(start.elapsed() < Duration::from_secs(60), "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
