//! Cuts off a client that begins a request and does not go on with it, and no other.
//!
//! A connection may be idle for ever. Docker keeps its connections, and repeats a call whose connection was closed
//! under it without the call's body (20.10): an Unmount would be lost for good. So the time is counted from a
//! request's first byte on, and not from the answer before, as hyper does.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::watch;

/// What a connection is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// Nothing.
    Idle,
    /// A request has begun, and its head is not there as a whole.
    Head,
    /// A request is read to its end, worked on, or answered.
    Serving,
}

/// The stage of one connection.
#[derive(Clone, Debug)]
pub struct Patience {
    stage: Arc<watch::Sender<Stage>>,
}

impl Default for Patience {
    /// Of a connection that is new.
    fn default() -> Self {
        Patience { stage: Arc::new(watch::Sender::new(Stage::Idle)) }
    }
}

impl Patience {
    /// The connection, with an eye on what is read from it.
    pub fn watch<S>(&self, stream: S) -> Watched<S> {
        Watched { stream, patience: self.clone() }
    }

    /// Notes that a head is there, for as long as `work` takes.
    pub async fn serve<T>(&self, work: impl Future<Output = T>) -> T {
        self.stage.send_replace(Stage::Serving);
        let done = work.await;
        self.stage.send_replace(Stage::Idle);
        done
    }

    /// Ends when a head has not come within this time from its first byte on. Cancel-safe.
    pub async fn is_over(&self, within: Duration) {
        let mut stage = self.stage.subscribe();
        loop {
            // The sender is ours, so that neither fails.
            if stage.wait_for(|stage| *stage == Stage::Head).await.is_err() {
                return std::future::pending().await;
            }
            let gone_on = stage.wait_for(|stage| *stage != Stage::Head);
            if tokio::time::timeout(within, gone_on).await.is_err() {
                return;
            }
        }
    }
}

/// See [`Patience::watch`].
#[derive(Debug)]
pub struct Watched<S> {
    stream: S,
    patience: Patience,
}

impl<S: AsyncRead + Unpin> AsyncRead for Watched<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.patience.stage.send_if_modified(|stage| {
                let begins = *stage == Stage::Idle;
                if begins {
                    *stage = Stage::Head;
                }
                begins
            });
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Watched<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt, duplex};

    use super::*;

    const BOUND: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn only_who_has_begun_a_request_is_waited_for_with_an_end() {
        let patience = Patience::default();
        let (ours, mut theirs) = duplex(64);
        let mut watched = patience.watch(ours);
        let over = |time| tokio::time::timeout(time, patience.is_over(BOUND));
        assert!(over(BOUND * 1000).await.is_err(), "it is idle");
        theirs.write_all(b"POST /").await.unwrap();
        watched.read_u8().await.unwrap();
        assert!(over(BOUND - Duration::from_secs(1)).await.is_err());
        // The rest has come, and working on it takes its time.
        patience.serve(async { assert!(over(BOUND * 3).await.is_err()) }).await;
        assert!(over(BOUND * 1000).await.is_err(), "it is idle again");
        theirs.write_all(b"POST /").await.unwrap();
        while patience.stage.borrow().eq(&Stage::Idle) {
            watched.read_u8().await.unwrap();
        }
        assert!(over(BOUND + Duration::from_secs(1)).await.is_ok());
    }
}
