//! Texts that are checked in and compared with what is found.

use std::fs;
use std::path::Path;

/// Compares a text with a file; with `UPDATE_GOLDEN` in the environment it writes the file.
#[track_caller]
pub fn check(file: &Path, found: &str) {
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(file, found).unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        return;
    }
    let expected = fs::read_to_string(file).unwrap_or_else(|error| {
        panic!("{}: {error}; make it with UPDATE_GOLDEN=1", file.display())
    });
    if expected != found {
        let only = |left: &str, right: &str, sign| {
            let new = left.lines().filter(|line| !right.lines().any(|other| other == *line));
            new.map(|line| format!("{sign} {line}\n")).collect::<String>()
        };
        panic!(
            "{} differs from what is found; if that is meant, run again with UPDATE_GOLDEN=1\n{}{}",
            file.display(),
            only(&expected, found, '-'),
            only(found, &expected, '+')
        );
    }
}
