//! Docker and volplugin end in the middle of things, by a restart or by SIGKILL, in either order.
//!
//! Afterwards nothing is mapped, mounted or claimed any more, and every line that was written is there.

use std::thread;
use std::time::Duration;

use testkit::host::Container;
use testkit::{Host, Story, Suite, poll};

use crate::stories::{WRITER, lines_in, writes_on};

/// What ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Victim {
    /// Dockerd, by SIGKILL.
    Docker,
    /// Volplugin, by SIGKILL.
    Plugin,
}

impl Victim {
    fn kill(self, host: &Host) {
        match self {
            Victim::Docker => host.docker_kill(),
            Victim::Plugin => host.plugin_kill(),
        }
    }

    fn start(self, host: &Host) {
        match self {
            Victim::Docker => host.docker_start(),
            Victim::Plugin => host.plugin_start(),
        }
    }
}

fn ends(container: &Container<'_>) {
    poll::until("the container's end", Duration::from_secs(60), || {
        poll::holds(!container.runs(), "Docker says that it runs")
    });
}

/// Reads the log in a new container, removes the volume, and looks that nothing is left.
#[track_caller]
fn all_is_there_and_goes(story: &Story<'_>, host: &Host, volume: &str, written: u64) {
    let log = host.run(&format!("-v {volume}:/data"), "cat /data/log");
    assert!(lines_in(&log) >= written, "at least {written} lines were written: {log}");
    story.until_unused();
    host.docker(&format!("volume rm {volume}")).ok();
    story.until_nothing_is_left();
}

/// An operator restarts Docker: its containers stop, and start again where that is wanted.
pub fn docker_is_restarted(suite: &Suite) {
    let story = Story::alone(suite, "dockerd");
    let h1 = suite.h1();
    let (volume, other) = (story.create("db", ""), story.create("other", ""));
    let container = h1.start("dockerd-1", &format!("-v {volume}:/data"), WRITER);
    let always = h1.start("dockerd-2", &format!("--restart always -v {other}:/data"), WRITER);
    let (written, also) = (writes_on(&container, 0), writes_on(&always, 0));
    h1.docker_stop();
    story.until_unused();
    h1.docker_start();
    assert!(!container.runs(), "nobody asked for it to be started again");
    writes_on(&always, also);
    let names = h1.volume_names();
    assert!(names.contains(&volume) && names.contains(&other), "Docker still knows them");
    always.remove();
    container.remove();
    h1.docker(&format!("volume rm {other}")).ok();
    all_is_there_and_goes(&story, h1, &volume, written);
}

/// Dockerd dies under a running container. It comes back, and with it nothing of the container; no
/// Unmount is ever sent for it.
pub fn dockerd_dies(suite: &Suite) {
    let story = Story::alone(suite, "dockerd-dies");
    let h1 = suite.h1();
    let volume = story.create("db", "");
    let container = h1.start("dockerd-dies", &format!("-v {volume}:/data"), WRITER);
    let written = writes_on(&container, 0);
    h1.docker_kill();
    assert!(!story.in_use().is_empty(), "the container still writes, so the volume stays");
    h1.docker_start();
    ends(&container);
    story.until_unused();
    h1.docker("start dockerd-dies").ok();
    writes_on(&container, written);
    container.remove();
    all_is_there_and_goes(&story, h1, &volume, written);
}

/// Volplugin dies under a running writer, who does not notice.
pub fn volplugin_dies(suite: &Suite) {
    let story = Story::alone(suite, "plugin-dies");
    let h1 = suite.h1();
    let volume = story.create("db", "");
    let option = format!("-v {volume}:/data");
    let container = h1.start("plugin-dies", &option, WRITER);
    let written = writes_on(&container, 0);
    h1.plugin_kill();
    let written = writes_on(&container, written);
    h1.plugin_start();
    let written = writes_on(&container, written);
    assert_eq!(h1.volume_status(&volume)["holder"], "h1");
    // The new one knows the use of the old one: a second container shares the mount.
    let seen = lines_in(&h1.run(&option, "cat /data/log"));
    assert!(seen >= written, "the second container sees what the first writes");
    let written = writes_on(&container, written);
    container.remove();
    story.until_unused();
    all_is_there_and_goes(&story, h1, &volume, written);
}

/// The container ends while volplugin is away: Docker's Unmount reaches nobody, or late.
pub fn a_container_ends_while_volplugin_is_away(suite: &Suite) {
    let story = Story::alone(suite, "plugin-away");
    let h1 = suite.h1();
    let volume = story.create("db", "");
    let container = h1.start("plugin-away", &format!("-v {volume}:/data"), WRITER);
    let written = writes_on(&container, 0);
    h1.plugin_stop();
    h1.kill_process(container.pid());
    h1.plugin_start();
    ends(&container);
    story.until_unused();
    container.remove();
    all_is_there_and_goes(&story, h1, &volume, written);
}

/// Waits until a dockerd that starts has found out that nobody is at the plugin's socket.
fn asks_the_plugin(host: &Host) {
    let before = std::fs::read_to_string(host.docker_log()).unwrap_or_default().len();
    poll::until("dockerd to miss its plugin", Duration::from_secs(60), || {
        let log = std::fs::read_to_string(host.docker_log()).unwrap_or_default();
        let new = log.get(before..).unwrap_or_default().to_owned();
        if new.contains("volplugin.sock") { Ok(()) } else { Err(new) }
    });
}

/// Both die under a running container, and come back, in any order.
pub fn both_die(suite: &Suite, first: Victim, back_first: Victim) {
    let name = format!("{first:?}-dies-{back_first:?}-is-back").to_lowercase();
    let story = Story::alone(suite, &name);
    let h1 = suite.h1();
    let volume = story.create("db", "");
    let container = h1.start(&name, &format!("-v {volume}:/data"), WRITER);
    let written = writes_on(&container, 0);
    let other = |victim| if victim == Victim::Docker { Victim::Plugin } else { Victim::Docker };
    first.kill(h1);
    other(first).kill(h1);
    // Dockerd alone waits for the plugin, so that both have to start at the same time.
    thread::scope(|scope| {
        let starting = scope.spawn(|| back_first.start(h1));
        if back_first == Victim::Docker {
            asks_the_plugin(h1);
        } else {
            starting.join().expect("volplugin is up");
        }
        other(back_first).start(h1);
    });
    ends(&container);
    story.until_unused();
    container.remove();
    all_is_there_and_goes(&story, h1, &volume, written);
}
