//! Removing a volume that is held: trying again until its holder has let go.

use std::cell::OnceCell;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use volapi::volumes::{RemoveQuery, Removed};
use volclient::{Client, ClientError};
use volcore::Kind;
use volcore::duration;
use volcore::name::VolumeId;

use crate::failure::Failure;
use crate::progress::Task;

/// Between two attempts.
const PAUSE: Duration = Duration::from_secs(1);

/// So much time has an attempt at least, so that also the last one is answered.
const LEAST: Duration = Duration::from_secs(10);

/// How long holders are waited for, all volumes together.
pub struct Wait {
    limit: Option<Duration>,
    /// When the first attempt was made: the time in which the user was asked does not count.
    begun: OnceCell<Instant>,
}

impl Wait {
    /// No longer than this; not at all without a limit.
    pub fn new(limit: Option<Duration>) -> Self {
        Wait { limit, begun: OnceCell::new() }
    }

    /// Removes a volume. When the time is over, the last refusal is the error.
    pub async fn volume_remove(
        &self,
        client: &Client,
        id: &VolumeId,
        task: &mut Task,
    ) -> Result<Removed, Failure> {
        let query = RemoveQuery::default();
        let Some(limit) = self.limit else {
            return task.during(client.volume_remove(id, query)).await;
        };
        let begun = *self.begun.get_or_init(Instant::now);
        let left = || limit.saturating_sub(begun.elapsed());
        let mut told = false;
        loop {
            let patient = client.within(left().max(LEAST));
            let refusal = match task.during(patient.volume_remove(id, query)).await {
                Err(Failure::Client(error)) if passes(&error) => error,
                done => return done,
            };
            if left().is_zero() {
                return Err(refusal.into());
            }
            if !told {
                told = true;
                let left = duration::show(Duration::from_secs(left().as_secs() + 1));
                task.say(format_args!("{refusal}; it is waited for, up to {left}"));
            }
            let pause = PAUSE.min(left());
            task.during(async {
                sleep(pause).await;
                Ok::<_, Failure>(())
            })
            .await?;
        }
    }
}

/// Whether a refusal may pass by itself, when containers stop or another operation ends.
fn passes(error: &ClientError) -> bool {
    error.problem().is_some_and(|problem| matches!(problem.kind, Kind::InUse | Kind::Busy))
}
