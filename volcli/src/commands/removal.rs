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
pub struct Fate {
    name: String,
    result: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

impl Fate {
    /// Whether what was to become of it has.
    pub fn is_done(&self) -> bool {
        self.error.is_none()
    }
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
    /// Whether what it does may take long.
    pub pace: Pace,
}

/// Whether something may take long, so that events may stand before its result.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// It is done when it is asked for.
    Quick,
    /// It may be waited for.
    Long,
}

impl<'a> Words<'a> {
    /// Of what is removed.
    pub fn removal(noun: &'static str, question: &'a dyn Fn(&str) -> String) -> Self {
        Words { noun, result: "removed", question, pace: Pace::Quick }
    }
}

/// Removes each name, and shows what became of it. `remove` and `look` answer with what they did or would do, in words.
pub async fn each<T: Display>(
    context: &Context,
    words: &Words<'_>,
    names: &[T],
    care: Care,
    remove: impl AsyncFn(&T) -> Result<String, Failure>,
    look: impl AsyncFn(&T) -> Result<String, Failure>,
) -> Result<Exit, Failure> {
    let fates = fates(words, names, care, remove, look).await?;
    show(context, words, &fates)?;
    Ok(exit(&fates, names))
}

/// Shows what became of names, if a form was asked for.
pub fn show(context: &Context, words: &Words<'_>, fates: &[Fate]) -> Result<(), Failure> {
    match (context.format, words.pace) {
        (None, _) => {}
        (format, Pace::Quick) => output::list(fates, format)?,
        (format, Pace::Long) => output::results(fates, format)?,
    }
    Ok(())
}

/// How a command ends with which so much became of so many names.
pub fn exit<T>(fates: &[Fate], names: &[T]) -> Exit {
    let done = fates.iter().filter(|fate| fate.is_done()).count();
    match names.len() - done {
        0 => Exit::Done,
        _ if done == 0 => Exit::Failed,
        _ => Exit::Partly,
    }
}

/// Removes each name; whoever does not want to wait for one is not made to wait for the others.
pub async fn fates<T: Display>(
    words: &Words<'_>,
    names: &[T],
    care: Care,
    remove: impl AsyncFn(&T) -> Result<String, Failure>,
    look: impl AsyncFn(&T) -> Result<String, Failure>,
) -> Result<Vec<Fate>, Failure> {
    if care == Care::Ask && !names.is_empty() && !confirmed(words, names) {
        return Err(Failure::Declined);
    }
    let mut fates = Vec::with_capacity(names.len());
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
                let error = Some(volapi::problem::chain(&failure));
                fates.push(Fate { name, result: "failed".to_owned(), error });
                if matches!(failure, Failure::NotWaitedFor { .. }) {
                    break;
                }
            }
        }
    }
    Ok(fates)
}

/// Whether somebody has said that it is to be done even to what lives: by `--yes`, or on a terminal by the answer to
/// the question, which was asked before.
pub fn is_insisted(care: Care) -> bool {
    match care {
        Care::Go => true,
        Care::Ask => is_asked(),
        Care::DryRun => false,
    }
}

/// Whether there is somebody who can be asked.
fn is_asked() -> bool {
    io::stdin().is_terminal() && io::stderr().is_terminal()
}

/// Asks on a terminal. Elsewhere there is nobody to ask, and scripts mean what they say.
fn confirmed<T: Display>(words: &Words<'_>, names: &[T]) -> bool {
    if !is_asked() {
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
