# Shared by the scripts beside it, which source it: folders, processes, ports and mounts of a testbed.
# A testbed is a folder that an `up` command filled. It owns no process and prints nothing by itself.
# shellcheck shell=bash
set -euo pipefail
export LC_ALL=C # EPOCHREALTIME has a point, messages are the ones we look for.
shopt -s nullglob
umask 022
PATH=$PATH:/usr/sbin:/sbin # Where Debian puts half of what we need, and su leaves them out.

marker=.volplugin-testbed
# shellcheck disable=SC2034
scripts=$(dirname "$(realpath "${BASH_SOURCE[0]}")")

say() { printf '%s: %s\n' "${0##*/}" "$*" >&2; }
die() { say "$*" && exit 1; }
die_with_log() { # LOG MESSAGE
    tail -n 20 -- "$1" >&2 || true
    die "$2 (log: $1)"
}
usage() { # Prints the header comment of the running script.
    sed -n '2,/^[^#]/s/^# \{0,1\}//p' "$0" >&2
    exit 2
}

# The folder as everything else will spell it: in command lines, in the mount table, in ceph.conf.
resolve() { # DIR
    local path
    path=$(realpath -m -- "$1")
    [[ $path =~ ^/[A-Za-z0-9._+@-]+/[A-Za-z0-9._+@/-]+$ ]] ||
        die "will not use '$path': give a folder below a top-level one, named with letters, digits and ._+@-"
    printf '%s\n' "$path"
}
testbeds_below() { # DIR KIND: the folders that `mark` marked so.
    find "$1" -xdev -maxdepth 5 -name "$marker" -exec grep -l "^$2\b" {} + 2>/dev/null | sed "s|/$marker\$||"
}
socket_fits() { # PATH
    ((${#1} <= 107)) || die "the path of a socket may have 107 characters, '$1' has ${#1}: use a shorter folder"
}
mark() { # DIR KIND: creates the folder and says what lives in it, so that scripts/clean may take it down.
    mkdir -p -- "$1"
    printf '%s\n' "$2" >"$1/$marker"
}

wait_for() { # SECONDS COMMAND…: polls until the command succeeds; fails when the time is over.
    local end=$((${EPOCHREALTIME/./} + $1 * 1000000))
    shift
    until "$@"; do
        ((${EPOCHREALTIME/./} < end)) || return 1
        sleep 0.02
    done
}

wait_up() { # SECONDS PIDFILE DIR COMMAND…: the same for a daemon's readiness; fails as soon as the daemon is gone.
    local up=
    # shellcheck disable=SC2317
    up_or_gone() { "${@:3}" && up=yes || ! live_pid "$1" "$2" >/dev/null; }
    wait_for "$1" up_or_gone "${@:2}" && [[ $up ]]
}

# Process ids are reused, so a number from a file counts only while its command line names the folder.
is_ours() { # PID DIR
    local args=() IFS=$'\n'
    # A live process shows an empty command line for an instant while it becomes another program.
    for _ in {1..10}; do
        { mapfile -d '' -t args <"/proc/$1/cmdline"; } 2>/dev/null || return 1
        [[ ${#args[@]} -gt 0 ]] || ! grep -qs '^State:.[^ZX]' "/proc/$1/status" || { sleep 0.01 && continue; }
        break
    done
    [[ "${args[*]}"$'\n' == *"$2"[$'\n'/]* ]]
}
is_gone() { ! is_ours "$@"; }
live_pid() { # PIDFILE DIR: prints the process id when it is alive and ours.
    local pid
    pid=$(cat -- "$1" 2>/dev/null) && [[ $pid =~ ^[0-9]+$ ]] && is_ours "$pid" "$2" && printf '%s\n' "$pid"
}

# Starts a daemon that outlives the caller and holds none of its descriptors. The id is on disk before
# the program runs, so that a start that is cut short leaves nothing that cannot be found.
spawn() { # PIDFILE LOG COMMAND…
    rm -f -- "$1"
    # shellcheck disable=SC2016
    setsid bash -c 'echo $$ >"$1" && shift && exec "$@"' spawn "$1" "${@:3}" \
        </dev/null >>"$2" 2>&1 3>&- 4>&- 5>&- 6>&- 7>&- 8>&- 9>&- &
    disown
    wait_for 5 test -s "$1" || die "could not start $3"
}
end() { # PIDFILE DIR SECONDS: SIGTERM, and SIGKILL after so many seconds; at once when that is 0.
    local pid
    if pid=$(live_pid "$1" "$2"); then
        if (($3 > 0)); then
            kill -TERM "$pid" 2>/dev/null || true
            kill -CONT "$pid" 2>/dev/null || true
            wait_for "$3" is_gone "$pid" "$2" || say "process $pid ignored SIGTERM for $3 s"
        fi
        is_gone "$pid" "$2" || kill -KILL "$pid" 2>/dev/null || true
        wait_for 10 is_gone "$pid" "$2" || die "process $pid does not end"
    fi
    rm -f -- "$1"
}
signal() { # PIDFILE DIR SIGNAL
    local pid
    pid=$(live_pid "$1" "$2") || die "no running process of ours in $1"
    kill "-$3" "$pid"
}

# Below the range that the kernel gives to outgoing connections, so that none of those can take it.
free_port() {
    local port
    for _ in {1..100}; do
        port=$((20000 + SRANDOM % 12000))
        [[ -n $(ss -Hltn "sport = :$port") ]] || { printf '%s\n' "$port" && return; }
    done
    die "found no free port"
}

# Kills again and again until a command lists nobody, because what we kill may just have started something.
kill_listed() { # COMMAND…
    wait_for 10 nobody_listed "$@" || die "some process does not end: $("$@" | tr '\n' ' ')"
}
nobody_listed() {
    local pids
    pids=$("$@")
    [[ $pids ]] || return 0
    # shellcheck disable=SC2086
    kill -KILL $pids 2>/dev/null || true
    return 1
}

# Programs of these names with this text in their command line, whether or not their ids were recorded.
programs_of() { # TEXT NAME|PATTERN…
    local pid name pattern
    # shellcheck disable=SC2013
    for pid in $(grep -lsaF -- "$1" /proc/[0-9]*/cmdline | cut -d/ -f3); do
        { read -r name <"/proc/$pid/comm"; } 2>/dev/null || continue
        for pattern in "${@:2}"; do
            # shellcheck disable=SC2053
            [[ $name != $pattern ]] || { printf '%s\n' "$pid" && break; }
        done
    done
}

# A container's processes are found by the device of their root, which no other process shares. That
# holds also when whoever started the container is dead.
processes_rooted_on() { # DEVICE…
    (($#)) || return 0
    local IFS='|'
    grep -lsE "^[0-9]+ [0-9]+ ($*) [^ ]+ / " /proc/[0-9]*/mountinfo | cut -d/ -f3 || true
}
devices_below() { # DIR: of what is mounted there and nowhere else.
    comm -23 <(awk -v d="$1/" 'index($5, d) == 1 { print $3 }' /proc/self/mountinfo | sort -u) \
        <(awk -v d="$1/" 'index($5, d) != 1 { print $3 }' /proc/self/mountinfo | sort -u)
}

unmount() { # MOUNTPOINT: lazily when something holds it, or when whoever serves it does not answer.
    timeout 5 umount -c -- "$1" 2>/dev/null || umount -c -l -- "$1" 2>/dev/null || true
}
unmount_below() { # DIR: the innermost first.
    local point
    while read -r point; do
        unmount "$(printf '%b' "$point")"
    done < <(awk -v d="$1/" 'index($5, d) == 1 { print $5 }' /proc/self/mountinfo | tac)
}
loops_backed_below() { # DIR. Asking the device itself would wait for a FUSE server that is stopped.
    local file
    for file in /sys/block/loop*/loop/backing_file; do
        [[ $(cat "$file" 2>/dev/null) != "$1"/* ]] || cut -d/ -f4 <<<"$file"
    done
}
loop_is_gone() { [[ ! -e /sys/block/$1/loop/backing_file ]]; }
detach_loop() { # NAME
    local point
    while read -r point; do
        unmount "$(printf '%b' "$point")"
    done < <(findmnt -rno TARGET -S "/dev/$1" | tac)
    losetup -d "/dev/$1" 2>/dev/null || true
    wait_for 5 loop_is_gone "$1" || die "/dev/$1 is still in use"
}
