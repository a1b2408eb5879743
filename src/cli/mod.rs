//! The command line: arguments to plain values.
//!
//! [`parse`] checks and collects, and does nothing else; what a [`Command`] means is up to
//! whoever runs it. Every option stands once, in the table of `options`, from which parser and
//! help are both made.

mod args;
mod command;
mod completions;
mod help;
mod options;
mod parse;
#[cfg(test)]
mod tests;
mod value;

pub use command::*;
pub use completions::completions;
pub use help::help;
pub use parse::parse;
