//! The documents that are uploaded: read, checked with the rules of `volcore`, and where they
//! are wrong, shown with the line and a mark under the member.

use std::collections::BTreeMap;
use std::fmt;
use std::io::{self, IsTerminal, Read};

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use volcore::policy::{PolicyError, ScheduleError, TenantPolicy};

use crate::output::say;
use crate::plan::Source;

/// The largest document that is read.
const LARGEST: u64 = 1 << 20;
/// How much of a long line is shown.
const LONGEST_LINE: usize = 100;

/// A document that cannot be uploaded.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// It cannot be read.
    #[error("cannot read {name}")]
    Unreadable {
        /// The file.
        name: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is nothing in it.
    #[error("{name} is empty")]
    Empty {
        /// The file.
        name: String,
    },
    /// There is too much in it.
    #[error("{name} is larger than 1 MiB")]
    TooLarge {
        /// The file.
        name: String,
    },
    /// It is not text.
    #[error("{name} is not UTF-8 text: byte {at} is not")]
    NotText {
        /// The file.
        name: String,
        /// Where.
        at: usize,
    },
    /// It says something that cannot be.
    #[error("{0}")]
    Wrong(Box<Mark>),
}

/// A place in a document, and what is wrong there.
#[derive(Debug, PartialEq, Eq)]
pub struct Mark {
    name: String,
    reason: String,
    line: usize,
    /// In characters, from 1.
    column: usize,
    /// How many characters are meant.
    width: usize,
    /// The line as it stands.
    text: String,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mark { name, reason, line, column, width, text } = self;
        // Of a long line, the part around the mark.
        let skipped = if *column > LONGEST_LINE { column - LONGEST_LINE / 2 } else { 0 };
        let shown: String = text.chars().skip(skipped).take(LONGEST_LINE).collect();
        let indent = column - 1 - skipped;
        let width = (*width).min(LONGEST_LINE.saturating_sub(indent)).max(1);
        let number = line.to_string();
        let gutter = " ".repeat(number.len());
        writeln!(f, "{name}:{line}:{column}: {reason}")?;
        writeln!(f, " {number} | {}", shown.replace('\t', " "))?;
        write!(f, " {gutter} | {}{}", " ".repeat(indent), "^".repeat(width))
    }
}

/// A document's text and where it came from.
pub struct Document {
    name: String,
    text: String,
}

impl Document {
    /// Reads a file or the standard input.
    pub fn read(source: &Source) -> Result<Self, DocumentError> {
        let (name, bytes) = match source {
            Source::Stdin => {
                if io::stdin().is_terminal() {
                    say("reading from the terminal; end with Ctrl-D on a line of its own");
                }
                ("<stdin>".to_owned(), limited(io::stdin().lock()))
            }
            Source::File(path) => {
                (path.display().to_string(), std::fs::File::open(path).and_then(limited))
            }
        };
        let bytes =
            bytes.map_err(|source| DocumentError::Unreadable { name: name.clone(), source })?;
        if bytes.len() as u64 > LARGEST {
            return Err(DocumentError::TooLarge { name });
        }
        if bytes.trim_ascii().is_empty() {
            return Err(DocumentError::Empty { name });
        }
        match String::from_utf8(bytes) {
            Ok(text) => Ok(Document { name, text }),
            Err(error) => {
                Err(DocumentError::NotText { name, at: error.utf8_error().valid_up_to() })
            }
        }
    }

    /// The document as a tenant's policy, checked as a whole.
    pub fn policy(&self) -> Result<TenantPolicy, DocumentError> {
        let policy: TenantPolicy = self.parse()?;
        policy.check().map_err(|error| {
            let offset = self.find(blamed(&error)).unwrap_or(0);
            self.wrong(offset, error.to_string())
        })?;
        Ok(policy)
    }

