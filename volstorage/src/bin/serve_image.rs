//! The server of one image as a program of its own, for the tests of this crate: volplugin carries it in itself.

use std::process::ExitCode;

fn main() -> ExitCode {
    volstorage::serve::main(std::env::args_os().skip(1))
}
