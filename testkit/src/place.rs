//! Machines with addresses of their own, on one wire: namespaces that a test made (`scripts/host --net`).
//!
//! A [`Node`] is such a machine; the first, the hub, has the bridge that the others are joined to. A [`Place`] says
//! where a process runs. The test itself is on none of them: it reaches them through [`Place::cmd`] and [`Place::connect`].

use std::fs::File;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use nix::sched::{CloneFlags, setns};

use crate::bed::Testbed;
use crate::command::Cmd;

/// A connection stands within this time, or nobody is there.
const CONNECT: Duration = Duration::from_secs(5);
/// A hardware address that nobody has: what is sent there is lost without a word.
const NOBODY: &str = "02:de:ad:00:00:00";

/// Where a process runs.
#[derive(Clone, Debug)]
pub enum Place {
    /// On this machine.
    Here,
    /// On a node of the wire.
    Node {
        /// Its name, which is also that of its network namespace.
        name: String,
        /// Its folder.
        dir: PathBuf,
    },
}

impl Place {
    /// A command that runs there.
    pub fn cmd(&self, program: impl AsRef<std::ffi::OsStr>) -> Cmd {
        match self {
            Place::Here => Cmd::new(program),
            Place::Node { name, dir } => {
                Cmd::script("host").args(["exec", name]).arg(dir).arg("--").arg(program)
            }
        }
    }

    /// One of the scripts, run there.
    pub fn script(&self, name: &str) -> Cmd {
        self.cmd(crate::command::scripts().join(name))
    }

    /// One of the suite's binaries, run there.
    pub fn suite(&self, name: &str) -> Cmd {
        self.cmd(crate::command::binary(name))
    }

    /// Does something with the network of the place: sockets that are made in it stay there.
    pub fn within<T: Send>(&self, work: impl FnOnce() -> T + Send) -> io::Result<T> {
        let Place::Node { name, .. } = self else { return Ok(work()) };
        let network = File::open(format!("/run/netns/{name}"))?;
        // Only a thread changes its network, not the process; so it is one that ends with the work.
        let moved = move || {
            setns(network, CloneFlags::CLONE_NEWNET)?;
            Ok(work())
        };
        thread::scope(|scope| scope.spawn(moved).join())
            .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
    }

    /// Connects to an address as a process there would.
    pub fn connect(&self, address: SocketAddr) -> io::Result<TcpStream> {
        self.within(|| TcpStream::connect_timeout(&address, CONNECT))?
    }

    /// Listens on an address of the place.
    pub fn listen(&self, address: SocketAddr) -> io::Result<TcpListener> {
        self.within(|| TcpListener::bind(address))?
    }
}

/// A machine on the wire. It is powered off when this is dropped.
#[derive(Debug)]
pub struct Node {
    name: String,
    dir: PathBuf,
    index: u8,
}

impl Node {
    /// The node with the bridge, 10.77.0.1.
    #[track_caller]
    pub fn hub(folder: &Path) -> Node {
        let node = Node { name: unique(folder, "hub"), dir: folder.join("hub"), index: 0 };
        Cmd::script("host")
            .args(["up", &node.name])
            .arg(&node.dir)
            .words("--net --index 0")
            .run()
            .ok();
        node
    }

    /// A node that is joined to the hub as number `index`: 10.77.0.(10 + index).
    #[track_caller]
    pub fn join(folder: &Path, label: &str, index: u8, hub: &Node) -> Node {
        let node = Node { name: unique(folder, label), dir: folder.join(label), index };
        let up = Cmd::script("host").args(["up", &node.name]).arg(&node.dir).arg("--net");
        up.args(["--index", &index.to_string(), "--join", &hub.name]).run().ok();
        node
    }

    /// Its name on this machine.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its address.
    pub fn address(&self) -> IpAddr {
        address_of(self.index)
    }

    /// For what runs there.
    pub fn place(&self) -> Place {
        Place::Node { name: self.name.clone(), dir: self.dir.clone() }
    }

    /// This end of a line to another node.
    pub fn end(&self) -> End {
        End { name: self.name.clone(), index: self.index }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = Cmd::script("host").args(["down", &self.name]).arg(&self.dir).run();
    }
}

