//! Flags, environment and file: flags over environment over file over defaults.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use clap::builder::FalseyValueParser;
use clap::{Parser, ValueEnum};
use serde::Deserialize;
use volcore::name::{NameError, PoolName};
use volstore::etcd::EndpointUrl;
use volstore::keys::{DEFAULT_PREFIX, Keys, PrefixError};

/// The control plane of the volume suite: REST over a metadata store and the images.
///
/// On one machine, without anything else:
///
///   volmaster --data-dir /var/lib/volmaster
///
/// On Ceph and etcd, as often as you like:
///
///   volmaster --store etcd --etcd http://10.0.0.1:2379 --images rbd
#[derive(Debug, Parser)]
#[command(name = "volmaster", version, verbatim_doc_comment)]
pub struct Args {
    /// The address to serve on; one that is not loopback wants --insecure [default: 127.0.0.1:9005].
    #[arg(long, value_name = "ADDRESS:PORT", env = "VOLMASTER_LISTEN")]
    listen: Option<SocketAddr>,
    /// Where the metadata is [default: embedded].
    #[arg(long, value_enum, env = "VOLMASTER_STORE")]
    store: Option<StoreKind>,
    /// An etcd endpoint, for --store etcd; give it once for each member.
    #[arg(long, value_name = "URL", env = "VOLMASTER_ETCD", value_delimiter = ',')]
    etcd: Vec<EndpointUrl>,
    /// The folder of the embedded store and of scratch files [default: /var/lib/volmaster].
    #[arg(long, value_name = "DIR", env = "VOLMASTER_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Where the images are [default: file].
    #[arg(long, value_enum, env = "VOLMASTER_IMAGES")]
    images: Option<ImagesKind>,
    /// The folder of the image files, for --images file [default: images in the data folder].
    #[arg(long, value_name = "DIR", env = "VOLMASTER_IMAGE_ROOT")]
    image_root: Option<PathBuf>,
    /// Ceph's configuration, for --images rbd [default: /etc/ceph/ceph.conf].
    #[arg(long, value_name = "FILE", env = "VOLMASTER_CEPH_CONF")]
    ceph_conf: Option<PathBuf>,
    /// The Ceph user, without `client.`, for --images rbd [default: admin].
    #[arg(long, value_name = "NAME", env = "VOLMASTER_CEPH_USER")]
    ceph_user: Option<String>,
    /// The Ceph user through which snapshots are taken, who should not be allowed to blocklist [default:
    /// volplugin-snapshots, which is made if --ceph-user may].
    #[arg(long, value_name = "NAME", env = "VOLMASTER_CEPH_SNAPSHOT_USER")]
    ceph_snapshot_user: Option<String>,
    /// The pool of volumes whose tenant's policy names none [default: rbd].
    #[arg(long, value_name = "POOL", env = "VOLMASTER_DEFAULT_POOL")]
    default_pool: Option<String>,
    /// Where the keys in the store begin [default: /volplugin].
    #[arg(long, value_name = "PREFIX", env = "VOLMASTER_PREFIX")]
    prefix: Option<String>,
    /// Serves on any address, though there is neither TLS nor authentication yet.
    #[arg(long, env = "VOLMASTER_INSECURE", value_parser = FalseyValueParser::new())]
    insecure: bool,
    /// A TOML file with any of these settings, by the names of the flags.
    #[arg(long, value_name = "FILE", env = "VOLMASTER_CONFIG")]
    config: Option<PathBuf>,
    /// Logs more.
    #[arg(long, env = "VOLMASTER_DEBUG", value_parser = FalseyValueParser::new())]
    debug: bool,
    /// How log lines are written [default: text].
    #[arg(long, value_enum, env = "VOLMASTER_LOG_FORMAT")]
    log_format: Option<LogFormat>,
}

/// Where the metadata is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum StoreKind {
    /// In etcd: any number of volmasters.
    Etcd,
    /// In one local file: one volmaster.
    Embedded,
}

/// Where the images are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum ImagesKind {
    /// In Ceph.
    Rbd,
    /// In local files.
    File,
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct File {
    listen: Option<SocketAddr>,
    store: Option<StoreKind>,
    etcd: Vec<EndpointUrl>,
    data_dir: Option<PathBuf>,
    images: Option<ImagesKind>,
    image_root: Option<PathBuf>,
    ceph_conf: Option<PathBuf>,
    ceph_user: Option<String>,
    ceph_snapshot_user: Option<String>,
    default_pool: Option<String>,
    prefix: Option<String>,
    insecure: bool,
    debug: bool,
    log_format: Option<LogFormat>,
}

