//! Whether a host is the very machine that this runs on: nobody means to cut off himself.

use std::fs::{File, TryLockError};
use std::path::Path;

use volcore::name::HostName;

/// Where volplugin locks its label as long as it runs.
const RUN: &str = "/run/volplugin";

/// Whether a volplugin with this label runs on this machine.
pub fn is(host: &HostName) -> bool {
    is_in(Path::new(RUN), host)
}

fn is_in(run: &Path, host: &HostName) -> bool {
    // That it cannot be opened or locked for another reason says nothing about a volplugin.
    let Ok(label) = File::open(run.join(format!("{host}.lock"))) else { return false };
    matches!(label.try_lock_shared(), Err(TryLockError::WouldBlock))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_label_that_is_locked_is_of_this_machine() {
        let run = tempfile::tempdir().unwrap();
        let host: HostName = "h1".parse().unwrap();
        assert!(!is_in(run.path(), &host));
        let file = File::create(run.path().join("h1.lock")).unwrap();
        assert!(!is_in(run.path(), &host));
        file.lock().unwrap();
        assert!(is_in(run.path(), &host));
        assert!(!is_in(run.path(), &"h2".parse().unwrap()));
    }
}
