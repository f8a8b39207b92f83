//! `volplugin serve`: the process that serves one image, for access `fuse`. Hidden, because nobody types it: volplugin starts
//! it, through `volstorage`, and it goes on when volplugin ends. All of it is in [`volstorage::serve`]; here are its name
//! and its log.

use std::ffi::OsString;
use std::io;
use std::process::ExitCode;

use tracing_subscriber::EnvFilter;
use volstorage::linux::ServerCommand;

/// What volplugin is called with to be a server.
pub const SUBCOMMAND: &str = "serve";

/// How servers are started: by this very program.
///
/// # Errors
/// When it is not known where this program is.
pub fn command() -> io::Result<ServerCommand> {
    let program = std::env::current_exe()?;
    Ok(ServerCommand { program, args: vec![SUBCOMMAND.into()] })
}

/// Serves until the image's file system is unmounted. What it logs goes to stderr, which is a file beside the record of the
/// mapping.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("info"))
        .with_ansi(false)
        .with_writer(io::stderr)
        .init();
    volstorage::serve::main(args)
}
