//! Every command against a volmaster in memory: what is on the standard output, what on the
//! standard error, and how it ends.

#![expect(clippy::unwrap_used, reason = "a test that cannot run its program has failed")]

mod support;

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::process::Stdio;

use assert_cmd::cargo::cargo_bin;
use serde_json::Value;
use support::Fake;

const POLICY: &str = r#"{"default-options": {"size": "10MB"}}"#;

/// What a run of the program left.
struct Run {
    code: i32,
    stdout: String,
    stderr: String,
}

impl Run {
    fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap()
    }
}

fn run_with(fake: &Fake, line: &str, stdin: &str) -> Run {
    let mut command = assert_cmd::Command::new(cargo_bin("volcli"));
    let output = command
        .args(line.split_whitespace())
        .env("VOLCLI_MASTER", &fake.url)
        .write_stdin(stdin)
        .output()
        .unwrap();
    Run {
        code: output.status.code().unwrap(),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    }
}

fn run(fake: &Fake, line: &str) -> Run {
    run_with(fake, line, "")
}

fn done(fake: &Fake, line: &str) -> Run {
    let run = run(fake, line);
    assert_eq!(run.code, 0, "{line}: {}", run.stderr);
    run
}

/// A fake with a tenant and two volumes.
fn furnished() -> Fake {
    let fake = Fake::start();
    assert_eq!(run_with(&fake, "tenant upload t", POLICY).code, 0);
    done(&fake, "volume create t/a");
    done(&fake, "volume create t/b --opt size=1GB");
    fake
}

/// Runs the lines and notes all that they say.
fn transcript(fake: &Fake, lines: &[&str]) -> String {
    let mut told = String::new();
    for line in lines {
        let Run { code, stdout, stderr } = run(fake, line);
        writeln!(told, "$ volcli {line}").unwrap();
        told.push_str(&stdout);
        stderr.lines().for_each(|line| writeln!(told, "2> {line}").unwrap());
        if code != 0 {
            writeln!(told, "exit {code}").unwrap();
        }
    }
    told
}

