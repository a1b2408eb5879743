//! What the options of a command line add up to.

use super::command::{Command, FetchOptions, ManifestOptions, ServeOptions, StatusOptions};
use crate::process::log::Logging;

/// What the command is asked to do. Its options say which of these they can be used with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Mode {
    Serve,
    Fetch,
    Status,
    Manifest,
    Boot,
    TakeOver,
}

impl Mode {
    /// Without the feature `master` the program only fetches, serves other nodes and shows their state.
    pub(super) fn is_built_in(self) -> bool {
        match self {
            Mode::Serve | Mode::Manifest => cfg!(feature = "master"),
            Mode::Fetch | Mode::Status | Mode::Boot | Mode::TakeOver => true,
        }
    }

    /// As error messages call it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Mode::Serve => "serving",
            Mode::Fetch => "fetching (-n)",
            Mode::Status => "--status",
            Mode::Manifest => "--manifest",
            Mode::Boot => "--boot",
            Mode::TakeOver => "--take-over",
        }
    }
}

/// The values that options have set so far, and the defaults of the others.
///
/// The mode is known only at the end. Until then an option sets its value in every command that
/// has it; operands, `server` and `logging` are added to the one command that is returned.
#[derive(Default)]
pub(super) struct Args {
    /// `--help`, `--version` or `--completions`: the rest of the command line is ignored.
    pub(super) immediate: Option<Command>,
    /// The modes that an option of their own asks for, such as `--status`.
    pub(super) modes: Vec<Mode>,
    /// Without any of `modes`, this tells fetching from serving.
    pub(super) server: Option<String>,
    pub(super) serve: ServeOptions,
    pub(super) fetch: FetchOptions,
    pub(super) status: StatusOptions,
    pub(super) manifest: ManifestOptions,
    pub(super) logging: Logging,
}