    /// The document as any type that serde reads.
    pub fn parse<T: DeserializeOwned>(&self) -> Result<T, DocumentError> {
        serde_json::from_str(&self.text).map_err(|error| {
            let suffix = format!(" at line {} column {}", error.line(), error.column());
            let told = error.to_string();
            let reason = told.strip_suffix(&suffix).unwrap_or(&told);
            self.wrong(self.blamed_token(&error, reason), reason.to_owned())
        })
    }

    /// Where the token begins that an error of serde_json's is about.
    ///
    /// It counts columns in bytes and stops at the last byte of what it could not take, or, where a
    /// value reads but says something that cannot be, at the byte after it.
    fn blamed_token(&self, error: &serde_json::Error, reason: &str) -> usize {
        let lines = self.text.split_inclusive('\n');
        let before: usize = lines.take(error.line().saturating_sub(1)).map(str::len).sum();
        let mut at = (before + error.column().saturating_sub(1)).min(self.text.len());
        let bytes = self.text.as_bytes();
        let is_value = error.is_data() && !reason.starts_with("missing field");
        if is_value && matches!(bytes.get(at), Some(b'}' | b']' | b',')) {
            at = at.saturating_sub(1);
        }
        while at > 0 && bytes.get(at).is_none_or(u8::is_ascii_whitespace) {
            at -= 1;
        }
        self.token_start(at)
    }

    /// Where the token begins that this byte belongs to.
    fn token_start(&self, at: usize) -> usize {
        let bytes = self.text.as_bytes();
        match bytes.get(at) {
            // Its own line has the opening quote, if this is the closing one.
            Some(b'"') => {
                let open = self.text[..at].rfind('"');
                open.filter(|open| !self.text[*open..at].contains('\n')).unwrap_or(at)
            }
            Some(byte) if is_word(*byte) => {
                bytes[..at].iter().rposition(|byte| !is_word(*byte)).map_or(0, |before| before + 1)
            }
            Some(_) | None => {
                (0..=at).rev().find(|at| self.text.is_char_boundary(*at)).unwrap_or(0)
            }
        }
    }

    /// How long the token at this byte is, in characters.
    fn token_width(&self, start: usize) -> usize {
        let rest = &self.text[start..];
        let mut chars = rest.chars();
        match chars.next() {
            Some('"') => chars
                .scan(false, |escaped, c| {
                    let end = c == '\n' || (c == '"' && !*escaped);
                    *escaped = c == '\\' && !*escaped;
                    (!end).then_some(())
                })
                .count()
                .saturating_add(2)
                .min(rest.lines().next().map_or(1, |line| line.chars().count())),
            Some(c) if u8::try_from(c).is_ok_and(is_word) => {
                rest.bytes().take_while(|byte| is_word(*byte)).count()
            }
            Some(_) | None => 1,
        }
    }

    fn wrong(&self, offset: usize, reason: String) -> DocumentError {
        let before = &self.text[..offset];
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        DocumentError::Wrong(Box::new(Mark {
            name: self.name.clone(),
            reason,
            line: before.matches('\n').count() + 1,
            column: self.text[line_start..offset].chars().count() + 1,
            width: self.token_width(offset),
            text: self.text[line_start..].lines().next().unwrap_or_default().to_owned(),
        }))
    }

    /// Where the value of the last member of the path begins; of its parent where there is none.
    fn find(&self, path: &[&str]) -> Option<usize> {
        let mut value: &RawValue = serde_json::from_str(&self.text).ok()?;
        for member in path {
            let Ok(mut members) = serde_json::from_str::<BTreeMap<String, &RawValue>>(value.get())
            else {
                break;
            };
            match members.remove(*member) {
                Some(inner) => value = inner,
                None => break,
            }
        }
        // The value borrows from the text, so that its place is the distance of the two.
        (value.get().as_ptr() as usize).checked_sub(self.text.as_ptr() as usize)
    }
}

/// What numbers, `true` and the like are made of.
fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"+-._".contains(&byte)
}

