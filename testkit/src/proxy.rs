//! A line in the middle of which answers get lost: requests arrive, and whoever asked does not learn what came of them.

use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::socket::{setsockopt, sockopt};

use crate::dice::Dice;
use crate::place::Place;

/// Listens at a place, and passes what comes on to an address from there.
#[derive(Debug)]
pub struct Proxy {
    address: SocketAddr,
    state: Arc<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Of so many pieces of answers one is lost; 0: none.
    one_in: AtomicU64,
    dice: Dice,
    lost: AtomicU64,
    ended: AtomicBool,
}

impl Proxy {
    /// Starts one.
    #[track_caller]
    pub fn start(place: &Place, address: SocketAddr, upstream: SocketAddr) -> Proxy {
        let listener = place.listen(address);
        let listener = listener.unwrap_or_else(|error| panic!("{address} at {place:?}: {error}"));
        let address = listener.local_addr().expect("an address");
        let state = Arc::new(State::default());
        let (place, shared) = (place.clone(), Arc::clone(&state));
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.ended.load(Ordering::Relaxed) {
                    return;
                }
                let (place, shared) = (place.clone(), Arc::clone(&shared));
                thread::spawn(move || shared.serve(&client, &place, upstream));
            }
        });
        Proxy { address, state }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on one of so many answers is lost, by chance, with its connection.
    pub fn lose(&self, seed: u64, one_in: u64) {
        self.state.dice.seed(seed);
        self.state.one_in.store(one_in.max(1), Ordering::Relaxed);
    }

    /// From now on everything passes.
    pub fn pass(&self) {
        self.state.one_in.store(0, Ordering::Relaxed);
    }

    /// How many answers were lost so far.
    pub fn lost(&self) -> u64 {
        self.state.lost.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    /// Takes no more connections; those that stand go on.
    fn drop(&mut self) {
        self.state.ended.store(true, Ordering::Relaxed);
        let _ = TcpStream::connect_timeout(&self.address, Duration::from_millis(100));
    }
}

impl State {
    fn serve(&self, client: &TcpStream, place: &Place, upstream: SocketAddr) {
        let Ok(server) = place.connect(upstream) else {
            // Whoever asked hears that nobody is there, as he would without us.
            refuse(client);
            return;
        };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        thread::scope(|scope| {
            scope.spawn(|| pass_on(client, &server, || true));
            pass_on(&server, client, || self.arrives());
        });
    }

    /// Whether the next piece of an answer arrives.
    fn arrives(&self) -> bool {
        let one_in = self.one_in.load(Ordering::Relaxed);
        let lost = one_in > 0 && self.dice.below(one_in) == 0;
        if lost {
            self.lost.fetch_add(1, Ordering::Relaxed);
        }
        !lost
    }
}

fn refuse(client: &TcpStream) {
    let at_once = libc::linger { l_onoff: 1, l_linger: 0 };
    let _ = setsockopt(client, sockopt::Linger, &at_once);
}

/// Until either end closes, or a piece does not arrive; then neither can be used any more.
fn pass_on(mut from: &TcpStream, mut to: &TcpStream, arrives: impl Fn() -> bool) {
    let mut chunk = vec![0; 65_536];
    while let Ok(count @ 1..) = from.read(&mut chunk) {
        if !arrives() || to.write_all(&chunk[..count]).is_err() {
            break;
        }
    }
    let _ = (from.shutdown(Shutdown::Both), to.shutdown(Shutdown::Both));
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::http::{self, NoAnswer};

    #[test]
    fn a_request_arrives_and_its_answer_does_not() {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let server = Place::Here.listen(nowhere).expect("a listener");
        let upstream = server.local_addr().expect("an address");
        let proxy = Proxy::start(&Place::Here, nowhere, upstream);
        let heard = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&heard);
        thread::spawn(move || {
            for stream in server.incoming() {
                let (mut stream, counted) = (stream.expect("a connection"), Arc::clone(&counted));
                thread::spawn(move || {
                    let mut chunk = [0; 1024];
                    while let Ok(1..) = stream.read(&mut chunk) {
                        counted.fetch_add(1, Ordering::Relaxed);
                        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}");
                    }
                });
            }
        });
        let ask = || {
            let mut stream = TcpStream::connect(proxy.address()).expect("the proxy listens");
            let request = http::whole("PUT / HTTP/1.1\r\nHost: x", b"");
            http::send(&mut stream, &request, Duration::from_secs(10))
        };
        assert_eq!(ask().expect("it passes").status, 200);
        proxy.lose(7, 1);
        assert!(matches!(ask(), Err(NoAnswer::Closed)));
        assert_eq!(
            (heard.load(Ordering::Relaxed), proxy.lost()),
            (2, 1),
            "it arrived all the same"
        );
        proxy.lose(7, 3);
        let answered = (0..30).filter(|_| ask().is_ok()).count();
        assert!((10..30).contains(&answered), "{answered} of 30");
        proxy.pass();
        assert!(ask().is_ok());
    }

    #[test]
    fn where_nobody_listens_nobody_answers() {
        let nowhere = SocketAddr::from(([127, 0, 0, 1], 0));
        let gone = Place::Here.listen(nowhere).and_then(|listener| listener.local_addr());
        let proxy = Proxy::start(&Place::Here, nowhere, gone.expect("an address"));
        let mut stream = TcpStream::connect(proxy.address()).expect("the proxy listens");
        let answer = http::send(&mut stream, b"GET / HTTP/1.1\r\n\r\n", Duration::from_secs(10));
        assert!(matches!(answer, Err(NoAnswer::Closed)));
    }
}
