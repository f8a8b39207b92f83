//! Every effect of every operation broken in every way: it fails, its answer is lost, the process
//! dies after it. Afterwards the operation is done again, and what is unfinished is dropped, as the
//! clean-up of a volmaster does; then there is one sound image, or none.

use std::sync::Arc;

use volstorage::fake::{Fault, Faults};
use volstorage::image::{Created, Discarded, ImageDriver, ImageError, Purged};

use super::harness::{Harness, new_image, tool};
use super::suite::{assert_nothing, id, unfinished};

/// Makes these tests those of a module.
#[macro_export]
macro_rules! broken {
    ($($test:ident),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread")]
            async fn $test() {
                $crate::breaking::$test(&harness().await).await;
            }
        )+
    };
    () => {
        $crate::broken!(create, create_with_failing_format, discard, purge, drop_unfinished);
    };
}

pub const FAULTS: [Fault; 3] = [Fault::Fails, Fault::AnswerLost, Fault::Dies];

/// More effects than any operation has.
const MANY: usize = 30;

/// One operation with its nth effect broken.
pub struct Case {
    pub driver: Arc<dyn ImageDriver>,
    pub faults: Faults,
    pub nth: usize,
    pub fault: Fault,
}

impl Case {
    pub fn text(&self) -> String {
        format!("effect {} {:?}, done {:?}", self.nth, self.fault, self.faults.effects())
    }
}

/// Runs `operate` with the first, second … effect broken, until there are no more. It gets a driver
/// that breaks, and says whether that happened. Returns how many effects there were.
pub async fn each<H: Harness>(
    h: &H,
    fault: Fault,
    operate: impl AsyncFn(&H, Case) -> bool,
) -> usize {
    for nth in 1..MANY {
        let (driver, faults) = h.breakable();
        if !operate(h, Case { driver, faults, nth, fault }).await {
            return nth - 1;
        }
    }
    panic!("an operation has no end");
}

/// Breaks; the answer tells whether the fault was reached.
pub async fn with_fault<T>(
    case: &Case,
    operation: impl Future<Output = Result<T, ImageError>>,
) -> (Result<T, ImageError>, bool) {
    case.faults.break_nth(case.nth, case.fault);
    let answer = operation.await;
    let reached = !case.faults.is_ahead();
    if case.fault == Fault::Dies && reached {
        assert!(answer.is_err(), "the dead do not answer: {}", case.text());
    }
    (answer, reached)
}

/// Drops what is unfinished, twice.
pub async fn clean_up(driver: &dyn ImageDriver, new: &volstorage::image::NewImage) {
    let left = unfinished(driver, new).await;
    for one in left.iter().chain(&left) {
        driver.drop_unfinished(one).await.unwrap();
    }
    assert_eq!(unfinished(driver, new).await, []);
}

pub async fn create(h: &impl Harness) {
    for fault in FAULTS {
        let effects = each(h, fault, async |h, case: Case| {
            let new = new_image(h.pool(), "broken");
            let (answer, reached) = with_fault(&case, case.driver.create(&new)).await;
            let text = case.text();
            case.faults.revive();
            let found = case.driver.find(&new.image).await.unwrap();
            if answer.is_ok() {
                assert!(found.is_some(), "{text}");
            }
            if fault != Fault::Dies {
                assert_eq!(unfinished(&*case.driver, &new).await, [], "{text}");
            }
            drop(case);
            // The next start finds it, or makes it, and drops the rest.
            let driver = h.driver();
            let created =
                driver.create(&new).await.unwrap_or_else(|error| panic!("{text}: {error:?}"));
            if let Some(found) = found {
                assert_eq!(created, Created::AlreadyOurs { image_id: found.id }, "{text}");
            }
            clean_up(&*driver, &new).await;
            let found = driver.find(&new.image).await.unwrap().expect("the image");
            assert_eq!(found.id, id(&created), "{text}");
            let folder = tempfile::tempdir().unwrap();
            if let Some(file) = h.export(&new.image, folder.path()).await {
                let args = ["-f", "-n", file.to_str().unwrap()];
                assert_eq!(tool("fsck.ext4", &args).await.code, 0, "{text}");
            }
            assert_eq!(h.names(&new.uid.to_string()).await, [""; 0], "{text}");
            reached
        })
        .await;
        assert!(effects >= 3, "{effects} effects");
    }
}

