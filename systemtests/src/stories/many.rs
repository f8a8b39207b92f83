//! Many at once.

use std::thread;

use serde_json::json;
use testkit::{Story, Suite};

/// Fifty volumes are created at once and removed at once.
pub fn fifty_volumes_come_and_go_at_once(suite: &Suite) {
    let story = Story::beside(suite, "fifty");
    let call = |method: &str, number: usize| {
        let host = &suite.hosts[number % suite.hosts.len()];
        let name = story.volume(&format!("v{number}"));
        host.plugin_call(method, &json!({ "Name": name, "Opts": { "size": "10MB" } })).err()
    };
    let all_at_once = |method: &str| {
        thread::scope(|scope| {
            let calls: Vec<_> =
                (0..50).map(|number| scope.spawn(move || call(method, number))).collect();
            for (number, call) in calls.into_iter().enumerate() {
                assert_eq!(call.join().expect("no panic"), "", "{method} v{number}");
            }
        });
    };
    all_at_once("VolumeDriver.Create");
    let listed = story.volcli(&format!("volume list {}", story.tenant));
    assert_eq!(listed.lines().len(), 50, "{listed}");
    let shown = suite.h1().volume_names();
    assert_eq!(shown.iter().filter(|name| name.starts_with("fifty/")).count(), 50);
    all_at_once("VolumeDriver.Remove");
    story.until_nothing_is_left();
}

/// Every host asks for the same volume at the same time: one image, and everybody has it.
pub fn the_same_volume_from_every_host_at_once(suite: &Suite) {
    let story = Story::beside(suite, "same");
    let volume = story.volume("db");
    let line = format!("volume create -d volplugin --opt size=20MB {volume}");
    let line = line.as_str();
    thread::scope(|scope| {
        let calls: Vec<_> =
            suite.hosts.iter().map(|host| scope.spawn(move || host.docker(line))).collect();
        for call in calls {
            assert_eq!(call.join().expect("no panic").ok(), volume);
        }
    });
    for (number, host) in suite.hosts.iter().enumerate() {
        let option = format!("-v {volume}:/data");
        host.run(&option, &format!("ls /data/file{number} 2>&1; touch /data/file{}", number + 1))
            .ok();
    }
    let count = suite.h1().run(&format!("-v {volume}:/data"), "ls /data/file* | wc -l");
    assert_eq!(count.ok(), suite.hosts.len().to_string(), "all wrote to one image");
    suite.h1().docker(&format!("volume rm {volume}")).ok();
    story.until_nothing_is_left();
}
