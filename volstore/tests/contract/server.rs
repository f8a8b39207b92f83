//! Real etcds in folders of their own, ended when the test is.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;

/// A running etcd.
pub struct EtcdServer {
    folder: tempfile::TempDir,
    url: String,
}

impl EtcdServer {
    pub fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let url = script("up", folder.path());
        EtcdServer { folder, url: url.trim().strip_prefix("ETCD_URL=").unwrap().to_owned() }
    }

    pub fn url(&self) -> String {
        self.url.clone()
    }

    /// Kills it with SIGKILL; the data stay.
    pub fn kill(&self) {
        script("kill", self.folder.path());
    }

    /// Starts it again on the same port, with its data.
    pub fn restart(&self) {
        script("up", self.folder.path());
    }

    /// Stops it from answering, or lets it go on.
    pub fn signal(&self, signal: &str) {
        let pid = std::fs::read_to_string(self.folder.path().join("etcd.pid")).unwrap();
        let status = Command::new("kill").args([signal, pid.trim()]).status().unwrap();
        assert!(status.success(), "kill {signal} {pid}: {status}");
    }

    /// etcd itself, past the store.
    pub async fn client(&self) -> etcd_client::Client {
        etcd_client::Client::connect([&self.url], None).await.unwrap()
    }
}

impl Drop for EtcdServer {
    fn drop(&mut self) {
        script("kill", self.folder.path());
    }
}

fn script(verb: &str, folder: &Path) -> String {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../scripts/etcd");
    let mut command = Command::new(program);
    command.arg(verb).arg(folder).stdin(Stdio::null()).stderr(Stdio::inherit());
    let output = command.output().unwrap();
    assert!(output.status.success(), "scripts/etcd {verb}: {}", output.status);
    String::from_utf8(output.stdout).unwrap()
}

/// A port where nobody listens now.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

/// Several etcds that are one.
pub struct Cluster {
    members: Vec<Member>,
    _folder: tempfile::TempDir,
}

struct Member {
    url: String,
    process: Mutex<Child>,
}

impl Cluster {
    /// Starts them, and waits for none.
    pub fn start(size: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let peers: Vec<String> =
            (0..size).map(|_| format!("http://127.0.0.1:{}", free_port())).collect();
        let all: Vec<String> =
            peers.iter().enumerate().map(|(i, url)| format!("m{i}={url}")).collect();
        let start = |(i, peer): (usize, &String)| {
            let url = format!("http://127.0.0.1:{}", free_port());
            let mut command = Command::new("etcd");
            command.args(["--name", &format!("m{i}"), "--initial-cluster", &all.join(",")]);
            command.arg("--data-dir").arg(folder.path().join(format!("m{i}")));
            command.args(["--listen-client-urls", &url, "--advertise-client-urls", &url]);
            command.args(["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer]);
            command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
            Member { url, process: Mutex::new(command.spawn().unwrap()) }
        };
        Cluster { members: peers.iter().enumerate().map(start).collect(), _folder: folder }
    }

    pub fn urls(&self) -> Vec<String> {
        self.members.iter().map(|member| member.url.clone()).collect()
    }

    /// Kills the leader with SIGKILL.
    pub async fn kill_leader(&self) {
        for member in &self.members {
            let mut client = etcd_client::Client::connect([&member.url], None).await.unwrap();
            let status = client.status().await.unwrap();
            if status.leader() == status.header().unwrap().member_id() {
                return member.kill();
            }
        }
        panic!("there is no leader to kill");
    }
}

impl Member {
    fn kill(&self) {
        let mut process = self.process.lock().unwrap();
        process.kill().unwrap();
        process.wait().unwrap();
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}
