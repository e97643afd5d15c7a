//! The command line of `creel cp`.

use std::ffi::OsString;

use clap::Args;

use super::{JsonArg, SocketArg};

#[derive(Debug, Args)]
#[command(after_help = "\
One side is MACHINE:PATH, the other a path here, or - for a tar archive on stdin or stdout. In the
machine, a path that does not begin with a slash is one below /workspace; here, a name with a colon
is written ./a:b. As with cp: what exists as a directory is copied into, anything else is the copy's
new name. SRC/. is what is in SRC. Links are copied as links; a slash behind SRC follows it.

Kept are modes, times, links and holes, but no owners, and no set-user-id bits. What can't be copied
is told, and the rest goes on; the exit code is then 1.

Examples:
  creel cp k3v9w0x2ma:repo/target/report.html .
  creel cp dist k3v9w0x2ma:/tmp/dist
  creel cp k3v9w0x2ma:/var/log - | tar tv
  tar c src | creel cp - k3v9w0x2ma:repo")]
pub struct CpArgs {
    /// What to copy: MACHINE:PATH, a path here, or - for an archive on stdin
    #[arg(value_name = "SRC")]
    pub source: OsString,
    /// Where to: MACHINE:PATH, a path here, or - for an archive on stdout
    #[arg(value_name = "DST")]
    pub destination: OsString,
    /// If SRC is a symbolic link, copy what it leads to, under the link's name
    #[arg(short = 'L', long)]
    pub follow_link: bool,
    /// Who reads or writes in the machine, never root [default: the workflow user]
    #[arg(long, value_name = "USER[:GROUP]")]
    pub user: Option<String>,
    #[command(flatten)]
    pub socket: SocketArg,
    #[command(flatten)]
    pub json: JsonArg,
}
