//! Stands in for `plain` in a build without that feature.

use super::Get;
use crate::error::Error;
use crate::fetch::retry::Retry;
use crate::image::path::TreePath;
use crate::node::server::Server;

/// Refuses.
pub(super) fn fetch(
    _: &mut Get<'_>,
    server: &Server,
    _: &[TreePath],
    _: &Retry,
) -> Result<(), Error> {
    Err(Error::NotXget { host: server.name.clone() })
}
