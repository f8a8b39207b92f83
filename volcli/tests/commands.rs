//! Every command against a volmaster in memory: what is on the standard output, what on the
//! standard error, and how it ends.

#![expect(clippy::unwrap_used, reason = "a test that cannot run its program has failed")]

#[path = "commands/progress.rs"]
mod progress;
mod support;

use std::fmt::Write as _;
use std::io::{Read, Write};
use std::process::Stdio;

use assert_cmd::cargo::cargo_bin;
use serde_json::Value;
use support::Fake;
use volapi::doctor::{FindingKind, Remedy};

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
fn images_are_adopted() {
    let fake = furnished();
    let images = [("rbd/t.left", "20 MiB"), ("ssd/t.fast", "1 GiB")];
    fake.data.lock().unwrap().images =
        images.map(|(image, size)| (image.to_owned(), size.to_owned())).into();
    insta::assert_snapshot!(transcript(
        &fake,
        &[
            "volume adopt t/left",
            "volume adopt t left",
            "volume adopt t/fast",
            "volume adopt t/fast --opt pool=ssd -o table",
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
        "volume resize t a 3GB",
        "volume resize t/a 1GB",
        "volume resize t/zzz 1GB",
        "volume set t/a pool=fast",
    ];
    let mut told = transcript(&fake, &lines);
    fake.data.lock().unwrap().limits_fail = Some("ceph cannot be reached");
    told.push_str(&transcript(&fake, &["volume set t/a rate-limit.write.bps=3"]));
    insta::assert_snapshot!(told);
    assert_eq!(done(&fake, "volume get t/a").json()["options"]["rate-limit"]["write-bps"], 3);
}

#[test]
fn snapshots_are_taken_shown_cloned_and_removed() {
    let fake = furnished();
    fake.schedule("t/a", None);
    insta::assert_snapshot!(transcript(
        &fake,
        &[
            "snapshot create t/a before",
            "snapshot create t/a@before",
            "snapshot create t a after -o name",
            "snapshot create t/a@as-table -o table",
            "snapshot create t/zzz@x",
            "snapshot list t/a",
            "snapshot list t a -o table",
            "snapshot list t/b -o table",
            "snapshot list t/zzz",
            "snapshot get t/a@before",
            "snapshot get t/a@before -o table",
            "snapshot get t/a@zzz",
            "snapshot clone t/a@before t/clone",
            "snapshot clone t/a@before t/clone",
            "snapshot clone t/a t/live --opt size=20MB -o name",
            "snapshot clone t/a@zzz t/none",
            "snapshot clone t/a@before u/none",
            "snapshot remove t/a@before t/a@zzz --dry-run",
            "snapshot remove t/a before -o json",
            "snapshot remove t/a@before t/a@after",
            "snapshot remove t/a@before",
            "snapshot list t/a -o json",
        ]
    ));
}

#[test]
fn names_of_snapshots_ask_for_no_usage() {
    let fake = furnished();
    done(&fake, "snapshot list t/a");
    done(&fake, "snapshot list t/a -o yaml");
    let requests = fake.requests();
    let asked: Vec<&str> =
        requests.iter().rev().take(2).filter_map(|line| line.split(' ').nth(1)).collect();
    assert_eq!(asked, ["/v1/volumes/t/a/snapshots?usage=true", "/v1/volumes/t/a/snapshots"]);
}

#[test]
fn volumes_go_back_to_a_snapshot() {
    let fake = furnished();
    done(&fake, "snapshot create t/a before");
    done(&fake, "snapshot create t/b before");
    fake.hold("t/b", "h1");
    let mut told = transcript(
        &fake,
        &[
            "snapshot rollback t/a@before --dry-run",
            "snapshot rollback t/a@before",
            "snapshot rollback t a before -o json",
            "snapshot rollback t/a@zzz",
            "snapshot rollback t/a@zzz --dry-run",
            "snapshot rollback t/b@before --dry-run",
            "snapshot rollback t/b@before",
        ],
    );
    fake.data.lock().unwrap().images_down = true;
    told.push_str(&transcript(&fake, &["snapshot rollback t/a@before"]));
    insta::assert_snapshot!(told);
}

/// The first request is taken and answered by nothing; a second one would be seen.
#[test]
fn a_rollback_whose_answer_is_lost_is_not_sent_again_and_not_known() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let taken = std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let read = connection.read(&mut [0; 4096]).unwrap();
        drop(connection);
        listener.set_nonblocking(true).unwrap();
        (read, listener)
    });
    let fake = Fake::start();
    let run = run(&fake, &format!("snapshot rollback t/a@before -o json --master {url}"));
    let (read, listener) = taken.join().unwrap();
    assert!(read > 0);
    assert!(listener.accept().is_err(), "it was sent twice");
    assert_eq!(run.code, 1);
    for part in [
        "it is not known whether volume t/a was rolled back to snapshot before",
        "`volcli volume get t/a`",
        "the connection broke",
    ] {
        assert!(run.stderr.contains(part), "{part}: {}", run.stderr);
    }
    assert_eq!(run.json()[0]["result"], "failed");
    assert!(fake.requests().is_empty());
}

