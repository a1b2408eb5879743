//! `xget://HOST[:PORT]/PATH`

use crate::net::host_port::HostPort;

/// A file or directory on a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Url {
    /// None: the server that was booted from.
    pub(crate) host: Option<HostPort>,
    /// Below the served root, without a slash in front; empty for all of it.
    pub path: String,
}

impl Url {
    /// `xget://[HOST[:PORT]]/PATH`; `%XX` stands for the byte XX.
    pub fn parse(text: &str) -> Result<Url, String> {
        let rest = text.strip_prefix("xget://").ok_or("expected xget://HOST/PATH")?;
        let (host, path) =
            rest.split_once('/').ok_or("the path is missing: expected xget://HOST/PATH")?;
        let host = match host {
            "" => None,
            host => Some(HostPort::parse(host)?),
        };
        let path = decoded(path)?;
        Ok(Url { host, path: path.trim_matches('/').to_owned() })
    }
}

/// Without its percent signs.
fn decoded(text: &str) -> Result<String, String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next().unwrap_or_default().as_bytes().to_vec();
    for part in parts {
        let code = part.get(..2).and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(code.ok_or("% must be followed by two hexadecimal digits")?);
        bytes.extend_from_slice(part.get(2..).unwrap_or_default().as_bytes());
    }
    String::from_utf8(bytes).map_err(|_| "the path is not UTF-8".into())
}
