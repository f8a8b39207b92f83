//! Limits that change under a container that writes.

use std::time::Duration;

use testkit::host::Container;
use testkit::{Story, Suite, poll};

/// Writes 256 KiB at a time to `/data/big` for ever, past the page cache, and notes the time after each.
pub const PACED: &str = "while :; do dd if=/dev/zero of=/data/big bs=64k count=4 conv=notrunc oflag=direct 2>/dev/null; \
    cut -d ' ' -f 1 /proc/uptime >>/tmp/times; done";
/// What [`PACED`] writes at a time.
const PIECE: f64 = 262_144.0;
/// After this time a change is in force.
const IN_FORCE: f64 = 2.0;

/// The time there, in seconds since its start.
#[track_caller]
fn uptime(container: &Container<'_>) -> f64 {
    container.sh("cut -d ' ' -f 1 /proc/uptime").ok().parse().expect("a time")
}

/// How many bytes per second a [`PACED`] container writes from then on, for so many seconds.
#[track_caller]
fn rate(container: &Container<'_>, from: f64, seconds: f64) -> f64 {
    poll::until("the writer to write on", Duration::from_secs(90), || {
        let noted = container.sh("cat /tmp/times");
        let times: Vec<f64> = noted.lines().iter().filter_map(|time| time.parse().ok()).collect();
        let last = times.last().copied().unwrap_or_default();
        let within: Vec<f64> =
            times.into_iter().filter(|time| (from..from + seconds).contains(time)).collect();
        match within[..] {
            [first, .., end] if last >= from + seconds => {
                let count = u32::try_from(within.len() - 1).expect("few");
                Ok(f64::from(count) * PIECE / (end - first))
            }
            _ => Err(format!("{} pieces, the last at {last}, from {from} on", within.len())),
        }
    })
}

/// Sets the limit of a volume that a [`PACED`] container writes to, and takes it away again: both are felt within two
/// seconds.
#[track_caller]
pub fn a_change_is_felt(story: &Story<'_>, volume: &str, container: &Container<'_>) {
    const LIMIT: f64 = 1_048_576.0;
    let set = |value: &str| {
        story.volcli(&format!("volume set {volume} rate-limit.write.bps={value}")).ok();
        uptime(container)
    };
    let changed = set("1MB");
    let limited = rate(container, changed + IN_FORCE, 8.0);
    assert!((0.85..1.15).contains(&(limited / LIMIT)), "{limited} bytes per second");
    let cleared = set("0");
    let free = rate(container, cleared + IN_FORCE, 2.0);
    assert!(free > 2.0 * LIMIT, "{free} bytes per second without a limit");
    println!("{limited:.0} bytes per second with a limit of {LIMIT:.0}, {free:.0} without");
}

/// On librbd's way to the image.
pub fn limits_change_under_a_writer(suite: &Suite) {
    let story = Story::beside(suite, "live");
    let h1 = suite.h1();
    let volume = story.create("db", "");
    let container = h1.start("live", &format!("-v {volume}:/data"), PACED);
    let begun = uptime(&container);
    let free = rate(&container, begun, 2.0);
    println!("{free:.0} bytes per second before");
    assert_eq!(h1.volume_status(&volume)["rate-limit"], "none");
    a_change_is_felt(&story, &volume, &container);

    story.volcli(&format!("volume set {volume} rate-limit.write.iops=500")).ok();
    assert_eq!(h1.volume_status(&volume)["rate-limit"], "write-iops 500");
    story
        .volcli(&format!("volume set {volume} pool=other"))
        .refused_with(&["pool", "cannot be changed"]);
    container.remove();
    story.until_unused();
    h1.docker(&format!("volume rm {volume}")).ok();
    story.until_nothing_is_left();
}