/// A create that is sent again finds the snapshot that it has taken itself.
#[test]
fn a_snapshot_whose_answer_is_lost_was_taken() {
    let fake = furnished();
    fake.data.lock().unwrap().lose_snapshot = true;
    let masters = format!("--master {0} --master {0}", fake.url);
    let run = done(&fake, &format!("snapshot create t/a@before {masters}"));
    assert_eq!(run.stderr, "snapshot t/a@before: taken at 2026-01-02T03:04:05Z\n");
    let creates = fake.requests().iter().filter(|line| line.contains("/snapshots ")).count();
    assert_eq!(creates, 2);
}

#[test]
fn schedules_are_listed_and_shown_with_their_volumes() {
    let fake = furnished();
    fake.schedule("t/a", None);
    fake.schedule("t/b", Some("ceph cannot be reached"));
    insta::assert_snapshot!(transcript(
        &fake,
        &[
            "schedule list",
            "schedules list t -o table",
            "schedule ls other",
            "schedule list -o yaml",
            "volume get t/a -o table",
            "volume get t/b -o table",
        ]
    ));
}

#[test]
fn the_trash_is_shown_restored_from_and_purged() {
    let fake = furnished();
    fake.throw_away("1a", "t/old", 3, true);
    fake.throw_away("2b", "t/old", 5, true);
    fake.throw_away("3c", "t/old", 7, false);
    fake.throw_away("4d", "t/gone", 4, false);
    fake.data.lock().unwrap().volumes.get_mut("t/b").unwrap()["options"]["on-remove"] =
        "trash".into();
    insta::assert_snapshot!(transcript(
        &fake,
        &[
            "trash list",
            "trash list -o table",
            "trash get 1a",
            "trash get zzz",
            "volume restore t/none",
            "volume restore t/gone",
            "volume restore t/a --id 1a",
            "volume restore t/old",
            "volume restore t old --as t/older -o name",
            "volume restore t/old",
            "volume remove t/b",
            "trash restore id2 --as t/a",
            "trash restore id2 --as t/b2",
            "trash restore id2",
            "volume list t",
            "trash purge 3c zzz --dry-run",
            "trash purge 3c zzz",
            "trash purge zzz -o table",
        ]
    ));
}

#[test]
fn the_whole_trash_is_purged() {
    let fake = furnished();
    fake.throw_away("1a", "t/old", 3, true);
    fake.throw_away("2b", "t/other", 5, true);
    insta::assert_snapshot!(transcript(
        &fake,
        &[
            "trash purge --all --dry-run",
            "trash list",
            "trash purge --all --yes -o json",
            "trash purge --all",
            "trash list -o table",
        ]
    ));
}

#[test]
fn the_doctor_tells_and_mends() {
    let fake = furnished();
    let mut told = transcript(&fake, &["doctor", "doctor --fix", "doctor -o json"]);
    fake.ails(FindingKind::TrashWithoutImage, "6f96", Remedy::Fix);
    fake.ails(FindingKind::OrphanImage, "t/c", Remedy::Operator);
    told.push_str(&transcript(
        &fake,
        &["doctor", "doctor -o name", "doctor --fix", "doctor --fix", "doctor -o yaml"],
    ));
    fake.data.lock().unwrap().findings.clear();
    fake.ails(FindingKind::LogWithoutVolume, "t/d", Remedy::Fix);
    told.push_str(&transcript(
        &fake,
        &["doctor --fix -o json", "doctor --fix", "doctor --etcd http://e:2379"],
    ));
    insta::assert_snapshot!(told);
}

