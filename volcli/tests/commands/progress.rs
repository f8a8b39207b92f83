//! What takes long: what is told meanwhile on a pipe, as JSON and on a terminal, and how waiting ends early.

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use assert_cmd::cargo::cargo_bin;
use serde_json::{Value, json};

use crate::support::Fake;
use crate::{POLICY, Run};

/// How a run ended, its output, and what it said.
fn run(fake: &Fake, line: &str) -> (i32, String, String) {
    let Run { code, stdout, stderr } = crate::run(fake, line);
    (code, stdout, stderr)
}

/// A fake with `t/v`, its snapshot `before`, and `t/c`, a clone of that.
fn furnished() -> Fake {
    let fake = Fake::start();
    assert_eq!(crate::run_with(&fake, "tenant upload t", POLICY).code, 0);
    for line in ["volume create t/v", "snapshot create t/v before", "snapshot clone t/v@before t/c"]
    {
        crate::done(&fake, line);
    }
    fake
}

fn goes(percent: u8) -> Value {
    json!({"since": "2026-01-02T03:04:05Z", "under_way": true, "percent": percent})
}

fn waits(reason: &str) -> Value {
    json!({"since": "2026-01-02T03:04:05Z", "under_way": false, "reason": reason})
}

/// The events of a stream, and what came last. Each line is a document of its own.
fn events(stdout: &str) -> (Vec<String>, Value) {
    let mut lines: Vec<&str> = stdout.lines().collect();
    let last = serde_json::from_str(lines.pop().unwrap()).unwrap();
    for line in &lines {
        let event: Value = serde_json::from_str(line).unwrap();
        assert_eq!(event["event"], "progress", "{line}");
    }
    (lines.into_iter().map(str::to_owned).collect(), last)
}

#[test]
fn nothing_is_told_on_a_pipe_but_what_came_of_it() {
    let fake = furnished();
    fake.data.lock().unwrap().flattening = [goes(0), goes(42), goes(99)].into();
    let (code, stdout, stderr) = run(&fake, "volume flatten t/c");
    assert_eq!((code, stdout.as_str()), (0, ""), "{stderr}");
    assert_eq!(stderr, "volume t/c: flattened, it shares no data with t/v@before any more\n");
    let (code, _, stderr) = run(&fake, "volume flatten t/c");
    assert_eq!((code, stderr.as_str()), (0, "volume t/c: flat, it shares no data with another\n"));
    let (code, _, stderr) = run(&fake, "volume flatten t/none");
    assert_eq!(code, 1);
    assert!(stderr.starts_with("error: volume t/none"), "{stderr}");
}

