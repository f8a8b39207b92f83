//! The help of every command and the words for a wrong command line are promises; they stand in
//! `tests/golden/`. After a change: `TRYCMD=overwrite cargo test -p volcli --test help`.

#[test]
fn help_and_usage_errors() {
    trycmd::TestCases::new().case("tests/golden/*.md");
}
