//! The suite as an operator runs it: a store, images, volmasters, Docker hosts with volplugin.

use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};
use std::thread;

use crate::bed::Testbed;
use crate::ceph::Ceph;
use crate::command::{Cmd, Outcome};
use crate::etcd::Etcd;
use crate::host::Host;
use crate::master::Master;
use crate::place::Place;
use crate::supervisor::{Clock, Supervisor};
use crate::wire::Wire;

/// Where the metadata is.
#[derive(Debug)]
pub enum Store {
    /// In volmaster's own file.
    Embedded,
    /// In etcd.
    Etcd(Etcd),
}

/// Where the images are.
#[derive(Clone, Debug)]
pub enum Images {
    /// In files below a folder.
    File(PathBuf),
    /// In Ceph.
    Ceph(Arc<Ceph>),
}

/// All of it.
#[derive(Debug)]
pub struct Suite {
    /// Its name, which is that of its folder.
    pub name: String,
    /// Its folder.
    pub dir: PathBuf,
    /// The metadata.
    pub store: Store,
    /// The images.
    pub images: Images,
    /// The volmasters.
    pub masters: Vec<Master>,
    /// The hosts `h1`, `h2` …
    pub hosts: Vec<Host>,
    /// What connects it, if its machines have addresses of their own (see [`crate::wire`]).
    pub wire: Option<Wire>,
    /// Held for reading by stories that others may run beside, for writing by those that
    /// break something.
    pub(crate) gate: RwLock<()>,
}

/// How many of each there are, and what else they are told.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Volmasters; more than one need etcd.
    pub masters: usize,
    /// Hosts.
    pub hosts: usize,
    /// Further flags of every volmaster, apart by white space.
    pub master_flags: &'static str,
    /// Further flags of every volplugin.
    pub plugin_flags: &'static str,
}

impl Size {
    /// So many volmasters and hosts, with nothing else said.
    pub const fn of(masters: usize, hosts: usize) -> Size {
        Size { masters, hosts, master_flags: "", plugin_flags: "" }
    }
}

impl Suite {
    /// On one machine: the embedded store and image files, one volmaster.
    #[track_caller]
    pub fn one_machine(name: &str, size: Size) -> Suite {
        let dir = Testbed::here().folder(name);
        let images = Images::File(dir.join("images"));
        Suite::start(name, Store::Embedded, images, size)
    }

    /// On etcd and a Ceph that runs already.
    #[track_caller]
    pub fn cluster(name: &str, ceph: &Arc<Ceph>, size: Size) -> Suite {
        let dir = Testbed::here().folder(name);
        let etcd = Etcd::up(&dir.join("etcd"));
        Suite::start(name, Store::Etcd(etcd), Images::Ceph(Arc::clone(ceph)), size)
    }

    /// On etcd and image files: for what concerns etcd alone.
    #[track_caller]
    pub fn on_etcd(name: &str, size: Size) -> Suite {
        let dir = Testbed::here().folder(name);
        let etcd = Etcd::up(&dir.join("etcd"));
        Suite::start(name, Store::Etcd(etcd), Images::File(dir.join("images")), size)
    }

    /// On etcd and a Ceph that runs already, with two hosts: `h1` has a kernel of its own, which has
    /// rbd and nbd (`scripts/guest`), and `h2` has this machine's.
    #[track_caller]
    pub fn with_guest(name: &str, ceph: &Arc<Ceph>, size: Size) -> Suite {
        let mut suite = Suite::cluster(name, ceph, Size { hosts: 0, ..size });
        let mut flags = plugin_flags(suite.master_urls(), &suite.images);
        flags.extend(size.plugin_flags.split_whitespace().map(str::to_owned));
        let mut ports = ceph.ports();
        ports.extend(suite.masters.iter().map(Master::port));
        suite.hosts = thread::scope(|scope| {
            let guest = scope.spawn(|| Host::guest(&suite.dir, "h1", &flags, ports));
            let host = Host::up(&suite.dir, "h2", &flags);
            vec![guest.join().expect("the guest is up"), host]
        });
        suite
    }

    #[track_caller]
    fn start(name: &str, store: Store, images: Images, size: Size) -> Suite {
        let dir = Testbed::here().folder(name);
        let mut flags = master_flags(&store, &images);
        flags.extend(size.master_flags.split_whitespace().map(str::to_owned));
        let masters: Vec<Master> = (1..=size.masters)
            .map(|number| Master::start(&dir, &format!("master{number}"), &flags))
            .collect();
        let mut flags = plugin_flags(masters.iter().map(Master::url).collect(), &images);
        flags.extend(size.plugin_flags.split_whitespace().map(str::to_owned));
        let hosts = up_all(&dir, &flags, size.hosts);
        let name = name.to_owned();
        Suite { name, dir, store, images, masters, hosts, wire: None, gate: RwLock::new(()) }
    }

