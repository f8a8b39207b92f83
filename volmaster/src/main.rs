//! `volmaster`: parse, load, log, open, bind, serve, drain.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing_subscriber::EnvFilter;
use volapi::problem::chain;
use volmaster::app::App;
use volmaster::config::{Args, Config, LogFormat};
use volmaster::http::{Limits, router};
use volmaster::{background, ground, serve};
use volstorage::image::ImageDriver;

/// At the end, requests and volumes under way have so long to finish; what does not is taken up at
/// the next start, or by another volmaster. With some slack for the rest, ten seconds in all.
const DRAIN: Duration = Duration::from_secs(8);
/// How long threads and the cluster have in the end, each.
const LAST: Duration = Duration::from_millis(500);

fn main() -> ExitCode {
    let config = match Config::load(Args::parse()) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("volmaster: {}", chain(&error));
            return ExitCode::from(2);
        }
    };
    log(&config);
    match live(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("volmaster: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

fn live(config: Config) -> Result<(), Box<dyn std::error::Error>> {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    let images = runtime.block_on(run(config))?;
    // Blocking calls that hang in Ceph or on a disk do not hold up the end.
    runtime.shutdown_timeout(LAST);
    disconnect(images);
    Ok(())
}

async fn run(config: Config) -> Result<Arc<dyn ImageDriver>, Box<dyn std::error::Error>> {
    let stop = told_to_stop()?;
    let ground = ground::open(&config).await?;
    let images = ground.images.clone();
    tracing::info!(store = ground.store.describe(), images = ?config.images, "opened");
    let app = App::new(ground);
    let listener = serve::bind(config.listen).await.map_err(|error| {
        std::io::Error::new(error.kind(), format!("could not listen on {}: {error}", config.listen))
    })?;
    tracing::info!("listening on http://{}", listener.local_addr()?);
    background::start(&app);
    let (limits, connections) = (Limits::default(), TaskTracker::new());
    let router = router(app.clone(), limits);
    serve::serve(listener, router, limits, stop, &connections).await;
    tracing::info!("told to stop");
    connections.close();
    let drained = async { tokio::join!(connections.wait(), app.shutdown(DRAIN)).1 };
    if !tokio::time::timeout(DRAIN, drained).await.unwrap_or(false) {
        tracing::warn!("work is still under way; it is taken up at the next start");
    }
    Ok(images)
}

/// Leaves the cluster, which blocks, and would for long where it does not answer.
fn disconnect(images: Arc<dyn ImageDriver>) {
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        drop(images);
        // Nobody waits any more, should this come too late.
        done.send(()).unwrap_or_default();
    });
    if ended.recv_timeout(LAST).is_err() {
        tracing::warn!("the cluster was left without a word");
    }
}

/// Cancelled by SIGTERM and SIGINT.
fn told_to_stop() -> std::io::Result<CancellationToken> {
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let stop = CancellationToken::new();
    let told = stop.clone();
    tokio::spawn(async move {
        // Cancel-safe: recv() is.
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        told.cancel();
    });
    Ok(stop)
}

fn log(config: &Config) {
    let level = if config.debug { "debug" } else { "info" };
    let filter = EnvFilter::try_from_env("VOLMASTER_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}
