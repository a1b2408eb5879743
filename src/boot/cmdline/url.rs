//! `xget://HOST[:PORT]/PATH`

use crate::net::host_port::HostPort;
use crate::percent;

/// A file or directory on a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Url {
    /// None: the server that was booted from.
    pub(crate) host: Option<HostPort>,
    /// Below the served root, without a slash in front; empty for all of it.
    pub(crate) path: String,
}

impl Url {
    /// `xget://[HOST[:PORT]]/PATH`; `%XX` stands for the byte XX.
    pub(crate) fn parse(text: &str) -> Result<Url, String> {
        let rest = text.strip_prefix("xget://").ok_or("expected xget://HOST/PATH")?;
        let (host, path) =
            rest.split_once('/').ok_or("the path is missing: expected xget://HOST/PATH")?;
        let host = match host {
            "" => None,
            host => Some(HostPort::parse(host)?),
        };
        let path = percent::decode(path).ok_or("% must be followed by two hexadecimal digits")?;
        let path = String::from_utf8(path).map_err(|_| "the path is not UTF-8")?;
        Ok(Url { host, path: path.trim_matches('/').to_owned() })
    }
}
