//! What the kernel said about a mapping: its answer to a write is a number, and the reason is in its log.

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;

/// How many lines go into an error.
const LINES: usize = 4;

/// The kernel's log from now on. Best effort: not everybody may read it.
pub(super) struct KernelLog(Option<File>);

impl KernelLog {
    pub fn from_now_on() -> KernelLog {
        let opened = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open("/dev/kmsg");
        KernelLog(opened.ok().and_then(|mut file| {
            file.seek(SeekFrom::End(0)).ok()?;
            Some(file)
        }))
    }

    /// What rbd and libceph have said since, the last lines of it.
    pub fn said(self) -> Option<String> {
        let mut file = self.0?;
        let (mut lines, mut record) = (Vec::new(), [0; 8192]);
        loop {
            match file.read(&mut record) {
                Ok(0) => break,
                Ok(len) => lines.extend(line(&record[..len])),
                // Records were overwritten meanwhile; the next read goes on behind them.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => break,
            }
        }
        lines.dedup();
        let last = lines.split_off(lines.len().saturating_sub(LINES));
        (!last.is_empty()).then(|| last.join("; "))
    }
}

/// The message of a record (`level,number,time,flags;message`, Documentation/ABI/testing/dev-kmsg of the kernel),
/// when it is one of rbd's.
fn line(record: &[u8]) -> Option<String> {
    let record = String::from_utf8_lossy(record);
    let message = record.split_once(';')?.1.lines().next()?.trim();
    let is_ours = ["rbd:", "libceph:", "rbd "].iter().any(|start| message.starts_with(start))
        || message
            .strip_prefix("rbd")
            .is_some_and(|rest| rest.starts_with(|c: char| c.is_ascii_digit()));
    is_ours.then(|| message.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_of_rbd_are_kept() {
        for (record, wanted) in [
            (&b"3,812,5023041,-;rbd: Unknown parameter 'nonsense'\n SUBSYSTEM=bus\n"[..], true),
            (b"6,813,5023042,-;libceph: mon0 (1)127.0.0.1:1 connect error", true),
            (b"4,814,5023043,-;rbd0: failed to acquire lock: -110", true),
            (b"6,815,5023044,-;EXT4-fs (rbd0): mounted filesystem", false),
            (b"nonsense", false),
        ] {
            let found = line(record);
            assert_eq!(found.is_some(), wanted, "{found:?}");
            assert!(found.is_none_or(|found| !found.contains('\n') && !found.contains(';')));
        }
    }
}
