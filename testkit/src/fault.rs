//! What can go wrong on a wire (see [`crate::wire`]). Each fault can be injected and healed any number of times.

use std::fmt;

use nix::sys::signal::Signal;

use crate::etcd::Member;
use crate::place::{End, Node};
use crate::suite::Suite;

/// One in so many answers is lost, where answers are.
const ONE_IN: u64 = 4;

/// A process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// Volplugin of a host.
    Plugin(usize),
    /// All that serve images to a host's kernel.
    DataPath(usize),
    /// Dockerd of a host.
    Docker(usize),
    /// A volmaster.
    Master(usize),
    /// A member of etcd.
    Etcd(usize),
    /// All members of etcd.
    AllOfEtcd,
    /// Ceph's OSD.
    Osd,
    /// Ceph's monitor.
    Mon,
}

/// What is done to a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// SIGSTOP, and SIGCONT to heal.
    Stop,
    /// SIGKILL, and a new one to heal.
    Kill,
}

/// What is cut from what. Nobody says no: what is sent is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// A host from everything: the cable is out.
    Host(usize),
    /// A host from Ceph alone.
    HostFromCeph(usize),
    /// A host from all volmasters.
    HostFromMasters(usize),
    /// A host from one volmaster.
    HostFromMaster(usize, usize),
    /// What a volmaster answers to a host is lost; what the host asks arrives.
    MasterMute(usize, usize),
    /// A volmaster from etcd.
    MasterFromEtcd(usize),
}

/// Where answers get lost, with the connection that they came over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Line {
    /// Those of a volmaster to hosts.
    ToMaster(usize),
    /// Those of etcd to a volmaster.
    ToEtcd(usize),
}

/// Something that can go wrong. Hosts, volmasters and members are counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// To one process.
    Process(Who, Blow),
    /// To the network.
    Cut(Cut),
    /// SIGSTOP to all processes of a host, containers too.
    HostFrozen(usize),
    /// The plug is pulled.
    PowerOff(usize),
    /// The clock of a volmaster is off by so many seconds.
    MasterClock(usize, i64),
    /// That of a host's volplugin.
    PluginClock(usize, i64),
    /// By chance of this seed.
    RepliesLost(Line, u64),
    /// Etcd forgets all revisions but the present one.
    Compaction,
    /// Another member of etcd leads, if there is one.
    LeaderMoved,
}

/// What a fault happens to. Two faults of one subject would be healed in each other's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject {
    /// A host.
    Host(usize),
    /// A volmaster.
    Master(usize),
    /// Etcd.
    Etcd,
    /// Ceph.
    Ceph,
}

impl Fault {
    /// What it happens to.
    pub fn subject(self) -> Subject {
        match self {
            Fault::Process(Who::Plugin(host) | Who::DataPath(host) | Who::Docker(host), _)
            | Fault::Cut(
                Cut::Host(host)
                | Cut::HostFromCeph(host)
                | Cut::HostFromMasters(host)
                | Cut::HostFromMaster(host, _)
                | Cut::MasterMute(_, host),
            )
            | Fault::HostFrozen(host)
            | Fault::PowerOff(host)
            | Fault::PluginClock(host, _) => Subject::Host(host),
            Fault::Process(Who::Master(master), _)
            | Fault::Cut(Cut::MasterFromEtcd(master))
            | Fault::MasterClock(master, _)
            | Fault::RepliesLost(Line::ToMaster(master) | Line::ToEtcd(master), _) => {
                Subject::Master(master)
            }
            Fault::Process(Who::Etcd(_) | Who::AllOfEtcd, _)
            | Fault::Compaction
            | Fault::LeaderMoved => Subject::Etcd,
            Fault::Process(Who::Osd | Who::Mon, _) => Subject::Ceph,
        }
    }