#[test]
fn a_removal_waits_for_the_holder() {
    let fake = furnished();
    fake.hold("t/a", "h1");
    fake.data.lock().unwrap().lets_go_after = Some(1);
    let begun = std::time::Instant::now();
    let waited = done(&fake, "volume remove t/a --timeout 1m");
    assert!(begun.elapsed() >= std::time::Duration::from_secs(1));
    let told = "volume t/a is in use: host h1 holds it since 2026-01-02T03:04:05Z; it is waited for, up to ";
    assert!(waited.stderr.starts_with(told), "{}", waited.stderr);
    assert!(waited.stderr.ends_with("\nvolume t/a: removed, with its data\n"), "{}", waited.stderr);
    assert_eq!(removals(&fake), 2);

    fake.data.lock().unwrap().lets_go_after = None;
    fake.hold("t/b", "h1");
    let over = run(&fake, "volume remove t/b --timeout 1200ms");
    assert_eq!(over.code, 1);
    let last = over.stderr.lines().last().unwrap();
    assert_eq!(last, "error: volume t/b is in use: host h1 holds it since 2026-01-02T03:04:05Z");
    let so_far = removals(&fake);
    assert!(so_far >= 2 + 2, "{so_far}");

    // What will not pass is not waited for, nor is anything without the flag or in a dry run.
    for line in [
        "volume remove t/zzz --timeout 1m",
        "volume remove t/b",
        "volume remove t/b --dry-run --timeout 1m",
    ] {
        let begun = std::time::Instant::now();
        assert_eq!(run(&fake, line).code, 1, "{line}");
        assert!(begun.elapsed() < std::time::Duration::from_secs(30), "{line}");
    }
    assert_eq!(removals(&fake), so_far + 2);
}

fn removals(fake: &Fake) -> usize {
    fake.requests().iter().filter(|line| line.starts_with("DELETE ")).count()
}

#[test]
fn uploads_are_compared_and_brought_back() {
    let fake = Fake::start();
    for size in ["10MB", "20MB"] {
        let policy =
            format!(r#"{{"default-options": {{"size": "{size}", "filesystem": "ext4"}}}}"#);
        assert_eq!(run_with(&fake, "tenant upload t", &policy).code, 0);
    }
    insta::assert_snapshot!(transcript(
        &fake,
        &[
            "tenant history t --diff 1 2",
            "tenant history t --diff 1 1",
            "tenant history t --diff 1 7",
            "tenant history t --diff 2 1 -o yaml",
            "tenant upload t --from-revision 1",
            "tenant upload t --from-revision 1",
            "tenant upload t --from-revision 7",
            "tenant history t --diff 1 3",
            "tenant get t",
        ]
    ));
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
            "mount force-remove t/a",
            "mount force-remove t a -o table --yes",
            "mount force-remove t/a",
            "mount force-remove t/a --unsafe --yes",
            "mount force-remove t/nothing",
            "host list",
            "host list -o table",
            "host get h1",
            "host fence h1 --dry-run",
            "host fence h1",
            "host fence h1 h2 --yes",
            "host forget h1 --dry-run",
            "host forget h1 h2",
            "host get h1",
            "global get",
        ]
    ));
    let upload = run_with(&fake, "global upload", r#"{"session-ttl": "30s"}"#);
    assert_eq!(upload.stderr, "settings: session-ttl is 30s, trash-retention is 1d\n");
    let both = r#"{"session-ttl": "30s", "trash-retention": "3h"}"#;
    let upload = run_with(&fake, "global upload", both);
    assert_eq!(upload.stderr, "settings: session-ttl is 30s, trash-retention is 3h\n");
    assert_eq!(done(&fake, "global get").json()["session-ttl"], "30s");
    let wrong = run_with(&fake, "global upload", r#"{"session-ttl": "1s"}"#);
    assert_eq!(wrong.code, 1);
    assert!(wrong.stderr.contains("out of range"), "{}", wrong.stderr);
}

#[test]
fn status_tells_and_fails_with_its_parts() {
    let fake = furnished();
    let mut told = transcript(&fake, &["status", "status -o name"]);
    fake.schedule("t/a", None);
    told.push_str(&transcript(&fake, &["status"]));
    fake.schedule("t/b", Some("ceph cannot be reached"));
    told.push_str(&transcript(&fake, &["status"]));
    insta::assert_snapshot!(told);
    assert_eq!(done(&fake, "status -o json").json()["schedules"]["lag-ms"], 90_000);
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
