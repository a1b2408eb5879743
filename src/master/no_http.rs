//! In place of `http`, in a build without that feature.

use std::net::TcpListener;
use std::rc::Rc;

use tokio::task::JoinHandle;

use super::server::Shared;
use crate::cli;
use crate::error::Error;
use crate::report::Reporter;
use crate::swarm::hub::Hub;

/// There are none: the command line refuses what asks for some.
pub(super) struct Ports;

impl Ports {
    pub(super) fn bind(
        _: &cli::Serve,
        http: Vec<TcpListener>,
        metrics: Vec<TcpListener>,
    ) -> Result<Ports, Error> {
        match http.is_empty() && metrics.is_empty() {
            true => Ok(Ports),
            false => Err(Error::HandedHttp),
        }
    }

    pub(super) fn listen(self, _: &Reporter) -> Result<Listeners, Error> {
        Ok(Listeners)
    }
}

pub(super) struct Listeners;

impl Listeners {
    pub(super) fn open(self, _: &Rc<Shared>) -> Result<Vec<JoinHandle<()>>, Error> {
        Ok(Vec::new())
    }
}

pub(super) fn equip(_: &mut Hub) {}
