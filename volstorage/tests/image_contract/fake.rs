//! The fake keeps the contract too.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use volcore::limit::RateLimits;
use volcore::name::PoolName;
use volcore::volume::ImageName;
use volstorage::fake::Faults;
use volstorage::fake::image::FakeImages;
use volstorage::image::{ImageDriver, ImageError, ImageSnapshot};

use super::harness::{Guard, Harness, new_image};

struct Fake(FakeImages);

async fn harness() -> impl Harness {
    Fake(FakeImages::new(["rbd", "small", "other"].map(|pool| pool.parse().unwrap())))
}

impl Fake {
    fn image(&self, image: &ImageName) -> volstorage::fake::image::FakeImage {
        let mut images = self.0.images(&image.pool).into_iter();
        images.find(|found| found.name == image.name).expect("the image")
    }
}

fn content(size: u64, data: &[u8]) -> Vec<u8> {
    let mut content = data.to_vec();
    content.resize(size.try_into().unwrap(), 0);
    content
}

#[async_trait]
impl Harness for Fake {
    fn driver(&self) -> Arc<dyn ImageDriver> {
        Arc::new(self.0.clone())
    }

    fn breakable(&self) -> (Arc<dyn ImageDriver>, Faults) {
        (self.driver(), self.0.faults().clone())
    }

    fn pool(&self) -> PoolName {
        "rbd".parse().unwrap()
    }

    async fn add_foreign(&self, image: &ImageName) {
        self.0.add_foreign(image);
    }

    async fn assert_foreign(&self, image: &ImageName) {
        assert_eq!(self.image(image).format, None);
    }

    async fn open(&self, image: &ImageName) -> Guard {
        struct Open(FakeImages, ImageName);
        impl Drop for Open {
            fn drop(&mut self) {
                self.0.unwatch(&self.1, "10.0.0.1:0/7");
            }
        }
        self.0.watch(image, "10.0.0.1:0/7");
        Box::new(Open(self.0.clone(), image.clone()))
    }

    async fn export(&self, image: &ImageName, _folder: &Path) -> Option<PathBuf> {
        assert!(self.image(image).format.is_some());
        None
    }

    async fn write(&self, image: &ImageName, offset: usize, data: &[u8]) {
        self.0.write(image, offset, data);
    }

    async fn content(&self, image: &ImageName) -> Vec<u8> {
        content(self.image(image).size, &self.image(image).data)
    }

    async fn snapshot_content(&self, at: &ImageSnapshot) -> Vec<u8> {
        let snapshots = self.image(&at.image).snapshots;
        let snapshot = snapshots.iter().find(|there| there.name == at.snapshot).expect("it");
        content(snapshot.size, &snapshot.data)
    }

    async fn other_pool(&self) -> PoolName {
        "other".parse().unwrap()
    }

    async fn names(&self, part: &str) -> Vec<String> {
        let (images, trash) = (self.0.images(&self.pool()), self.0.trash(&self.pool()));
        let names = images.into_iter().chain(trash).map(|image| image.name);
        names.filter(|name| name.contains(part)).collect()
    }

    async fn limits(&self, image: &ImageName) -> Option<RateLimits> {
        Some(self.image(image).limits)
    }

    async fn full_pool(&self) -> (PoolName, Guard) {
        let small: PoolName = "small".parse().unwrap();
        self.0.set_full(&small, true);
        (small, Box::new(()))
    }

    async fn bounded_pool(&self) -> (PoolName, Guard) {
        (self.pool(), Box::new(()))
    }
}

crate::contract!();

#[tokio::test]
async fn while_it_is_down_nothing_works() {
    let fake = FakeImages::new(["rbd".parse().unwrap()]);
    let new = new_image("rbd".parse().unwrap(), "down");
    fake.go_down();
    let errors =
        [fake.create(&new).await.err(), fake.check().await.err(), fake.unfinished().await.err()];
    for error in errors {
        assert!(matches!(error, Some(ImageError::Unreachable { .. })), "{error:?}");
    }
    fake.come_up();
    fake.create(&new).await.unwrap();
}
