//! What containers do with volumes, and what becomes of a volume when a container ends in one way or another.

use std::time::Duration;

use testkit::{IMAGE, Story, Suite, poll};

use crate::stories::{WRITER, lines_in, writes_on};

/// Two containers on one host share a volume; it stays as long as either of them runs.
pub fn two_containers_share_and_either_may_stop_first(suite: &Suite) {
    let story = Story::beside(suite, "share");
    let h1 = suite.h1();
    let volume = story.create("db", "");
    let option = format!("-v {volume}:/data");
    for first_stops_first in [true, false] {
        let first = h1.start("share-1", &option, WRITER);
        let second = h1.start("share-2", &option, "sleep 1000");
        writes_on(&first, 0);
        assert!(lines_in(&second.sh("cat /data/log")) > 0, "the second sees what the first writes");
        let (goes, stays) = if first_stops_first { (first, second) } else { (second, first) };
        goes.remove();
        stays.sh("echo still >/data/still && cat /data/still").ok();
        assert!(!story.in_use().is_empty(), "it is mounted as long as one of them runs");
        stays.remove();
        story.until_unused();
    }
    h1.docker(&format!("volume rm {volume}")).ok();
    story.until_nothing_is_left();
}

/// `sharing: container` is for one container at a time.
pub fn sharing_container_refuses_the_second(suite: &Suite) {
    let story = Story::beside(suite, "single");
    let h1 = suite.h1();
    let volume = story.create("db", "--opt sharing=container");
    let option = format!("-v {volume}:/data");
    let first = h1.start("single-1", &option, "echo mine >/data/file; sleep 1000");
    let second = h1.try_start("single-2", &option, "true");
    second.refused_with(&["in use by another container", "sharing: container"]);
    assert_eq!(first.sh("cat /data/file").ok(), "mine", "the first is not disturbed");
    first.remove();
    story.until_unused();
    h1.docker("start single-2").ok();
    h1.docker("rm -f single-2").ok();
    h1.docker(&format!("volume rm {volume}")).ok();
    story.until_nothing_is_left();
}

/// `docker cp` to and from a container that runs, and one that never ran.
pub fn docker_cp_reaches_the_volume(suite: &Suite) {
    let story = Story::beside(suite, "cp");
    let h1 = suite.h1();
    let volume = story.create("db", "");
    let option = format!("-v {volume}:/data");
    let here = h1.dir().join("cp");
    std::fs::create_dir_all(&here).expect("a folder for docker cp");
    std::fs::write(here.join("in"), "through docker cp\n").expect("a file for docker cp");
    let here = here.display();

    let running = h1.start("cp-running", &option, "sleep 1000");
    h1.docker(&format!("cp {here}/in cp-running:/data/one")).ok();
    assert_eq!(running.sh("cat /data/one").ok(), "through docker cp");
    running.remove();
    story.until_unused();

    let stopped = h1.create("cp-stopped", &option, "cat /data/two");
    h1.docker(&format!("cp {here}/in cp-stopped:/data/two")).ok();
    h1.docker(&format!("cp cp-stopped:/data/one {here}/out")).ok();
    let out = std::fs::read_to_string(format!("{here}/out")).expect("docker cp wrote it");
    assert_eq!(out, "through docker cp\n");
    story.until_unused();
    assert_eq!(h1.docker("start -a cp-stopped").ok(), "through docker cp");
    stopped.remove();
    h1.docker(&format!("volume rm {volume}")).ok();
    story.until_nothing_is_left();
}

