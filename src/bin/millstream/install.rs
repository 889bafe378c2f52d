//! `millstream completions` and `millstream man`: what a package installs beside the command.

use std::path::PathBuf;

use clap::CommandFactory;
use clap_complete::Shell;

use crate::failure::{Failure, Result};
use crate::{Cli, output};

/// Writes what a shell needs to complete the words of this command.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream completions bash > ~/.local/share/bash-completion/completions/millstream
  millstream completions zsh > ~/.zfunc/_millstream
  millstream completions fish > ~/.config/fish/completions/millstream.fish")]
pub(crate) struct Completions {
    /// The shell.
    shell: Shell,
}

/// Writes the manual page of this command, and with --dir those of all verbs.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  millstream man | man -l -
  millstream man --dir ~/.local/share/man/man1")]
pub(crate) struct Man {
    /// Write a page for each verb to this directory, which is made if there is none.
    #[arg(long)]
    dir: Option<PathBuf>,
}

pub(crate) fn completions(args: &Completions) -> Result<()> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "millstream", &mut script);
    output::print(&String::from_utf8_lossy(&script))
}

pub(crate) fn man(args: &Man) -> Result<()> {
    let Some(dir) = &args.dir else {
        let mut page = Vec::new();
        let rendered = clap_mangen::Man::new(Cli::command()).render(&mut page);
        rendered.map_err(|e| Failure::error(format!("cannot write the page: {e}")))?;
        return output::print(&String::from_utf8_lossy(&page));
    };
    std::fs::create_dir_all(dir).map_err(|e| Failure::file("create", dir, &e))?;
    let written = clap_mangen::generate_to(Cli::command(), dir);
    written.map_err(|e| Failure::file("write to", dir, &e))
}
