//! The suite on machines with addresses of their own, so that each can be cut off from each other one.
//!
//! | node | address | what runs there |
//! |---|---|---|
//! | hub | 10.77.0.1 | Ceph, and the operator: `volcli`, `ceph`, `rbd` |
//! | h1, h2 … | 10.77.0.11 … | dockerd and volplugin |
//! | m1, m2 … | 10.77.0.21 … | a volmaster |
//! | e1, e2 … | 10.77.0.31 … | a member of etcd |
//!
//! The range may be used again by each test process: nothing of it is seen outside of namespaces that the test made.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::{Arc, RwLock};
use std::thread;

use crate::bed::Testbed;
use crate::ceph::Ceph;
use crate::etcd::Etcd;
use crate::host::Host;
use crate::master::Master;
use crate::place::Node;
use crate::proxy::Proxy;
use crate::suite::{Images, Size, Store, Suite};

/// Where the line from the hosts to a volmaster goes through, if answers are to get lost.
const MASTER_PROXY: u16 = 9006;

/// The machines that are no hosts, and the lines between them.
#[derive(Debug)]
pub struct Wire {
    /// Those of the volmasters.
    pub masters: Vec<Node>,
    /// Those of the members of etcd.
    pub etcd: Vec<Node>,
    /// The lines from the hosts to each volmaster; none if they are direct.
    pub to_masters: Vec<Proxy>,
    /// The lines from each volmaster to the first member of etcd; none if they are direct.
    pub to_etcd: Vec<Proxy>,
    /// Where Ceph and the operator are. It is the last to go.
    pub hub: Node,
}

/// How the machines are connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lines {
    /// By cables alone.
    Direct,
    /// Through proxies that can lose answers: from hosts to volmasters, and from volmasters to etcd.
    Lossy,
}

/// How many machines there are.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    /// Volmasters and hosts, at most nine of each.
    pub size: Size,
    /// Members of etcd.
    pub members: u8,
    /// How they are connected.
    pub lines: Lines,
}

impl Suite {
    /// On a Ceph, an etcd, volmasters and hosts that all have addresses of their own.
    #[track_caller]
    pub fn on_wire(name: &str, layout: Layout) -> Suite {
        let Layout { size, members, lines } = layout;
        let dir = Testbed::here().folder(name);
        let hub = Node::hub(&dir);
        let etcd_nodes = nodes(&dir, "e", 21, usize::from(members), &hub);
        let master_nodes = nodes(&dir, "m", 11, size.masters, &hub);
        let (ceph, etcd) = thread::scope(|scope| {
            let ceph = scope.spawn(|| Ceph::on(&hub, &dir.join("ceph")));
            let etcd = Etcd::on(&etcd_nodes, &dir);
            (Arc::new(ceph.join().expect("Ceph is up")), etcd)
        });
        let (images, store) = (Images::Ceph(ceph), Store::Etcd(etcd));
        let mut wire = Wire {
            masters: master_nodes,
            etcd: etcd_nodes,
            to_masters: Vec::new(),
            to_etcd: Vec::new(),
            hub,
        };
        let masters = wire.masters_on(&dir, &store, &images, layout);
        if lines == Lines::Lossy {
            wire.to_masters = masters
                .iter()
                .zip(&wire.masters)
                .map(|(master, node)| {
                    let address = SocketAddr::new(node.address(), MASTER_PROXY);
                    Proxy::start(&node.place(), address, master.address())
                })
                .collect();
        }
        let urls = match lines {
            Lines::Direct => masters.iter().map(Master::url).collect(),
            Lines::Lossy => {
                wire.to_masters.iter().map(|proxy| format!("http://{}", proxy.address())).collect()
            }
        };
        let hosts = wire.hosts_on(&dir, urls, &images, size);
        let (name, gate) = (name.to_owned(), RwLock::new(()));
        Suite { name, dir, store, images, masters, hosts, wire: Some(wire), gate }
    }

    /// The wire that it is on.
    #[track_caller]
    pub fn wire(&self) -> &Wire {
        self.wire.as_ref().expect("this suite is not on a wire")
    }
}

fn nodes(dir: &Path, letter: &str, first: u8, count: usize, hub: &Node) -> Vec<Node> {
    (1..)
        .take(count)
        .map(|number: u8| Node::join(dir, &format!("{letter}{number}"), first + number - 1, hub))
        .collect()
}

impl Wire {
    #[track_caller]
    fn masters_on(
        &mut self,
        dir: &Path,
        store: &Store,
        images: &Images,
        layout: Layout,
    ) -> Vec<Master> {
        let Store::Etcd(etcd) = store else { panic!("on a wire the store is etcd") };
        let mut started = Vec::new();
        for (number, node) in self.masters.iter().enumerate() {
            let mut urls: Vec<_> =
                etcd.members().iter().map(|member| member.url().to_owned()).collect();
            if layout.lines == Lines::Lossy {
                let upstream = urls[0].trim_start_matches("http://").parse().expect("an address");
                let loopback = SocketAddr::from(([127, 0, 0, 1], 2379));
                self.to_etcd.push(Proxy::start(&node.place(), loopback, upstream));
                urls[0] = format!("http://{loopback}");
            }
            let mut flags = vec!["--store".to_owned(), "etcd".to_owned()];
            flags.extend(urls.into_iter().flat_map(|url| ["--etcd".to_owned(), url]));
            flags.extend(crate::suite::image_flags(images));
            flags.extend(layout.size.master_flags.split_whitespace().map(str::to_owned));
            started.push(Master::on(node, dir, &format!("master{}", number + 1), &flags));
        }
        started
    }

    #[track_caller]
    fn hosts_on(&self, dir: &Path, masters: Vec<String>, images: &Images, size: Size) -> Vec<Host> {
        let mut flags = crate::suite::plugin_flags(masters, images);
        flags.extend(size.plugin_flags.split_whitespace().map(str::to_owned));
        let up = |index: u8| Host::wired(dir, &format!("h{index}"), &flags, index, &self.hub);
        thread::scope(|scope| {
            let starting: Vec<_> =
                (1..).take(size.hosts).map(|index: u8| scope.spawn(move || up(index))).collect();
            starting.into_iter().map(|host| host.join().expect("the host is up")).collect()
        })
    }
}