/// The settings that hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where it serves.
    pub listen: SocketAddr,
    /// The metadata.
    pub store: StoreConfig,
    /// Where the keys begin.
    pub keys: Keys,
    /// The images.
    pub images: ImagesConfig,
    /// The pool of volumes whose policy names none.
    pub default_pool: PoolName,
    /// Whether more is logged.
    pub debug: bool,
    /// How.
    pub log_format: LogFormat,
}

/// Where the metadata is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StoreConfig {
    /// In etcd, at these endpoints.
    Etcd(Vec<EndpointUrl>),
    /// In a file of this folder.
    Embedded(PathBuf),
}

/// Where the images are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ImagesConfig {
    /// In Ceph.
    Rbd {
        /// Its configuration.
        conf: PathBuf,
        /// The user, without `client.`.
        user: String,
        /// The user through which snapshots are taken; one is made where this is absent.
        snapshot_user: Option<String>,
        /// Where images are formatted before they are written.
        scratch: PathBuf,
    },
    /// Below this folder.
    File(PathBuf),
}

/// Settings that make no sense.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("could not read the configuration file {}", path.display())]
    Unreadable {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("the configuration file {} is not valid", path.display())]
    Invalid {
        /// Which.
        path: PathBuf,
        /// Where and why.
        source: Box<toml::de::Error>,
    },
    /// A folder has no path.
    #[error("{:?} is no folder to use", path.display())]
    Folder {
        /// What was given.
        path: PathBuf,
        /// Why not.
        source: std::io::Error,
    },
    /// Everybody on the network could remove everything.
    #[error(
        "--listen {listen} is not a loopback address, and there is neither TLS nor authentication: anybody who \
         reaches it could remove every volume. Listen on loopback, or give --insecure on a network that you trust"
    )]
    Exposed {
        /// Which address.
        listen: SocketAddr,
    },
    /// etcd without an endpoint.
    #[error("--store etcd needs at least one --etcd URL, such as --etcd http://127.0.0.1:2379")]
    NoEndpoint,
    /// An endpoint without etcd.
    #[error("--etcd is given, but the store is embedded: give --store etcd too")]
    EtcdNotUsed,
    /// The pool has no valid name.
    #[error("--default-pool cannot be used")]
    Pool(#[from] NameError),
    /// The prefix is no prefix.
    #[error("--prefix cannot be used")]
    Prefix(#[from] PrefixError),
}

impl Config {
    /// Puts the settings together.
    ///
    /// # Errors
    /// When they make no sense; that is a usage error.
    pub fn load(args: Args) -> Result<Config, ConfigError> {
        let file = args.config.as_deref().map(read).transpose()?.unwrap_or_default();
        let listen = args.listen.or(file.listen);
        let listen = listen.unwrap_or_else(|| SocketAddr::from(([127, 0, 0, 1], 9005)));
        if !(listen.ip().is_loopback() || args.insecure || file.insecure) {
            return Err(ConfigError::Exposed { listen });
        }
        let data_dir = args.data_dir.or(file.data_dir);
        let data_dir = data_dir.unwrap_or_else(|| PathBuf::from("/var/lib/volmaster"));
        let data_dir = absolute(data_dir)?;
        let etcd = if args.etcd.is_empty() { file.etcd } else { args.etcd };
        let store = match args.store.or(file.store).unwrap_or(StoreKind::Embedded) {
            StoreKind::Etcd if etcd.is_empty() => return Err(ConfigError::NoEndpoint),
            StoreKind::Etcd => StoreConfig::Etcd(etcd),
            StoreKind::Embedded if !etcd.is_empty() => return Err(ConfigError::EtcdNotUsed),
            StoreKind::Embedded => StoreConfig::Embedded(data_dir.clone()),
        };
        let images = match args.images.or(file.images).unwrap_or(ImagesKind::File) {
            ImagesKind::Rbd => ImagesConfig::Rbd {
                conf: (args.ceph_conf.or(file.ceph_conf))
                    .unwrap_or_else(|| PathBuf::from("/etc/ceph/ceph.conf")),
                user: args.ceph_user.or(file.ceph_user).unwrap_or_else(|| "admin".to_owned()),
                snapshot_user: args.ceph_snapshot_user.or(file.ceph_snapshot_user),
                scratch: data_dir.join("scratch"),
            },
            ImagesKind::File => {
                let root = args.image_root.or(file.image_root);
                ImagesConfig::File(absolute(root.unwrap_or_else(|| data_dir.join("images")))?)
            }
        };
        let default_pool = args.default_pool.or(file.default_pool);
        let prefix = args.prefix.or(file.prefix);
        Ok(Config {
            listen,
            store,
            keys: Keys::new(prefix.as_deref().unwrap_or(DEFAULT_PREFIX))?,
            images,
            default_pool: default_pool.as_deref().unwrap_or("rbd").parse()?,
            debug: args.debug || file.debug,
            log_format: args.log_format.or(file.log_format).unwrap_or(LogFormat::Text),
        })
    }
}

/// Hosts find image files by their paths, from wherever they are.
fn absolute(path: PathBuf) -> Result<PathBuf, ConfigError> {
    std::path::absolute(&path).map_err(|source| ConfigError::Folder { path, source })
}

fn read(path: &Path) -> Result<File, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable { path: path.to_owned(), source };
    let text = std::fs::read_to_string(path).map_err(unreadable)?;
    let invalid = |source| ConfigError::Invalid { path: path.to_owned(), source: Box::new(source) };
    toml::from_str(&text).map_err(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(args: &[&str]) -> Result<Config, ConfigError> {
        let args = ["volmaster"].iter().chain(args);
        Config::load(Args::try_parse_from(args).unwrap())
    }

    fn error(args: &[&str]) -> String {
        volapi::problem::chain(&load(args).unwrap_err())
    }

    #[test]
    fn by_default_one_machine() {
        let config = load(&[]).unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:9005");
        assert_eq!(config.store, StoreConfig::Embedded("/var/lib/volmaster".into()));
        assert_eq!(config.images, ImagesConfig::File("/var/lib/volmaster/images".into()));
        assert_eq!(config.default_pool.as_str(), "rbd");
    }

    #[test]
    fn flags_lie_over_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("volmaster.toml");
        let text = "store = \"etcd\"\netcd = [\"http://a:1\"]\nimages = \"rbd\"\nceph-user = \"v\"\ndefault-pool = \"p\"\n";
        std::fs::write(&path, text).unwrap();
        let path = path.to_str().unwrap();
        let config = load(&["--config", path, "--etcd", "http://b:2,http://c:3"]).unwrap();
        let endpoints = ["http://b:2", "http://c:3"].map(|url| url.parse().unwrap());
        assert_eq!(config.store, StoreConfig::Etcd(endpoints.into()));
        let ImagesConfig::Rbd { conf, user, snapshot_user: None, scratch } = config.images else {
            panic!()
        };
        assert_eq!((conf, user), ("/etc/ceph/ceph.conf".into(), "v".to_owned()));
        assert_eq!(scratch, Path::new("/var/lib/volmaster/scratch"));
        assert_eq!(config.default_pool.as_str(), "p");
        std::fs::write(path, "sotre = \"etcd\"").unwrap();
        let error = error(&["--config", path]);
        assert!(error.contains("unknown field `sotre`"), "{error}");
        std::fs::write(path, "etcd = [\"foo\"]").unwrap();
        let error = self::error(&["--config", path]);
        assert!(error.contains("\"foo\" is not like http://127.0.0.1:2379"), "{error}");
    }

    #[test]
    fn folders_may_be_relative() {
        let here = std::env::current_dir().unwrap();
        let config = load(&["--data-dir", "d", "--image-root", "./i"]).unwrap();
        assert_eq!(config.store, StoreConfig::Embedded(here.join("d")));
        assert_eq!(config.images, ImagesConfig::File(here.join("i")));
    }

    #[test]
    fn what_makes_no_sense_is_said() {
        insta::assert_snapshot!(error(&["--listen", "0.0.0.0:9005"]), @"--listen 0.0.0.0:9005 is not a loopback address, and there is neither TLS nor authentication: anybody who reaches it could remove every volume. Listen on loopback, or give --insecure on a network that you trust");
        insta::assert_snapshot!(error(&["--store", "etcd"]), @"--store etcd needs at least one --etcd URL, such as --etcd http://127.0.0.1:2379");
        insta::assert_snapshot!(error(&["--etcd", "http://a:1"]), @"--etcd is given, but the store is embedded: give --store etcd too");
        insta::assert_snapshot!(error(&["--default-pool", "a/b"]), @r#"--default-pool cannot be used: pool name "a/b" is not valid: 1 to 127 letters, digits, '_', '.' or '-', the first a letter or digit"#);
        insta::assert_snapshot!(error(&["--prefix", "a"]), @r#"--prefix cannot be used: the key prefix "a" is not valid: it must start with '/'"#);
        assert!(load(&["--listen", "0.0.0.0:9005", "--insecure"]).is_ok());
        assert!(load(&["--listen", "[::1]:0"]).is_ok());
    }
}
