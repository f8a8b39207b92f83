//! The file systems of a policy, and format commands that fail.

use serde_json::json;
use testkit::story::policy;
use testkit::{Story, Suite};

/// ext4, xfs and btrfs, as the policy's `filesystems` makes them.
pub fn every_file_system_works(suite: &Suite) {
    let story = Story::beside(suite, "fs");
    let h1 = suite.h1();
    for (filesystem, size) in [("ext4", "20MB"), ("xfs", "300MB"), ("btrfs", "128MB")] {
        let options = format!("--opt filesystem={filesystem} --opt size={size}");
        let volume = story.create(filesystem, &options);
        let option = format!("-v {volume}:/data");
        h1.run(&option, "echo kept >/data/file").ok();
        let read = h1.run(&option, "cat /data/file; grep ' /data ' /proc/mounts");
        assert_eq!(read.lines()[0], "kept", "{read}");
        let kind = read.lines()[1].split(' ').nth(2).map(str::to_owned);
        assert_eq!(kind.as_deref(), Some(filesystem), "{read}");
        h1.docker(&format!("volume rm {volume}")).ok();
    }
    story.until_nothing_is_left();
}

/// A format command that fails: its words reach the user, and nothing else comes of it.
pub fn a_format_command_that_fails_leaves_nothing(suite: &Suite) {
    let story = Story::beside(suite, "badfs");
    let mut bad = policy();
    bad["filesystems"] = json!({
        "ext4": "echo the disk says no >&2; false %",
        "xfs": "mkfs.xfs -q %",
        "gone": "mkfs.nosuchfs %",
        "sleepy": "true %",
    });
    story.upload(&bad);
    story.try_create("db", "").refused_with(&["the disk says no"]);
    story.until_nothing_is_left();
    // mkfs.xfs itself refuses so small a device.
    story.try_create("db", "--opt filesystem=xfs").refused_with(&["mkfs.xfs"]);
    story.try_create("db", "--opt filesystem=gone").refused_with(&["mkfs.nosuchfs"]);
    story.until_nothing_is_left();

    // When the policy is right the same name works.
    story.upload(&policy());
    let volume = story.create("db", "");
    let h1 = suite.h1();
    h1.run(&format!("-v {volume}:/data"), "touch /data/file").ok();
    h1.docker(&format!("volume rm {volume}")).ok();
    story.until_nothing_is_left();
}
