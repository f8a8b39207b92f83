//! HTTP/1.1 over a socket of one's own, for requests that no proper client would send, and for
//! measuring without a client's own time.

use std::fmt;
use std::io::{Read, Write};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A socket, of either sort.
pub trait Stream: Read + Write + Send {
    /// Bounds each read and write.
    fn bound(&self, limit: Duration);
}

impl Stream for std::net::TcpStream {
    fn bound(&self, limit: Duration) {
        self.set_read_timeout(Some(limit)).expect("a limit for reading");
        self.set_write_timeout(Some(limit)).expect("a limit for writing");
    }
}

impl Stream for Box<dyn Stream> {
    fn bound(&self, limit: Duration) {
        (**self).bound(limit);
    }
}

impl Stream for std::os::unix::net::UnixStream {
    fn bound(&self, limit: Duration) {
        self.set_read_timeout(Some(limit)).expect("a limit for reading");
        self.set_write_timeout(Some(limit)).expect("a limit for writing");
    }
}

/// An answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The lines of the head after the first.
    pub head: Vec<String>,
    /// The body.
    pub body: String,
    /// From the first byte sent to the last received.
    pub took: Duration,
}

impl Answer {
    /// A header, by its name in lower case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.iter().find_map(|line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }

    /// The body as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("no JSON ({error}): {self}"))
    }

    /// The body as JSON; panics unless the status says success.
    #[track_caller]
    pub fn ok(&self) -> Value {
        assert!((200..300).contains(&self.status), "should have worked: {self}");
        if self.body.is_empty() { Value::Null } else { self.json() }
    }

    /// The `Err` of an answer of Docker's plugin protocol; empty is success.
    #[track_caller]
    pub fn err(&self) -> String {
        self.json()["Err"].as_str().unwrap_or_else(|| panic!("there is no Err: {self}")).to_owned()
    }
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let body: String = self.body.chars().take(1_000).collect();
        write!(f, "{} after {} ms: {body}", self.status, self.took.as_millis())
    }
}

/// Why there is no answer.
#[derive(Debug)]
pub enum NoAnswer {
    /// The connection was closed before a whole answer had come.
    Closed,
    /// Nothing came in time.
    Silent,
}

impl fmt::Display for NoAnswer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            NoAnswer::Closed => "the connection was closed without an answer",
            NoAnswer::Silent => "there was no answer in time",
        })
    }
}

/// Sends a request and reads the answer.
#[track_caller]
pub fn request(mut stream: impl Stream, head: &str, body: &[u8]) -> Answer {
    let limit = Duration::from_secs(125);
    let request = whole(head, body);
    send(&mut stream, &request, limit).unwrap_or_else(|why| panic!("{head}: {why}"))
}

/// The bytes of a request with these first lines, and with a length if there is a body.
pub fn whole(head: &str, body: &[u8]) -> Vec<u8> {
    one_of_many(&format!("{head}\r\nConnection: close"), body)
}

/// The same, for a connection that stays open.
pub fn one_of_many(head: &str, body: &[u8]) -> Vec<u8> {
    let mut request = format!("{head}\r\n").into_bytes();
    if !body.is_empty() {
        request.extend(format!("Content-Length: {}\r\n", body.len()).into_bytes());
    }
    request.extend(b"\r\n");
    request.extend(body);
    request
}

/// Sends bytes and reads one answer.
pub fn send(stream: &mut impl Stream, bytes: &[u8], limit: Duration) -> Result<Answer, NoAnswer> {
    let started = Instant::now();
    stream.bound(limit);
    // A server may answer and close before it has read all of a request that it will not take.
    let _ = stream.write_all(bytes).and_then(|()| stream.flush());
    read(stream, started)
}

/// Reads one answer.
pub fn read(stream: &mut (impl Stream + ?Sized), started: Instant) -> Result<Answer, NoAnswer> {
    let mut bytes = Vec::new();
    let mut chunk = [0; 65_536];
    loop {
        match stream.read(&mut chunk) {
            Ok(0) => return parse(&bytes, true, started).ok_or(NoAnswer::Closed),
            Ok(count) => bytes.extend(&chunk[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                return Err(NoAnswer::Silent);
            }
            Err(_) => return parse(&bytes, true, started).ok_or(NoAnswer::Closed),
        }
        if let Some(answer) = parse(&bytes, false, started) {
            return Ok(answer);
        }
    }
}

fn parse(bytes: &[u8], at_end: bool, started: Instant) -> Option<Answer> {
    let split = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
    let head = String::from_utf8_lossy(&bytes[..split]).into_owned();
    let mut lines = head.split("\r\n").map(str::to_owned);
    let status = lines.next()?.split(' ').nth(1)?.parse().ok()?;
    let mut answer =
        Answer { status, head: lines.collect(), body: String::new(), took: started.elapsed() };
    let rest = &bytes[split + 4..];
    let length = answer.header("content-length").and_then(|length| length.parse().ok());
    let body = match length {
        Some(length) if rest.len() >= length => rest[..length].to_vec(),
        Some(_) => return None,
        None if answer.header("transfer-encoding").is_some() => dechunk(rest)?,
        None if at_end || matches!(status, 204 | 304) => rest.to_vec(),
        None => return None,
    };
    answer.body = String::from_utf8_lossy(&body).into_owned();
    Some(answer)
}

fn dechunk(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut body = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        let size = usize::from_str_radix(std::str::from_utf8(&rest[..end]).ok()?, 16).ok()?;
        let data = rest.get(end + 2..end + 2 + size)?;
        if size == 0 {
            return Some(body);
        }
        body.extend(data);
        rest = rest.get(end + 4 + size..)?;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_read_in_every_form() {
        let read = |text: &str, at_end| parse(text.as_bytes(), at_end, Instant::now());
        let sized = read("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}", false).unwrap();
        assert_eq!((sized.status, &*sized.body), (200, "{}"));
        assert!(read("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n{}", true).is_none());
        let chunked =
            "HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1\r\nc\r\n0\r\n\r\n";
        assert_eq!(read(chunked, false).unwrap().body, "abc");
        assert!(read(&chunked[..chunked.len() - 8], false).is_none());
        assert_eq!(read("HTTP/1.1 204 \r\n\r\n", false).unwrap().status, 204);
    }
}
