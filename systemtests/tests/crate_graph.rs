//! Who may use whom among the crates (the table of DESIGN §2): a dependency that is not meant breaks this test.

use std::path::Path;

use serde_json::Value;
use testkit::{Cmd, golden};

fn members() -> Vec<Value> {
    let cargo = Cmd::new(env!("CARGO")).words("metadata --no-deps --offline --format-version 1");
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Cargo.toml");
    let metadata = cargo.arg("--manifest-path").arg(manifest).run().json();
    metadata["packages"].as_array().expect("packages").clone()
}

fn name(of: &Value) -> &str {
    of["name"].as_str().expect("a name")
}

/// The other members that a member needs when it is built, not for its tests.
fn uses(member: &Value) -> Vec<&str> {
    let dependencies = member["dependencies"].as_array().expect("dependencies");
    let mut used: Vec<_> = dependencies
        .iter()
        .filter(|one| one["kind"].is_null() && one["path"].is_string())
        .map(name)
        .collect();
    used.sort_unstable();
    used
}

#[test]
fn crates_use_only_what_they_may() {
    let members = members();
    let mut lines: Vec<_> = members
        .iter()
        .map(|member| format!("{}: {}", name(member), uses(member).join(" ")))
        .map(|line| format!("{}\n", line.trim()))
        .collect();
    lines.sort();
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/crate_graph.txt");
    golden::check(&file, &lines.concat());
}

/// Volcore decides and does nothing: it knows no clock, no file, no socket, no runtime.
#[test]
fn the_rules_depend_on_nothing_that_acts() {
    let members = members();
    let core = members.iter().find(|member| name(member) == "volcore").expect("volcore");
    let dependencies = core["dependencies"].as_array().expect("dependencies");
    let normal = dependencies.iter().filter(|one| one["kind"].is_null()).map(name);
    let allowed = ["serde", "thiserror", "jiff", "humantime", "parse-size", "uuid"];
    let others: Vec<_> = normal.filter(|name| !allowed.contains(name)).collect();
    assert!(others.is_empty(), "volcore depends on {others:?}");
}
