//! A fault plan: breaks the first, second, third … effect of a driver, to see that what is left can
//! be cleaned up or taken up again.
//!
//! The fakes have one, and so do the real image drivers, where it is empty unless a test fills it.
//! An *effect* is one change outside the process: an image created, a file renamed. Reading is none.
//! The plan must not know what the effects are.

use std::sync::{Arc, Mutex, PoisonError};

use crate::image::ImageError;

/// What happens at the effect that was chosen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// It fails: it does not happen, and the caller learns that.
    Fails,
    /// It happens, but the answer is lost: the caller gets an error.
    AnswerLost,
    /// It happens, and then the process "dies": the caller gets an error, and no later effect
    /// happens until [`Faults::revive`].
    Dies,
}

/// The error of an effect that the plan broke.
#[derive(Debug, thiserror::Error)]
#[error("fault plan: {effect} {}", what(*fault))]
pub struct Broken {
    /// Which effect.
    pub effect: &'static str,
    /// In which way.
    pub fault: Fault,
}

fn what(fault: Fault) -> &'static str {
    match fault {
        Fault::Fails => "failed",
        Fault::AnswerLost => "was done and its answer lost",
        Fault::Dies => "found the process dead, or was its last",
    }
}

impl From<Broken> for ImageError {
    fn from(broken: Broken) -> ImageError {
        ImageError::Unreachable {
            store: "the store".to_owned(),
            action: broken.effect.to_owned(),
            source: Box::new(broken),
        }
    }
}

/// Counts effects and breaks one. Clones share the plan. The default is empty for good: it counts
/// nothing and costs nothing.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    plan: Option<Arc<Mutex<Plan>>>,
}

#[derive(Debug, Default)]
struct Plan {
    /// How many effects to go, the broken one included.
    ahead: Option<(usize, Fault)>,
    dead: bool,
    done: Vec<&'static str>,
}

enum Verdict {
    Done,
    DoneAnd(Fault),
    NotDone(Fault),
}

impl Plan {
    fn judge(&mut self, effect: &'static str) -> Verdict {
        if self.dead {
            return Verdict::NotDone(Fault::Dies);
        }
        let verdict = match self.ahead.take() {
            Some((1, Fault::Fails)) => return Verdict::NotDone(Fault::Fails),
            Some((1, fault)) => Verdict::DoneAnd(fault),
            Some((ahead, fault)) => {
                self.ahead = Some((ahead.saturating_sub(1), fault));
                Verdict::Done
            }
            None => Verdict::Done,
        };
        self.done.push(effect);
        verdict
    }
}

impl Faults {
    /// A plan in which nothing breaks yet, and effects are counted.
    pub fn counting() -> Faults {
        Faults { plan: Some(Arc::default()) }
    }

    /// Breaks the `nth` effect from now on, the first being 1, and forgets those before. Does
    /// nothing to an empty plan.
    pub fn break_nth(&self, nth: usize, fault: Fault) {
        self.with(|plan| *plan = Plan { ahead: Some((nth.max(1), fault)), ..Plan::default() });
    }

    /// Ends a death, and takes back what was planned and not reached.
    pub fn revive(&self) {
        self.with(|plan| *plan = Plan::default());
    }

    /// The effects that were done, or tried, since the last [`break_nth`](Self::break_nth) or
    /// [`revive`](Self::revive), in their order.
    pub fn effects(&self) -> Vec<&'static str> {
        self.with(|plan| plan.done.clone()).unwrap_or_default()
    }

    /// Whether the fault that was planned is still to come.
    pub fn is_ahead(&self) -> bool {
        self.with(|plan| plan.ahead.is_some()).unwrap_or_default()
    }

    /// Fails when the process "is dead": for what is no effect, but could not be done either.
    ///
    /// # Errors
    /// When it is.
    pub fn alive(&self, what: &'static str) -> Result<(), Broken> {
        match self.with(|plan| plan.dead) {
            Some(true) => Err(Broken { effect: what, fault: Fault::Dies }),
            Some(false) | None => Ok(()),
        }
    }

    /// Does an effect, unless the plan is against it. One that fails by itself counts too.
    ///
    /// # Errors
    /// What `act` says, or that the plan broke it.
    pub fn effect<T, E: From<Broken>>(
        &self,
        effect: &'static str,
        act: impl FnOnce() -> Result<T, E>,
    ) -> Result<T, E> {
        match self.with(|plan| plan.judge(effect)) {
            None | Some(Verdict::Done) => act(),
            Some(Verdict::DoneAnd(fault)) => {
                let done = act();
                self.with(|plan| plan.dead |= fault == Fault::Dies);
                done?;
                Err(Broken { effect, fault }.into())
            }
            Some(Verdict::NotDone(fault)) => Err(Broken { effect, fault }.into()),
        }
    }

    fn with<T>(&self, look: impl FnOnce(&mut Plan) -> T) -> Option<T> {
        let plan = self.plan.as_ref()?;
        Some(look(&mut plan.lock().unwrap_or_else(PoisonError::into_inner)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three(faults: &Faults) -> (Vec<u8>, Vec<bool>) {
        let mut seen = Vec::new();
        let answers = [1, 2, 3].map(|n| {
            let act = || {
                seen.push(n);
                Ok::<_, Broken>(())
            };
            faults.effect("count", act).is_ok()
        });
        (seen, answers.to_vec())
    }

    #[test]
    fn each_fault_has_its_effect() {
        let faults = Faults::counting();
        assert_eq!(three(&faults), (vec![1, 2, 3], vec![true, true, true]));
        faults.break_nth(2, Fault::Fails);
        assert!(faults.is_ahead());
        assert_eq!(three(&faults), (vec![1, 3], vec![true, false, true]));
        assert!(!faults.is_ahead());
        faults.break_nth(2, Fault::AnswerLost);
        assert_eq!(three(&faults), (vec![1, 2, 3], vec![true, false, true]));
        faults.break_nth(2, Fault::Dies);
        assert_eq!(three(&faults), (vec![1, 2], vec![true, false, false]));
        assert!(faults.alive("read").is_err());
        assert_eq!(faults.effects(), ["count"; 2]);
        faults.revive();
        assert_eq!(three(&faults), (vec![1, 2, 3], vec![true, true, true]));
    }

    #[test]
    fn an_empty_plan_breaks_nothing() {
        let faults = Faults::default();
        faults.break_nth(1, Fault::Dies);
        assert_eq!(three(&faults).1, [true, true, true]);
        assert_eq!(faults.effects(), [""; 0]);
    }
}
