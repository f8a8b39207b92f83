//! Mount and Unmount through the kernel's rbd, on the emulated host, against the bare steps there.

use std::time::Duration;

use serde_json::json;
use testkit::Suite;

use crate::table::{Table, Times, ratio};
use crate::volumes::{call, policy};

/// How often each way is measured, in turn with the others. Everything is slow there.
const ROUNDS: usize = 15;

/// One round by hand: prints how many microseconds each half took. The first argument says how to map.
const BARE: &str = r#"
set -e
conf=$2 keyring=$3 image=$4 target=/run/bare
monitors=$(sed -n 's/^mon host = \[v1:\(.*\)\]$/\1/p' "$conf")
secret=$(sed -n 's/^[[:space:]]*key = //p' "$keyring")
mkdir -p $target
now() { REPLY=${EPOCHREALTIME/./}; }
now; began=$REPLY
case $1 in
    sysfs)
        echo "$monitors name=volplugin,secret=$secret,noshare,exclusive rbd $image -" >/sys/bus/rbd/add_single_major
        for folder in /sys/bus/rbd/devices/*; do
            read -r name <$folder/name
            [[ $name != "$image" ]] || device=/dev/rbd${folder##*/}
        done ;;
    rbd) device=$(rbd -c "$conf" --id volplugin map --options noudev,noshare,exclusive "rbd/$image") ;;
esac
mount "$device" $target
now; up=$((REPLY - began))
now; began=$REPLY
umount $target
case $1 in
    sysfs) echo "${device#/dev/rbd}" >/sys/bus/rbd/remove_single_major ;;
    rbd) rbd -c "$conf" unmap --options noudev "$device" ;;
esac
now; down=$((REPLY - began))
echo "$up $down"
"#;

/// Mount of an existing volume, and Unmount.
pub fn mount(suite: &Suite, table: &mut Table) {
    policy(suite, "1GB", "mkfs.ext4 -q -m0 %");
    let (h1, h2) = (suite.h1(), suite.h2());
    let name = |number: usize| json!({ "Name": format!("bench/k{number}"), "ID": "use" });
    call(h2, "Create", &name(0));
    call(h2, "Create", &name(1));
    let conf = suite.ceph().conf().display().to_string();
    let keyring = suite.ceph().conf().with_file_name("ceph.client.volplugin.keyring");
    let by_hand = |how: &str| {
        let script = format!(
            "bash -c '{}' - {how} {conf} {} bench.k1",
            BARE.replace('\'', r"'\''"),
            keyring.display()
        );
        let said = h1.sh(&script).ok().to_owned();
        let micros: Vec<u64> =
            said.split_whitespace().map(|time| time.parse().expect("microseconds")).collect();
        [Duration::from_micros(micros[0]), Duration::from_micros(micros[1])]
    };
    let (mut up, mut down) = ([vec![], vec![], vec![]], [vec![], vec![], vec![]]);
    // The first round of each fills caches.
    for round in 0..=ROUNDS {
        let ours = [call(h1, "Mount", &name(0)), call(h1, "Unmount", &name(0))];
        let times = [ours, by_hand("sysfs"), by_hand("rbd")];
        for (way, [mounted, unmounted]) in times.into_iter().enumerate().filter(|_| round > 0) {
            up[way].push(mounted);
            down[way].push(unmounted);
        }
    }
    for (what, times, bare, tool) in [
        (
            "Mount of an existing volume, kernel access, emulated host",
            up,
            "sysfs add, mount",
            "rbd map, mount",
        ),
        (
            "Unmount, kernel access, emulated host",
            down,
            "umount, sysfs remove",
            "umount, rbd unmap",
        ),
    ] {
        let [ours, bare_times, tool_times] = times.map(Times::from);
        let suite = format!("{ours} ({})", ratio(&ours, &bare_times));
        table.row(what, "≤ 1.3 ×", suite, bare_times.to_string(), bare);
        let suite = format!("{ours} ({})", ratio(&ours, &tool_times));
        table.row(what, "–", suite, tool_times.to_string(), tool);
    }
}