#[test]
fn tenants_are_uploaded_shown_and_deleted() {
    let fake = Fake::start();
    let first = run_with(&fake, "tenant upload t", POLICY);
    assert_eq!((first.code, first.stdout.as_str()), (0, ""));
    assert_eq!(first.stderr, "tenant t: revision 1\n");
    let again = run_with(&fake, "tenant upload t -", POLICY);
    assert_eq!(again.stderr, "tenant t: unchanged, it has this policy as revision 1\n");
    let other =
        run_with(&fake, "tenant upload t -o json", r#"{"default-options": {"size": "20MB"}}"#);
    assert_eq!(other.stderr, "tenant t: revision 2\n");
    assert_eq!(other.json()["revision"], 2);

    let policy = done(&fake, "tenant get t");
    assert_eq!(policy.json()["default-options"]["size"], "20 MiB");
    let round_trip = run_with(&fake, "tenant upload t", &policy.stdout);
    assert!(round_trip.stderr.contains("unchanged"), "{}", round_trip.stderr);
    insta::assert_snapshot!(transcript(
        &fake,
        &[
            "tenant list",
            "tenant list -o table",
            "tenant history t",
            "tenant history t 1",
            "tenant history t -o table",
            "tenant history t 3",
            "tenant delete t --dry-run",
            "tenant delete t -o json",
            "tenant delete t",
            "tenant get t",
            "tenant list",
        ]
    ));
}

#[test]
fn a_check_sends_nothing() {
    let fake = Fake::start();
    let checked = run_with(&fake, "tenant upload t --check", POLICY);
    assert_eq!(checked.code, 0, "{}", checked.stderr);
    let wrong = run_with(&fake, "tenant upload t", "{\n  \"default-options\": {\"sise\": 1}\n}");
    assert_eq!(wrong.code, 1);
    assert!(
        wrong.stderr.starts_with("error: <stdin>:2:23: unknown field `sise`"),
        "{}",
        wrong.stderr
    );
    assert!(wrong.stderr.ends_with("   |                       ^^^^^^\n"), "{}", wrong.stderr);
    let empty = run(&fake, "tenant upload t");
    assert_eq!((empty.code, empty.stderr.as_str()), (1, "error: <stdin> is empty\n"));
    let missing = run(&fake, "tenant upload t no/such/file.json");
    assert_eq!(missing.code, 1);
    assert!(
        missing.stderr.contains("cannot read no/such/file.json: No such file"),
        "{}",
        missing.stderr
    );
    assert!(fake.requests().is_empty(), "{:?}", fake.requests());
}

#[test]
fn volumes_are_created_shown_and_removed() {
    let fake = furnished();
    fake.hold("t/b", "h1");
    insta::assert_snapshot!(transcript(
        &fake,
        &[
            "volume create t/a",
            "volume create t a --opt size=3GB",
            "volume create u/a",
            "volume create t/c -o name",
            "volume list t",
            "volume list nobody",
            "volume list-all",
            "volume list-all -o table",
            "volume get t/a",
            "volume get t a -o table",
            "volume get t/a -o name",
            "volume get t/zzz",
            "volume remove t/a t/b --dry-run",
            "volume remove t a",
            "volume remove t/a t/b t/c",
            "volume remove t/a t/b",
            "volume force-remove t/b",
            "mount force-remove t/b",
            "volume force-remove t/b --dry-run",
            "volume force-remove t/b",
            "volume list-all -o json",
        ]
    ));
}

#[test]
fn volumes_are_changed() {
    let fake = furnished();
    let lines = [
        "volume set t/a rate-limit.write.bps=1000000 rate-limit.read.iops=100",
        "volume set t a rate-limit.read.iops=0",
        "volume set t/a rate-limit.write.bps=2 -o name",
        "volume set t/zzz rate-limit.write.bps=2",
        "volume set t/a size=2GB",
    ];
    let mut told = transcript(&fake, &lines);
    fake.data.lock().unwrap().limits_fail = Some("ceph cannot be reached");
    told.push_str(&transcript(&fake, &["volume set t/a rate-limit.write.bps=3"]));
    insta::assert_snapshot!(told);
    assert_eq!(done(&fake, "volume get t/a").json()["options"]["rate-limit"]["write-bps"], 3);
}

#[test]
fn mounts_hosts_and_settings() {
    let fake = furnished();
    fake.hold("t/a", "h1");
    fake.session("h1");
    insta::assert_snapshot!(transcript(
        &fake,
        &[
            "mount list",
            "mount list t -o table",
            "mount list other",
            "mount get t/a -o yaml",
            "mount get t/b",
            "mount force-remove t/a --dry-run",
            "mount force-remove t a -o table",
            "mount force-remove t/a",
            "mount force-remove t/nothing",
            "host list",
            "host list -o table",
            "host get h1",
            "host forget h1 --dry-run",
            "host forget h1 h2",
            "host get h1",
            "global get",
        ]
    ));
    let upload = run_with(&fake, "global upload", r#"{"session-ttl": "30s"}"#);
    assert_eq!(upload.stderr, "settings: session-ttl is 30s\n");
    assert_eq!(done(&fake, "global get").json()["session-ttl"], "30s");
    let wrong = run_with(&fake, "global upload", r#"{"session-ttl": "1s"}"#);
    assert_eq!(wrong.code, 1);
    assert!(wrong.stderr.contains("out of range"), "{}", wrong.stderr);
}

#[test]
fn status_tells_and_fails_with_its_parts() {
    let fake = furnished();
    insta::assert_snapshot!(transcript(&fake, &["status", "status -o name"]));
    assert_eq!(done(&fake, "status -o json").json()["volumes"], 2);
    fake.data.lock().unwrap().images_down = true;
    let run = run(&fake, "status");
    assert_eq!(run.code, 1);
    assert!(run.stdout.contains("FAILED   rbd: timed out"), "{}", run.stdout);
}

#[test]
fn lists_of_names_ask_for_little() {
    let fake = furnished();
    done(&fake, "volume list t");
    done(&fake, "volume list t -o json");
    let requests = fake.requests();
    let asked: Vec<&str> = requests.iter().rev().take(2).map(String::as_str).collect();
    let agent = concat!("volcli/", env!("CARGO_PKG_VERSION"));
    assert_eq!(
        asked,
        [
            format!("GET /v1/volumes?tenant=t&limit=2000 {agent}"),
            format!("GET /v1/volumes?limit=20000&view=brief {agent}"),
        ]
    );
}

#[test]
fn nobody_at_the_address() {
    let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let fake = Fake::start();
    let run = run(&fake, &format!("volume get t/a --master http://{address}"));
    assert_eq!((run.code, run.stdout.as_str()), (1, ""));
    for part in ["volume t/a", &format!("http://{address}"), "--master", "VOLCLI_MASTER"] {
        assert!(run.stderr.contains(part), "{part}: {}", run.stderr);
    }
    // With a second address there is no need to say anything.
    let flags = format!("--master http://{address} --master {}", fake.url);
    assert_eq!(run_with(&fake, &format!("volume list-all {flags}"), "").code, 0);
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    #![expect(clippy::disallowed_methods, reason = "the pipe has to be closed by hand")]
    let fake = furnished();
    for line in ["completion bash", "man", "--help", "volume list-all", "help volume create"] {
        let mut child = std::process::Command::new(cargo_bin("volcli"))
            .args(line.split_whitespace())
            .env("VOLCLI_MASTER", &fake.url)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        drop(child.stdout.take());
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!((child.wait().unwrap().code(), stderr.as_str()), (Some(0), ""), "{line}");
    }
}

#[test]
fn completions_and_man_pages_come_from_the_same_definition() {
    let fake = Fake::start();
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(done(&fake, &format!("completion {shell}")).stdout.contains("force-remove"));
    }
    assert!(done(&fake, "man").stdout.starts_with(".ie"));
    let dir = tempfile::tempdir().unwrap();
    done(&fake, &format!("man --dir {}/man1", dir.path().display()));
    assert!(dir.path().join("man1/volcli-volume-force-remove.1").exists());
    let mut file = std::fs::File::create(dir.path().join("file")).unwrap();
    file.write_all(b"x").unwrap();
    let failed = run(&fake, &format!("man --dir {}/file", dir.path().display()));
    assert_eq!(failed.code, 1);
    assert!(failed.stderr.contains("cannot write the man pages"), "{}", failed.stderr);
}