/// An image with content below the mount point: Docker copies it to an empty volume, once.
pub fn content_of_the_image_is_copied_up(suite: &Suite) {
    let story = Story::beside(suite, "copyup");
    let h1 = suite.h1();
    let script = "mkdir -p /data/below && echo hello >/data/hello && echo deep >/data/below/file && \
        chown -R 1000:1000 /data/below";
    h1.start("copyup-image", "", script);
    h1.docker("wait copyup-image").ok();
    h1.docker("commit copyup-image copyup:latest").ok();
    h1.docker("rm copyup-image").ok();

    let volume = story.create("db", "");
    let run = |script: &str| {
        let line = format!("run --rm --network none -v {volume}:/data copyup:latest");
        h1.docker(&format!("{line} {script}"))
    };
    assert_eq!(run("cat /data/hello").ok(), "hello", "the image's file is in the volume");
    assert_eq!(run("stat -c %u:%g /data/below/file").ok(), "1000:1000", "with its owner");
    run("rm /data/hello").ok();
    run("cat /data/hello").refused();
    let plain = h1.run(&format!("-v {volume}:/data"), "cat /data/below/file");
    assert_eq!(plain.ok(), "deep", "a container of another image sees it");
    h1.docker(&format!("volume rm {volume}")).ok();
    h1.docker("rmi copyup:latest").ok();
    story.until_nothing_is_left();
}

/// `docker kill`, and a SIGKILL to the container's process from outside.
pub fn a_killed_container_leaves_nothing(suite: &Suite) {
    let story = Story::beside(suite, "killed");
    let h1 = suite.h1();
    let volume = story.create("db", "");
    let option = format!("-v {volume}:/data");
    let mut written = 0;
    for by_docker in [true, false] {
        let container = h1.start("killed", &option, WRITER);
        written = writes_on(&container, written);
        if by_docker {
            h1.docker("kill killed").ok();
        } else {
            h1.kill_process(container.pid());
        }
        poll::until("the container's end", Duration::from_secs(30), || {
            poll::holds(!container.runs(), "it runs")
        });
        story.until_unused();
        container.remove();
    }
    let log = h1.run(&format!("-v {volume}:/data"), "cat /data/log");
    assert!(lines_in(&log) >= written, "what was written is there");
    h1.docker(&format!("volume rm {volume}")).ok();
    story.until_nothing_is_left();
}

/// A container that Docker cannot start has the volume mounted for a moment only.
pub fn a_container_that_fails_to_start_leaves_nothing(suite: &Suite) {
    let story = Story::beside(suite, "nostart");
    let h1 = suite.h1();
    let volume = story.create("db", "");
    let line =
        format!("run --network none --name nostart -v {volume}:/data {IMAGE} /no/such/program");
    h1.docker(&line).refused_with(&["/no/such/program"]);
    story.until_unused();
    h1.docker("rm nostart").ok();
    // The second volume cannot be mounted, so the first, which was, has to go again.
    let busy = story.create("busy", "--opt sharing=container");
    let holder = h1.start("nostart-holder", &format!("-v {busy}:/data"), "sleep 1000");
    let both = format!("-v {volume}:/data -v {busy}:/more");
    h1.try_start("nostart", &both, "true").refused_with(&["sharing: container"]);
    h1.docker("rm -f nostart").ok();
    poll::until("the first volume to be given back", Duration::from_secs(30), || {
        let held = story.in_use();
        let of_first: Vec<_> =
            held.iter().filter(|line| line.contains(&story.image("db"))).cloned().collect();
        if of_first.is_empty() { Ok(()) } else { Err(of_first.join("\n")) }
    });
    holder.remove();
    h1.docker(&format!("volume rm {volume} {busy}")).ok();
    story.until_nothing_is_left();
}

/// `docker restart` mounts anew before or after it unmounts; the data stay.
pub fn docker_restart_keeps_the_data(suite: &Suite) {
    let story = Story::beside(suite, "restart");
    let h1 = suite.h1();
    let volume = story.create("db", "");
    let container = h1.start("restart", &format!("-v {volume}:/data"), WRITER);
    let mut written = 0;
    for _ in 0..3 {
        written = writes_on(&container, written);
        h1.docker("restart restart").ok();
    }
    writes_on(&container, written);
    container.stop();
    story.until_unused();
    h1.docker("start restart").ok();
    writes_on(&container, written);
    container.remove();
    h1.docker(&format!("volume rm {volume}")).ok();
    story.until_nothing_is_left();
}
