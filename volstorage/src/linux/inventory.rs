//! What this host has mapped and mounted, from the records, the mounts and sysfs.

use std::collections::HashSet;
use std::path::Path;

use volcore::options::Access;

use super::ledger::Record;
use super::mountinfo::Mount;
use super::nbd::NbdId;
use super::{Shared, failed, fuse, kernel, loops, mountinfo, mounts};
use crate::host::{Found, HostError, Inventory};
use crate::image::ImageSource;

/// Looks at everything. Changes nothing, and asks no file system anything.
pub(super) fn take(shared: &Shared) -> Result<Inventory, HostError> {
    let all = mountinfo::read().map_err(failed("read the mounts"))?;
    let records = shared.ledger.all().map_err(failed("read the records"))?;
    let below_root: Vec<&Mount> = all
        .iter()
        .filter(|mount| mounts::is_below(&mount.target, &shared.config.mount_root))
        .filter(|mount| mounts::is_image(&mount.source))
        .collect();
    let of_kernel = kernel::devices().unwrap_or_default();
    let mut mappings: Vec<Found> =
        records.into_iter().map(|record| recorded(shared, &of_kernel, record)).collect();
    let mut known: HashSet<ImageSource> =
        mappings.iter().map(|found| found.source.clone()).collect();
    // What has lost its record, from the FUSE mounts and from what is mounted on top.
    let shown = all.iter().filter_map(|mount| Some((shown_image(shared, mount)?, None)));
    let mounted = below_root.iter().filter_map(|mount| {
        Some((local_image(shared, &mount.source)?, Some(mount.source.clone())))
    });
    for (source, device) in shown.chain(mounted) {
        if known.insert(source.clone()) {
            mappings.push(Found { source, device });
        }
    }
    let mounts =
        below_root.iter().map(|mount| (mount.source.clone(), mount.target.clone())).collect();
    Ok(Inventory { mappings, mounts })
}

fn recorded(shared: &Shared, of_kernel: &[kernel::Device], record: Record) -> Found {
    let device = match record.access {
        Access::Kernel => {
            of_kernel.iter().find(|found| found.is(&record.source)).map(|found| found.path.clone())
        }
        Access::Nbd => record.nbd.filter(NbdId::is_there).map(|nbd| nbd.device),
        Access::Auto | Access::Fuse => record
            .attached
            .filter(|attached| attached.is_there(&shared.file(&record.source)))
            .map(loops::LoopId::device),
    };
    Found { source: record.source, device }
}

/// The image that a FUSE mount of this host shows.
fn shown_image(shared: &Shared, mount: &Mount) -> Option<ImageSource> {
    let name = mount.target.strip_prefix(&shared.config.map_root).ok()?.to_str()?;
    let (pool, image) = name.split_once('/').filter(|_| mount.filesystem == fuse::FILESYSTEM)?;
    Some(ImageSource::Rbd { pool: pool.to_owned(), image: image.to_owned() })
}

/// The local file behind a device.
fn local_image(shared: &Shared, device: &Path) -> Option<ImageSource> {
    let path = loops::backing(loops::number(device)?)?;
    (!path.starts_with(&shared.config.map_root)).then_some(ImageSource::File { path })
}
