//! `volcli completion` and `volcli man`: what clap's definition of the command line can be turned into.

use std::path::Path;

use clap::CommandFactory;

use crate::args::Cli;
use crate::failure::{Exit, Failure};
use crate::output::{self, OutputError};

/// The script is made in memory first: clap_complete panics where its writer fails.
pub fn completion(shell: clap_complete::Shell) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "volcli", &mut script);
    output::put(&String::from_utf8_lossy(&script))?;
    Ok(Exit::Done)
}

pub fn pages(dir: Option<&Path>) -> Result<Exit, Failure> {
    let Some(dir) = dir else {
        let mut page = Vec::new();
        let man = clap_mangen::Man::new(Cli::command());
        man.render(&mut page).map_err(OutputError::Stdout)?;
        output::put(&String::from_utf8_lossy(&page))?;
        return Ok(Exit::Done);
    };
    std::fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(Cli::command(), dir))
        .map_err(|source| Failure::Man { folder: dir.display().to_string(), source })?;
    Ok(Exit::Done)
}
