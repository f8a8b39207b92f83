//! `volplugin`: parse, load, log, build, bind, serve, drain.

use std::io::IsTerminal;
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing_subscriber::EnvFilter;
use volapi::problem::chain;
use volclient::{Client, Options};
use volplugin::app::cache::Cache;
use volplugin::app::changes::Stunted;
use volplugin::app::orders::Obeying;
use volplugin::app::{Me, Plugin};
use volplugin::background;
use volplugin::config::{Args, Config, LogFormat};
use volplugin::docker::server;
use volplugin::docker::socket::PluginSocket;
use volplugin::host::identity::Identity;
use volplugin::host::locks::Locks;
use volplugin::host::standing::Standing;
use volplugin::host::uses::Uses;
use volplugin::serve;
use volstorage::linux::{Deadlines, LinuxHost, LinuxHostConfig};

/// What all volplugins of a machine share.
const RUN: &str = "/run/volplugin";
/// At the end, calls under way have so long to finish.
const DRAIN: Duration = Duration::from_secs(10);

fn main() -> ExitCode {
    let mut args = std::env::args_os().skip(1);
    if args.next().is_some_and(|first| first == serve::SUBCOMMAND) {
        return serve::main(args);
    }
    let config = match Config::load(Args::parse()) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("volplugin: {}", chain(&error));
            return ExitCode::from(2);
        }
    };
    log(&config);
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
    let run = runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(run(config)));
    match run {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = chain(&*error), "volplugin ends");
            eprintln!("volplugin: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run(config: Config) -> Result<(), Box<dyn std::error::Error>> {
    let identity = Identity::take(&config.data_dir, &config.host, Path::new(RUN))?;
    let socket = PluginSocket::bind(&config.plugin_dir, &config.plugin_name)?;
    tracing::info!(socket = %socket.path().display(), host = %config.host, "serving Docker");
    let client = Client::new(config.masters.clone(), Options::default())?;
    let driver = LinuxHost::new(LinuxHostConfig {
        map_root: config.data_dir.join("map"),
        mount_root: config.mount_root.clone(),
        ceph_conf: config.ceph_conf,
        ceph_user: config.ceph_user,
        server: serve::command()?,
        deadlines: Deadlines::default(),
    });
    let plugin = Arc::new(Plugin {
        me: Me { host: config.host, instance: identity.instance, boot: identity.boot.clone() },
        master: Arc::new(client),
        driver: Arc::new(driver),
        uses: Uses::load(&config.data_dir)?,
        cache: Cache::load(config.data_dir.join("volumes.json")),
        locks: Locks::default(),
        mount_root: config.mount_root,
        access: config.access,
        default_tenant: config.default_tenant,
        standing: Standing::default(),
        nudge: tokio::sync::Notify::new(),
        stunted: Stunted::default(),
        obeying: Obeying::default(),
    });
    // Before anything that may hang on it.
    match plugin.driver.thaw_all().await {
        Ok(thawed) if thawed.is_empty() => {}
        Ok(thawed) => tracing::warn!(?thawed, "was left frozen; thawed"),
        Err(error) => tracing::warn!(error = chain(&error), "what is frozen could not be thawed"),
    }
    let (calls, stop) = (TaskTracker::new(), CancellationToken::new());
    tokio::spawn(background::session::run(Arc::clone(&plugin)));
    tokio::spawn(background::cache::run(Arc::clone(&plugin)));
    tokio::spawn(background::changes::run(Arc::clone(&plugin)));
    tokio::spawn(background::orders::run(Arc::clone(&plugin)));
    tokio::spawn(background::reconcile::run(Arc::clone(&plugin)));
    let serving = server::serve(&socket, Arc::clone(&plugin), calls.clone(), stop.clone());
    // Cancel-safe: serving is dropped only at the end of the process.
    tokio::select! {
        () = serving => {}
        () = told_to_stop() => stop.cancel(),
    }
    drop(socket);
    calls.close();
    if tokio::time::timeout(DRAIN, calls.wait()).await.is_err() {
        tracing::warn!("calls are still under way; what they leave is taken up at the next start");
    }
    background::cache::flush(&plugin).await;
    Ok(())
}

async fn told_to_stop() {
    let signals = (signal(SignalKind::terminate()), signal(SignalKind::interrupt()));
    let (Ok(mut terminate), Ok(mut interrupt)) = signals else {
        return std::future::pending().await;
    };
    // Cancel-safe: recv() is.
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

fn log(config: &Config) {
    let level = if config.debug { "debug" } else { "info" };
    let filter = EnvFilter::try_from_env("VOLPLUGIN_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}
