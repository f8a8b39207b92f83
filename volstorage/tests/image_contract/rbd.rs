//! Ceph RBD, on a real cluster.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Once};

use async_trait::async_trait;
use serde_json::json;
use volcore::limit::RateLimits;
use volcore::name::PoolName;
use volcore::volume::ImageName;
use volstorage::ceph::{ConnectOptions, Image, Timeouts};
use volstorage::fake::Faults;
use volstorage::image::{ImageDriver, ImageSnapshot};
use volstorage::rbd::RbdImages;
use volstorage::rbd::connection::{Connection, TIMEOUTS};

use super::ceph_support::{CEPH, FEATURES, MIB, wait_for};
use super::harness::{Guard, Harness, tool};

const FOREIGN: &[u8] = b"somebody's data";

pub struct Rbd {
    images: RbdImages,
    _scratch: tempfile::TempDir,
}

impl Rbd {
    pub fn images(&self) -> &RbdImages {
        &self.images
    }
}

pub async fn harness() -> Rbd {
    let scratch = tempfile::tempdir().unwrap();
    let options = ConnectOptions {
        key: None,
        conf: CEPH.conf.clone(),
        user: "admin".to_owned(),
        timeouts: TIMEOUTS,
    };
    let images = RbdImages::new(Connection::new(options), scratch.path()).unwrap();
    Rbd { images, _scratch: scratch }
}

fn content(image: &Image) -> Vec<u8> {
    let mut content = vec![0; image.stat().unwrap().size.try_into().unwrap()];
    let mut read = 0;
    while read < content.len() {
        read += image.read_at(read as u64, &mut content[read..]).unwrap();
    }
    content
}

#[async_trait]
impl Harness for Rbd {
    fn driver(&self) -> Arc<dyn ImageDriver> {
        Arc::new(self.images.clone())
    }

    fn breakable(&self) -> (Arc<dyn ImageDriver>, Faults) {
        let faults = Faults::counting();
        (Arc::new(self.images.clone().with_faults(&faults)), faults)
    }

    fn pool(&self) -> PoolName {
        "rbd".parse().unwrap()
    }

    async fn add_foreign(&self, image: &ImageName) {
        let pool = CEPH.pool();
        pool.create(&image.name, MIB, FEATURES).unwrap();
        pool.open_image(&image.name).unwrap().write_at(0, FOREIGN).unwrap();
    }

    async fn assert_foreign(&self, image: &ImageName) {
        let image = CEPH.pool().open_image_read_only(&image.name).unwrap();
        let mut data = vec![0; FOREIGN.len()];
        image.read_at(0, &mut data).unwrap();
        assert_eq!(data, FOREIGN);
    }

    async fn open(&self, image: &ImageName) -> Guard {
        let client = CEPH.connect(Timeouts::default());
        Box::new(client.pool(image.pool.as_str()).unwrap().open_image(&image.name).unwrap())
    }

    async fn export(&self, image: &ImageName, folder: &Path) -> Option<PathBuf> {
        let (file, name) = (folder.join("image"), image.to_string());
        let conf = CEPH.conf.to_str()?;
        let args = ["-c", conf, "export", "--no-progress", &name, file.to_str()?];
        let output = tool("rbd", &args).await;
        assert_eq!(output.code, 0, "{}", output.stderr);
        Some(file)
    }

    async fn write(&self, image: &ImageName, offset: usize, data: &[u8]) {
        let pool = CEPH.cluster().pool(image.pool.as_str()).unwrap();
        pool.open_image(&image.name).unwrap().write_at(offset as u64, data).unwrap();
    }

    async fn content(&self, image: &ImageName) -> Vec<u8> {
        let pool = CEPH.cluster().pool(image.pool.as_str()).unwrap();
        content(&pool.open_image_read_only(&image.name).unwrap())
    }

    async fn snapshot_content(&self, at: &ImageSnapshot) -> Vec<u8> {
        let pool = CEPH.cluster().pool(at.image.pool.as_str()).unwrap();
        content(&pool.open_snapshot(&at.image.name, at.snapshot.as_str()).unwrap())
    }

    async fn other_pool(&self) -> PoolName {
        static MADE: Once = Once::new();
        MADE.call_once(|| {
            let order = |command: serde_json::Value| CEPH.cluster().mon_command(&command).unwrap();
            order(json!({"prefix": "osd pool create", "pool": "other", "pg_num": 8}));
            order(json!({"prefix": "osd pool application enable", "pool": "other", "app": "rbd"}));
            CEPH.cluster().wait_for_latest_osd_map().unwrap();
        });
        "other".parse().unwrap()
    }

    async fn names(&self, part: &str) -> Vec<String> {
        let pool = CEPH.pool();
        let images = pool.list().unwrap().into_iter().map(|entry| entry.name);
        let trash = pool.trash_list().unwrap().into_iter().map(|entry| entry.name);
        let mut names: Vec<String> =
            images.chain(trash).filter(|name| name.contains(part)).collect();
        names.sort();
        names
    }

    async fn limits(&self, image: &ImageName) -> Option<RateLimits> {
        let pool = CEPH.cluster().pool(image.pool.as_str()).unwrap();
        let image = pool.open_image_read_only(&image.name).unwrap();
        let limit = |what: &str| {
            let value = image.metadata(&format!("conf_rbd_qos_{what}_limit")).unwrap()?;
            NonZeroU64::new(value.parse().unwrap())
        };
        Some(RateLimits {
            write_iops: limit("write_iops"),
            read_iops: limit("read_iops"),
            write_bps: limit("write_bps"),
            read_bps: limit("read_bps"),
        })
    }

    async fn bounded_pool(&self) -> (PoolName, Guard) {
        (self.pool(), Box::new(()))
    }

    async fn full_pool(&self) -> (PoolName, Guard) {
        let (cluster, name) = (CEPH.cluster(), "small");
        let order = |command: serde_json::Value| cluster.mon_command(&command).unwrap();
        order(json!({"prefix": "osd pool create", "pool": name, "pg_num": 8}));
        order(json!({"prefix": "osd pool application enable", "pool": name, "app": "rbd"}));
        cluster.wait_for_latest_osd_map().unwrap();
        let pool = cluster.pool(name).unwrap();
        pool.create("t.filler", 64 * MIB, FEATURES).unwrap();
        pool.open_image("t.filler").unwrap().write_extents([(0, vec![1u8; 8 << 20])]).unwrap();
        let quota = json!({"prefix": "osd pool set-quota", "pool": name, "field": "max_bytes", "val": "4194304"});
        order(quota);
        wait_for("the pool to be full", || {
            let dump = CEPH.ask(&json!({"prefix": "osd dump", "format": "json"}));
            let pools = dump["pools"].as_array().unwrap();
            let pool = pools.iter().find(|pool| pool["pool_name"] == name).unwrap();
            let flags = pool["flags_names"].as_str().unwrap_or_default();
            if flags.contains("full") { Ok(()) } else { Err(flags.to_owned()) }
        });
        cluster.wait_for_latest_osd_map().unwrap();
        (name.parse().unwrap(), Box::new(()))
    }
}

crate::contract!();
