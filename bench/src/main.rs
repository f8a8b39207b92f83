//! `make bench`: the figures, each beside its baseline, measured in one run on real servers.
//!
//! Each section starts what it needs, measures the suite and the baseline in turn, and
//! prints a row. The only crate that may look inside `volstore` and `volstorage` from a
//! bench, because their bare calls are the baselines.

mod bare;
mod data;
mod kernel;
mod lists;
mod memory;
mod snapshots;
mod table;
mod volumes;

use std::process::ExitCode;
use std::sync::Arc;

use testkit::bed::Testbed;
use testkit::ceph::Ceph;
use testkit::suite::{Size, Suite};

use crate::table::Table;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, conf] = &arguments[..]
        && mode == "librados-idle"
    {
        return memory::librados_idle(conf.as_ref());
    }
    let asked = |section: &str| arguments.iter().any(|word| word == section);
    // The emulated host has a call of its own, `make bench-vm`.
    let wanted = |section: &str| asked(section) || (arguments.is_empty() && section != "kernel");
    let known =
        ["file", "lists", "ceph", "volumes", "parallel", "snapshots", "clones", "memory", "kernel"];
    if let Some(unknown) = arguments.iter().find(|word| !known.contains(&word.as_str())) {
        eprintln!("bench: there is no section {unknown:?}; the sections are {}", known.join(", "));
        return ExitCode::from(2);
    }
    let mut table = Table::new();
    if wanted("file") || wanted("memory") {
        let suite = Suite::one_machine("files", Size::of(1, 1));
        if wanted("file") {
            volumes::file_life(&suite, &mut table);
        }
        if wanted("memory") {
            memory::on_files(&suite, &mut table);
        }
    }
    let on_ceph = ["lists", "ceph", "volumes", "parallel", "snapshots", "clones", "memory"];
    if on_ceph.into_iter().any(wanted) {
        let ceph = Arc::new(Ceph::up(&Testbed::here().folder("ceph")));
        let suite = Suite::cluster("cluster", &ceph, Size::of(1, 2));
        if wanted("ceph") {
            volumes::ceph_create(&suite, &mut table);
        }
        if wanted("ceph") || wanted("volumes") {
            volumes::ceph_mount(&suite, &mut table);
            volumes::refusal(&suite, &mut table);
        }
        if wanted("volumes") {
            data::throughput(&suite, &mut table);
        }
        if wanted("parallel") {
            volumes::ceph_parallel(&suite, &mut table);
        }
        if wanted("snapshots") {
            snapshots::thousand(&suite, &mut table);
            snapshots::retention(&mut table);
        }
        if wanted("clones") {
            snapshots::clone_and_remove(&suite, &mut table);
        }
        if wanted("memory") {
            memory::on_ceph(&suite, &mut table);
        }
        if wanted("lists") {
            lists::ten_thousand(&suite, &mut table);
        }
    }
    if wanted("kernel") {
        let ceph = Arc::new(Ceph::up(&Testbed::here().folder("ceph-kernel")));
        kernel::mount(&Suite::with_guest("kernel", &ceph, Size::of(1, 2)), &mut table);
    }
    table.print();
    ExitCode::SUCCESS
}