pub async fn create_with_failing_format(h: &impl Harness) {
    for fault in FAULTS {
        each(h, fault, async |h, case: Case| {
            let mut new = new_image(h.pool(), "unformatted");
            new.format = "echo no >&2; exit 1; : %".parse().unwrap();
            let (answer, reached) = with_fault(&case, case.driver.create(&new)).await;
            assert!(answer.is_err());
            case.faults.revive();
            drop(case);
            clean_up(&*h.driver(), &new).await;
            assert_nothing(h, &new).await;
            reached
        })
        .await;
    }
}

pub async fn discard(h: &impl Harness) {
    for fault in FAULTS {
        let effects = each(h, fault, async |h, case: Case| {
            let new = new_image(h.pool(), "broken");
            let image_id = id(&h.driver().create(&new).await.unwrap()).to_owned();
            let discard = case.driver.discard(&new.image, Some(&image_id), new.uid);
            let (answer, reached) = with_fault(&case, discard).await;
            let text = case.text();
            assert_eq!(answer.is_err(), reached, "{text}");
            case.faults.revive();
            drop(case);
            let driver = h.driver();
            let discarded = driver.discard(&new.image, Some(&image_id), new.uid).await.unwrap();
            let Discarded::Trashed(trashed) = discarded else { panic!("{text}: {discarded:?}") };
            assert_eq!(trashed.id, image_id, "{text}");
            assert_eq!(driver.find(&new.image).await.unwrap(), None, "{text}");
            assert_eq!(driver.purge(&trashed).await.unwrap(), Purged::Purged, "{text}");
            assert_nothing(h, &new).await;
            reached
        })
        .await;
        assert!(effects >= 1);
    }
}

pub async fn purge(h: &impl Harness) {
    for fault in FAULTS {
        let effects = each(h, fault, async |h, case: Case| {
            let new = new_image(h.pool(), "broken");
            let driver = h.driver();
            driver.create(&new).await.unwrap();
            let discarded = driver.discard(&new.image, None, new.uid).await.unwrap();
            let Discarded::Trashed(trashed) = discarded else { panic!("{discarded:?}") };
            let (answer, reached) = with_fault(&case, case.driver.purge(&trashed)).await;
            assert_eq!(answer.is_err(), reached, "{}", case.text());
            case.faults.revive();
            let expected =
                if reached && fault == Fault::Fails { Purged::Purged } else { Purged::Absent };
            assert_eq!(driver.purge(&trashed).await.unwrap(), expected, "{}", case.text());
            assert_nothing(h, &new).await;
            reached
        })
        .await;
        assert!(effects >= 1);
    }
}

pub async fn drop_unfinished(h: &impl Harness) {
    for fault in FAULTS {
        let effects = each(h, fault, async |h, case: Case| {
            let new = new_image(h.pool(), "broken");
            case.faults.break_nth(1, Fault::Dies);
            case.driver.create(&new).await.unwrap_err();
            case.faults.revive();
            let driver = h.breakable();
            let case = Case { driver: driver.0, faults: driver.1, ..case };
            let left = unfinished(&*h.driver(), &new).await;
            assert_eq!(left.len(), 1);
            let (answer, reached) = with_fault(&case, case.driver.drop_unfinished(&left[0])).await;
            assert_eq!(answer.is_err(), reached, "{}", case.text());
            case.faults.revive();
            clean_up(&*h.driver(), &new).await;
            assert_nothing(h, &new).await;
            reached
        })
        .await;
        assert!(effects >= 1);
    }
}
