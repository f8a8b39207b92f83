//! The volumes of an act and their writers: they move, come back, and are looked at.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use testkit::ledger::{FILE, Ledger, Run};
use testkit::{Host, Story, Suite, poll};

use super::plan::{HOSTS, Move, VOLUMES};

/// After everything is healed, every volume is to be had within this time. The longest of what a fault leaves is the
/// watch of a dead client (30 s).
const SETTLED: Duration = Duration::from_secs(60);
/// A host that has lost a volume has nothing of it left after this time: a reconciler's pause, and what hangs meanwhile.
const RECONCILED: Duration = Duration::from_secs(40);
/// Whoever writes has acknowledged a record within this time.
const WRITES: Duration = Duration::from_secs(5);

/// The volumes, each with its ledger.
pub struct Fleet<'s> {
    story: Story<'s>,
    ledgers: Vec<Ledger>,
    /// Where an operator had to help, and why.
    helped: Mutex<Vec<String>>,
}

/// How a volume came to another host.
#[derive(Clone, Debug)]
pub struct Moved {
    /// Which and where.
    pub moved: Move,
    /// How long it took from when it was asked for, and how often it was refused; or what was said last.
    pub how: Result<(Duration, usize), String>,
}

/// Does something with all volumes at once.
fn each<'l, T: Send>(
    ledgers: &'l [Ledger],
    work: impl Fn(usize, &'l Ledger) -> T + Sync,
) -> Vec<T> {
    let work = &work;
    thread::scope(|scope| {
        let working: Vec<_> = ledgers
            .iter()
            .enumerate()
            .map(|(number, ledger)| scope.spawn(move || work(number, ledger)))
            .collect();
        working
            .into_iter()
            .map(|done| done.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
            .collect()
    })
}

impl<'s> Fleet<'s> {
    /// New volumes, each with a writer at its home.
    #[track_caller]
    pub fn begin(suite: &'s Suite, name: &str, homes: &[usize; VOLUMES]) -> Fleet<'s> {
        let story = Story::alone(suite, name);
        let folder = suite.dir.join("ledgers");
        let volume = |number: usize| Ledger::of(&story.create(&format!("v{number}"), ""), &folder);
        let ledgers: Vec<_> = (0..VOLUMES).map(volume).collect();
        each(&ledgers, |number, ledger| ledger.start(suite, &suite.hosts[homes[number]]));
        Fleet { story, ledgers, helped: Mutex::default() }
    }

    fn host(&self, label: &str) -> &'s Host {
        let hosts = &self.story.suite.hosts;
        hosts.iter().find(|host| host.label() == label).expect("a host of the suite")
    }

    /// How many records were acknowledged in this act.
    pub fn acked(&self) -> u64 {
        self.ledgers.iter().map(Ledger::acked).sum()
    }

    /// Moves a volume: whoever has it is told to end, if he hears it, and the other host asks again and again.
    pub fn relocate(&self, moved: Move, patience: Duration) -> Moved {
        let (ledger, suite) = (&self.ledgers[moved.volume], self.story.suite);
        let refused = AtomicUsize::new(0);
        let begin = Instant::now();
        // Those that are started from now on stay.
        let before = ledger.containers();
        let granted = thread::scope(|scope| {
            // What cannot be removed now is tried again when all is settled.
            scope.spawn(|| drop(ledger.remove_these(suite, &before)));
            poll::wait(patience, || {
                let started = ledger.try_start(&suite.hosts[moved.to]);
                refused.fetch_add(usize::from(started.is_err()), Ordering::Relaxed);
                let run = started?;
                // Nobody may be there to ask; then it is told later.
                let _ = ledger.tell_epoch(suite, &run);
                Ok(begin.elapsed())
            })
        });
        let how = granted.map(|took| (took, refused.load(Ordering::Relaxed)));
        Moved { moved, how }
    }

    /// After everything was healed: waits until every volume is written at its home and nowhere else. Gives which
    /// writers had ended and why.
    ///
    /// # Errors
    /// Which volume does not come back, and what was said last.
    pub fn settle(&self, homes: &[usize; VOLUMES]) -> Result<Vec<String>, String> {
        let settled = each(&self.ledgers, |number, ledger| {
            let home = &self.story.suite.hosts[homes[number]];
            let ended = ledger.last().and_then(|run| run.failed_at().map(|_| run.said()));
            let came = poll::wait(SETTLED, || self.settle_one(ledger, home));
            came.map(|()| ended.map(|said| format!("{}: {said}", ledger.volume())))
                .map_err(|said| format!("{} does not come back: {said}", ledger.volume()))
        });
        let ended = settled.into_iter().collect::<Result<Vec<_>, _>>()?;
        Ok(ended.into_iter().flatten().collect())
    }

    fn settle_one(&self, ledger: &Ledger, home: &Host) -> Result<(), String> {
        let suite = self.story.suite;
        let last =
            ledger.last().filter(|run| run.host == home.label() && run.failed_at().is_none());
        let kept = last.filter(|run| is_running(home, run));
        ledger.remove_all_but(suite, kept.as_ref())?;
        let run = match kept {
            Some(run) => run,
            None => ledger.try_start(home).inspect_err(|why| self.help(ledger, why))?,
        };
        if !run.is_told() {
            ledger.tell_epoch(suite, &run)?;
        }
        let before = run.acked();
        poll::wait(WRITES, || {
            if run.acked() > before {
                Ok(())
            } else {
                Err(format!("no new record, {}", run.said()))
            }
        })
    }

    /// Does what an operator is told to do. Nobody should have to.
    fn help(&self, ledger: &Ledger, why: &str) {
        let told =
            why.lines().find(|line| line.contains("is gone;") && line.contains("force-remove"));
        let Some(told) = told else { return };
        let removed = self.story.volcli(&format!("mount force-remove {} --yes", ledger.volume()));
        let what = format!("{} did not come back by itself: {told}: {removed}", ledger.volume());
        self.helped.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    /// Where an operator had to help since this was asked last.
    pub fn helped(&self) -> Vec<String> {
        std::mem::take(&mut *self.helped.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What must not be: after a round, when all is settled.
    pub fn violations(&self) -> Vec<String> {
        each(&self.ledgers, |_, ledger| {
            let Some(run) = ledger.last() else {
                return vec![format!("{} has no writer", ledger.volume())];
            };
            let mut wrong = self.in_ledger(ledger, &run);
            let alone = poll::wait(RECONCILED, || self.is_alone(ledger, &run));
            wrong.extend(alone.err().map(|what| format!("{}: {what}", ledger.volume())));
            wrong
        })
        .concat()
    }

    fn in_ledger(&self, ledger: &Ledger, run: &Run) -> Vec<String> {
        let read = || self.host(&run.host).read_on(&ledger.image(), FILE);
        let wrong = match ledger.check(read) {
            Ok(wrong) => wrong.iter().map(|wrong| format!("{wrong:?}")).collect(),
            Err(error) => vec![format!("the ledger cannot be read: {error}")],
        };
        wrong.into_iter().map(|wrong| format!("{}: {wrong}", ledger.volume())).collect()
    }

    /// Whether a volume is mounted once, on the host of its writer, and nothing of it is elsewhere.
    fn is_alone(&self, ledger: &Ledger, run: &Run) -> Result<(), String> {
        let image = ledger.image();
        for host in &self.story.suite.hosts {
            let (mounts, paths) = (host.writable(&image), host.data_paths(&image));
            let there = host.label() == run.host;
            if mounts.len() != usize::from(there) || paths.len() != usize::from(there) {
                return Err(format!(
                    "it is written on {}; on {} are {mounts:?}, {paths:?}",
                    run.host,
                    host.label()
                ));
            }
        }
        Ok(())
    }

    /// Looks at every volume from a host that has not had it last, and removes it; nothing may be left anywhere.
    /// Gives what must not be.
    #[track_caller]
    pub fn end(self, homes: &[usize; VOLUMES]) -> Vec<String> {
        let suite = self.story.suite;
        let wrong = each(&self.ledgers, |number, ledger| {
            ledger.remove_all_but(suite, None)?;
            let elsewhere = &suite.hosts[(homes[number] + 1) % HOSTS];
            poll::wait(SETTLED, || self.settle_one(ledger, elsewhere))?;
            let run = ledger.last().ok_or("it has no writer")?;
            let wrong = self.in_ledger(ledger, &run);
            ledger.remove_all_but(suite, None)?;
            Ok(wrong)
        });
        let told =
            wrong.into_iter().enumerate().map(|(number, looked): (usize, Result<_, String>)| {
                looked
                    .unwrap_or_else(|why| vec![format!("{}: {why}", self.ledgers[number].volume())])
            });
        let wrong: Vec<_> = told.flatten().collect();
        self.story.until_unused();
        each(&self.ledgers, |_, ledger| {
            poll::until("a volume's removal", SETTLED, || {
                let removed = suite.h1().docker(&format!("volume rm {}", ledger.volume()));
                if removed.is_ok() { Ok(()) } else { Err(removed) }
            });
        });
        self.story.until_nothing_is_left();
        wrong
    }
}

fn is_running(host: &Host, run: &Run) -> bool {
    let state = host.docker(&format!("inspect -f {{{{.State.Running}}}} {}", run.container));
    state.is_ok() && state.stdout.trim() == "true"
}
