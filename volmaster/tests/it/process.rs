//! The binary: its usage errors, its exit codes, its end.

use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::client::Client;
use crate::stage::{POLICY, until};

/// A real etcd with its data in a folder, until this is dropped.
struct Etcd {
    folder: tempfile::TempDir,
    url: String,
}

impl Etcd {
    fn up() -> Etcd {
        let folder = tempfile::tempdir().unwrap();
        let output = Etcd::script("up", folder.path());
        let url = String::from_utf8(output.stdout).unwrap();
        let url = url.trim().strip_prefix("ETCD_URL=").unwrap().to_owned();
        Etcd { folder, url }
    }

    fn kill(&self) {
        Etcd::script("kill", self.folder.path());
    }

    fn again(&self) {
        Etcd::script("up", self.folder.path());
    }

    #[expect(clippy::disallowed_methods, reason = "the script starts and stops a server")]
    fn script(verb: &str, folder: &Path) -> Output {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/etcd");
        let output = Command::new(script).arg(verb).arg(folder).output().unwrap();
        assert!(output.status.success(), "{}", said(&output));
        output
    }
}

impl Drop for Etcd {
    fn drop(&mut self) {
        self.kill();
    }
}

#[expect(clippy::disallowed_methods, reason = "the program under test is started by itself")]
fn command(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_volmaster"));
    command.args(args).env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(args: &[&str]) -> Output {
    command(args).output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// A volmaster that serves, until this is dropped.
struct Running {
    child: Child,
    client: Client,
    log: BufReader<std::process::ChildStderr>,
}

impl Running {
    /// Starts one, and reads its log until it says where it listens.
    fn start(folder: &Path, args: &[&str]) -> Running {
        let folder = folder.to_str().unwrap();
        let own = ["--listen", "127.0.0.1:0", "--data-dir", folder];
        let mut child = command(&[&own, args].concat()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let address: SocketAddr = loop {
            let mut line = String::new();
            assert!(log.read_line(&mut line).unwrap() > 0, "it ended: {:?}", child.wait());
            if let Some((_, address)) = line.split_once("listening on http://") {
                let end = address.find(|c: char| c != ':' && c != '.' && !c.is_ascii_digit());
                break address[..end.unwrap()].parse().unwrap();
            }
        };
        Running { child, client: Client { address }, log }
    }

    /// SIGTERM; the exit code, how long it took, and the rest of the log.
    fn stop(mut self) -> (Option<i32>, Duration, String) {
        let began = Instant::now();
        kill(Pid::from_raw(i32::try_from(self.child.id()).unwrap()), Signal::SIGTERM).unwrap();
        let status = self.child.wait().unwrap();
        let mut rest = String::new();
        self.log.read_to_string(&mut rest).unwrap();
        (status.code(), began.elapsed(), rest)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

#[test]
fn usage_errors_exit_with_2_and_say_why() {
    let exposed = run(&["--listen", "0.0.0.0:9005"]);
    assert_eq!(exposed.status.code(), Some(2));
    insta::assert_snapshot!(said(&exposed), @"volmaster: --listen 0.0.0.0:9005 is not a loopback address, and there is neither TLS nor authentication: anybody who reaches it could remove every volume. Listen on loopback, or give --insecure on a network that you trust");
    let unknown = run(&["--colour"]);
    assert_eq!(unknown.status.code(), Some(2));
    let store = run(&["--store", "paper"]);
    assert_eq!(store.status.code(), Some(2));
    insta::assert_snapshot!(said(&store), @r"
    error: invalid value 'paper' for '--store <STORE>'
      [possible values: etcd, embedded]

    For more information, try '--help'.
    ");
    for (url, why) in [
        ("foo", "it has to begin with http://"),
        ("http://127.0.0.1:99999", "its port is not a number from 1 to 65535"),
    ] {
        let etcd = run(&["--store", "etcd", "--etcd", url]);
        assert_eq!(etcd.status.code(), Some(2));
        let line = said(&etcd);
        let expected = format!(
            "error: invalid value '{url}' for '--etcd <URL>': etcd endpoint {url:?} is not like \
             http://127.0.0.1:2379: {why}\n"
        );
        assert!(line.starts_with(&expected), "{line}");
    }
    let file = run(&["--config", "/nowhere.toml"]);
    assert_eq!(file.status.code(), Some(2));
    insta::assert_snapshot!(said(&file), @"volmaster: could not read the configuration file /nowhere.toml: No such file or directory (os error 2)");
}

#[test]
fn help_and_version() {
    let help = run(&["--help"]);
    assert_eq!(help.status.code(), Some(0));
    let lines = String::from_utf8(help.stdout).unwrap();
    let lines: Vec<&str> = lines.lines().map(str::trim_end).collect();
    insta::assert_snapshot!(lines.join("\n"), @r"
    The control plane of the volume suite: REST over a metadata store and the images.

    On one machine, without anything else:

      volmaster --data-dir /var/lib/volmaster

    On Ceph and etcd, as often as you like:

      volmaster --store etcd --etcd http://10.0.0.1:2379 --images rbd

    Usage: volmaster [OPTIONS]

    Options:
          --listen <ADDRESS:PORT>
              The address to serve on; one that is not loopback wants --insecure [default:
              127.0.0.1:9005]

              [env: VOLMASTER_LISTEN=]

          --store <STORE>
              Where the metadata is [default: embedded]

              Possible values:
              - etcd:     In etcd: any number of volmasters
              - embedded: In one local file: one volmaster

              [env: VOLMASTER_STORE=]

          --etcd <URL>
              An etcd endpoint, for --store etcd; give it once for each member

              [env: VOLMASTER_ETCD=]

          --data-dir <DIR>
              The folder of the embedded store and of scratch files [default: /var/lib/volmaster]

              [env: VOLMASTER_DATA_DIR=]

          --images <IMAGES>
              Where the images are [default: file]

              Possible values:
              - rbd:  In Ceph
              - file: In local files

              [env: VOLMASTER_IMAGES=]

          --image-root <DIR>
              The folder of the image files, for --images file [default: images in the data folder]

              [env: VOLMASTER_IMAGE_ROOT=]

          --ceph-conf <FILE>
              Ceph's configuration, for --images rbd [default: /etc/ceph/ceph.conf]

              [env: VOLMASTER_CEPH_CONF=]

          --ceph-user <NAME>
              The Ceph user, without `client.`, for --images rbd [default: admin]

              [env: VOLMASTER_CEPH_USER=]

          --ceph-snapshot-user <NAME>
              The Ceph user through which snapshots are taken, who should not be allowed to blocklist
              [default: volplugin-snapshots, which is made if --ceph-user may]

              [env: VOLMASTER_CEPH_SNAPSHOT_USER=]

          --default-pool <POOL>
              The pool of volumes whose tenant's policy names none [default: rbd]

              [env: VOLMASTER_DEFAULT_POOL=]

          --prefix <PREFIX>
              Where the keys in the store begin [default: /volplugin]

              [env: VOLMASTER_PREFIX=]

          --insecure
              Serves on any address, though there is neither TLS nor authentication yet

              [env: VOLMASTER_INSECURE=]

          --config <FILE>
              A TOML file with any of these settings, by the names of the flags

              [env: VOLMASTER_CONFIG=]

          --debug
              Logs more

              [env: VOLMASTER_DEBUG=]

          --log-format <LOG_FORMAT>
              How log lines are written [default: text]

              Possible values:
              - text: For people
              - json: For programs

              [env: VOLMASTER_LOG_FORMAT=]

      -h, --help
              Print help (see a summary with '-h')

      -V, --version
              Print version
    ");
    let version = run(&["--version"]);
    assert!(String::from_utf8_lossy(&version.stdout).starts_with("volmaster 0."));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn it_ends_well_and_finds_everything_again() {
    let folder = tempfile::tempdir().unwrap();
    let running = Running::start(folder.path(), &["--log-format", "json"]);
    let client = running.client;
    client.put("/v1/tenants/t", POLICY).await.expect(201);
    client.post("/v1/volumes", r#"{"tenant": "t", "name": "v"}"#).await.expect(201);

    // The file is in use: a second one says so, and which.
    let second = run(&["--listen", "127.0.0.1:0", "--data-dir", folder.path().to_str().unwrap()]);
    assert_eq!(second.status.code(), Some(1));
    let last = said(&second).lines().last().unwrap().to_owned();
    assert!(last.contains("volmaster.redb is in use by another process"), "{last}");
    // So is the port.
    let other = tempfile::tempdir().unwrap();
    let taken = running.client.address.to_string();
    let third = run(&["--listen", &taken, "--data-dir", other.path().to_str().unwrap()]);
    assert_eq!(third.status.code(), Some(1));
    assert!(said(&third).contains(&format!("could not listen on {taken}")), "{}", said(&third));

    let (code, took, log) = running.stop();
    assert_eq!(code, Some(0), "{log}");
    assert!(took < Duration::from_secs(30), "{took:?}");
    for line in log.lines() {
        serde_json::from_str::<serde_json::Value>(line).unwrap();
    }
    let again = Running::start(folder.path(), &[]);
    again.client.get("/v1/volumes/t/v").await.expect(200);
    again.client.delete("/v1/volumes/t/v").await.expect(200);
    // The space is freed in the background.
    let trash = folder.path().join("images/rbd/.trash");
    let is_empty = || std::fs::read_dir(&trash).unwrap().next().is_none();
    until("the trash to be purged", is_empty).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_etcd_it_starts_and_says_so() {
    let folder = tempfile::tempdir().unwrap();
    // A port that nobody listens on.
    let free = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let etcd = format!("http://{free}");
    let running = Running::start(folder.path(), &["--store", "etcd", "--etcd", &etcd]);
    running.client.get("/healthz").await.expect(200);
    let ready = running.client.get("/readyz").await.expect(503).json();
    let detail = ready["detail"].as_str().unwrap().to_owned();
    assert!(detail.contains(&format!("etcd at {etcd}")), "{detail}");
    running.client.get("/v1/volumes").await.expect(503);
    let (code, took, log) = running.stop();
    assert_eq!(code, Some(0), "{log}");
    assert!(took < Duration::from_secs(30), "{took:?}");
}

/// Two volmasters over one etcd and one folder of images.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_over_one_etcd() {
    let (etcd, images) = (Etcd::up(), tempfile::tempdir().unwrap());
    let folders = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let root = images.path().to_str().unwrap();
    let args = ["--store", "etcd", "--etcd", &etcd.url, "--image-root", root];
    let [a, b] = folders.each_ref().map(|folder| Running::start(folder.path(), &args));
    a.client.put("/v1/tenants/t", POLICY).await.expect(201);
    for n in 0..10 {
        let body = format!(r#"{{"tenant": "t", "name": "v{n}"}}"#);
        let (one, other) =
            tokio::join!(a.client.post("/v1/volumes", &body), b.client.post("/v1/volumes", &body));
        let mut statuses = [one.status, other.status];
        statuses.sort_unstable();
        assert_eq!(statuses, [200, 201], "{} {}", one.text(), other.text());
        assert_eq!(one.json()["uid"], other.json()["uid"]);
        let list = b.client.get("/v1/volumes?view=brief").await.expect(200).json();
        assert_eq!(list["items"].as_array().unwrap().len(), n + 1);
    }
    let claim = |host: &str| format!(r#"{{"host": "{host}", "boot_id": "b", "mount_ids": ["m"]}}"#);
    let (one, other) = (claim("h1"), claim("h2"));
    let (one, other) = tokio::join!(
        a.client.put("/v1/mounts/t/v0", &one),
        b.client.put("/v1/mounts/t/v0", &other)
    );
    assert_eq!(one.status.min(other.status), 201, "{} {}", one.text(), other.text());
    assert_eq!(one.status.max(other.status), 409);

    etcd.kill();
    let lost = a.client.get("/v1/volumes/t/v0").await.expect(503).json();
    assert_eq!(lost["kind"], "unavailable");
    b.client.delete("/v1/volumes/t/v1").await.expect(503);
    etcd.again();
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        let answer = b.client.delete("/v1/volumes/t/v1").await;
        if answer.status != 503 {
            answer.expect(200);
            break;
        }
        assert!(Instant::now() < end, "etcd is back, and not noticed: {}", answer.text());
    }
    let list = a.client.get("/v1/volumes?view=brief").await.expect(200).json();
    assert_eq!(list["items"].as_array().unwrap().len(), 9);
}
