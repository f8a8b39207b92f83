//! Which process is at the other end of the socket.
//!
//! The dockerd that mounted a volume is the only one that will ever unmount that use (by
//! its Mount ID): when it is gone, no Unmount will come (FACTS: none after `kill -9`).
//! So each use remembers its dockerd.

use serde::{Deserialize, Serialize};
use tokio::net::UnixStream;
use tokio::sync::oneshot;

/// Who made a call, and whether it still waits for the answer.
#[derive(Debug)]
pub struct Caller {
    /// The process, where it can be seen from here.
    pub dockerd: Option<Peer>,
    answer: oneshot::Sender<()>,
}

impl Caller {
    /// A caller who waits as long as the other end of the channel is there.
    pub fn new(dockerd: Option<Peer>, answer: oneshot::Sender<()>) -> Caller {
        Caller { dockerd, answer }
    }

    /// Whether it will get the answer.
    pub fn waits(&self) -> bool {
        !self.answer.is_closed()
    }
}

/// A process, told from a later one with the same pid by when it started.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Peer {
    /// Its pid, as seen from here.
    pub pid: i32,
    /// When it started, in clock ticks since boot (`proc(5)`, field 22 of `stat`).
    pub started: u64,
}

impl Peer {
    /// The process that connected; `None` where it cannot be seen from here.
    pub fn of(stream: &UnixStream) -> Option<Peer> {
        let pid = stream.peer_cred().ok()?.pid()?;
        Some(Peer { pid, started: started(pid)? })
    }

    /// Whether the process still runs.
    pub fn lives(&self) -> bool {
        started(self.pid) == Some(self.started)
    }
}

fn started(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The second field is the name in parentheses, which may itself have spaces and parentheses.
    let (_, after_name) = stat.rsplit_once(')')?;
    let mut fields = after_name.split_ascii_whitespace();
    let state = fields.next()?;
    if matches!(state, "Z" | "X") {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_lives_and_a_later_one_is_another() {
        let pid = i32::try_from(std::process::id()).unwrap();
        let this = Peer { pid, started: started(pid).unwrap() };
        assert!(this.lives());
        assert!(!Peer { started: this.started + 1, ..this }.lives());
        assert!(!Peer { pid: i32::MAX, started: 1 }.lives());
    }
}
