//! Early boot: what `xget --boot` does in an initramfs, and xget as its `/init`.
//!
//! [`cmdline`] says what is wanted, [`address`] brings up the network, [`crate::get`] fetches, and
//! [`kexec`] goes on with what was fetched. [`init`] is the same as process 1, which must never end.

pub mod address;
pub mod cmdline;
mod init;
mod kexec;
mod resident;
mod root;

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::cli::{self, DebugLevel};
use crate::error::Error;
use crate::report::Reporter;
use crate::sys::boot::{MountFlags, mount};
use address::Network;
use cmdline::{Cmdline, Host, Kernel, Net, Serve, Url};
pub use init::{init, is_init};

const CMDLINE: &str = "/proc/cmdline";
/// Words that the initramfs was made with; they come before the kernel's, which so can change them.
const BUILT_IN_CMDLINE: &str = "/etc/xget/cmdline";
/// A public key that the initramfs was made with.
const BUILT_IN_KEY: &str = "/etc/xget/key.pub";
/// Where what is fetched goes: a tmpfs of its own, as `/run` is small and often noexec.
const FILES: &str = "/run/xget/files";
/// Where the root file system is to be, unless the environment's `NEWROOT` says otherwise.
const NEW_ROOT: &str = "/sysroot";
/// Left free of what is fetched, in bytes: for xget and for what the kernel needs meanwhile.
const SPARE_BYTES: u64 = 24 << 20;

/// Does what the kernel command line asks for. Where that is to start another kernel, it does not
/// return.
///
/// # Errors
///
/// A command line that cannot be understood, files that are not served or do not fit, and whatever
/// else cannot pass by waiting. A server that does not answer is waited for, unless a timeout is set.
pub fn boot(options: &cli::Boot) -> Result<(), Error> {
    let text = command_line()?;
    let cmdline = Cmdline::parse(&text)?;
    let report = Reporter::new(level(&cmdline), false);
    for word in &cmdline.unknown {
        report.say(format_args!("kernel command line: {word} is no option of xget and is ignored"));
    }
    refuse_what_is_not_there(&cmdline)?;
    let url = options
        .url
        .as_ref()
        .map(|text| Url::parse(text).map_err(|why| Error::Usage(format!("{text}: {why}"))));
    let url = url.transpose()?;
    let network = match url.is_some() || cmdline.asks() {
        true => {
            let end = cmdline.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
            address::bring_up(&cmdline.network, cmdline.net, &report, end)?
        }
        false => Network::default(),
    };
    let boot = Boot { cmdline, text, report, network };
    match (&url, &boot.cmdline.kernel, &boot.cmdline.root) {
        (Some(url), _, _) => {
            let mut path = boot.fetch_url(url)?.into_os_string().into_encoded_bytes();
            path.push(b'\n');
            std::io::stdout().write_all(&path).map_err(Error::system("write to standard output"))
        }
        (None, Some(kernel), _) => boot.start(kernel),
        (None, None, Some(root)) if root.live => {
            Err(Error::Boot("root=live:xget:// is for dracut's livenet, which calls xget".into()))
        }
        (None, None, Some(root)) => boot.mount_root(&root.url),
        (None, None, None) => Err(Error::Boot(
            "the kernel command line asks for nothing of xget: it has neither rd.xget.kernel=PATH \
             nor root=xget://HOST/PATH"
                .into(),
        )),
    }
}

/// Nobody is to believe that a signature is checked, or that the network is what was asked for.
fn refuse_what_is_not_there(cmdline: &Cmdline) -> Result<(), Error> {
    let asked = match cmdline {
        Cmdline { net: Net::Own, .. } => "rd.xget.net=own".to_owned(),
        Cmdline { hash: Some(_), .. } => "rd.xget.hash=".to_owned(),
        Cmdline { keys, .. } if !keys.is_empty() => "rd.xget.key=".to_owned(),
        _ if Path::new(BUILT_IN_KEY).exists() => format!("the key in {BUILT_IN_KEY}"),
        _ => return Ok(()),
    };
    Err(Error::Boot(format!("this version of xget does not know yet what to do with {asked}")))
}

struct Boot {
    cmdline: Cmdline,
    text: Vec<u8>,
    report: Reporter,
    network: Network,
}

impl Boot {
    /// Fetches a kernel and starts it.
    fn start(&self, kernel: &Kernel) -> Result<(), Error> {
        // To load a kernel the system makes a copy of it and of its initrds.
        make_files_room(2)?;
        let paths = || std::iter::once(&kernel.path).chain(&kernel.initrds);
        self.fetch(paths().map(OsString::from), None, Serve::No)?;
        let mut here = paths().map(|path| fetched(path));
        let (image, initrds) = (here.next().unwrap_or_default(), here.collect::<Vec<PathBuf>>());
        let next = cmdline::next_cmdline(&self.text, &kernel.append);
        kexec::load(&image, &initrds, &next)?;
        self.report.say(format_args!("starting {}: {next}", kernel.path));
        // A card that is still at work would write into the next kernel's memory.
        address::take_down(&self.network.brought_up, &self.report);
        Err(kexec::start())
    }

