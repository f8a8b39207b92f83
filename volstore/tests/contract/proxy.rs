//! A TCP proxy that loses what it is told to lose.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Loss {
    Nothing,
    /// What the client sends.
    Requests,
    /// What the server sends.
    Replies,
}

/// Between one client and one server. Dropping it closes the connections.
pub struct Proxy {
    url: String,
    control: Arc<Control>,
    task: tokio::task::JoinHandle<()>,
}

struct Control {
    loss: watch::Sender<Loss>,
    /// Grows with every cut.
    cuts: watch::Sender<u64>,
    lost: AtomicU64,
}

impl Proxy {
    pub async fn start(server_url: &str) -> Self {
        let server = server_url.strip_prefix("http://").unwrap().to_owned();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let control = Arc::new(Control {
            loss: watch::Sender::new(Loss::Nothing),
            cuts: watch::Sender::new(0),
            lost: AtomicU64::new(0),
        });
        let task = tokio::spawn(accept(listener, server, control.clone()));
        Proxy { url, control, task }
    }

    pub fn url(&self) -> String {
        self.url.clone()
    }

    pub fn lose(&self, loss: Loss) {
        self.control.lost.store(0, Ordering::SeqCst);
        self.control.loss.send_replace(loss);
    }

    /// How many bytes were lost since `lose`.
    pub fn lost(&self) -> u64 {
        self.control.lost.load(Ordering::SeqCst)
    }

    /// Loses nothing more, and closes every connection.
    pub fn cut(&self) {
        self.control.loss.send_replace(Loss::Nothing);
        self.control.cuts.send_modify(|cuts| *cuts += 1);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cut();
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, server: String, control: Arc<Control>) {
    loop {
        let (client, _) = listener.accept().await.unwrap();
        let Ok(server) = TcpStream::connect(&server).await else { continue };
        let (client_read, client_write) = client.into_split();
        let (server_read, server_write) = server.into_split();
        tokio::spawn(pump(client_read, server_write, control.clone(), Loss::Requests));
        tokio::spawn(pump(server_read, client_write, control.clone(), Loss::Replies));
    }
}

async fn pump(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, control: Arc<Control>, kind: Loss) {
    let mut cuts = control.cuts.subscribe();
    let mut buffer = vec![0; 65536];
    loop {
        let read = tokio::select! {
            read = from.read(&mut buffer) => read,
            _ = cuts.changed() => return,
        };
        let Ok(size @ 1..) = read else { return };
        if *control.loss.borrow() == kind {
            control.lost.fetch_add(size as u64, Ordering::SeqCst);
        } else if to.write_all(&buffer[..size]).await.is_err() {
            return;
        }
    }
}
