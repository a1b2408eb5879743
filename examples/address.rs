//! Gives this machine an address as a node gets one early in the boot:
//!
//!   address 'CMDLINE' [keep] [down]
//!
//! CMDLINE is a kernel command line, whose `ip=`, `BOOTIF=`, `nameserver=`, `vlan=`,
//! `rd.xget.net=`, `rd.xget.server=`, `rd.xget.timeout=` and `rd.xget.debug` count. What came of it is
//! printed, one thing a line. `keep` makes a leased address permanent, `down` takes all links down. It
//! changes the network of the machine, or of the namespace, that it runs in.

use std::fmt::Display;
use std::process::ExitCode;
use std::time::Instant;

use xget::boot::address::{self, Network};
use xget::boot::cmdline::Cmdline;
use xget::error::Error;
use xget::process::log::{Level, Logging};
use xget::process::report::Reporter;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let Some(text) = arguments.next() else {
        eprintln!("usage: address 'CMDLINE' [keep] [down]");
        return ExitCode::from(2);
    };
    let cmdline = match Cmdline::parse(text.as_bytes()) {
        Ok(cmdline) => cmdline,
        Err(error) => {
            eprintln!("{error}");
            return ExitCode::from(2);
        }
    };
    match run(&cmdline, &arguments.collect::<Vec<_>>()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("xget: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(cmdline: &Cmdline, then: &[String]) -> Result<(), Error> {
    let level = if cmdline.debug { Level::Info } else { Level::Notice };
    let report = Reporter::new(Logging { level, ..Logging::default() });
    let give_up = cmdline.timeout.map(|timeout| Instant::now() + timeout);
    let network = address::bring_up(&cmdline.network, cmdline.net, &report, give_up)?;
    print(&network);
    if then.iter().any(|word| word == "keep") {
        address::keep(&network)?;
    }
    if then.iter().any(|word| word == "down") {
        address::take_down(&report);
    }
    Ok(())
}

fn print(network: &Network) {
    fn lines<T: Display>(name: &str, values: impl IntoIterator<Item = T>) {
        values.into_iter().for_each(|value| println!("{name} {value}"));
    }
    lines("link", &network.link);
    lines("address", network.address);
    lines("server", network.boot_servers());
    lines("name-server", &network.name_servers);
    lines(
        "host-name",
        std::fs::read_to_string("/proc/sys/kernel/hostname").as_deref().map(str::trim),
    );
    lines("lease", network.lease.map(|lease| lease.as_secs()));
}
