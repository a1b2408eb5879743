//! `xget --status`: asks a server for its status and prints it, once or again and again.

use std::io::{self, IsTerminal, Write};
use std::thread;
use std::time::Duration;

use super::table::{Room, table};
use super::to_json;
use crate::cli;
use crate::error::Error;
use crate::node::server;
use crate::printable::printable;
use crate::process::log;
use crate::sys::terminal;

/// How often it is asked while somebody watches.
const EVERY: Duration = Duration::from_secs(1);
/// A terminal that does not tell its size.
const USUAL_ROOM: Room = Room { lines: 24, columns: 80 };

/// Prints the status of `options.server`; with `watch` until the process is ended.
pub fn show(options: &cli::StatusOptions) -> Result<(), Error> {
    let mut out = io::stdout();
    if !options.watch {
        return print(&mut out, &written(&server::status(options)?, options.format, None));
    }
    let on_terminal = out.is_terminal() && options.format == cli::StatusFormat::Table;
    if on_terminal {
        print(&mut out, "\x1b[H\x1b[2J")?;
    }
    loop {
        // Asked anew each time, as the server may be another one by now.
        let asked = server::status(options);
        let room = on_terminal.then(|| room(&out));
        let text = match asked {
            Ok(text) => written(&text, options.format, room),
            // It may come back; what it said last would be misleading.
            Err(error) if on_terminal => format!("{}\n", printable(&error.to_string())),
            Err(error) => {
                let _ = writeln!(io::stderr(), "{}", log::line(&error));
                String::new()
            }
        };
        match (on_terminal, options.format) {
            (true, _) => print(&mut out, &redraw(&text))?,
            // A blank line ends a block.
            (false, cli::StatusFormat::Table | cli::StatusFormat::Raw) => {
                print(&mut out, &(text + "\n"))?;
            }
            (false, cli::StatusFormat::Json) => print(&mut out, &text)?,
        }
        thread::sleep(EVERY);
    }
}

fn written(text: &str, format: cli::StatusFormat, room: Option<Room>) -> String {
    match format {
        cli::StatusFormat::Table => table(text, room),
        cli::StatusFormat::Raw => text.to_owned(),
        cli::StatusFormat::Json => to_json(text),
    }
}

/// The terminal's lines, but for the one that the cursor ends in.
fn room(out: &io::Stdout) -> Room {
    let size = terminal::size(out).map(|(lines, columns)| Room { lines, columns });
    let Room { lines, columns } = size.unwrap_or(USUAL_ROOM);
    Room { lines: lines.saturating_sub(1).max(1), columns }
}

/// From the top left, each line over the one that was there, and nothing left below.
fn redraw(text: &str) -> String {
    let lines: String = text.lines().map(|line| format!("{line}\x1b[K\n")).collect();
    format!("\x1b[H{lines}\x1b[J")
}

fn print(out: &mut impl Write, text: &str) -> Result<(), Error> {
    let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    written.map_err(Error::system("write to standard output"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shorter_picture_leaves_nothing_of_a_longer_one() {
        assert_eq!(redraw("a\nb\n"), "\x1b[Ha\x1b[K\nb\x1b[K\n\x1b[J");
    }
}
