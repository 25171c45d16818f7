//! `afferent check-config`: is a configuration file right, before a service is started with it?

use super::native;
use super::options::{ConfigError, Settings};
use super::{DONE, complain, mirror, print_with, sense, serve};
use argh::FromArgs;
use std::path::{Path, PathBuf};

/// Check a configuration file and say what is wrong with it, and where.
#[derive(FromArgs)]
#[argh(
    subcommand,
    name = "check-config",
    example = "afferent check-config serve /etc/afferent/serve.toml --show"
)]
pub(super) struct CheckConfigArgs {
    /// the command that will read it: serve, sense or mirror
    #[argh(positional, arg_name = "COMMAND")]
    command: Command,
    /// the file
    #[argh(positional, arg_name = "FILE", from_str_fn(native::path))]
    file: PathBuf,
    /// print every setting with its value and where that comes from
    #[argh(switch)]
    show: bool,
}

#[derive(Clone, Copy)]
enum Command {
    Serve,
    Sense,
    Mirror,
}

impl argh::FromArgValue for Command {
    fn from_arg_value(value: &str) -> Result<Self, String> {
        match value {
            "serve" => Ok(Self::Serve),
            "sense" => Ok(Self::Sense),
            "mirror" => Ok(Self::Mirror),
            _ => Err("must be serve, sense or mirror".into()),
        }
    }
}

pub(super) fn run(args: &CheckConfigArgs) -> u8 {
    match check(args.command, &args.file) {
        Ok(settings) if args.show => print_with(|out| out.write_all(settings.show().as_bytes())),
        Ok(_) => DONE,
        Err(error) => complain(error.exit_code(), &error.to_string()),
    }
}

fn check(command: Command, file: &Path) -> Result<Settings, ConfigError> {
    let (list, tables): (_, &[&str]) = match command {
        Command::Serve => (serve::SETTINGS, &[]),
        Command::Sense => (sense::SETTINGS, sense::TABLES),
        Command::Mirror => (mirror::SETTINGS, &[]),
    };
    let settings = Settings::gather(list, Vec::new(), native::variable, Some(file), tables)?;
    match command {
        Command::Serve => serve::config(&settings).map(drop),
        Command::Sense => sense::check(&settings),
        Command::Mirror => mirror::check(&settings),
    }?;
    Ok(settings)
}
