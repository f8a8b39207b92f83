//! Flags, environment and file: flags over environment over file over defaults.

use std::path::{Path, PathBuf};

use clap::builder::FalseyValueParser;
use clap::{Parser, ValueEnum};
use serde::Deserialize;
use volclient::MasterUrl;

/// How many takes are under way at a time, where nothing else is said.
const MAX_IN_FLIGHT: usize = 128;
/// More connections at a time are of no use to one volmaster.
const MOST_IN_FLIGHT: usize = 1024;

/// Snapshots on schedule.
///
/// Has volmaster take the snapshots that are due by the volumes' schedules, and remove those that are not kept.
/// Run one, or several on different machines, which do no work twice:
///
///   volsupervisor --master http://10.0.0.1:9005 --master http://10.0.0.2:9005
///
/// Or let cron do what is due every ten minutes (exit 0: all was done, 1: nothing, 3: a part):
///
///   volsupervisor --once
#[derive(Debug, Parser)]
#[command(name = "volsupervisor", version, verbatim_doc_comment)]
pub struct Args {
    /// A volmaster; give it once for each replica [default: http://127.0.0.1:9005].
    #[arg(long, value_name = "URL", env = "VOLSUPERVISOR_MASTER", value_delimiter = ',')]
    master: Vec<MasterUrl>,
    /// How many snapshots are taken at a time; half as many more that take long [default: 128].
    #[arg(long, value_name = "N", env = "VOLSUPERVISOR_MAX_IN_FLIGHT")]
    max_in_flight: Option<usize>,
    /// Does what is due now and ends.
    #[arg(long, env = "VOLSUPERVISOR_ONCE", value_parser = FalseyValueParser::new())]
    once: bool,
    /// A TOML file with any of these settings, by the names of the flags.
    #[arg(long, value_name = "FILE", env = "VOLSUPERVISOR_CONFIG")]
    config: Option<PathBuf>,
    /// Logs more.
    #[arg(long, env = "VOLSUPERVISOR_DEBUG", value_parser = FalseyValueParser::new())]
    debug: bool,
    /// How log lines are written [default: text].
    #[arg(long, value_enum, env = "VOLSUPERVISOR_LOG_FORMAT")]
    log_format: Option<LogFormat>,
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

/// How long it runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// Until it is told to stop.
    ForEver,
    /// Until what is due now was tried.
    Once,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
struct File {
    master: Vec<MasterUrl>,
    max_in_flight: Option<usize>,
    debug: bool,
    log_format: Option<LogFormat>,
}

/// The settings that hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The volmasters.
    pub masters: Vec<MasterUrl>,
    /// How many takes are under way at a time.
    pub max_in_flight: usize,
    /// How long it runs.
    pub run: Run,
    /// Whether more is logged.
    pub debug: bool,
    /// How.
    pub log_format: LogFormat,
}

/// Settings that cannot be used. The process exits with 2.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("could not read the configuration {}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("the configuration {} is not valid", path.display())]
    Parse {
        /// Which.
        path: PathBuf,
        /// Why, with line and column.
        #[source]
        source: Box<toml::de::Error>,
    },
    /// Nothing would be taken, or more than is of use.
    #[error("--max-in-flight {given} is out of range: 1 to {MOST_IN_FLIGHT}")]
    InFlight {
        /// What was given.
        given: usize,
    },
}

impl Config {
    /// Merges the layers and checks the result.
    ///
    /// # Errors
    /// When the settings make no sense; that is a usage error.
    pub fn load(args: Args) -> Result<Config, ConfigError> {
        let file = args.config.as_deref().map(read_file).transpose()?.unwrap_or_default();
        let given = [args.master, file.master].into_iter().find(|given| !given.is_empty());
        let max_in_flight = args.max_in_flight.or(file.max_in_flight).unwrap_or(MAX_IN_FLIGHT);
        if !(1..=MOST_IN_FLIGHT).contains(&max_in_flight) {
            return Err(ConfigError::InFlight { given: max_in_flight });
        }
        Ok(Config {
            masters: given.unwrap_or_else(|| vec![MasterUrl::default()]),
            max_in_flight,
            run: if args.once { Run::Once } else { Run::ForEver },
            debug: args.debug || file.debug,
            log_format: args.log_format.or(file.log_format).unwrap_or(LogFormat::Text),
        })
    }
}

fn read_file(path: &Path) -> Result<File, ConfigError> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
    let invalid = |source| ConfigError::Parse { path: path.to_owned(), source: Box::new(source) };
    toml::from_str(&text).map_err(invalid)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(args: &[&str]) -> Result<Config, String> {
        let args =
            Args::try_parse_from([&["volsupervisor"], args].concat()).map_err(|e| e.to_string())?;
        Config::load(args).map_err(|error| volapi::problem::chain(&error))
    }

    #[test]
    fn by_default_the_volmaster_of_this_machine() {
        let config = load(&[]).unwrap();
        assert_eq!(config.masters, [MasterUrl::default()]);
        assert_eq!((config.max_in_flight, config.run), (128, Run::ForEver));
        assert_eq!(load(&["--once"]).unwrap().run, Run::Once);
    }

    #[test]
    fn flags_win_over_the_file_and_unknown_members_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("volsupervisor.toml");
        std::fs::write(&path, "master = [\"http://m1:1\", \"http://m2:1\"]\nmax-in-flight = 7\n")
            .unwrap();
        let path = path.to_str().unwrap();
        let config = load(&["--config", path]).unwrap();
        assert_eq!((config.masters.len(), config.max_in_flight), (2, 7));
        let flags = ["--config", path, "--master", "http://m3:1", "--max-in-flight", "9"];
        let config = load(&flags).unwrap();
        assert_eq!((config.masters.len(), config.max_in_flight), (1, 9));
        std::fs::write(path, "max-inflight = 7\n").unwrap();
        assert!(load(&["--config", path]).unwrap_err().contains("max-inflight"));
        std::fs::write(path, "once = true\n").unwrap();
        assert!(load(&["--config", path]).unwrap_err().contains("once"));
    }

    #[test]
    fn bad_values_are_named() {
        for (args, expected) in [
            (&["--max-in-flight", "0"][..], "--max-in-flight 0 is out of range: 1 to 1024"),
            (&["--max-in-flight", "1025"], "out of range"),
            (&["--master", "foo"], "is not like http://127.0.0.1"),
            (&["--config", "/does/not/exist"], "could not read the configuration /does/not/exist"),
            (&["--log-format", "xml"], "text, json"),
        ] {
            let error = load(args).unwrap_err();
            assert!(error.contains(expected), "{args:?}: {error}");
        }
    }
}