    /// The first volmaster.
    pub fn master(&self) -> &Master {
        &self.masters[0]
    }

    /// The first host.
    pub fn h1(&self) -> &Host {
        &self.hosts[0]
    }

    /// The second host.
    pub fn h2(&self) -> &Host {
        &self.hosts[1]
    }

    /// The third host.
    pub fn h3(&self) -> &Host {
        &self.hosts[2]
    }

    /// The etcd behind it.
    #[track_caller]
    pub fn etcd(&self) -> &Etcd {
        match &self.store {
            Store::Etcd(etcd) => etcd,
            Store::Embedded => panic!("this suite has no etcd"),
        }
    }

    /// The Ceph behind it.
    #[track_caller]
    pub fn ceph(&self) -> &Ceph {
        match &self.images {
            Images::Ceph(ceph) => ceph,
            Images::File(_) => panic!("this suite has no Ceph"),
        }
    }

    /// Runs `volcli` against all volmasters, with the arguments in one text.
    #[track_caller]
    pub fn volcli(&self, line: &str) -> Outcome {
        self.volcli_cmd().words(line).run()
    }

    /// The same with something to read.
    #[track_caller]
    pub fn volcli_with_stdin(&self, line: &str, stdin: &str) -> Outcome {
        self.volcli_cmd().words(line).stdin(stdin).run()
    }

    /// Runs `volcli` straight on etcd, without a volmaster.
    #[track_caller]
    pub fn volcli_direct(&self, line: &str) -> Outcome {
        let url = self.etcd().members()[0].url();
        self.operator().suite("volcli").words(line).args(["--etcd", url]).run()
    }

    /// Starts a volsupervisor of all volmasters.
    #[track_caller]
    pub fn supervisor(&self, name: &str, clock: Clock) -> Supervisor {
        Supervisor::start(&self.dir, name, &self.master_urls(), "", clock)
    }

    /// The addresses of all volmasters.
    pub fn master_urls(&self) -> Vec<String> {
        self.masters.iter().map(Master::url).collect()
    }

    fn volcli_cmd(&self) -> Cmd {
        self.operator().suite("volcli").args(["--master", &self.master().url()])
    }

    /// Where the operator is.
    pub fn operator(&self) -> Place {
        self.wire.as_ref().map_or(Place::Here, |wire| wire.hub.place())
    }

    /// Starts whatever does not run: what a story that failed has left.
    #[track_caller]
    pub fn heal(&self) {
        if self.wire.is_some() {
            crate::fault::heal_all(self);
            self.ceph().start();
        }
        if let Store::Etcd(etcd) = &self.store {
            etcd.start();
        }
        for master in &self.masters {
            master.thaw();
            master.start_again();
        }
        for host in &self.hosts {
            host.power_on();
            host.docker_start();
        }
    }

    /// The logs of everything.
    pub fn logs(&self) -> Vec<PathBuf> {
        let masters = self.masters.iter().map(Master::log);
        let hosts = self.hosts.iter().flat_map(|host| [host.plugin_log(), host.docker_log()]);
        masters.chain(hosts).collect()
    }
}

fn master_flags(store: &Store, images: &Images) -> Vec<String> {
    let mut flags = match store {
        Store::Embedded => vec!["--store".to_owned(), "embedded".to_owned()],
        Store::Etcd(etcd) => ["--store", "etcd", "--etcd", etcd.url()].map(str::to_owned).to_vec(),
    };
    flags.extend(image_flags(images));
    flags
}

pub(crate) fn image_flags(images: &Images) -> [String; 4] {
    let path = |path: &Path| path.display().to_string();
    let [kind, option, value] = match images {
        Images::File(root) => ["file", "--image-root", &path(root)].map(str::to_owned),
        Images::Ceph(ceph) => ["rbd", "--ceph-conf", &path(ceph.conf())].map(str::to_owned),
    };
    ["--images".to_owned(), kind, option, value]
}

pub(crate) fn plugin_flags(masters: Vec<String>, images: &Images) -> Vec<String> {
    let mut flags: Vec<String> =
        masters.into_iter().flat_map(|url| ["--master".to_owned(), url]).collect();
    if let Images::Ceph(ceph) = images {
        let conf = ceph.conf().display().to_string();
        flags.extend(["--ceph-conf", &conf, "--ceph-user", "volplugin"].map(str::to_owned));
    }
    flags
}

/// Powers on `h1` … `h<count>`, all at once.
#[track_caller]
fn up_all(dir: &Path, flags: &[String], count: usize) -> Vec<Host> {
    thread::scope(|scope| {
        let starting: Vec<_> = (1..=count)
            .map(|number| scope.spawn(move || Host::up(dir, &format!("h{number}"), flags)))
            .collect();
        starting.into_iter().map(|host| host.join().expect("the host is up")).collect()
    })
}
