//! Puts a file system into an image without mapping it.
//!
//! The format command of the policy runs on a sparse file of the volume's size: in place for the
//! `file` driver, in a scratch folder for the `rbd` driver, which then writes the pieces that hold
//! data. That takes milliseconds, and neither a mapping nor the rights of a host.
//!
//! # Regular file first, loop device second
//!
//! `mkfs` programs are content with a regular file. A command that ends with another status than 0
//! on one is run once more, on a loop device over the same file, blank again: some commands need a
//! block device. Then the second run counts, and its error is the one reported. Where no loop device
//! is to be had, the first error is. A command that was killed, by a signal or when [`DEADLINE`] had
//! passed, is not run again. The deadline is for both runs together.

pub mod pieces;
pub mod scratch;

pub(crate) mod loopdev;

use std::fs::{File, OpenOptions};
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use volcore::format::FormatCommand;
use volcore::size::Size;

use self::loopdev::LoopDevice;
use self::pieces::Pieces;
use self::scratch::{Scratch, ScratchFile};
use crate::blocking;
use crate::image::ImageError;
use crate::process::{Ending, ProcessError, Program, Run};

/// How long formatting may take.
pub const DEADLINE: Duration = Duration::from_secs(60);

/// How long to wait for the local disk, or for a loop device: attaching one was seen to take 29 s
/// while others were busy.
const LOCAL: Duration = Duration::from_secs(30);

/// Runs format commands.
#[derive(Clone, Debug)]
pub struct Formatter {
    shell: Program,
}

/// How a command ended that was not killed.
enum Ran {
    Well,
    Refused(ImageError),
}

impl Default for Formatter {
    fn default() -> Self {
        Formatter::new()
    }
}

impl Formatter {
    /// Looks for the shell.
    pub fn new() -> Formatter {
        Formatter { shell: Program::find("sh", "dash") }
    }

    /// Runs the command on a new sparse file in the scratch folder.
    ///
    /// # Errors
    /// As for [`format_in_place`](Self::format_in_place).
    pub async fn format(
        &self,
        scratch: &Scratch,
        command: &FormatCommand,
        size: Size,
    ) -> Result<Formatted, ImageError> {
        let folder = scratch.clone();
        let file = on_disk("make a scratch file", move || folder.file(size.bytes())).await?;
        self.format_in_place(command, file.path(), size).await?;
        Ok(Formatted { file })
    }

    /// Runs the command on a blank file of that size. Its path must be [plain](is_plain).
    ///
    /// # Errors
    /// [`ImageError::Format`] when the command fails, takes too long, writes nothing or changes the
    /// size of the file. What is in the file then is undefined.
    pub async fn format_in_place(
        &self,
        command: &FormatCommand,
        path: &Path,
        size: Size,
    ) -> Result<(), ImageError> {
        let begin = Instant::now();
        if let Ran::Refused(first) = self.run(command, path, DEADLINE).await? {
            let file = path.to_owned();
            let attach =
                move || blank(&file, size.bytes()).and_then(|()| LoopDevice::attach(&file));
            let Ok(device) = on_disk("attach a loop device", attach).await else {
                return Err(first);
            };
            let left = DEADLINE.saturating_sub(begin.elapsed());
            if let Ran::Refused(second) = self.run(command, device.path(), left).await? {
                return Err(second);
            }
            on_disk("write what is in a loop device's cache", move || device.sync()).await?;
        }
        let file = path.to_owned();
        let look = move || complaint(&file, size.bytes());
        match on_disk("look at a formatted file", look).await? {
            None => Ok(()),
            Some(complaint) => Err(ImageError::Format {
                command: command_line(command, path),
                status: Ending::Exit(0).to_string(),
                stderr: complaint.to_owned(),
            }),
        }
    }