    /// Fetches a root file system and mounts it.
    fn mount_root(&self, url: &Url) -> Result<(), Error> {
        let fetched = self.fetch_url(url)?;
        // The real root may have nobody who renews it.
        address::keep(&self.network)?;
        let new_root = env::var_os("NEWROOT").map_or(NEW_ROOT.into(), PathBuf::from);
        root::make_root(&fetched, &new_root, &self.report)
    }

    /// Fetches it; where it is.
    fn fetch_url(&self, url: &Url) -> Result<PathBuf, Error> {
        make_files_room(1)?;
        let path = if url.path.is_empty() { "." } else { &url.path };
        self.fetch([path.into()], url.host.as_ref(), self.cmdline.serve)?;
        Ok(fetched(&url.path))
    }

    /// Fetches, and leaves a resident behind that serves on if that is wanted.
    fn fetch(
        &self,
        sources: impl IntoIterator<Item = OsString>,
        host: Option<&Host>,
        serve: Serve,
    ) -> Result<(), Error> {
        let mut arguments: Vec<OsString> = vec!["-n".into(), self.server(host)?.into()];
        let mut add =
            |option: &str, value: String| arguments.push(format!("--{option}={value}").into());
        add("retries", "forever".into());
        add("debug", (level(&self.cmdline) as u8).to_string());
        if let Some(timeout) = self.cmdline.timeout {
            add("timeout", timeout.as_secs().to_string());
        }
        if let Some(longest) = self.cmdline.retry {
            add("retry-wait", longest.as_secs().to_string());
        }
        if serve != Serve::No {
            add("state", cli::USUAL_STATE.into());
        }
        add(
            "serve",
            match serve {
                Serve::Yes => "forever".into(),
                Serve::No => "no".into(),
                Serve::Seconds(seconds) => seconds.to_string(),
            },
        );
        arguments.extend(["--must-fit", "--background", "--"].map(OsString::from));
        arguments.extend(sources);
        arguments.push(FILES.into());
        resident::run(&arguments)
    }

    /// Who serves, as `-n` takes it: who is named first: by the kernel command line's own option, by
    /// the URL, by `ip=`, or by DHCP.
    fn server(&self, host: Option<&Host>) -> Result<String, Error> {
        let named = &self.cmdline.servers;
        let servers: Vec<String> = match (named.is_empty(), host) {
            (false, _) => named.iter().map(Host::to_string).collect(),
            (true, Some(host)) => vec![host.to_string()],
            (true, None) => {
                let known = self.network.servers.iter();
                known.map(|ip| Host { name: ip.to_string(), port: None }.to_string()).collect()
            }
        };
        match servers.is_empty() {
            false => Ok(servers.join(",")),
            true => Err(Error::Boot(
                "no server is known: give rd.xget.server=HOST, or let DHCP name one".into(),
            )),
        }
    }
}

/// Where a path of the server's is, once it was fetched.
fn fetched(path: &str) -> PathBuf {
    let name = Path::new(path).file_name();
    name.map_or(FILES.into(), |name| Path::new(FILES).join(name))
}

/// Mounts a tmpfs for what is fetched, unless there is one; each byte of it may take `copies` bytes of
/// memory.
fn make_files_room(copies: u64) -> Result<(), Error> {
    fs::create_dir_all(FILES).map_err(Error::file("make", FILES))?;
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
    if device(Path::new(FILES)) != Path::new(FILES).parent().and_then(device) {
        return Ok(());
    }
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let available = available_bytes(&meminfo).unwrap_or(0);
    let size = available.saturating_sub(SPARE_BYTES) / copies;
    let flags = MountFlags { read_only: false, no_privileges: true };
    // A size of 0 would be no limit.
    let options = format!("mode=755,size={}", size.max(4096));
    mount("xget".as_ref(), Path::new(FILES), "tmpfs", flags, &options)
        .map_err(Error::file("mount a tmpfs on", FILES))
}

/// `MemAvailable` of `/proc/meminfo`, in bytes (proc_meminfo(5)).
fn available_bytes(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find_map(|line| line.strip_prefix("MemAvailable:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The kernel's command line, after the words that are built in.
fn command_line() -> Result<Vec<u8>, Error> {
    let mut text = fs::read(BUILT_IN_CMDLINE).unwrap_or_default();
    text.push(b'\n');
    text.extend(fs::read(CMDLINE).map_err(Error::file("read", CMDLINE))?);
    Ok(text)
}

fn level(cmdline: &Cmdline) -> DebugLevel {
    if cmdline.debug { DebugLevel::Events } else { DebugLevel::Normal }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_is_booted_who_believes_that_a_signature_is_checked() {
        let hash = format!("rd.xget.hash={}", "0".repeat(64));
        for word in ["rd.xget.key=RWabc", &hash, "rd.xget.net=own"] {
            let cmdline = Cmdline::parse(word.as_bytes()).unwrap();
            let error = refuse_what_is_not_there(&cmdline).expect_err(word).to_string();
            assert!(error.contains(word.split('=').next().unwrap()), "{error}");
        }
    }

    #[test]
    fn memory_is_what_the_kernel_calls_available() {
        let meminfo = "MemTotal:  1000 kB\nMemFree:  1 kB\nMemAvailable:     512 kB\n";
        assert_eq!(available_bytes(meminfo), Some(512 << 10));
        assert_eq!(available_bytes("MemTotal: 1 kB\n"), None);
    }
}
