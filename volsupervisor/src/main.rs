//! `volsupervisor`: parse, load, log, run, drain.

use std::io::IsTerminal;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::EnvFilter;
use volapi::problem::chain;
use volclient::{Client, Options};
use volsupervisor::config::{Args, Config, LogFormat, Run};
use volsupervisor::supervisor;

fn main() -> ExitCode {
    let config = match Config::load(Args::parse()) {
        Ok(config) => config,
        Err(error) => {
            eprintln!("volsupervisor: {}", chain(&error));
            return ExitCode::from(2);
        }
    };
    log(&config);
    // It waits for others all the time: one thread is enough.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let run = runtime.map_err(Into::into).and_then(|runtime| runtime.block_on(run(config)));
    match run {
        Ok(code) => code,
        Err(error) => {
            eprintln!("volsupervisor: {}", chain(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run(config: Config) -> Result<ExitCode, Box<dyn std::error::Error>> {
    let stop = told_to_stop()?;
    let user_agent = concat!("volsupervisor/", env!("CARGO_PKG_VERSION")).to_owned();
    let options = Options { user_agent, ..Options::default() };
    let client = Arc::new(Client::new(config.masters.clone(), options)?);
    let masters: Vec<String> = config.masters.iter().map(ToString::to_string).collect();
    tracing::info!(masters = masters.join(","), in_flight = config.max_in_flight, "begins");
    match config.run {
        Run::ForEver => {
            supervisor::run(client, config.max_in_flight, stop).await;
            tracing::info!("ends");
            Ok(ExitCode::SUCCESS)
        }
        Run::Once => {
            // Cancel-safe: what is under way goes on in volmaster, and what is not done is done the next time.
            let tally = tokio::select! {
                tally = supervisor::once(client, config.max_in_flight) => tally?,
                () = stop.cancelled() => return Err("told to stop before all was done".into()),
            };
            Ok(ExitCode::from(tally.exit_code()))
        }
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
    let filter =
        EnvFilter::try_from_env("VOLSUPERVISOR_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(std::io::stderr().is_terminal())
        .with_writer(std::io::stderr);
    match config.log_format {
        LogFormat::Text => builder.init(),
        LogFormat::Json => builder.json().init(),
    }
}