#[test]
fn each_step_is_a_line_of_json() {
    let fake = furnished();
    let reason = "the kernel of host h1 holds the image";
    fake.data.lock().unwrap().flattening =
        [waits(reason), goes(0), goes(42), goes(42), goes(99)].into();
    let (code, stdout, stderr) = run(&fake, "volume flatten t/c -o json");
    assert_eq!(code, 0, "{stderr}");
    let (told, last) = events(&stdout);
    insta::assert_snapshot!(told.join("\n"), @r#"
    {"event":"progress","object":"t/c","step":"flatten","reason":"the kernel of host h1 holds the image"}
    {"event":"progress","object":"t/c","step":"flatten","percent":0}
    {"event":"progress","object":"t/c","step":"flatten","percent":42}
    {"event":"progress","object":"t/c","step":"flatten","percent":99}
    "#);
    assert_eq!((&last["name"], last.get("parent")), (&json!("c"), None), "{last}");
    insta::assert_snapshot!(stderr, @r"
    volume t/c: not yet, and tried again: the kernel of host h1 holds the image
    volume t/c: flattened, it shares no data with t/v@before any more
    ");
}

#[test]
fn a_table_says_how_far_it_is() {
    let fake = furnished();
    assert_eq!(run(&fake, "volume flatten t/c --no-wait").0, 0);
    fake.data.lock().unwrap().flattening = [waits("held"), goes(42)].into();
    for expected in ["ready, to be flattened", "ready, flattening 42 %", "ready   "] {
        let (_, stdout, _) = run(&fake, "volume get t/c -o table");
        assert!(stdout.contains(expected), "{expected}: {stdout}");
    }
}

#[test]
fn a_clone_is_flattened_at_once_or_in_the_background() {
    let fake = furnished();
    fake.data.lock().unwrap().flattening = [goes(50)].into();
    let (code, stdout, stderr) = run(&fake, "snapshot clone t/v@before t/d --flatten -o json");
    assert_eq!(code, 0, "{stderr}");
    let (told, last) = events(&stdout);
    assert_eq!(told, [r#"{"event":"progress","object":"t/d","step":"flatten","percent":50}"#]);
    assert_eq!(last["options"]["from"], "t/v@before");
    assert_eq!(last.get("parent"), None);
    insta::assert_snapshot!(stderr, @r"
    volume t/d: created as a clone of t/v@before; 10 MiB, ext4, image rbd/t.d
    volume t/d: flattened, it shares no data with t/v@before any more
    ");
    for flag in ["--no-wait", "--detach"] {
        let line = format!("snapshot clone t/v@before t/e --flatten {flag} -o json");
        let (code, stdout, stderr) = run(&fake, &line);
        assert_eq!(code, 0, "{stderr}");
        let (told, last) = events(&stdout);
        assert!(told.is_empty() && last["flattening"]["under_way"] == false, "{stdout}");
        assert!(stderr.ends_with("volume t/e: is flattened in the background; `volcli volume get t/e` shows how far it is\n"), "{stderr}");
    }
    assert_eq!(
        run(&fake, "snapshot clone t/v@before t/f --no-wait").0,
        2,
        "there is nothing to wait for"
    );
}

#[test]
fn waiting_ends_when_its_time_is_over() {
    let fake = furnished();
    fake.data.lock().unwrap().flattening = vec![waits("held"); 1000].into();
    let begin = Instant::now();
    let (code, stdout, stderr) = run(&fake, "volume flatten t/c --timeout 2s -o json");
    assert_eq!(code, 1);
    assert!(begin.elapsed() >= Duration::from_secs(2), "{:?}", begin.elapsed());
    assert_eq!(stdout.lines().count(), 1, "no result: {stdout}");
    insta::assert_snapshot!(stderr, @r"
    volume t/c: not yet, and tried again: held
    error: flattening t/c was not done in time (held); it goes on in the background, and `volcli volume get t/c` shows how far it is
    ");
}

#[test]
fn purging_is_waited_for_if_that_is_wanted() {
    let fake = furnished();
    for (id, volume) in [("id7", "t/x"), ("id8", "t/y")] {
        fake.throw_away(id, volume, 3, true);
    }
    fake.data.lock().unwrap().freed_after = 2;
    let (code, stdout, stderr) = run(&fake, "trash purge id7 id8 none --wait -o json");
    assert_eq!(code, 3, "{stderr}");
    let (told, last) = events(&stdout);
    assert_eq!(told, [r#"{"event":"progress","object":"trash","step":"purge","percent":0}"#]);
    let results: Vec<&Value> =
        last.as_array().unwrap().iter().map(|fate| &fate["result"]).collect();
    assert_eq!(results, ["purged", "purged", "failed"]);
    assert_eq!(run(&fake, "trash list").1, "");
}

#[test]
fn an_answer_that_takes_long_is_told_of() {
    let fake = furnished();
    let (_, stdout, _) = run(&fake, "volume resize t/v 20MB -o json");
    assert!(events(&stdout).0.is_empty(), "it took no time: {stdout}");
    fake.data.lock().unwrap().slow = Duration::from_millis(1500);
    let (code, stdout, stderr) = run(&fake, "volume resize t/v 30MB -o json");
    assert_eq!(code, 0, "{stderr}");
    let (told, last) = events(&stdout);
    assert_eq!(told, [r#"{"event":"progress","object":"t/v","step":"set"}"#]);
    assert_eq!(last["options"]["size"], "30 MiB");
}

#[test]
fn a_removal_that_waits_for_a_holder_is_told_of() {
    let fake = furnished();
    fake.hold("t/v", "h1");
    fake.data.lock().unwrap().lets_go_after = Some(2);
    let (code, stdout, stderr) = run(&fake, "volume remove t/v --timeout 60s -o json");
    assert_eq!(code, 0, "{stderr}");
    let (told, last) = events(&stdout);
    assert_eq!(told, [r#"{"event":"progress","object":"t/v","step":"remove"}"#]);
    assert_eq!(last, json!([{"name": "t/v", "result": "removed"}]));
}

/// Ctrl-C in the middle: the exit status is 1, what becomes of the work is said, and nothing more is sent.
#[test]
fn ctrl_c_ends_the_waiting_and_not_the_work() {
    #![expect(clippy::disallowed_methods, reason = "it is sent a signal while it runs")]
    let fake = furnished();
    fake.data.lock().unwrap().flattening = vec![goes(42); 10_000].into();
    let mut child = Command::new(cargo_bin("volcli"))
        .args(["volume", "flatten", "t/c", "-o", "json"])
        .env("VOLCLI_MASTER", &fake.url)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    stdout.read_line(&mut line).unwrap();
    assert_eq!(
        line,
        "{\"event\":\"progress\",\"object\":\"t/c\",\"step\":\"flatten\",\"percent\":42}\n"
    );
    let sent = Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap();
    assert!(sent.success());
    let mut stderr = String::new();
    child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(1));
    insta::assert_snapshot!(stderr, @"error: flattening t/c was not waited for any longer; it goes on in the background, and `volcli volume get t/c` shows how far it is");
    let volume = fake.data.lock().unwrap().volumes["t/c"].clone();
    assert!(volume.get("flattening").is_some(), "{volume}");
}

/// On a terminal there is a bar, on the standard error alone.
#[test]
fn on_a_terminal_there_is_a_bar() {
    #![expect(clippy::disallowed_methods, reason = "it gets a terminal")]
    let fake = furnished();
    fake.data.lock().unwrap().flattening = [goes(0), goes(42), goes(42), goes(43)].into();
    let line = format!("'{}' volume flatten t/c > /dev/null", cargo_bin("volcli").display());
    let output = Command::new("script")
        .args(["-qec", &line, "/dev/null"])
        .env("VOLCLI_MASTER", &fake.url)
        .env("TERM", "xterm")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let shown = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{shown}");
    for part in ["flattening t/c", " 42 %", "flattened, it shares no data"] {
        assert!(shown.contains(part), "{part}: {shown}");
    }
}
