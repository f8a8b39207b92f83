//! Flags, environment and file: flags over environment over file over defaults.

use std::path::{Path, PathBuf};

use clap::Parser;
use clap::builder::FalseyValueParser;
use serde::Deserialize;
use volclient::MasterUrl;
use volcore::name::{HostName, TenantName};
use volcore::options::Access;

/// Docker's volume plugin on one host.
///
/// Serves Docker's volume plugin socket, and maps and mounts volumes on this host as volmaster
/// lets it. Start it on every Docker host:
///
///   volplugin --master http://10.0.0.1:9005 --master http://10.0.0.2:9005
#[derive(Debug, Parser)]
#[command(name = "volplugin", version)]
pub struct Args {
    /// A volmaster; give it once for each replica [default: http://127.0.0.1:9005].
    #[arg(long, value_name = "URL", env = "VOLPLUGIN_MASTER", value_delimiter = ',')]
    master: Vec<MasterUrl>,
    /// The name of this host in claims and messages [default: its host name].
    #[arg(long, value_name = "NAME", env = "VOLPLUGIN_HOST_LABEL")]
    host_label: Option<HostName>,
    /// The plugin's name, as in `docker volume create -d NAME` [default: volplugin].
    #[arg(long, value_name = "NAME", env = "VOLPLUGIN_PLUGIN_NAME")]
    plugin_name: Option<String>,
    /// Where Docker looks for plugin sockets [default: /run/docker/plugins].
    #[arg(long, value_name = "DIR", env = "VOLPLUGIN_PLUGIN_DIR")]
    plugin_dir: Option<PathBuf>,
    /// Below it volumes are mounted [default: /mnt/volplugin].
    #[arg(long, value_name = "DIR", env = "VOLPLUGIN_MOUNT_ROOT")]
    mount_root: Option<PathBuf>,
    /// Where this host keeps what it holds [default: /var/lib/volplugin].
    #[arg(long, value_name = "DIR", env = "VOLPLUGIN_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// How images are reached where a policy says auto: auto, kernel, nbd or fuse [default: auto].
    #[arg(long, env = "VOLPLUGIN_ACCESS", value_parser = parse_access)]
    access: Option<Access>,
    /// Whose a volume is whose name has no tenant; without it such a name is an error.
    #[arg(long, value_name = "TENANT", env = "VOLPLUGIN_DEFAULT_TENANT")]
    default_tenant: Option<TenantName>,
    /// The Ceph configuration for mapping [default: /etc/ceph/ceph.conf].
    #[arg(long, value_name = "FILE", env = "VOLPLUGIN_CEPH_CONF")]
    ceph_conf: Option<PathBuf>,
    /// The Ceph user for mapping, without `client.` [default: admin].
    #[arg(long, value_name = "NAME", env = "VOLPLUGIN_CEPH_USER")]
    ceph_user: Option<String>,
    /// A TOML file with any of these settings, by the names of the flags.
    #[arg(long, value_name = "FILE", env = "VOLPLUGIN_CONFIG")]
    config: Option<PathBuf>,
    /// Logs more.
    #[arg(long, env = "VOLPLUGIN_DEBUG", value_parser = FalseyValueParser::new())]
    debug: bool,
    /// How log lines are written: text or json [default: text].
    #[arg(long, value_name = "FORMAT", env = "VOLPLUGIN_LOG_FORMAT", value_parser = parse_log_format)]
    log_format: Option<LogFormat>,
}

fn parse_access(text: &str) -> Result<Access, &'static str> {
    text.parse()
}

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum LogFormat {
    /// For people.
    Text,
    /// For programs.
    Json,
}

fn parse_log_format(text: &str) -> Result<LogFormat, &'static str> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err("it is text or json"),
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct File {
    master: Vec<MasterUrl>,
    host_label: Option<HostName>,
    plugin_name: Option<String>,
    plugin_dir: Option<PathBuf>,
    mount_root: Option<PathBuf>,
    data_dir: Option<PathBuf>,
    access: Option<Access>,
    default_tenant: Option<TenantName>,
    ceph_conf: Option<PathBuf>,
    ceph_user: Option<String>,
    debug: bool,
    log_format: Option<LogFormat>,
}

/// The settings that hold.
#[derive(Debug)]
pub struct Config {
    /// The volmasters.
    pub masters: Vec<MasterUrl>,
    /// This host's label.
    pub host: HostName,
    /// The plugin's name.
    pub plugin_name: String,
    /// Where Docker looks for sockets.
    pub plugin_dir: PathBuf,
    /// Below it volumes are mounted.
    pub mount_root: PathBuf,
    /// Where this host keeps what it holds.
    pub data_dir: PathBuf,
    /// How images are reached where a policy says auto.
    pub access: Access,
    /// Whose a plain name is.
    pub default_tenant: Option<TenantName>,
    /// The Ceph configuration.
    pub ceph_conf: PathBuf,
    /// The Ceph user.
    pub ceph_user: String,
    /// Whether more is logged.
    pub debug: bool,
    /// How.
    pub log_format: LogFormat,
}

