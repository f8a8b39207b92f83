//! What is shown: data on the standard output in the form that was asked for, all else on the
//! standard error. A reader that goes away early is no error.

use std::fmt::Display;
use std::io::{self, ErrorKind, Write};

use clap::ValueEnum;
use comfy_table::{Table, presets};
use serde::Serialize;

/// How data is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Columns for people
    Table,
    /// Everything, for programs
    Json,
    /// Everything, for people
    Yaml,
    /// Names only, one on a line
    Name,
}

/// Data that cannot be shown.
#[derive(Debug, thiserror::Error)]
pub enum OutputError {
    /// It has no JSON form.
    #[error("the answer cannot be written as JSON")]
    Json(#[from] serde_json::Error),
    /// It has no YAML form.
    #[error("the answer cannot be written as YAML")]
    Yaml(#[from] serde_yaml_ng::Error),
    /// The standard output takes nothing.
    #[error("cannot write to the standard output")]
    Stdout(#[source] io::Error),
}

/// Something that is shown: as a whole, by its name, or as a line of a table.
pub trait Row: Serialize {
    /// The headings of the table.
    const COLUMNS: &'static [&'static str];

    /// Its name.
    fn name(&self) -> String;

    /// Its line, one cell for each heading.
    fn cells(&self) -> Vec<String>;
}

/// Shows a list: names unless something else is asked for.
pub fn list<T: Row>(items: &[T], format: Option<Format>) -> Result<(), OutputError> {
    put(&match format.unwrap_or(Format::Name) {
        Format::Name => lines(items.iter().map(Row::name)),
        Format::Table => table(items),
        Format::Json => json(&items)?,
        Format::Yaml => serde_yaml_ng::to_string(&items)?,
    })
}

/// Shows one thing: JSON unless something else is asked for.
pub fn one<T: Row>(item: &T, format: Option<Format>) -> Result<(), OutputError> {
    document(item, item, format)
}

/// Shows one thing, which programs get to see as this document.
pub fn document<T: Row>(
    item: &T,
    document: &impl Serialize,
    format: Option<Format>,
) -> Result<(), OutputError> {
    put(&match format.unwrap_or(Format::Json) {
        Format::Name => lines([item.name()]),
        Format::Table => table(std::slice::from_ref(item)),
        Format::Json => json(document)?,
        Format::Yaml => serde_yaml_ng::to_string(document)?,
    })
}

/// Shows a document that has no columns, as YAML or as JSON.
pub fn value(value: &impl Serialize, format: Format) -> Result<(), OutputError> {
    put(&match format {
        Format::Yaml => serde_yaml_ng::to_string(value)?,
        Format::Json | Format::Table | Format::Name => json(value)?,
    })
}

/// Shows one thing only if a form was asked for: after a change, which is told in words.
pub fn changed<T: Row>(item: &T, format: Option<Format>) -> Result<(), OutputError> {
    match format {
        Some(_) => one(item, format),
        None => Ok(()),
    }
}

/// Shows what came of something that may have taken long: like [`changed`], and JSON is the last line of the stream.
pub fn result<T: Row>(item: &T, format: Option<Format>) -> Result<(), OutputError> {
    match format {
        Some(Format::Json) => put(&json_line(item)?),
        _ => changed(item, format),
    }
}

/// Shows what came of several of these.
pub fn results<T: Row>(items: &[T], format: Option<Format>) -> Result<(), OutputError> {
    match format {
        Some(Format::Json) => put(&json_line(&items)?),
        _ => list(items, format),
    }
}

/// A document in one line.
pub fn json_line(value: &impl Serialize) -> Result<String, OutputError> {
    Ok(serde_json::to_string(value)? + "\n")
}

fn json(value: &impl Serialize) -> Result<String, OutputError> {
    Ok(serde_json::to_string_pretty(value)? + "\n")
}

/// Each on a line of its own.
pub fn lines(items: impl IntoIterator<Item = impl Display>) -> String {
    items.into_iter().map(|item| format!("{item}\n")).collect()
}

fn table<T: Row>(items: &[T]) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING);
    table.set_header(T::COLUMNS.iter().copied());
    for item in items {
        table.add_row(item.cells().iter().map(|cell| printable(cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 3));
    }
    lines(table.lines().map(|line| line.trim_end().to_owned()))
}

/// Writes data. Success where nobody reads it any more.
pub fn put(text: &str) -> Result<(), OutputError> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(OutputError::Stdout(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Tells the user something, in a line. Nobody is told where nobody listens.
pub fn say(line: impl Display) {
    let _ = writeln!(io::stderr().lock(), "{}", printable(&line.to_string()));
}

/// Text without what moves a terminal's cursor, which a server's words may carry.
fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() && c != '\n' { char::REPLACEMENT_CHARACTER } else { c })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Serialize)]
    struct Pair(&'static str, &'static str);

    impl Row for Pair {
        const COLUMNS: &'static [&'static str] = &["NAME", "WHAT"];

        fn name(&self) -> String {
            self.0.to_owned()
        }

        fn cells(&self) -> Vec<String> {
            vec![self.0.to_owned(), self.1.to_owned()]
        }
    }

    #[test]
    fn tables_are_plain_columns() {
        insta::assert_snapshot!(table(&[Pair("a", "x\u{1b}[2Jy"), Pair("long-one", "")]), @r"
        NAME       WHAT
        a          x�[2Jy
        long-one
        ");
        assert_eq!(table::<Pair>(&[]), "NAME   WHAT\n");
    }
}