/// A name that is unique on this machine, for a node or a host of a suite.
pub(crate) fn unique(folder: &Path, label: &str) -> String {
    let suite = folder.file_name().unwrap_or_default().to_string_lossy();
    format!("{}-{suite}-{label}", Testbed::here().id())
}

/// The address of the node with this number; 0 is the hub.
pub fn address_of(index: u8) -> IpAddr {
    let last = if index == 0 { 1 } else { 10 + index };
    IpAddr::V4(Ipv4Addr::new(10, 77, 0, last))
}

/// One end of a line between two nodes. The node may be off.
#[derive(Clone, Debug)]
pub struct End {
    /// The name of its network namespace.
    pub(crate) name: String,
    /// Its number on the wire.
    pub(crate) index: u8,
}

impl End {
    fn neighbour(&self, words: &str, other: &End) {
        let device = if self.index == 0 { "br0" } else { "eth0" };
        let address = address_of(other.index).to_string();
        let ip = Cmd::new("ip").args(["-n", &self.name, "neigh"]).words(words).arg(address);
        let ip = ip.args(["dev", device]);
        let ip =
            if words == "replace" { ip.args(["lladdr", NOBODY, "nud", "permanent"]) } else { ip };
        // A node that is off has no neighbours, and one that is not cut off needs no mending.
        let _ = ip.run();
    }

    /// Cuts the line: what either end sends to the other is lost without a word, also over connections that stand.
    pub fn cut(&self, other: &End) {
        self.neighbour("replace", other);
        other.neighbour("replace", self);
    }

    /// What this end sends to the other is lost, and what the other sends arrives.
    pub fn mute(&self, other: &End) {
        self.neighbour("replace", other);
    }

    /// Mends the line in both directions.
    pub fn mend(&self, other: &End) {
        self.neighbour("del", other);
        other.neighbour("del", self);
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::Shutdown;

    use super::*;
    use crate::poll;

    /// Answers each connection with what it was sent.
    fn echo(listener: TcpListener) {
        thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(mut stream) = stream else { return };
                thread::spawn(move || {
                    let mut chunk = [0; 64];
                    while let Ok(count @ 1..) = stream.read(&mut chunk) {
                        if stream.write_all(&chunk[..count]).is_err() {
                            return;
                        }
                    }
                    let _ = stream.shutdown(Shutdown::Both);
                });
            }
        });
    }

    fn answers(stream: &mut TcpStream) -> bool {
        stream.set_read_timeout(Some(Duration::from_millis(300))).expect("a limit");
        let mut chunk = [0; 1];
        stream.write_all(b"x").is_ok() && stream.read_exact(&mut chunk).is_ok()
    }

    #[test]
    fn a_line_is_cut_for_two_nodes_alone_and_mended() {
        let folder = Testbed::here().folder("wire");
        let hub = Node::hub(&folder);
        let [one, two] = [1, 2].map(|index| Node::join(&folder, &format!("n{index}"), index, &hub));
        let address = SocketAddr::new(hub.address(), 7);
        echo(hub.place().listen(address).expect("a listener at the hub"));
        let mut first = one.place().connect(address).expect("the first reaches the hub");
        let mut second = two.place().connect(address).expect("the second reaches the hub");
        assert!(answers(&mut first) && answers(&mut second));
        for twice in 0..2 {
            one.end().cut(&hub.end());
            assert!(!answers(&mut first), "cut off, {twice}");
            assert!(answers(&mut second), "the other is not, {twice}");
        }
        let new = one.place().connect(address);
        assert_eq!(
            new.expect_err("nobody answers").kind(),
            io::ErrorKind::TimedOut,
            "and nobody says no"
        );
        for _ in 0..2 {
            one.end().mend(&hub.end());
        }
        poll::until("the line to be whole again", Duration::from_secs(20), || {
            poll::holds(answers(&mut first), "no answer")
        });
        hub.end().mute(&two.end());
        assert!(!answers(&mut second), "what is answered is lost");
        two.end().mend(&hub.end());
        assert!(two.place().connect(address).is_ok(), "and not for ever");
    }
}
