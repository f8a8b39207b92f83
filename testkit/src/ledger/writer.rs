//! The containers that write a ledger, and what they have acknowledged.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::{Acks, Violation, check};
use crate::host::Host;
use crate::poll;
use crate::suite::Suite;

/// The ledger's name on its volume.
pub const FILE: &str = "ledger";

/// Writes records of the epoch that it is told in `/run/ledger/epoch`, each synced before it is acknowledged in
/// `/run/ledger/acked`, and says in `/run/ledger/ended` which one could not be written. Appending, writing and syncing are one
/// process with one descriptor, so that an error of any of them is its own.
const WRITER: &str = r#"
until read -r epoch 2>/dev/null </run/ledger/epoch; do sleep 0.02; done
set -- $(tail -c 64 /data/ledger 2>/dev/null)
seq=${1:-0} sum=${4:-0}
while :; do
    prev=$sum seq=$((seq + 1))
    sum=$(((prev ^ seq) * 1099511628211 & 0x7fffffffffffffff))
    sum=$(((sum ^ epoch) * 1099511628211 & 0x7fffffffffffffff))
    if ! printf '%10d %8d %19d %19d end\n' $seq $epoch $prev $sum |
        dd bs=64 iflag=fullblock of=/data/ledger oflag=append conv=notrunc,fsync 2>/run/ledger/said; then
        echo $seq >/run/ledger/ended
        exit 1
    fi
    echo $seq $sum >>/run/ledger/acked
    sleep 0.02
done
"#;

/// A volume's ledger: all containers that ever wrote it.
#[derive(Debug)]
pub struct Ledger {
    volume: String,
    folder: PathBuf,
    runs: Mutex<Vec<Run>>,
    /// All containers that may be there, by host: also those of which Docker has not said whether they are.
    made: Mutex<Vec<Made>>,
    tried: AtomicUsize,
}

/// A container on the host with this label, which may be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    host: String,
    container: String,
}

/// One container of a ledger.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// The container's name.
    pub container: String,
    /// The label of the host that it runs on.
    pub host: String,
    /// What it shares with us.
    folder: PathBuf,
}

impl Ledger {
    /// Of a volume; the acknowledgements are kept in a folder on this machine.
    #[track_caller]
    pub fn of(volume: &str, folder: &Path) -> Ledger {
        let folder = folder.join(volume.replace('/', "."));
        fs::create_dir_all(&folder).expect("a folder for a ledger");
        let (runs, made) = (Mutex::default(), Mutex::default());
        Ledger { volume: volume.to_owned(), folder, runs, made, tried: AtomicUsize::new(0) }
    }

    /// `tenant/volume`.
    pub fn volume(&self) -> &str {
        &self.volume
    }

    /// `tenant.volume`.
    pub fn image(&self) -> String {
        self.volume.replace('/', ".")
    }