/// Settings that cannot be used. The process exits with 2.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("could not read the configuration {path}")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("the configuration {path} is not valid")]
    Parse {
        /// Which.
        path: PathBuf,
        /// Why, with line and column.
        #[source]
        source: toml::de::Error,
    },
    /// The host has no name that can be its label.
    #[error("the host name {name:?} cannot be a label; give --host-label")]
    HostName {
        /// Its name.
        name: String,
    },
    /// The plugin's name would not be found by Docker.
    #[error("plugin name {name:?} is not valid: 1 to 64 letters, digits, '_', '.' or '-'")]
    PluginName {
        /// What was given.
        name: String,
    },
    /// A folder that moves with the working folder.
    #[error("{what} {path} is not an absolute path")]
    Relative {
        /// Which setting.
        what: &'static str,
        /// What was given.
        path: PathBuf,
    },
}

impl Config {
    /// Merges the layers and checks the result. Binds and makes nothing.
    pub fn load(args: Args) -> Result<Config, ConfigError> {
        let file = args.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
        let given = [args.master, file.master].into_iter().find(|given| !given.is_empty());
        let masters = given.unwrap_or_else(|| vec![MasterUrl::default()]);
        let host = match args.host_label.or(file.host_label) {
            Some(host) => host,
            None => host_name()?,
        };
        let plugin_name =
            args.plugin_name.or(file.plugin_name).unwrap_or_else(|| "volplugin".into());
        let readable = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-');
        if plugin_name.is_empty() || plugin_name.len() > 64 || !plugin_name.chars().all(readable) {
            return Err(ConfigError::PluginName { name: plugin_name });
        }
        let folder = |what, flag: Option<PathBuf>, file: Option<PathBuf>, default: &str| {
            let path = flag.or(file).unwrap_or_else(|| PathBuf::from(default));
            if path.is_absolute() { Ok(path) } else { Err(ConfigError::Relative { what, path }) }
        };
        Ok(Config {
            masters,
            host,
            plugin_name,
            plugin_dir: folder(
                "--plugin-dir",
                args.plugin_dir,
                file.plugin_dir,
                "/run/docker/plugins",
            )?,
            mount_root: folder("--mount-root", args.mount_root, file.mount_root, "/mnt/volplugin")?,
            data_dir: folder("--data-dir", args.data_dir, file.data_dir, "/var/lib/volplugin")?,
            access: args.access.or(file.access).unwrap_or_default(),
            default_tenant: args.default_tenant.or(file.default_tenant),
            ceph_conf: folder(
                "--ceph-conf",
                args.ceph_conf,
                file.ceph_conf,
                "/etc/ceph/ceph.conf",
            )?,
            ceph_user: args.ceph_user.or(file.ceph_user).unwrap_or_else(|| "admin".into()),
            debug: args.debug || file.debug,
            log_format: args.log_format.or(file.log_format).unwrap_or(LogFormat::Text),
        })
    }
}

fn read_file(path: &Path) -> Result<File, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    toml::from_str(&text).map_err(|source| ConfigError::Parse { path: path.to_owned(), source })
}

fn host_name() -> Result<HostName, ConfigError> {
    let name = nix::unistd::gethostname().unwrap_or_default().to_string_lossy().into_owned();
    name.parse().map_err(|_| ConfigError::HostName { name })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(args: &[&str]) -> Result<Config, String> {
        let args =
            Args::try_parse_from([&["volplugin"], args].concat()).map_err(|e| e.to_string())?;
        Config::load(args).map_err(|error| volapi::problem::chain(&error))
    }

    #[test]
    fn defaults_are_those_of_the_design() {
        let config = load(&["--host-label", "h1"]).unwrap();
        assert_eq!(config.plugin_dir, Path::new("/run/docker/plugins"));
        assert_eq!(config.mount_root, Path::new("/mnt/volplugin"));
        assert_eq!(config.plugin_name, "volplugin");
        assert_eq!(config.masters.len(), 1);
    }

    #[test]
    fn flags_win_over_the_file_and_unknown_members_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("volplugin.toml");
        std::fs::write(&path, "host-label = \"fromfile\"\naccess = \"fuse\"\n").unwrap();
        let path = path.to_str().unwrap();
        assert_eq!(load(&["--config", path]).unwrap().host.as_str(), "fromfile");
        let config = load(&["--config", path, "--host-label", "flag"]).unwrap();
        assert_eq!((config.host.as_str(), config.access), ("flag", Access::Fuse));
        std::fs::write(path, "hostlabel = \"x\"\n").unwrap();
        assert!(load(&["--config", path]).unwrap_err().contains("hostlabel"));
        std::fs::write(path, "master = [\"foo\"]\n").unwrap();
        let error = load(&["--config", path]).unwrap_err();
        assert!(error.contains("master \"foo\" is not like http://127.0.0.1:9005"), "{error}");
    }

    #[test]
    fn bad_values_are_named() {
        for (args, expected) in [
            (&["--host-label", "a/b"][..], "host name"),
            (&["--master", "foo"], "'--master <URL>': master \"foo\" is not like http://127.0.0.1"),
            (&["--master", "http://m:99999"], "its port"),
            (&["--access", "magic"], "auto, kernel, nbd or fuse"),
            (&["--plugin-name", "a/b"], "plugin name"),
            (&["--data-dir", "here"], "not an absolute path"),
            (&["--default-tenant", "a.b"], "tenant name"),
        ] {
            let error = load(args).unwrap_err();
            assert!(error.contains(expected), "{args:?}: {error}");
        }
    }
}
