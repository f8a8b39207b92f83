//! The control plane is away, and comes back.

use std::time::{Duration, Instant};

use testkit::{Host, Story, Suite, poll};

use crate::stories::{WRITER, writes_on};

/// Docker's own limit for Get, List and Path is 60 s; from the cache they take less than this.
pub const FROM_CACHE: Duration = Duration::from_secs(3);

/// What must hold on a host while nothing can be asked of the control plane, with one volume in use
/// and one idle: containers feel nothing, Docker shows and forgets nothing, and what cannot be
/// done is refused clearly and in time.
pub fn docker_goes_on_in_an_outage(host: &Host, used: &str, idle: &str) {
    let begin = Instant::now();
    let names = host.volume_names();
    assert!(names.iter().any(|name| name == used) && names.iter().any(|name| name == idle));
    let status = host.volume_status(idle);
    assert_eq!(status["source"], "cache", "{status}");
    assert_eq!(host.volume_status(used)["holder"], host.label());
    let took = begin.elapsed();
    assert!(took < 3 * FROM_CACHE, "ls and two inspects took {} ms", took.as_millis());

    // Dockerd starts in the middle of it, and asks for every volume that it knows.
    host.docker_kill();
    host.docker_start();
    let names = host.volume_names();
    for volume in [used, idle] {
        assert!(names.iter().any(|name| name == volume), "Docker still knows {volume}: {names:?}");
        let driver = host.docker(&format!("volume inspect -f {{{{.Driver}}}} {volume}"));
        assert_eq!(driver.ok(), "volplugin", "{driver}");
    }
}

/// Volmaster is down. Then it is up again.
pub fn volmaster_is_down_for_a_while(suite: &Suite) {
    let story = Story::alone(suite, "master-down");
    let h1 = suite.h1();
    let (used, idle) = (story.create("used", ""), story.create("idle", ""));
    let container = h1.start("master-down", &format!("-v {used}:/data"), WRITER);
    let written = writes_on(&container, 0);
    // Docker's list is what the cache is filled from.
    assert!(h1.volume_names().contains(&idle));
    for master in &suite.masters {
        master.kill();
    }
    let written = writes_on(&container, written);
    let refused = story.try_create("new", "");
    refused.refused_with(&["volmaster cannot be reached"]);
    let mount = h1.try_start("master-down-2", &format!("-v {idle}:/data"), "true");
    mount.refused_with(&["volmaster cannot be reached"]);
    h1.docker("rm -f master-down-2").ok();
    h1.docker(&format!("volume rm {idle}")).refused_with(&["volmaster cannot be reached"]);
    let written = writes_on(&container, written);
    docker_goes_on_in_an_outage(h1, &used, &idle);

    for master in &suite.masters {
        master.start_again();
    }
    // The next calls work; the container had ended with its dockerd.
    story.create("new", "");
    poll::until("the uses of the dead dockerd to be given back", Duration::from_secs(30), || {
        let held = story.in_use();
        if held.is_empty() { Ok(()) } else { Err(held.join("\n")) }
    });
    h1.docker("start master-down").ok();
    writes_on(&container, written);
    container.remove();
    for name in ["used", "idle", "new"] {
        h1.docker(&format!("volume rm {}", story.volume(name))).ok();
    }
    story.until_nothing_is_left();
}