    fn runs(&self) -> MutexGuard<'_, Vec<Run>> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn made(&self) -> MutexGuard<'_, Vec<Made>> {
        self.made.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The container that was started last.
    pub fn last(&self) -> Option<Run> {
        self.runs().last().cloned()
    }

    /// Starts one more writer on a host, if the volume is to be had there. It writes when it has been told its epoch.
    ///
    /// # Errors
    /// What Docker said. The container is removed, or has to be by [`Ledger::remove_all_but`].
    #[track_caller]
    pub fn try_start(&self, host: &Host) -> Result<Run, String> {
        // No two have a folder in common, so that one of which nobody knows whether it runs is never told an epoch.
        let number = self.tried.fetch_add(1, Ordering::Relaxed) + 1;
        let container = format!("ledger-{}-{number}", self.image());
        let folder = self.folder.join(format!("{number}"));
        fs::create_dir_all(&folder).expect("a folder for a run");
        let made = Made { host: host.label().to_owned(), container: container.clone() };
        self.made().push(made.clone());
        let options = format!("-v {}:/data -v {}:/run/ledger", self.volume, folder.display());
        let outcome = host.try_start(&container, &options, WRITER);
        if !outcome.is_ok() {
            return Err(self
                .remove(host, &made)
                .err()
                .map_or_else(|| outcome.to_string(), |removed| format!("{outcome}\n{removed}")));
        }
        let run = Run { container, host: made.host, folder };
        self.runs().push(run.clone());
        Ok(run)
    }

    fn remove(&self, host: &Host, made: &Made) -> Result<(), String> {
        let removed = host.docker(&format!("rm -f {}", made.container));
        if removed.is_ok() || removed.stderr.contains("No such container") {
            self.made().retain(|other| other != made);
            return Ok(());
        }
        Err(removed.to_string())
    }

    /// The containers that may be there. One that is being started is among them.
    pub fn containers(&self) -> Vec<Made> {
        self.made().clone()
    }

    /// Removes all containers but one. Nobody may be starting one meanwhile.
    ///
    /// # Errors
    /// What Docker said of those that may be there still.
    #[track_caller]
    pub fn remove_all_but(&self, suite: &Suite, kept: Option<&Run>) -> Result<(), String> {
        let mut made = self.containers();
        made.retain(|made| kept.is_none_or(|run| run.container != made.container));
        self.remove_these(suite, &made)
    }

    /// Removes these containers.
    ///
    /// # Errors
    /// What Docker said of those that may be there still.
    #[track_caller]
    pub fn remove_these(&self, suite: &Suite, made: &[Made]) -> Result<(), String> {
        let failed: Vec<_> = made
            .iter()
            .filter_map(|made| {
                let host = suite.hosts.iter().find(|host| host.label() == made.host);
                self.remove(host.expect("a host of the suite"), made).err()
            })
            .collect();
        if failed.is_empty() { Ok(()) } else { Err(failed.join("\n")) }
    }

    /// Tells a writer the epoch of its claim, if a volmaster says that its host holds the volume.
    ///
    /// # Errors
    /// What it said instead.
    pub fn tell_epoch(&self, suite: &Suite, run: &Run) -> Result<u64, String> {
        let path = format!("/v1/mounts/{}", self.volume);
        let mut said = "no volmaster answers".to_owned();
        for master in &suite.masters {
            let Some(claim) = master.ask(&path, Duration::from_secs(2)) else { continue };
            match claim["epoch"].as_u64() {
                Some(epoch) if claim["host"] == *run.host => {
                    let new = run.folder.join("epoch.new");
                    fs::write(&new, format!("{epoch}\n")).expect("the epoch is written");
                    fs::rename(new, run.folder.join("epoch")).expect("the epoch is told");
                    return Ok(epoch);
                }
                _ => said = claim.to_string(),
            }
        }
        Err(said)
    }

    /// Starts one more writer, and waits until it writes.
    #[track_caller]
    pub fn start(&self, suite: &Suite, host: &Host) -> Run {
        let run = self.try_start(host).unwrap_or_else(|why| panic!("{why}"));
        let what = format!("the epoch of {}", self.volume);
        poll::until(&what, Duration::from_secs(20), || self.tell_epoch(suite, &run));
        self.writes_on(&run);
        run
    }

    /// Waits until a writer has acknowledged one more record.
    #[track_caller]
    pub fn writes_on(&self, run: &Run) -> u64 {
        let before = run.acked();
        let what = format!("{} to write on", run.container);
        poll::until(&what, Duration::from_secs(60), || {
            let acked = run.acked();
            if acked > before { Ok(acked) } else { Err(format!("{acked} records, {}", run.said())) }
        })
    }

    /// How many records were acknowledged by all writers.
    pub fn acked(&self) -> u64 {
        self.runs().iter().map(Run::acked).sum()
    }

    /// What is wrong with what is on the volume now. What was acknowledged is read first, so that a
    /// writer may go on meanwhile.
    pub fn check(
        &self,
        read: impl FnOnce() -> std::io::Result<Vec<u8>>,
    ) -> std::io::Result<Vec<Violation>> {
        let acks: Vec<_> = self.runs().iter().map(Run::acks).collect();
        Ok(check(&read()?, &acks))
    }
}

impl Run {
    fn read(&self, file: &str) -> String {
        fs::read_to_string(self.folder.join(file)).unwrap_or_default()
    }

