//! Makes a connected network block device larger, by the kernel's generic netlink (`linux/nbd-netlink.h`).
//!
//! `rbd-nbd` 16.2 follows its image and asks the kernel for this too, but leaves out the cookie, and the kernel then says
//! "must specify backend". The ioctl is refused for devices that were connected by netlink.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

const CONTROL: u16 = 0x10;
const GET_FAMILY: u8 = 3;
const FAMILY_ID: u16 = 1;
const FAMILY_NAME: u16 = 2;

const RECONFIGURE: u8 = 3;
const INDEX: u16 = 1;
const SIZE_BYTES: u16 = 2;
const BACKEND: u16 = 10;

const REQUEST: u16 = 1;
const ACKNOWLEDGE: u16 = 4;
const ERROR: u16 = 2;
/// The header of a message, and the one of generic netlink after it.
const HEADERS: usize = 16 + 4;

/// Sets the size of `/dev/nbd<index>`, if it is the device with this cookie.
pub(super) fn resize(index: u32, cookie: &str, bytes: u64) -> io::Result<()> {
    let socket = open()?;
    let name = attribute(FAMILY_NAME, b"nbd\0");
    let answer = ask(&socket, message(CONTROL, REQUEST, GET_FAMILY, 1, &[name]))?;
    let family = family(&answer)?;
    let mut said =
        vec![attribute(INDEX, &index.to_ne_bytes()), attribute(SIZE_BYTES, &bytes.to_ne_bytes())];
    if !cookie.is_empty() {
        said.push(attribute(BACKEND, &[cookie.as_bytes(), b"\0"].concat()));
    }
    ask(&socket, message(family, REQUEST | ACKNOWLEDGE, RECONFIGURE, 1, &said)).map(drop)
}

fn open() -> io::Result<OwnedFd> {
    let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC;
    // SAFETY: the call takes numbers only.
    let socket = unsafe { libc::socket(libc::AF_NETLINK, kind, libc::NETLINK_GENERIC) };
    if socket < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made this descriptor, and nobody else knows it.
    Ok(unsafe { OwnedFd::from_raw_fd(socket) })
}

/// An attribute, filled up to four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let size = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
    let mut bytes = [size.to_ne_bytes(), kind.to_ne_bytes()].concat();
    bytes.extend_from_slice(value);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn message(kind: u16, flags: u16, command: u8, version: u8, attributes: &[Vec<u8>]) -> Vec<u8> {
    let attributes = attributes.concat();
    let size = u32::try_from(HEADERS + attributes.len()).unwrap_or(u32::MAX);
    let mut bytes = size.to_ne_bytes().to_vec();
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&flags.to_ne_bytes());
    // Its number, and ours, which the kernel fills in.
    bytes.extend_from_slice(&[0; 8]);
    bytes.extend_from_slice(&[command, version, 0, 0]);
    bytes.extend_from_slice(&attributes);
    bytes
}

/// Sends a message and gives the answer, unless that is an error. The kernel answers at once.
fn ask(socket: &OwnedFd, message: Vec<u8>) -> io::Result<Vec<u8>> {
    let mut answer = vec![0; 8192];
    let socket = socket.as_raw_fd();
    // SAFETY: the descriptor is open, and the kernel reads the message only.
    let sent = unsafe { libc::send(socket, message.as_ptr().cast(), message.len(), 0) };
    usize::try_from(sent).map_err(|_| io::Error::last_os_error())?;
    // SAFETY: the descriptor is open, and the kernel writes no more than the buffer has.
    let got = unsafe { libc::recv(socket, answer.as_mut_ptr().cast(), answer.len(), 0) };
    answer.truncate(usize::try_from(got).map_err(|_| io::Error::last_os_error())?);
    refusal(&answer).map_or(Ok(answer), Err)
}

/// What an answer refuses with.
fn refusal(answer: &[u8]) -> Option<io::Error> {
    let short = || Some(io::Error::other("a short answer from netlink"));
    let Some(kind) = answer.get(4..6) else { return short() };
    if kind != ERROR.to_ne_bytes() {
        return None;
    }
    let Some([a, b, c, d]) = answer.get(16..20) else { return short() };
    match i32::from_ne_bytes([*a, *b, *c, *d]) {
        0 => None,
        number => Some(io::Error::from_raw_os_error(-number)),
    }
}

/// The number of a family, in the answer to a question for it.
fn family(answer: &[u8]) -> io::Result<u16> {
    let mut rest = answer.get(HEADERS..).unwrap_or_default();
    while let [a, b, c, d, value @ ..] = rest {
        let (size, kind) = (u16::from_ne_bytes([*a, *b]), u16::from_ne_bytes([*c, *d]));
        if let (FAMILY_ID, [low, high, ..]) = (kind, value) {
            return Ok(u16::from_ne_bytes([*low, *high]));
        }
        let step = usize::from(size).next_multiple_of(4).max(4);
        rest = rest.get(step..).unwrap_or_default();
    }
    Err(io::Error::other("the kernel says nothing of the family nbd"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_are_laid_out_as_netlink_has_them() {
        let name = attribute(FAMILY_NAME, b"nbd\0");
        assert_eq!(name, [8, 0, 2, 0, b'n', b'b', b'd', 0]);
        assert_eq!(attribute(BACKEND, b"abcd\0"), *b"\x09\0\x0a\0abcd\0\0\0\0");
        let message = message(CONTROL, REQUEST, GET_FAMILY, 1, &[name]);
        assert_eq!(message[..8], [28, 0, 0, 0, 0x10, 0, 1, 0]);
        assert_eq!(message[16..20], [3, 1, 0, 0]);
    }

    #[test]
    fn answers_are_read() {
        let attributes = [attribute(FAMILY_NAME, b"nbd\0"), attribute(FAMILY_ID, &[0x1c, 0])];
        let answer = message(CONTROL, 0, 1, 2, &attributes);
        assert!(refusal(&answer).is_none());
        assert_eq!(family(&answer).unwrap(), 0x1c);
        assert!(family(&message(CONTROL, 0, 1, 2, &[])).is_err());
        let error =
            |number: i32| [&[36, 0, 0, 0, 2, 0][..], &[0; 10], &number.to_ne_bytes()].concat();
        assert!(refusal(&error(0)).is_none());
        assert_eq!(refusal(&error(-22)).unwrap().raw_os_error(), Some(22));
        assert!(refusal(&[]).is_some());
    }

    /// The kernel answers here too, whether it has nbd or not.
    #[test]
    fn a_family_that_is_there_is_found() {
        let socket = open().unwrap();
        let ask_for = |name: &[u8]| {
            let name = attribute(FAMILY_NAME, name);
            ask(&socket, message(CONTROL, REQUEST, GET_FAMILY, 1, &[name]))
        };
        assert_eq!(family(&ask_for(b"nlctrl\0").unwrap()).unwrap(), CONTROL);
        let error = ask_for(b"nonsense\0").unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOENT));
    }
}