    async fn run(
        &self,
        command: &FormatCommand,
        device: &Path,
        deadline: Duration,
    ) -> Result<Ran, ImageError> {
        let line = command_line(command, device);
        match Run::new(&self.shell, deadline).arg("-c").arg(&line).output().await {
            Ok(_) => Ok(Ran::Well),
            Err(ProcessError::Failed { ending, stderr, .. }) => {
                let status = ending.to_string();
                let full = is_about_space(&stderr);
                let action = format!("run the format command `{line}` on the local disk");
                let error = ImageError::Format { command: line, status, stderr };
                match ending {
                    _ if full => Err(ImageError::NoSpace { action, source: Box::new(error) }),
                    Ending::Exit(_) => Ok(Ran::Refused(error)),
                    Ending::Signal(_) | Ending::Deadline(_) => Err(error),
                }
            }
            Err(error) => {
                let action = format!("run the format command `{line}`");
                Err(ImageError::Failed { action, source: Box::new(error) })
            }
        }
    }
}

fn command_line(command: &FormatCommand, device: &Path) -> String {
    command.for_device(&device.to_string_lossy())
}

/// A formatted sparse file in the scratch folder; removed on drop.
#[derive(Debug)]
pub struct Formatted {
    file: ScratchFile,
}

impl Formatted {
    /// How many bytes of [`pieces`](Self::pieces) there are at most. Space that is only set aside is none: the journal of
    /// a large ext4 alone has 1 GiB of it. Blocking.
    ///
    /// # Errors
    /// When the file cannot be looked at.
    pub fn bytes(&self) -> io::Result<u64> {
        self.pieces()?.bytes()
    }

    /// What has to be written to a blank image of the same size to make it equal. Blocking.
    ///
    /// # Errors
    /// When the file cannot be opened.
    pub fn pieces(&self) -> io::Result<Pieces> {
        Pieces::of(File::open(self.file.path())?)
    }
}

/// Whether a path can be put into a shell command as it is: absolute, and made of letters, digits
/// and `/._-` only.
pub fn is_plain(path: &Path) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "/._-".contains(c);
    path.is_absolute() && path.to_str().is_some_and(|text| text.chars().all(plain))
}

/// Makes a file blank, and that long.
fn blank(path: &Path, len: u64) -> io::Result<()> {
    let file = OpenOptions::new().write(true).open(path)?;
    file.set_len(0)?;
    file.set_len(len)
}

/// What is wrong with a file that was formatted.
fn complaint(path: &Path, len: u64) -> io::Result<Option<&'static str>> {
    let file = File::open(path)?;
    if file.metadata()?.len() != len {
        return Ok(Some("it changed the size of the device"));
    }
    match Pieces::of(file)?.next() {
        Some(piece) => piece.map(|_| None),
        None => Ok(Some("it left the device blank")),
    }
}

/// Does something with local files through the door for blocking calls.
async fn on_disk<T: Send + 'static>(
    action: &'static str,
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, ImageError> {
    off_thread(action, move || work().map_err(|error| io_failed(action, error))).await
}

/// Like it, for what has error texts of its own.
pub(crate) async fn off_thread<T: Send + 'static>(
    action: &str,
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    off_thread_within(LOCAL, action, work).await
}

/// The same with a deadline of the caller's.
pub(crate) async fn off_thread_within<T: Send + 'static>(
    deadline: Duration,
    action: &str,
    work: impl FnOnce() -> Result<T, ImageError> + Send + 'static,
) -> Result<T, ImageError> {
    blocking::run(action, deadline, work).await.unwrap_or_else(|blocked| {
        Err(ImageError::Unreachable {
            store: "the local disk".to_owned(),
            action: action.to_owned(),
            source: Box::new(blocked),
        })
    })
}

/// The error for something that failed with local files.
pub(crate) fn io_failed(action: &str, error: io::Error) -> ImageError {
    let (action, full) = (action.to_owned(), is_full(&error));
    let source = Box::new(error);
    if full {
        ImageError::NoSpace { action, source }
    } else {
        ImageError::Failed { action, source }
    }
}

/// Whether a command said that the disk is full; children speak the C locale.
fn is_about_space(stderr: &str) -> bool {
    ["No space left on device", "Disk quota exceeded"].iter().any(|text| stderr.contains(text))
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests;
