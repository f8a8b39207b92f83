//! Real children: how they end, and that nothing of them stays.

use std::path::Path;
use std::time::Instant;

use super::super::Program;
use super::*;

const LONG: Duration = Duration::from_secs(60);

fn sh(script: &str, deadline: Duration) -> Run {
    Run::new(&Program::find("sh", "dash"), deadline).arg("-c").arg(script)
}

/// Waits until `condition` gives something.
async fn until<T>(what: &str, mut condition: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = condition() {
            return found;
        }
        assert!(start.elapsed() < LONG, "waited in vain: {what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// The process id that a script has written into a file.
fn pid_in(file: &Path) -> Option<i32> {
    std::fs::read_to_string(file).ok()?.trim().parse().ok()
}

fn is_alive(pid: i32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/stat")) else { return false };
    !stat.contains(") Z ")
}

async fn until_gone(pid: i32) {
    until("the process to be gone", || (!is_alive(pid)).then_some(())).await;
}

fn kill(pid: i32) {
    nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
}

#[tokio::test]
async fn output_and_surroundings() {
    let run = sh("pwd; echo $A; echo \"$LC_ALL $HOME\"; cat; echo oh >&2", LONG);
    let output = run.env("A", "b c").stdin("in\n").output().await.unwrap();
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "/\nb c\nC \nin\n");
    assert_eq!((output.code, output.stderr.as_str()), (0, "oh"));
}

#[tokio::test]
async fn a_missing_program_names_its_package() {
    let error = Run::new(&Program::find("mkfs.none", "nonesuch"), LONG).output().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "program mkfs.none is not installed; the Debian package nonesuch has it"
    );
}

#[tokio::test]
async fn a_failure_shows_command_ending_and_words() {
    let error = sh("echo broken >&2; exit 3", LONG).output().await.unwrap_err();
    assert_eq!(
        error.to_string(),
        "`sh -c 'echo broken >&2; exit 3'` failed with exit status 3: broken"
    );
    let error = sh("echo aloud; exit 3", LONG).output().await.unwrap_err();
    assert!(error.to_string().ends_with("exit status 3: aloud"), "{error}");
    let error = sh("kill -9 $$", LONG).any_exit().output().await.unwrap_err();
    assert!(error.to_string().ends_with("signal 9 (SIGKILL)"), "{error}");
}

#[tokio::test]
async fn exit_statuses_may_be_allowed() {
    assert_eq!(sh("exit 1", LONG).or_exit(&[1]).output().await.unwrap().code, 1);
    assert_eq!(sh("exit 9", LONG).any_exit().output().await.unwrap().code, 9);
}

#[tokio::test]
async fn of_stderr_the_end_is_kept() {
    let output = sh("yes ab | head -c 99999 >&2; printf last >&2", LONG).output().await.unwrap();
    assert!(output.stderr.ends_with("b\nlast"), "{}", output.stderr);
    assert!(output.stderr.len() <= STDERR_TAIL);
}

#[tokio::test]
async fn endless_output_is_cut() {
    let error = sh("exec yes", LONG).output().await.unwrap_err();
    assert!(matches!(error, ProcessError::TooMuch { .. }), "{error}");
}

#[tokio::test]
async fn input_that_nobody_reads_is_no_error() {
    sh("exec true", LONG).stdin(vec![b'x'; 1 << 20]).output().await.unwrap();
}

#[tokio::test]
async fn the_deadline_kills_the_whole_group() {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    let script = format!("echo waiting >&2; sleep 1000 & echo $! >{}; wait", pid.display());
    let deadline = Duration::from_millis(300);
    let error = sh(&script, deadline).output().await.unwrap_err();
    assert!(error.to_string().ends_with("failed with deadline of 300ms: waiting"), "{error}");
    until_gone(pid_in(&pid).unwrap()).await;
}

#[tokio::test]
async fn dropping_kills_the_whole_group_and_reaps() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pids");
    let script = format!("sleep 1000 & echo $! >{0}; echo $$ >{0}.sh; wait", file.display());
    let running = tokio::spawn(sh(&script, LONG).output());
    let shell = until("the shell", || pid_in(&folder.path().join("pids.sh"))).await;
    running.abort();
    until_gone(pid_in(&file).unwrap()).await;
    until("the shell to be reaped", || {
        (!Path::new(&format!("/proc/{shell}")).exists()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_is_left_in_the_background_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    let output = sh(&format!("sleep 1000 & echo $! >{}; echo out", pid.display()), LONG);
    assert_eq!(output.output().await.unwrap().stdout, b"out\n");
    until_gone(pid_in(&pid).unwrap()).await;
}

#[tokio::test]
async fn a_process_that_left_its_group_with_our_pipes_holds_nobody_up() {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    let script = format!(
        "setsid sh -c 'echo $$ >{0}; exec sleep 1000' & until [ -s {0} ]; do :; done; echo out",
        pid.display()
    );
    let start = Instant::now();
    assert_eq!(sh(&script, LONG).output().await.unwrap().stdout, b"out\n");
    assert!(start.elapsed() < LONG / 2);
    kill(pid_in(&pid).unwrap());
}

#[tokio::test]
async fn a_daemon_lives_on() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("pid");
    let script = format!(
        "setsid sh -c 'echo $$ >{0}; exec sleep 1000' & until [ -s {0} ]; do :; done",
        file.display()
    );
    sh(&script, LONG).daemon().await.unwrap();
    let pid = pid_in(&file).unwrap();
    assert!(is_alive(pid));
    kill(pid);
}

#[tokio::test]
async fn a_daemon_that_fails_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    let script = format!("sleep 1000 & echo $! >{}; echo no such image >&2; exit 2", pid.display());
    let error = sh(&script, LONG).daemon().await.unwrap_err();
    assert!(error.to_string().ends_with("exit status 2: no such image"), "{error}");
    until_gone(pid_in(&pid).unwrap()).await;
}

#[tokio::test]
async fn a_daemon_that_does_not_detach_is_killed() {
    let folder = tempfile::tempdir().unwrap();
    let pid = folder.path().join("pid");
    let script = format!("echo $$ >{}; exec sleep 1000", pid.display());
    let error = sh(&script, Duration::from_millis(300)).daemon().await.unwrap_err();
    assert!(error.to_string().ends_with("deadline of 300ms"), "{error}");
    assert!(!is_alive(pid_in(&pid).unwrap()));
}