    /// Whether it has been told its epoch.
    pub fn is_told(&self) -> bool {
        !self.read("epoch").is_empty()
    }

    /// The record that it could not write; it has ended with that.
    pub fn failed_at(&self) -> Option<u64> {
        self.read("ended").trim().parse().ok()
    }

    /// How many records it has acknowledged.
    pub fn acked(&self) -> u64 {
        u64::try_from(self.acks().acked.len()).expect("few enough")
    }

    /// What `dd` said last, and the last record.
    pub fn said(&self) -> String {
        let (failed, said) = (self.failed_at(), self.read("said"));
        format!("failed at {failed:?}: {}", said.trim())
    }

    /// What it has acknowledged. A line that is being written does not count yet.
    pub fn acks(&self) -> Acks {
        let text = self.read("acked");
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        let acked = whole.lines().map(|line| {
            let (seq, sum) =
                line.split_once(' ').unwrap_or_else(|| panic!("no acknowledgement: {line:?}"));
            (seq.parse().expect("a number"), sum.parse().expect("a sum"))
        });
        Acks {
            epoch: self.read("epoch").trim().parse().unwrap_or_default(),
            acked: acked.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::command::Cmd;
    use crate::ledger::RECORD;

    /// The script as a container runs it, on a folder instead of a volume, until it has acknowledged so many.
    fn write(folder: &Path, run: &Run, count: u64) {
        fs::create_dir_all(&run.folder).expect("a folder");
        fs::write(run.folder.join("epoch"), "7\n").expect("an epoch");
        let script = WRITER
            .replace("/run/ledger", &run.folder.display().to_string())
            .replace("/data", &folder.display().to_string())
            .replace(
                "while :",
                &format!("while [ $(wc -l <{}/acked) -lt {count} ]", run.folder.display()),
            );
        fs::write(run.folder.join("acked"), "").expect("a file");
        Cmd::new("busybox").args(["sh", "-c", &script]).run().ok();
    }

    #[test]
    fn what_the_script_writes_is_what_is_checked() {
        let bed = tempfile::tempdir().expect("a folder");
        let ledger = Ledger::of("t/v", bed.path());
        for number in ["1", "2"] {
            let run = Run {
                container: number.to_owned(),
                host: "h".to_owned(),
                folder: ledger.folder.join(number),
            };
            write(bed.path(), &run, 5);
            ledger.runs().push(run);
        }
        let read = || fs::read(bed.path().join(FILE));
        assert_eq!(read().expect("a ledger").len(), 10 * RECORD);
        assert_eq!(ledger.check(read).expect("a ledger"), []);
        assert_eq!(ledger.acked(), 10);
        let cut = || read().map(|bytes| bytes[..9 * RECORD].to_vec());
        assert_eq!(ledger.check(cut).expect("a ledger"), [Violation::Lost { seq: 10, epoch: 7 }]);
    }

    #[test]
    fn a_writer_that_cannot_write_ends_and_says_so() {
        let bed = tempfile::tempdir().expect("a folder");
        let run =
            Run { container: String::new(), host: String::new(), folder: bed.path().join("run") };
        fs::create_dir_all(&run.folder).expect("a folder");
        fs::write(run.folder.join("epoch"), "1\n").expect("an epoch");
        let script = WRITER.replace("/run/ledger", &run.folder.display().to_string());
        let script = script.replace("/data", "/nonexistent");
        assert_eq!(Cmd::new("busybox").args(["sh", "-c", &script]).run().code(), 1);
        assert_eq!((run.failed_at(), run.acked()), (Some(1), 0));
    }
}
