//! volsupervisor against a volmaster in memory: by its seam with time standing still between events, over sockets, and
//! as a process.

#![expect(clippy::unwrap_used, reason = "a test that cannot set up its stand-in has failed")]

mod process;
mod retention;
mod seam;
mod sockets;
mod stand_in;
mod takes;
