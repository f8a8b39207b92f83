//! The process that serves one image of Ceph as a file, for a loop device: the data path of access `fuse`.
//!
//! One process for each volume, started by [`linux`](crate::linux) and surviving it. It connects, says by which addresses
//! the cluster knows it, and opens nothing before it is told to: so whoever started it can record those addresses first, and
//! fence them one day. To write, it takes the image's lock in exclusive mode, which no one else gets while it lives. Read-only
//! it takes none.
//!
//! Everything here blocks, on threads of the process' own. It decides nothing about volumes, knows no volmaster, and undoes
//! nothing of its own accord: it ends when its file system is unmounted.
//!
//! # What it answers when it is fenced
//!
//! When the cluster has fenced this client off, or somebody has broken its lock, the image is another's. From then on every
//! request gets EIO, also one to read: what is read would be mixed from before and after. A *mark*, a file whose name it was
//! given, tells others. An idle server finds out within [`CHECK`](watch) or so.

mod file;
mod opening;
mod signals;
mod watch;
mod words;

use std::ffi::OsString;
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::{Arc, mpsc};

use fuser::{Config, MountOption, Session, SessionACL};

use crate::ceph::{AsyncImage, Cluster};
use crate::host::Mode;
use file::ImageFile;
use opening::Opened;
use signals::Stage;
use watch::Fence;
pub(crate) use words::{OPEN, Wanted, Word};

/// The name of the process, as `ps` shows it: no longer than the kernel has room for.
pub const PROGRAM: &str = "volplugin-serve";

/// The subtype of its file system, as in `fuse.volplugin`.
const SUBTYPE: &str = "volplugin";
/// How many requests of the kernel that nobody waits for may be under way.
const BACKGROUND: usize = 2;

/// Serves an image until its file system is unmounted. The arguments are those that [`linux`](crate::linux) gives: a JSON
/// document, and the folder to mount on, by which the process is found again.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let args: Vec<OsString> = args.into_iter().collect();
    let [wanted, folder] = args.as_slice() else {
        eprintln!("{PROGRAM} is started by volplugin alone");
        return ExitCode::from(2);
    };
    let wanted = match serde_json::from_slice(wanted.as_encoded_bytes()) {
        Ok(wanted) => wanted,
        Err(error) => {
            say(&Word::Failed { reason: format!("not understood: {error}") });
            return ExitCode::from(2);
        }
    };
    signals::introduce();
    let stage = Arc::new(Stage::default());
    let told = signals::listen(Arc::clone(&stage), PathBuf::from(folder));
    match serve(&wanted, PathBuf::from(folder), &stage, &told) {
        Ok(()) => ExitCode::SUCCESS,
        Err(word) => {
            tracing::error!(?word, "the image is not served");
            say(&word);
            ExitCode::FAILURE
        }
    }
}

/// One line for whoever has started this; he may be gone.
fn say(word: &Word) {
    let line = serde_json::to_string(word).unwrap_or_default();
    drop(writeln!(std::io::stdout(), "{line}"));
}

fn serve(
    wanted: &Wanted,
    folder: PathBuf,
    stage: &Stage,
    told: &mpsc::Receiver<()>,
) -> Result<(), Word> {
    let cluster = opening::connect(wanted)?;
    let clients = cluster.clients().map_err(Word::failed)?;
    tracing::info!(pool = wanted.pool, image = wanted.image, ?clients, "connected");
    say(&Word::Connected { clients });
    // The other end is dropped only with the process.
    told.recv().map_err(|_| Word::Failed { reason: "nobody said to open".to_owned() })?;
    let Opened { image, size } = opening::open(&cluster, wanted)?;
    if !stage.begin_serving() {
        image.close().map_err(Word::failed)?;
        return Ok(());
    }
    let image = Arc::new(AsyncImage::new(image));
    let fence = Arc::new(Fence::new(wanted.mark.clone()));
    let file = ImageFile::new(wanted, size, Arc::clone(&image), Arc::clone(&fence));
    let mut config = Config::default();
    config.mount_options = vec![
        MountOption::FSName(format!("{}/{}", wanted.pool, wanted.image)),
        // As the kernel has it: the other way round it is for a helper that is not used.
        MountOption::CUSTOM(format!("subtype={SUBTYPE}")),
        match wanted.mode {
            Mode::ReadWrite => MountOption::RW,
            Mode::ReadOnly => MountOption::RO,
        },
        MountOption::NoAtime,
    ];
    config.acl = SessionACL::Owner;
    config.n_threads = Some(BACKGROUND);
    config.clone_fd = true;
    let session = Session::new(file, &folder, &config)
        .map_err(|error| Word::Failed { reason: format!("mount {}: {error}", folder.display()) })?;
    let watching = watch::begin(wanted.mode, Arc::clone(&image), Arc::clone(&fence));
    say(&Word::Ready);
    let ended = session.run();
    tracing::info!(?ended, "unmounted");
    drop(watching);
    finish(image, &fence, cluster)
}

/// Closes the image, which gives up its lock.
fn finish(image: Arc<AsyncImage>, fence: &Fence, cluster: Cluster) -> Result<(), Word> {
    if fence.is_up() {
        // There is nothing to save, and nothing to give up.
        signals::leave();
    }
    let closed = Arc::into_inner(image).map_or(Ok(()), AsyncImage::close);
    drop(cluster);
    closed.map_err(Word::failed)
}
