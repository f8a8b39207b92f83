//! What is told while something takes long, and how waiting for it ends early.
//!
//! All commands that may take long go through here. On a terminal it is a bar or a spinner on the standard error; with
//! `-o json` it is a stream on the standard output, one event a line before the result; elsewhere it is nothing. Ctrl-C
//! ends the waiting, not the work: whatever a command has asked for, volmaster goes on with. Knows nothing of volmaster.

use std::cell::Cell;
use std::fmt::Display;
use std::io::{self, IsTerminal};
use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::{Instant, sleep, sleep_until};

use crate::failure::Failure;
use crate::output::{self, Format, say};

/// What is done sooner is not worth a word.
const QUIET: Duration = Duration::from_secs(1);
/// How often a spinner moves.
const TICK: Duration = Duration::from_millis(100);
/// The first pause between two looks at how far something is; each is twice as long as the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// The longest one.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// What takes long.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// A volume is made as a clone.
    Clone,
    /// A clone gets all of its data itself.
    Flatten,
    /// The space of what is in the trash is freed.
    Purge,
    /// A removal waits for the holder of a volume.
    Remove,
    /// A volume is made larger, or its limits are set.
    Set,
    /// A volume comes back from the trash.
    Restore,
    /// A volume gets the data of a snapshot.
    Rollback,
}

impl Step {
    /// What a spinner says.
    fn doing(self) -> &'static str {
        match self {
            Step::Clone => "cloning",
            Step::Flatten => "flattening",
            Step::Purge => "freeing the space of",
            Step::Remove => "waiting to remove",
            Step::Set => "changing",
            Step::Restore => "restoring",
            Step::Rollback => "rolling back",
        }
    }

    /// What becomes of it when nobody waits any more.
    fn afterwards(self, object: &str) -> String {
        match self {
            Step::Flatten => format!(
                "it goes on in the background, and `volcli volume get {object}` shows how far it is"
            ),
            Step::Purge => {
                "it goes on in the background, and `volcli trash list` shows what is left"
                    .to_owned()
            }
            Step::Remove => format!(
                "an attempt that was under way may still remove it, and `volcli volume get {object}` tells"
            ),
            Step::Restore => "volmaster goes on with what has reached it".to_owned(),
            Step::Clone | Step::Set => format!(
                "volmaster goes on with what has reached it, and `volcli volume get {object}` shows what came of it"
            ),
            Step::Rollback => format!(
                "volmaster goes on with it, and the volume cannot be used until that is done; `volcli volume get {object}` shows it"
            ),
        }
    }
}

/// How progress is told, and how long is waited.
#[derive(Clone, Copy, Debug)]
pub struct Progress {
    told: Told,
    limit: Option<Duration>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    Bar,
    Events,
    Nothing,
}

/// One line of the stream.
#[derive(Serialize)]
struct Event<'a> {
    event: &'static str,
    object: &'a str,
    step: Step,
    #[serde(skip_serializing_if = "Option::is_none")]
    percent: Option<u8>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

/// Something that takes long; what was told of it is taken off the screen when this is dropped.
pub struct Task {
    told: Told,
    limit: Option<Duration>,
    object: String,
    step: Step,
    begun: Instant,
    bar: ProgressBar,
    last: Cell<Option<Option<u8>>>,
    pause: Cell<Duration>,
    /// From now on Ctrl-C ends the waiting, and no longer the program.
    interrupts: Option<Signal>,
}

impl Progress {
    /// Told as suits the form in which data is shown. What goes on in the background is waited for as long as it takes, or
    /// so long.
    pub fn new(format: Option<Format>, limit: Option<Duration>) -> Self {
        let told = match format {
            Some(Format::Json) => Told::Events,
            _ if io::stderr().is_terminal() => Told::Bar,
            _ => Told::Nothing,
        };
        Progress { told, limit }
    }

