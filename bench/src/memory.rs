//! Resident memory with a thousand volumes, against librados alone.

use std::path::Path;
use std::process::ExitCode;

use serde_json::json;
use testkit::Suite;
use volstorage::ceph::Cluster;

use crate::table::{Table, mib};
use crate::volumes::{policy, sixteen};

const VOLUMES: usize = 1_000;

fn thousand(suite: &Suite) {
    policy(suite, "20MB", "printf V 1<>%");
    sixteen(VOLUMES, |number| {
        let body = json!({ "tenant": "bench", "name": format!("m{number}") });
        suite.master().send("POST", "/v1/volumes", &body).ok();
    });
    suite.h1().plugin_call("VolumeDriver.List", &json!({})).ok();
}

/// Volmaster and volplugin on files.
pub fn on_files(suite: &Suite, table: &mut Table) {
    thousand(suite);
    let (master, plugin) = (suite.master().resident(), suite.h1().plugin_resident());
    table.row(
        "volmaster on files, resident, 1,000 volumes",
        "≤ 25 MiB",
        mib(master),
        "–".into(),
        "–",
    );
    table.row("volplugin, resident, 1,000 volumes", "≤ 16 MiB", mib(plugin), "–".into(), "–");
}

/// Volmaster on Ceph.
pub fn on_ceph(suite: &Suite, table: &mut Table) {
    thousand(suite);
    let master = suite.master().resident();
    let alone = testkit::Cmd::new(std::env::current_exe().expect("this program"))
        .arg("librados-idle")
        .arg(suite.ceph().conf())
        .run();
    let alone: u64 = alone.ok().trim().parse().expect("a count of bytes");
    table.row(
        "volmaster on Ceph, resident, 1,000 volumes",
        "≤ 75 MiB",
        mib(master),
        mib(alone),
        "librados and librbd alone: connected, pool open, one image listed",
    );
}

/// Connects as volmaster does, does nothing else, and prints the resident bytes.
pub fn librados_idle(conf: &Path) -> ExitCode {
    let cluster = Cluster::connect(&crate::bare::admin(conf)).expect("Ceph answers");
    let pool = cluster.pool("rbd").expect("the pool is there");
    pool.list().expect("the pool lists");
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib: Option<u64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    println!("{}", kib.expect("the kernel tells VmRSS") * 1024);
    ExitCode::SUCCESS
}
