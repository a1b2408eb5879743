//! The xget command.
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

use xget::cli::{self, Command};
use xget::error::Error;
use xget::process::log::Logging;
use xget::process::report::Reporter;

fn main() -> ExitCode {
    // Without the handler the shell still reports the signal.
    let _ = xget::sys::crash::report_illegal_instruction();
    if xget::boot::is_init() {
        // What the kernel passes on to it are words of its command line, not arguments.
        xget::boot::init();
    }
    if std::process::id() == 1
        && let Err(error) = xget::sys::container::run_in_child()
    {
        let error = Error::System { action: "start a process", error };
        Reporter::new(Logging::default()).error(&error);
        return ExitCode::from(error.exit_code());
    }
    let command = cli::parse(std::env::args_os().skip(1));
    let logging = command.as_ref().map(Command::logging).unwrap_or_default();
    match command.and_then(run) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            Reporter::new(logging).error(&error);
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(command: Command) -> Result<(), Error> {
    match command {
        Command::Help => print(cli::help().as_bytes()),
        Command::Version => print(concat!("xget ", env!("CARGO_PKG_VERSION"), "\n").as_bytes()),
        #[cfg(feature = "master")]
        Command::Completions(shell) => print(cli::completions(shell).as_bytes()),
        #[cfg(feature = "master")]
        Command::Serve(serve) => xget::master::serve(&serve),
        #[cfg(feature = "master")]
        Command::Manifest(manifest) => print(&xget::master::manifest(&manifest)?),
        Command::Boot(boot) => xget::boot::boot(&boot),
        Command::TakeOver(take_over) => xget::node::resident::take_over(&take_over),
        Command::Fetch(fetch) => xget::node::client::get(&fetch),
        Command::Status(status) => xget::status::show::show(&status),
        #[cfg(not(feature = "master"))]
        Command::Completions(_) | Command::Serve(_) | Command::Manifest(_) => {
            Err(Error::Usage("this build of xget has no master".into()))
        }
    }
}

fn print(bytes: &[u8]) -> Result<(), Error> {
    std::io::stdout().write_all(bytes).map_err(Error::system("write to standard output"))
}
