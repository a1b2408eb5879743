//! Commands that let the terminal go while their work goes on.

use crate::error::Error;
use crate::process::report::Reporter;
use crate::sys::process::{self, Detach, Side};

/// Does `work` in this process, or, if `asked`, in a new one in the background.
///
/// In the background `work` takes the [`Detach`] and releases it when the command may return; if it
/// fails before that, the command ends with the error's exit code. To be called while there is only
/// one thread.
pub(crate) fn run(
    asked: bool,
    report: Reporter,
    work: impl FnOnce(&mut Option<Detach>) -> Result<(), Error>,
) -> Result<(), Error> {
    let mut detach = None;
    if asked {
        match process::background().map_err(Error::system("start a background process"))? {
            Side::Foreground(0) => return Ok(()),
            Side::Foreground(code) => std::process::exit(i32::from(code)),
            Side::Background(waiting) => detach = Some(waiting),
        }
    }
    let result = work(&mut detach);
    if let (Err(error), Some(detach)) = (&result, detach) {
        report.error(error);
        // The command ends in any case; without its report it ends with another code.
        let _ = detach.release(error.exit_code());
    }
    result
}

/// Lets the command return, if it was asked to go on in the background.
pub(crate) fn release(detach: &mut Option<Detach>) -> Result<(), Error> {
    match detach.take() {
        Some(detach) => detach.release(0).map_err(Error::system("detach from the terminal")),
        None => Ok(()),
    }
}