    /// Without the number of what it happens to: for counting.
    pub fn kind(self) -> &'static str {
        match self {
            Fault::Process(who, Blow::Stop) => match who {
                Who::Plugin(_) => "volplugin stopped",
                Who::DataPath(_) => "data path stopped",
                Who::Docker(_) => "dockerd stopped",
                Who::Master(_) => "volmaster stopped",
                Who::Etcd(_) => "one etcd stopped",
                Who::AllOfEtcd => "all etcd stopped",
                Who::Osd => "OSD stopped",
                Who::Mon => "monitor stopped",
            },
            Fault::Process(who, Blow::Kill) => match who {
                Who::Plugin(_) => "volplugin killed",
                Who::DataPath(_) => "data path killed",
                Who::Docker(_) => "dockerd killed",
                Who::Master(_) => "volmaster killed",
                Who::Etcd(_) => "one etcd killed",
                Who::AllOfEtcd => "all etcd killed",
                Who::Osd => "OSD killed",
                Who::Mon => "monitor killed",
            },
            Fault::Cut(Cut::Host(_)) => "host cut off",
            Fault::Cut(Cut::HostFromCeph(_)) => "host cut from Ceph",
            Fault::Cut(Cut::HostFromMasters(_)) => "host cut from all volmasters",
            Fault::Cut(Cut::HostFromMaster(..)) => "host cut from one volmaster",
            Fault::Cut(Cut::MasterMute(..)) => "volmaster mute to a host",
            Fault::Cut(Cut::MasterFromEtcd(_)) => "volmaster cut from etcd",
            Fault::HostFrozen(_) => "host frozen",
            Fault::PowerOff(_) => "host powered off",
            Fault::MasterClock(..) => "volmaster's clock off",
            Fault::PluginClock(..) => "volplugin's clock off",
            Fault::RepliesLost(Line::ToMaster(_), _) => "volmaster's answers lost",
            Fault::RepliesLost(Line::ToEtcd(_), _) => "etcd's answers lost",
            Fault::Compaction => "etcd compacted",
            Fault::LeaderMoved => "etcd's leader moved",
        }
    }

    /// Makes it happen. Once more changes nothing.
    #[track_caller]
    pub fn inject(self, suite: &Suite) {
        match self {
            Fault::Process(who, Blow::Stop) => who.stop(suite),
            Fault::Process(who, Blow::Kill) => who.kill(suite),
            Fault::Cut(cut) => cut.cut(suite),
            Fault::HostFrozen(host) => suite.hosts[host].freeze(),
            Fault::PowerOff(host) => suite.hosts[host].power_off(),
            Fault::MasterClock(master, seconds) => suite.masters[master].step_clock(seconds),
            Fault::PluginClock(host, seconds) => suite.hosts[host].step_clock(seconds),
            Fault::RepliesLost(Line::ToMaster(master), seed) => {
                suite.wire().to_masters[master].lose(seed, ONE_IN);
            }
            Fault::RepliesLost(Line::ToEtcd(master), seed) => {
                suite.wire().to_etcd[master].lose(seed, ONE_IN)
            }
            Fault::Compaction => suite.etcd().compact(),
            Fault::LeaderMoved => suite.etcd().move_leader(),
        }
    }

    /// Undoes it, as an operator would: what is dead is started. What cannot be undone needs no healing.
    #[track_caller]
    pub fn heal(self, suite: &Suite) {
        match self {
            Fault::Process(who, Blow::Stop) => who.go_on(suite),
            Fault::Process(who, Blow::Kill) => who.start(suite),
            Fault::Cut(cut) => cut.mend(suite),
            Fault::HostFrozen(host) => suite.hosts[host].thaw(),
            Fault::PowerOff(host) => {
                suite.hosts[host].power_on();
                suite.hosts[host].docker_start();
            }
            Fault::MasterClock(master, _) => suite.masters[master].step_clock(0),
            Fault::PluginClock(host, _) => suite.hosts[host].step_clock(0),
            Fault::RepliesLost(Line::ToMaster(master), _) => suite.wire().to_masters[master].pass(),
            Fault::RepliesLost(Line::ToEtcd(master), _) => suite.wire().to_etcd[master].pass(),
            Fault::Compaction | Fault::LeaderMoved => {}
        }
    }
}

/// Heals whatever can be healed on a wire, without starting anything.
#[track_caller]
pub fn heal_all(suite: &Suite) {
    [Who::Osd, Who::Mon, Who::AllOfEtcd].into_iter().for_each(|who| who.go_on(suite));
    for (number, host) in suite.hosts.iter().enumerate() {
        if host.is_on() {
            host.thaw();
            host.plug();
        }
        host.step_clock(0);
        Cut::HostFromCeph(number).mend(suite);
        Cut::HostFromMasters(number).mend(suite);
    }
    for (number, master) in suite.masters.iter().enumerate() {
        master.thaw();
        master.step_clock(0);
        Cut::MasterFromEtcd(number).mend(suite);
    }
    let wire = suite.wire();
    wire.to_masters.iter().chain(&wire.to_etcd).for_each(|proxy| proxy.pass());
}

impl Who {
    fn stop(self, suite: &Suite) {
        match self {
            Who::Plugin(host) => suite.hosts[host].plugin_send(Signal::SIGSTOP),
            Who::DataPath(host) => suite.hosts[host].data_path_send("", Signal::SIGSTOP),
            Who::Docker(host) => suite.hosts[host].docker_send(Signal::SIGSTOP),
            Who::Master(master) => suite.masters[master].freeze(),
            Who::Etcd(member) => suite.etcd().members()[member].freeze(),
            Who::AllOfEtcd => suite.etcd().members().iter().for_each(Member::freeze),
            Who::Osd => suite.ceph().freeze_one("osd"),
            Who::Mon => suite.ceph().freeze_one("mon"),
        }
    }

    fn go_on(self, suite: &Suite) {
        match self {
            Who::Plugin(host) => suite.hosts[host].plugin_send(Signal::SIGCONT),
            Who::DataPath(host) => suite.hosts[host].data_path_send("", Signal::SIGCONT),
            Who::Docker(host) => suite.hosts[host].docker_send(Signal::SIGCONT),
            Who::Master(master) => suite.masters[master].thaw(),
            Who::Etcd(member) => suite.etcd().members()[member].thaw(),
            Who::AllOfEtcd => suite.etcd().members().iter().for_each(Member::thaw),
            Who::Osd => suite.ceph().thaw_one("osd"),
            Who::Mon => suite.ceph().thaw_one("mon"),
        }
    }

