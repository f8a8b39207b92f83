//! What every store promises, run against all three, and what each promises besides.
//!
//! The cases in `contract/` take any store. etcd is a real one, one per test, on a
//! free port, ended with the test.

#![expect(
    clippy::disallowed_methods,
    reason = "tests start etcd and themselves; the one door for processes is in a crate above"
)]
#![expect(clippy::unwrap_used, reason = "helpers outside #[test] functions are test code too")]

mod contract {
    pub mod basics;
    mod embedded_file;
    mod etcd_faults;
    pub mod leases;
    pub mod lists;
    mod mirrors;
    mod model;
    mod proxy;
    pub mod server;
    pub mod subject;
    pub mod watches;
}

use contract::{basics, leases, lists, subject, watches};

macro_rules! suite {
    ($store:ident: $($module:ident :: $case:ident,)*) => {
        mod $store {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    let subject = super::subject::$store().await;
                    super::$module::$case(&subject).await;
                }
            )*
        }
    };
}

macro_rules! every_store {
    ($($cases:tt)*) => {
        suite!(memory: $($cases)*);
        suite!(embedded: $($cases)*);
        suite!(etcd: $($cases)*);
    };
}

every_store! {
    basics::a_key_is_absent_or_at_a_revision,
    basics::a_commit_is_all_or_nothing,
    basics::revisions_grow,
    basics::what_can_never_work_is_refused,
    basics::the_largest_commits_work,
    basics::increments_add_up,
    lists::prefixes_have_sharp_edges,
    lists::pages_fit_together,
    lists::a_page_of_another_time,
    lists::big_values_are_listed,
    watches::a_watch_has_no_gap_and_keeps_the_order,
    watches::a_watch_sees_whole_revisions_of_its_prefix_only,
    watches::a_watch_may_begin_in_the_future,
    watches::a_watch_that_is_far_behind_catches_up,
    watches::a_compacted_watch_says_so,
    leases::keys_end_with_their_lease,
    leases::a_renewed_lease_lives,
    leases::a_revoked_lease_takes_its_keys,
    leases::a_key_leaves_its_lease_when_it_is_written_without,
    leases::a_lease_that_ended_takes_no_keys,
}
