//! The campaign of faults (`systemtests::chaos`): the short one here and in `make test`, a long one by `make chaos`.

use systemtests::chaos::campaign::Campaign;

#[test]
fn nothing_is_lost_or_written_twice_whatever_fails() {
    Campaign::from_environment().run();
}
