//! Connections: taken, served with time limits, and brought to an end.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use nix::sys::socket::{setsockopt, sockopt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::http::Limits;

/// How many connections are served at a time; more wait in the kernel's queue.
const CONNECTIONS: usize = 4096;
/// The pause after the kernel had no connection to give (no file descriptors left).
const PAUSE: Duration = Duration::from_millis(100);
/// How long a peer may leave what was sent to it unacknowledged, in milliseconds.
const STALLED: u32 = 60_000;

/// Binds. Port 0 lets the kernel choose.
pub async fn bind(listen: SocketAddr) -> io::Result<TcpListener> {
    TcpListener::bind(listen).await
}

/// Serves until `stop`; connections that are open then finish the request that they are at.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    limits: Limits,
    stop: CancellationToken,
    connections: &TaskTracker,
) {
    let places = std::sync::Arc::new(Semaphore::new(CONNECTIONS));
    loop {
        // Nobody closes the semaphore.
        let Ok(place) = places.clone().acquire_owned().await else { return };
        // Both arms are cancel-safe: a connection that is not accepted stays in the kernel's queue.
        let accepted = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => accepted,
        };
        match accepted {
            Ok((stream, _)) => {
                let connection = connection(stream, router.clone(), limits, stop.clone());
                connections.spawn(async move {
                    connection.await;
                    drop(place);
                });
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be taken");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, router: Router, limits: Limits, stop: CancellationToken) {
    // Answers are small and waited for. A peer that stays away is the kernel's to find out.
    let options = stream
        .set_nodelay(true)
        .and_then(|()| Ok(setsockopt(&stream, sockopt::TcpUserTimeout, &STALLED)?));
    if let Err(error) = options {
        tracing::debug!(%error, "a connection takes no options");
    }
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(limits.head);
    let served = builder.serve_connection(TokioIo::new(stream), TowerToHyperService::new(router));
    let mut served = std::pin::pin!(served);
    // Both arms are cancel-safe: the connection is polled on below.
    let ended = tokio::select! {
        ended = served.as_mut() => ended,
        () = stop.cancelled() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(error = volapi::problem::chain(&error), "a connection ended");
    }
}
