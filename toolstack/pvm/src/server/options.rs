//! The command line of `pvmd`.

use std::path::PathBuf;

use clap::Parser;

use super::settings::Settings;

/// The configuration that is read unless another one is named.
pub const CONFIG: &str = "/etc/zooid/pvmd.toml";

/// The daemon that forks pVMs, watches them, and answers pvm
#[derive(Debug, Parser)]
#[command(
    name = "pvmd",
    version,
    after_help = "\
Configuration:
Every option but --config and --check can stand in the file, without its dashes. An option on the command line wins.
  pool = 2
  family-memory = \"1G\"

Signals:
SIGTERM makes it destroy the prepared domains and end; pVMs live on. One that was killed leaves everything to its successor.

Exit status:
  0  stopped by a signal
  1  it cannot run here, or cannot go on
  2  a bad option or configuration
  3  another pvmd is running"
)]
pub struct Options {
    /// Configuration [default: /etc/zooid/pvmd.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Read the configuration, say whether it is good, and end
    #[arg(long)]
    pub check: bool,
    /// Settings here override those of the configuration.
    #[command(flatten)]
    pub settings: Settings,
}
