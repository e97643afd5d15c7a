//! `creel image`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use super::JsonArg;

#[derive(Debug, Subcommand)]
pub enum ImageCommand {
    /// List the images that workflows can name
    #[command(after_help = IMAGE_LS)]
    Ls(JsonArg),
    /// Build an image
    #[command(subcommand)]
    Build(BuildCommand),
    /// Show an image's specification and files
    #[command(after_help = IMAGE_INSPECT)]
    Inspect {
        /// The image's name
        name: String,
        #[command(flatten)]
        json: JsonArg,
    },
    /// Remove an image; running machines keep its files until they end
    #[command(after_help = IMAGE_RM)]
    Rm {
        /// The image's name
        name: String,
    },
    /// Read images again, every file, and compare them with what was built
    #[command(after_help = IMAGE_VERIFY)]
    Verify {
        /// The images' names [default: all]
        #[arg(value_name = "NAME")]
        names: Vec<String>,
        #[command(flatten)]
        json: JsonArg,
    },
    /// Remove what no image's name leads to any more and no machine uses
    #[command(after_help = IMAGE_GC)]
    Gc {
        /// Only say what would be removed
        #[arg(long)]
        dry_run: bool,
        #[command(flatten)]
        json: JsonArg,
    },
}

pub(super) const IMAGE: &str = "\
Examples:
  creel image build tiny   the smallest one, in seconds
  creel image ls";

const IMAGE_LS: &str = "\
Examples:
  creel image ls
  creel image ls --json | jq -r '.[].name'";

const IMAGE_VERIFY: &str = "\
Examples:
  creel image verify
  creel image verify debian --json | jq -r '.[].faults[]'";

const IMAGE_GC: &str = "\
Examples:
  creel image gc --dry-run
  creel image gc";

const IMAGE_INSPECT: &str = "\
Examples:
  creel image inspect tiny
  creel image inspect tiny --json | jq .spec";

const IMAGE_RM: &str = "\
Examples:
  creel image rm tiny";

#[derive(Debug, Subcommand)]
pub enum BuildCommand {
    /// Busybox and creel's agent: a shell and little else, booted in the blink of an eye
    Tiny(TinyArgs),
    /// Debian with git, make, a C compiler and Python, from this machine's apt sources
    Debian(DebianArgs),
}

#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  creel image build tiny
  creel image build tiny --name big --memory-mib 1024
  creel image build tiny --name mine --overlay ./files   ./files/etc/motd becomes /etc/motd")]
pub struct TinyArgs {
    /// What workflows call it
    #[arg(long, default_value = "tiny")]
    pub name: String,
    /// The guest's memory
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    pub memory_mib: u32,
    /// The size of /workspace
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    pub workspace_mib: u32,
    /// A directory whose files are laid over the image's root
    #[arg(long, value_name = "DIR")]
    pub overlay: Option<PathBuf>,
    /// A program in the image that becomes PID 1 in the agent's place; it has to start
    /// /usr/lib/creel/creel-agent itself
    #[arg(long, value_name = "PATH")]
    pub init: Option<String>,
}

/// Installs packages into a Debian root and packs it. mmdebstrap does the work: as root, or as a user with
/// subordinate ids (subuid(5)). A build whose packages, versions and options are those of an earlier one is not repeated.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  creel image build debian
  creel image build debian --name node --include nodejs,npm
  creel image build debian --suite trixie --mirror https://mirror.example.org/debian")]
pub struct DebianArgs {
    /// What workflows call it
    #[arg(long, default_value = "debian")]
    pub name: String,
    /// The release, by its code name
    #[arg(long, default_value = "bookworm")]
    pub suite: String,
    /// Where packages come from [default: this machine's apt sources that have the suite]
    #[arg(long, value_name = "URL")]
    pub mirror: Option<String>,
    /// Packages besides bash, ca-certificates, curl, gcc, git, libc6-dev, make and python3
    #[arg(long, value_name = "PKG", value_delimiter = ',')]
    pub include: Vec<String>,
    /// None of those packages but bash: the base system and what --include names
    #[arg(long)]
    pub minimal: bool,
    /// The guest's memory
    #[arg(long, value_name = "MIB", default_value_t = 1024)]
    pub memory_mib: u32,
    /// The guest's CPUs
    #[arg(long, value_name = "N", default_value_t = 1)]
    pub vcpus: u32,
    /// The size of /workspace
    #[arg(long, value_name = "MIB", default_value_t = 4096)]
    pub workspace_mib: u32,
}
