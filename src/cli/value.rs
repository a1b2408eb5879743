//! The values of options: text in, values out. None stands for text that is not of the kind.

use std::ffi::OsStr;
use std::net::SocketAddr;
use std::num::NonZeroU64;
use std::os::unix::ffi::OsStrExt as _;
use std::str::FromStr;
use std::time::Duration;

use blake3::Hash;
use ipnet::IpNet;

use super::command::{Cache, HttpAddress, Retries, ServeOn};
use crate::network;
use crate::process::log::{Level, LogFormat};

pub(super) fn parsed<T: FromStr>(value: &OsStr) -> Option<T> {
    value.to_str()?.parse().ok()
}

/// `[ADDR:]PORT`; an IPv6 address stands in brackets.
pub(super) fn http_address(value: &OsStr) -> Option<HttpAddress> {
    let text = value.to_str()?;
    match text.parse() {
        Ok(port) => Some(HttpAddress { ip: None, port }),
        Err(_) => {
            let address: SocketAddr = text.parse().ok()?;
            Some(HttpAddress { ip: Some(address.ip()), port: address.port() })
        }
    }
}

/// `ADDRESS[/PREFIX]`
pub(super) fn network(value: &OsStr) -> Option<IpNet> {
    network::parse(value.to_str()?)
}

/// At most `u32::MAX`, so that a deadline made of it cannot overflow.
pub(super) fn seconds(value: &OsStr) -> Option<u64> {
    parsed::<u32>(value).map(u64::from)
}

/// Bytes a second; K, M and G stand for powers of 1024.
pub(super) fn rate(value: &OsStr) -> Option<NonZeroU64> {
    let text = value.to_str()?;
    let (digits, unit) = match text.as_bytes().last()?.to_ascii_uppercase() {
        b'K' => (text.get(..text.len() - 1)?, 1 << 10),
        b'M' => (text.get(..text.len() - 1)?, 1 << 20),
        b'G' => (text.get(..text.len() - 1)?, 1 << 30),
        _ => (text, 1),
    };
    NonZeroU64::new(digits.parse::<u64>().ok()?.checked_mul(unit)?)
}

/// 64 hexadecimal digits.
pub(super) fn hash(value: &OsStr) -> Option<Hash> {
    Hash::from_hex(value.as_bytes()).ok()
}

pub(super) fn interval(secs: u64) -> Option<Duration> {
    (secs > 0).then(|| Duration::from_secs(secs))
}

pub(super) fn cache(value: &OsStr) -> Cache {
    match value.as_bytes() {
        b"none" => Cache::None,
        _ => Cache::Dir(value.into()),
    }
}

pub(super) fn retries(value: &OsStr) -> Option<Retries> {
    match value.as_bytes() {
        b"forever" => Some(Retries::Forever),
        _ => parsed(value).map(Retries::Times),
    }
}

pub(super) fn serve_on(value: &OsStr) -> Option<ServeOn> {
    match value.as_bytes() {
        b"forever" => Some(ServeOn::Forever),
        b"no" => Some(ServeOn::No),
        _ => seconds(value).map(ServeOn::Seconds),
    }
}

/// Levels above the highest are the highest: nobody who asks for more means less.
pub(super) fn debug_level(value: &OsStr) -> Option<Level> {
    parsed::<u32>(value).map(|level| match level {
        0 => Level::Notice,
        1 => Level::Info,
        _ => Level::Debug,
    })
}

pub(super) fn log_format(value: &OsStr) -> Option<LogFormat> {
    LogFormat::ALL.into_iter().find(|format| value == format.name())
}
