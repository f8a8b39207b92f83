//! `volcli`, the operator's tool.
//!
//! From the arguments ([`args`]) comes a plan ([`plan`]), which has found everything that can be
//! wrong with a command line; the commands ([`commands`]) carry it out through volmaster or, for
//! disaster recovery, straight on etcd ([`backend`]), and show the result ([`output`]). It never
//! touches images or mounts.

mod args;
mod backend;
mod commands;
mod direct;
mod document;
mod failure;
mod output;
mod plan;
mod progress;
mod rows;

use clap::{ArgMatches, CommandFactory, FromArgMatches};

use crate::args::Cli;
use crate::failure::{Exit, Failure};
use crate::output::say;

fn main() -> Exit {
    let mut command = Cli::command();
    let parsed = command.try_get_matches_from_mut(std::env::args_os()).and_then(|matches| {
        let cli = Cli::from_arg_matches(&matches)?;
        Ok((cli, matches))
    });
    let (cli, matches) = match parsed {
        Ok(parsed) => parsed,
        Err(error) => {
            // Help and version come this way too. A pipe that is closed early is no error.
            let _ = error.print();
            return if error.use_stderr() { Exit::Usage } else { Exit::Done };
        }
    };
    let environment = std::env::var("VOLCLI_MASTER").ok();
    let done = plan::plan(cli, environment.as_deref()).map_err(Failure::from).and_then(|plan| {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.map_err(Failure::Runtime)?.block_on(commands::run(plan))
    });
    match done {
        Ok(exit) => exit,
        Err(failure) => {
            failure.tell();
            if failure.exit() == Exit::Usage {
                say(format_args!("\nFor more information, try '{}'.", help_for(&matches)));
            }
            failure.exit()
        }
    }
}

/// `volcli help volume get`, for the command that was typed.
fn help_for(matches: &ArgMatches) -> String {
    let mut line = "volcli help".to_owned();
    let mut level = matches;
    while let Some((name, inner)) = level.subcommand() {
        line.push(' ');
        line.push_str(name);
        level = inner;
    }
    line
}