/// Which member is to blame.
fn blamed(error: &PolicyError) -> &'static [&'static str] {
    match error {
        PolicyError::UnknownFilesystem { .. } => &["default-options", "filesystem"],
        PolicyError::NoFilesystem => &["filesystems"],
        PolicyError::Schedule(ScheduleError::NoFrequency | ScheduleError::NoRetention) => {
            &["default-options", "snapshots"]
        }
        PolicyError::Schedule(ScheduleError::KeepNothing) | PolicyError::KeepsTooMany { .. } => {
            &["default-options", "snapshot", "keep"]
        }
        PolicyError::Schedule(ScheduleError::KeepAndRetention) => {
            &["default-options", "snapshot", "retention"]
        }
        PolicyError::Removal(_) => &["default-options", "on-remove"],
        PolicyError::Mount(_) => &["default-options", "mount-options"],
        PolicyError::Clones => &["default-options", "from"],
    }
}

/// One byte more than may be, so that too much shows.
fn limited(reader: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    reader.take(LARGEST + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn told(text: &str) -> String {
        let document = Document { name: "p.json".into(), text: text.into() };
        match document.policy() {
            Err(error) => error.to_string(),
            Ok(_) => "fine".to_owned(),
        }
    }

    #[test]
    fn errors_point_at_the_member() {
        let table = [
            "{\"default-options\": {\n  \"sise\": \"1GB\"\n}}",
            "{\"default-options\": {\n  \"size\": \"1XB\",\n  \"pool\": \"x\"\n}}",
            "{\"default-options\": {\n\t\"ephemeral\": maybe }}",
            "{\"default-options\": {\"snapshots\": true}}",
            "{\"default-options\": {\"filesystem\": \"xfs\"}}",
            "{\"default-options\": {\"snapshot\": {\"keep\": 0}}}",
            "{\"default-options\": {},\n \"filesystems\": {}}",
            "{\"default-options\": {},\n \"filesystems\": {\"ext4\": \"mkfs.ext4\"}}",
            "{\"default-options\": {}",
            "{}",
            "[]",
            "{\"default-options\": {\"pool\": 7}}",
            "{\"default-options\": {\"pöol\": 7}}",
            "{\"default-options\": {\"snapshot\": {\"frequency\": \"30 parsecs\" }}}",
            "{\"default-options\": {}} trailing",
            "{\"default-options\": {\"pool\": {}}}",
            "{\"default-options\": {\"pool\": [1]}}",
            "{\"default-options\": {\"mount-options\": [\"noatime\", \"rw\"]}}",
            "{\"default-options\": {\"mount-options\": [\"noatime\", \"nofail\"]}}",
            "{\"default-options\": {\"sharing\": \"all\" , \"size\": 1}}",
            "{\"default-options\": {\"size\": 1, \"size\": 2}}",
            "{\"default-options\": {\"snapshot\": {\"keep\": -1}}}",
            "{\"default-options\": {\"size\": 1\n\"pool\": 2}}",
            "{\"default-options\": {\"from\": \"t/v\"}}",
            "{\"default-options\": {\"from\": \"v\"}}",
        ];
        let all: Vec<String> = table.iter().map(|text| told(text)).collect();
        insta::assert_snapshot!(all.join("\n\n"));
    }

    #[test]
    fn long_lines_are_cut_around_the_mark() {
        let text = format!("{{\"default-options\": {{{}\"sise\": 1}}}}", " ".repeat(300));
        let told = told(&text);
        assert!(told.lines().skip(1).all(|line| line.chars().count() < 200), "{told}");
        assert!(told.contains("\"sise\"") && told.contains("^^^^^^"), "{told}");
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "\\PC{0,60}|[{}\":,\\[\\]a\\n é]{0,40}") {
            told(&text);
        }

        #[test]
        fn any_broken_policy_is_told(cut in 0usize..300, noise in "[\"{}:,é\\n]{1,3}") {
            let whole = include_str!("../../policies/default.json");
            let cut = (0..=cut.min(whole.len())).rev().find(|at| whole.is_char_boundary(*at)).unwrap();
            told(&format!("{}{noise}{}", &whole[..cut], &whole[cut..]));
        }
    }
}
