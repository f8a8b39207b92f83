//! A real etcd (`scripts/etcd`).

use std::path::{Path, PathBuf};

use crate::command::Cmd;

/// An etcd with its data in a folder.
#[derive(Debug)]
pub struct Etcd {
    dir: PathBuf,
    url: String,
}

impl Etcd {
    /// Starts one.
    #[track_caller]
    pub fn up(dir: &Path) -> Etcd {
        let outcome = Cmd::script("etcd").arg("up").arg(dir).run();
        let url = outcome.ok().strip_prefix("ETCD_URL=").expect("the script says the URL");
        Etcd { dir: dir.to_owned(), url: url.to_owned() }
    }

    /// Where clients find it; the same after every start.
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
        Cmd::script("etcd").arg("kill").arg(&self.dir).run().ok();
    }

    /// Starts it again with its data, and waits until it is healthy.
    #[track_caller]
    pub fn start(&self) {
        Cmd::script("etcd").arg("up").arg(&self.dir).run().ok();
    }

    /// Runs `etcdctl`, with the arguments in one text.
    #[track_caller]
    pub fn ctl(&self, line: &str) -> String {
        let cmd = Cmd::new("etcdctl").env("ETCDCTL_API", "3").args(["--endpoints", &self.url]);
        cmd.words(line).run().ok().to_owned()
    }

    /// The keys that begin like this.
    #[track_caller]
    pub fn keys(&self, prefix: &str) -> Vec<String> {
        let printed = self.ctl(&format!("get --prefix --keys-only {prefix}"));
        printed.lines().filter(|line| !line.is_empty()).map(str::to_owned).collect()
    }
}
