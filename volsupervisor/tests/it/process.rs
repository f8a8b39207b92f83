//! The binary: its usage errors, its exit codes, its end.

use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use volcore::Kind;

use crate::sockets::Server;
use crate::stand_in::{Fault, StandIn};

#[expect(clippy::disallowed_methods, reason = "the program under test is started by itself")]
fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_volsupervisor"));
    command.args(args).env_clear();
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(args: &[&str]) -> (i32, String, String) {
    ended(command(args).output().unwrap())
}

fn ended(output: Output) -> (i32, String, String) {
    let [out, said] =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    (output.status.code().unwrap_or(-1), out, said)
}

fn until(what: &str, is_so: impl Fn() -> bool) {
    let began = Instant::now();
    while !is_so() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// It is killed when the test fails.
struct Running(Option<Child>);

impl Running {
    fn start(args: &[&str]) -> Running {
        Running(Some(command(args).spawn().unwrap()))
    }

    fn terminate(mut self) -> (i32, String, String) {
        let child = self.0.take().unwrap();
        kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM).unwrap();
        ended(child.wait_with_output().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if let Some(child) = &mut self.0 {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }
}

#[test]
fn usage() {
    let (code, out, _) = run(&["--version"]);
    assert_eq!((code, &*out), (0, concat!("volsupervisor ", env!("CARGO_PKG_VERSION"), "\n")));
    let (code, out, _) = run(&["--help"]);
    assert_eq!(code, 0);
    for flag in [
        "--master <URL>",
        "--max-in-flight <N>",
        "--once",
        "--config <FILE>",
        "volsupervisor --once",
    ] {
        assert!(out.contains(flag), "{flag}: {out}");
    }
    for args in [&["--max-in-flight", "0"][..], &["--config", "/does/not/exist"], &["--often"]] {
        let (code, out, said) = run(args);
        assert_eq!((code, &*out), (2, ""), "{args:?}: {said}");
    }
}

#[test]
fn once_ends_with_what_was_done() {
    let (code, _, said) = run(&["--once", "--master", "http://127.0.0.1:1"]);
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("no volmaster can be reached"), "{said}");

    let master = StandIn::new();
    let server = Server::start(&master);
    let url = server.url().to_string();
    let once = || run(&["--once", "--master", &url, "--log-format", "json"]);
    let ids: Vec<_> = (0..5).map(|n| master.create(&format!("v{n}"), "30m", 2)).collect();
    assert_eq!(once().0, 0);
    assert!(ids.iter().all(|id| master.state().volume(id).taken.len() == 1));
    assert_eq!(once().0, 0, "nothing is due any more");
    master.create("w", "30m", 2);
    let id = master.create("x", "30m", 2);
    master.set_fault(&id, Fault::Fails(Kind::Internal));
    let (code, _, said) = once();
    assert_eq!(code, 3, "{said}");
    assert!(said.contains("\"volume\":\"t/x\""), "{said}");
}

#[test]
fn it_waits_for_volmaster_and_ends_when_it_is_told_to() {
    let master = StandIn::new();
    let mut server = Server::start(&master);
    let url = server.url().to_string();
    server.kill();
    let running = Running::start(&["--master", "http://127.0.0.1:1", "--master", &url]);
    std::thread::sleep(Duration::from_secs(2));
    let id = master.create("v", "30m", 2);
    server.start_again();
    until("the first snapshot", || master.state().volume(&id).taken.len() == 1);
    let slow = master.create("slow", "30m", 2);
    master.set_fault(&slow, Fault::Slow(Duration::from_secs(2)));
    until("the second snapshot to begin", || master.state().volume(&slow).is_busy);
    let began = Instant::now();
    let (code, out, said) = running.terminate();
    assert_eq!((code, &*out), (0, ""), "{said}");
    assert!(began.elapsed() < Duration::from_secs(4), "{said}");
    assert_eq!(master.state().volume(&slow).taken.len(), 1);
    let waits = "nothing is taken until volmaster answers";
    assert_eq!(said.matches(waits).count(), 1, "{said}");
}