    fn kill(self, suite: &Suite) {
        match self {
            Who::Plugin(host) => suite.hosts[host].plugin_kill(),
            Who::DataPath(host) => suite.hosts[host].data_path_send("", Signal::SIGKILL),
            Who::Docker(host) => suite.hosts[host].docker_kill(),
            Who::Master(master) => suite.masters[master].kill(),
            Who::Etcd(member) => suite.etcd().members()[member].kill(),
            Who::AllOfEtcd => suite.etcd().kill(),
            Who::Osd => suite.ceph().kill_one("osd"),
            Who::Mon => suite.ceph().kill_one("mon"),
        }
    }

    fn start(self, suite: &Suite) {
        match self {
            Who::Plugin(host) => suite.hosts[host].plugin_start(),
            // Its volume is lost to this mount; the next one has a new one.
            Who::DataPath(_) => {}
            Who::Docker(host) => suite.hosts[host].docker_start(),
            Who::Master(master) => suite.masters[master].start_again(),
            Who::Etcd(_) | Who::AllOfEtcd => suite.etcd().start(),
            Who::Osd | Who::Mon => suite.ceph().start(),
        }
    }
}

impl Cut {
    fn cut(self, suite: &Suite) {
        match self {
            Cut::Host(host) => suite.hosts[host].unplug(),
            Cut::MasterMute(master, host) => {
                suite.wire().masters[master].end().mute(suite.hosts[host].end())
            }
            _ => self.lines(suite).for_each(|(one, other)| one.cut(&other)),
        }
    }

    fn mend(self, suite: &Suite) {
        match self {
            Cut::Host(host) => suite.hosts[host].plug(),
            _ => self.lines(suite).for_each(|(one, other)| one.mend(&other)),
        }
    }

    fn lines(self, suite: &Suite) -> impl Iterator<Item = (End, End)> {
        let wire = suite.wire();
        let host = |host: usize| suite.hosts[host].end().clone();
        let ends = |nodes: &[Node]| nodes.iter().map(Node::end).collect::<Vec<_>>();
        let (one, others) = match self {
            Cut::Host(from) | Cut::HostFromCeph(from) => (host(from), vec![wire.hub.end()]),
            Cut::HostFromMasters(from) => (host(from), ends(&wire.masters)),
            Cut::HostFromMaster(from, master) | Cut::MasterMute(master, from) => {
                (host(from), vec![wire.masters[master].end()])
            }
            Cut::MasterFromEtcd(master) => (wire.masters[master].end(), ends(&wire.etcd)),
        };
        others.into_iter().map(move |other| (one.clone(), other))
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Who::Plugin(host) => write!(f, "volplugin of h{}", host + 1),
            Who::DataPath(host) => write!(f, "data path of h{}", host + 1),
            Who::Docker(host) => write!(f, "dockerd of h{}", host + 1),
            Who::Master(master) => write!(f, "volmaster {}", master + 1),
            Who::Etcd(member) => write!(f, "etcd {}", member + 1),
            Who::AllOfEtcd => write!(f, "all of etcd"),
            Who::Osd => write!(f, "OSD"),
            Who::Mon => write!(f, "monitor"),
        }
    }
}

impl fmt::Display for Cut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cut::Host(host) => write!(f, "h{} cut off", host + 1),
            Cut::HostFromCeph(host) => write!(f, "h{} cut from Ceph", host + 1),
            Cut::HostFromMasters(host) => write!(f, "h{} cut from all volmasters", host + 1),
            Cut::HostFromMaster(host, master) => {
                write!(f, "h{} cut from volmaster {}", host + 1, master + 1)
            }
            Cut::MasterMute(master, host) => {
                write!(f, "volmaster {} mute to h{}", master + 1, host + 1)
            }
            Cut::MasterFromEtcd(master) => write!(f, "volmaster {} cut from etcd", master + 1),
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Process(who, Blow::Stop) => write!(f, "{who} stopped"),
            Fault::Process(who, Blow::Kill) => write!(f, "{who} killed"),
            Fault::Cut(cut) => write!(f, "{cut}"),
            Fault::HostFrozen(host) => write!(f, "h{} frozen", host + 1),
            Fault::PowerOff(host) => write!(f, "h{} powered off", host + 1),
            Fault::MasterClock(master, seconds) => {
                write!(f, "clock of volmaster {} off by {seconds} s", master + 1)
            }
            Fault::PluginClock(host, seconds) => {
                write!(f, "clock of volplugin of h{} off by {seconds} s", host + 1)
            }
            Fault::RepliesLost(Line::ToMaster(master), _) => {
                write!(f, "answers of volmaster {} lost", master + 1)
            }
            Fault::RepliesLost(Line::ToEtcd(master), _) => {
                write!(f, "answers to volmaster {} lost", master + 1)
            }
            Fault::Compaction | Fault::LeaderMoved => f.write_str(self.kind()),
        }
    }
}
