//! The signature of what is served: a file that whoever signs writes, before or after the tree changes.

use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use blake3::Hash;

use crate::cli;
use crate::error::{Error, reason};
use crate::image::manifest::Manifest;
use crate::image::path::shown;
use crate::image::trust::Trust;
use crate::limits::MAX_SIGNATURE_BYTES;
use crate::node::keys::{keys, read_at_most};
use crate::process::report::Reporter;

/// The file, and what came of it the last time.
#[derive(Debug)]
pub(super) struct SignatureFile {
    path: PathBuf,
    trust: Trust,
    report: Reporter,
    /// For which generation it was looked at, and what was there.
    seen: Option<(Hash, Result<Vec<u8>, String>)>,
    fits: Option<Arc<[u8]>>,
}

impl SignatureFile {
    /// The one that was asked for, if any was.
    pub(super) fn of(
        options: &cli::ServeOptions,
        report: Reporter,
    ) -> Result<Option<SignatureFile>, Error> {
        let Some(path) = &options.signature else { return Ok(None) };
        let trust = Trust { keys: keys(&options.keys)?, hash: None };
        // As it stays right when the current directory is left.
        let path = std::path::absolute(path).map_err(Error::file("find", path))?;
        if is_below(&path, &options.path) {
            return Err(Error::Usage(format!(
                "the signature {} is inside the served tree, so signing would change what is \
                 signed: store it outside the tree",
                shown(path.as_os_str().as_bytes())
            )));
        }
        Ok(Some(SignatureFile { path, trust, report, seen: None, fits: None }))
    }

    /// Where it is looked for: the directory that is named, and that of the file if it is a link.
    pub(super) fn dirs(&self) -> Vec<PathBuf> {
        let paths = [Some(self.path.clone()), self.path.canonicalize().ok()];
        paths.iter().flatten().filter_map(|path| Some(path.parent()?.to_owned())).collect()
    }

    /// What the file holds, if it is a signature of this manifest. What is new about that is said.
    pub(super) fn fitting(&mut self, manifest: &Manifest) -> Option<Arc<[u8]>> {
        let content = read_at_most(&self.path, MAX_SIGNATURE_BYTES).map_err(|e| reason(&e));
        let seen = Some((manifest.generation(), content));
        if self.seen != seen {
            self.seen = seen;
            self.fits = self.judge(manifest);
        }
        self.fits.clone()
    }

    fn judge(&self, manifest: &Manifest) -> Option<Arc<[u8]>> {
        let (generation, content) = self.seen.as_ref()?;
        let generation = generation.to_hex();
        let checked = content.as_ref().map_err(String::clone).and_then(|signature| {
            let by = self.trust.check(manifest.text(), Some(signature));
            by.map(|by| (signature, by)).map_err(|why| why.to_string())
        });
        match checked {
            Ok((signature, by)) => {
                let by = by.map(|by| format!(" with key {by}")).unwrap_or_default();
                self.report.notice(format_args!("generation {generation} is signed{by}"));
                Some(signature.as_slice().into())
            }
            Err(why) => {
                self.report.warning(format_args!(
                    "{} does not contain a valid signature of generation {generation}: {why}; \
                     nodes that require a signature refuse it until it is signed (xget \
                     --manifest, minisign -S)",
                    shown(self.path.as_os_str().as_bytes())
                ));
                None
            }
        }
    }
}

/// Whether a file is in a directory or below it, as far as both can be found.
fn is_below(file: &Path, dir: &Path) -> bool {
    // The file itself may not be there yet, or be a link to elsewhere.
    let parent = file.parent().and_then(|parent| parent.canonicalize().ok());
    parent.zip(dir.canonicalize().ok()).is_some_and(|(parent, dir)| parent.starts_with(dir))
}
