//! What all commands that take something away have in common: they ask first, go on after a
//! failure, tell of each name what became of it, and end with "partly done" where some failed.

use std::fmt::Display;
use std::io::{self, IsTerminal, Write};

use serde::Serialize;

use super::Context;
use crate::failure::{Exit, Failure};
use crate::output::{self, Row, say};
use crate::plan::Care;

/// What became of one name.
#[derive(Debug, Serialize)]
struct Fate {
    name: String,
    result: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Row for Fate {
    const COLUMNS: &'static [&'static str] = &["NAME", "RESULT", "ERROR"];

    fn name(&self) -> String {
        self.name.clone()
    }

    fn cells(&self) -> Vec<String> {
        vec![self.name.clone(), self.result.clone(), self.error.clone().unwrap_or_default()]
    }
}

/// How a command speaks of what it does.
pub struct Words<'a> {
    /// One of what it removes, e.g. `volume`.
    pub noun: &'static str,
    /// What has become of it, e.g. `removed`.
    pub result: &'static str,
    /// What it asks: `Remove {names} and all data on them?`
    pub question: &'a dyn Fn(&str) -> String,
}

impl<'a> Words<'a> {
    /// Of what is removed.
    pub fn removal(noun: &'static str, question: &'a dyn Fn(&str) -> String) -> Self {
        Words { noun, result: "removed", question }
    }
}

/// Removes each name. `remove` and `look` answer with what they did or would do, in words.
pub async fn each<T: Display>(
    context: &Context,
    words: &Words<'_>,
    names: &[T],
    care: Care,
    remove: impl AsyncFn(&T) -> Result<String, Failure>,
    look: impl AsyncFn(&T) -> Result<String, Failure>,
) -> Result<Exit, Failure> {
    if care == Care::Ask && !names.is_empty() && !confirmed(words, names) {
        return Err(Failure::Declined);
    }
    let mut fates = Vec::with_capacity(names.len());
    let mut failed = 0;
    for name in names {
        let (done, result) = match care {
            Care::DryRun => (look(name).await, format!("would be {}", words.result)),
            Care::Ask | Care::Go => (remove(name).await, words.result.to_owned()),
        };
        let name = name.to_string();
        match done {
            Ok(told) => {
                say(format_args!("{} {name}: {told}", words.noun));
                fates.push(Fate { name, result, error: None });
            }
            Err(failure) => {
                failure.tell();
                failed += 1;
                let error = Some(volapi::problem::chain(&failure));
                fates.push(Fate { name, result: "failed".to_owned(), error });
            }
        }
    }
    if context.format.is_some() {
        output::list(&fates, context.format)?;
    }
    Ok(match failed {
        0 => Exit::Done,
        _ if failed == names.len() => Exit::Failed,
        _ => Exit::Partly,
    })
}

/// Asks on a terminal. Elsewhere there is nobody to ask, and scripts mean what they say.
fn confirmed<T: Display>(words: &Words<'_>, names: &[T]) -> bool {
    if !(io::stdin().is_terminal() && io::stderr().is_terminal()) {
        return true;
    }
    let plural = if names.len() == 1 { "" } else { "s" };
    let names = names.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
    let question = (words.question)(&format!("{}{plural} {names}", words.noun));
    let mut stderr = io::stderr().lock();
    let _ = write!(stderr, "{question} [y/N] ").and_then(|()| stderr.flush());
    let mut answer = String::new();
    let read = io::stdin().read_line(&mut answer).is_ok();
    read && matches!(answer.trim().to_ascii_lowercase().as_str(), "y" | "yes")
}