    /// Begins something on an object.
    pub fn begin(&self, object: impl Display, step: Step) -> Task {
        Task {
            told: self.told,
            limit: self.limit,
            object: object.to_string(),
            step,
            begun: Instant::now(),
            bar: ProgressBar::hidden(),
            last: Cell::new(None),
            pause: Cell::new(FIRST_PAUSE),
            interrupts: signal(SignalKind::interrupt()).ok(),
        }
    }

    /// Waits for the answer to one request, and tells if that takes long.
    pub async fn during<T, E: Into<Failure>>(
        &self,
        object: impl Display,
        step: Step,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failure> {
        self.begin(object, step).during(work).await
    }
}

impl Task {
    /// Waits for something; a failure if the user does not want to wait any longer.
    pub async fn during<T, E: Into<Failure>>(
        &mut self,
        work: impl Future<Output = Result<T, E>>,
    ) -> Result<T, Failure> {
        let mut work = std::pin::pin!(work);
        loop {
            let quiet = self.last.get().is_some();
            // The work goes on in the next round, or is given up on purpose; the other two keep nothing.
            tokio::select! {
                done = &mut work => return done.map_err(Into::into),
                () = interrupted(self.interrupts.as_mut()) => return Err(self.interrupted()),
                () = sleep_until(self.begun + QUIET), if !quiet => self.at(None, None)?,
            }
        }
    }

    /// Waits a little until it is looked again; a failure if the time to wait is over.
    pub async fn pause(&mut self, reason: Option<&str>) -> Result<(), Failure> {
        let pause = self.pause.get();
        self.pause.set((pause * 2).min(LONGEST_PAUSE));
        let left = self.limit.map(|limit| limit.saturating_sub(self.begun.elapsed()));
        if left.is_some_and(|left| left.is_zero()) {
            let reason = reason.map(|reason| format!(" ({reason})")).unwrap_or_default();
            return Err(self.ended(format!("was not done in time{reason}")));
        }
        self.during(async {
            sleep(left.map_or(pause, |left| pause.min(left))).await;
            Ok::<_, Failure>(())
        })
        .await
    }

    /// Tells how far it is, if that is news, and why it does not go on.
    pub fn at(&mut self, percent: Option<u8>, reason: Option<&str>) -> Result<(), Failure> {
        let news = self.last.replace(Some(percent)) != Some(percent);
        match self.told {
            Told::Nothing => {}
            Told::Events if news => {
                let (object, step) = (self.object.as_str(), self.step);
                let event = Event { event: "progress", object, step, percent, reason };
                output::put(&output::json_line(&event)?)?;
            }
            Told::Events => {}
            Told::Bar => self.draw(percent),
        }
        Ok(())
    }

    fn draw(&mut self, percent: Option<u8>) {
        if self.bar.is_hidden() {
            self.bar = ProgressBar::new(100);
            self.bar.enable_steady_tick(TICK);
        }
        let template = match percent {
            Some(_) => "{spinner} {msg} [{bar:30}] {percent:>3} % {elapsed}",
            None => "{spinner} {msg} {elapsed}",
        };
        // The templates are those above: one that is wrong leaves the default.
        if let Ok(style) = ProgressStyle::with_template(template) {
            self.bar.set_style(style);
        }
        self.bar.set_message(format!("{} {}", self.step.doing(), self.object));
        self.bar.set_position(u64::from(percent.unwrap_or_default()));
    }

    /// Tells the user something beside the bar.
    pub fn say(&self, line: impl Display) {
        self.bar.suspend(|| say(line));
    }

    fn interrupted(&self) -> Failure {
        self.ended("was not waited for any longer".to_owned())
    }

    fn ended(&self, why: String) -> Failure {
        let afterwards = self.step.afterwards(&self.object);
        Failure::NotWaitedFor {
            what: format!("{} {}", self.step.doing(), self.object),
            why,
            afterwards,
        }
    }
}

async fn interrupted(signals: Option<&mut Signal>) {
    match signals {
        Some(signals) => drop(signals.recv().await),
        None => std::future::pending().await,
    }
}

impl Drop for Task {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
