//! A real etcd (`scripts/etcd`): one member, or several on nodes of their own.

use std::path::{Path, PathBuf};
use std::thread;

use crate::command::{Cmd, Outcome};
use crate::place::{Node, Place};

/// Where members that have a node of their own serve clients, and one further each other.
const PORT: u16 = 2379;

/// An etcd with its data in a folder for each member.
#[derive(Debug)]
pub struct Etcd {
    members: Vec<Member>,
}

/// A member of it.
#[derive(Debug)]
pub struct Member {
    dir: PathBuf,
    url: String,
    place: Place,
    /// What it is told when it is started first.
    flags: Vec<String>,
}

impl Etcd {
    /// Starts one with one member, on loopback.
    #[track_caller]
    pub fn up(dir: &Path) -> Etcd {
        let (dir, url, flags) = (dir.to_owned(), String::new(), Vec::new());
        let mut member = Member { dir, url, place: Place::Here, flags };
        let outcome = member.start();
        member.url =
            outcome.ok().strip_prefix("ETCD_URL=").expect("the script says the URL").to_owned();
        Etcd { members: vec![member] }
    }

    /// Starts one with a member on each of these nodes.
    #[track_caller]
    pub fn on(nodes: &[Node], folder: &Path) -> Etcd {
        let url = |node: &Node, port: u16| format!("http://{}:{port}", node.address());
        let name = |number: usize| format!("etcd{}", number + 1);
        let peers = nodes.iter().enumerate();
        let peers = peers.map(|(number, node)| format!("{}={}", name(number), url(node, PORT + 1)));
        let cluster = peers.collect::<Vec<_>>().join(",");
        let member = |(number, node): (usize, &Node)| {
            let name = name(number);
            let listen = node.address().to_string();
            let port = PORT.to_string();
            let flags =
                ["--listen", &listen, "--port", &port, "--member", &name, "--cluster", &cluster];
            let flags = flags.map(str::to_owned).to_vec();
            Member { dir: folder.join(name), url: url(node, PORT), place: node.place(), flags }
        };
        let etcd = Etcd { members: nodes.iter().enumerate().map(member).collect() };
        etcd.start();
        etcd
    }

    /// Where clients find it, or its first member; the same after every start.
    pub fn url(&self) -> &str {
        &self.members[0].url
    }

    /// The members.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The log, of the first member.
    pub fn log(&self) -> PathBuf {
        self.members[0].log()
    }

    /// SIGKILL to all of it.
    #[track_caller]
    pub fn kill(&self) {
        self.members.iter().for_each(Member::kill);
    }

    /// Starts what does not run with its data, and waits until it is healthy.
    #[track_caller]
    pub fn start(&self) {
        // None of several is healthy by itself.
        thread::scope(|scope| {
            let starting: Vec<_> =
                self.members.iter().map(|member| scope.spawn(|| member.start())).collect();
            for member in starting {
                member.join().expect("it was started").ok();
            }
        });
    }

    /// Tries to run `etcdctl` on all members, with the arguments in one text.
    #[track_caller]
    pub fn try_ctl(&self, line: &str) -> Outcome {
        let urls: Vec<_> = self.members.iter().map(|member| &*member.url).collect();
        self.members[0].etcdctl(&urls.join(",")).words(line).run()
    }

    /// Runs `etcdctl`, with the arguments in one text.
    #[track_caller]
    pub fn ctl(&self, line: &str) -> String {
        self.try_ctl(line).ok().to_owned()
    }

    /// The keys that begin like this.
    #[track_caller]
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let printed = self.ctl(&format!("get --prefix --keys-only {prefix}"));
        printed.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }

    /// Forgets all revisions before the present one, as an operator's cron job does. Whoever watches from an
    /// earlier one has to begin anew.
    #[track_caller]
    pub fn compact(&self) {
        let status = self.try_ctl("endpoint status -w json").json();
        let revision = status[0]["Status"]["header"]["revision"].as_u64().expect("a revision");
        // One that was compacted to already is no error.
        let compacted = self.try_ctl(&format!("compact {revision}"));
        assert!(compacted.is_ok() || compacted.stderr.contains("compacted"), "{compacted}");
    }

    /// Hands leadership to another member. With one member there is nothing to hand over.
    #[track_caller]
    pub fn move_leader(&self) {
        let status = self.try_ctl("endpoint status -w json").json();
        let rows = status.as_array().expect("a row for each member");
        let number = |row: &serde_json::Value, of: &str| row["Status"][of].as_u64();
        let id = |row: &serde_json::Value| row["Status"]["header"]["member_id"].as_u64();
        let leads =
            |row: &&serde_json::Value| id(row).is_some() && id(row) == number(row, "leader");
        let other = rows.iter().find(|row| !leads(row)).and_then(id);
        let (Some(leader), Some(other)) = (rows.iter().find(leads), other) else { return };
        let url = leader["Endpoint"].as_str().expect("the address of the leader");
        self.members[0].etcdctl(url).arg("move-leader").arg(format!("{other:x}")).run().ok();
    }
}

impl Member {
    fn script(&self, verb: &str) -> Cmd {
        self.place.script("etcd").arg(verb).arg(&self.dir)
    }

    fn etcdctl(&self, endpoints: &str) -> Cmd {
        self.place.cmd("etcdctl").env("ETCDCTL_API", "3").args(["--endpoints", endpoints])
    }

    /// Where clients find it.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its log.
    pub fn log(&self) -> PathBuf {
        self.dir.join("etcd.log")
    }

    /// SIGKILL.
    #[track_caller]
    pub fn kill(&self) {
        self.script("kill").run().ok();
    }

    /// Starts it if it does not run, and waits until it is healthy, for which most of the members have to run.
    #[track_caller]
    pub fn start(&self) -> Outcome {
        self.script("up").args(&self.flags).run()
    }

    /// SIGSTOP: connections stand, and nobody answers.
    #[track_caller]
    pub fn freeze(&self) {
        self.script("stop").run().ok();
    }

    /// SIGCONT; it need not run.
    pub fn thaw(&self) {
        let _ = self.script("cont").run();
    }
}
