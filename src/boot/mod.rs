//! Early boot: what `xget --boot` does in an initramfs, and xget as its `/init`.
//!
//! [`cmdline`] says what is wanted, [`address`] brings up the network, [`crate::node::client`] fetches, and
//! [`kexec`] goes on with what was fetched. [`init`] is the same as process 1, which must never end.

pub mod address;
pub mod cmdline;
mod init;
mod kexec;
mod launch;
mod root;
mod switch_root;

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use crate::cli;
use crate::error::Error;
use crate::image::trust::{self, Key};
use crate::net::host_port::HostPort;
use crate::node::keys::key_file;
use crate::node::server;
use crate::process::log::{Level, Logging};
use crate::process::report::Reporter;
use crate::sys::mount::{MountFlags, mount};
use address::Network;
use cmdline::{BadWord, Cmdline, Ip, Kernel, Method, Net, Serve, Url};
pub use init::{init, is_init};

const CMDLINE: &str = "/proc/cmdline";
/// Words that the initramfs was made with; they come before the kernel's, which so can change them.
const BUILT_IN_CMDLINE: &str = "/etc/xget/cmdline";
/// Public keys that the initramfs was made with.
const BUILT_IN_KEY: &str = "/etc/xget/key.pub";
/// Where what is fetched goes: a tmpfs of its own, as `/run` is small and often noexec.
const FILES: &str = "/run/xget/files";
const FILES_FLAGS: MountFlags =
    MountFlags { read_only: false, no_privileges: true, remount: false };
/// Where the root file system is to be, unless the environment's `NEWROOT` says otherwise.
const NEW_ROOT: &str = "/sysroot";
/// Where others mount it, and what says that it is one of theirs.
const MOUNT_POINTS: [(&str, &str); 3] =
    [("/new_root", "/new_root"), ("/sysroot", "/sysroot"), ("/root", "/scripts/functions")];
/// Left free of what is fetched, in bytes: for xget and for what the kernel needs meanwhile.
const SPARE_BYTES: u64 = 24 << 20;

/// Does what the kernel command line asks for: when it returns, what was wanted is fetched, or a root
/// is mounted. Where that is to start another kernel, it does not return.
///
/// # Errors
///
/// A command line that cannot be understood, files that are not served or do not fit, and whatever
/// else cannot pass by waiting. A server that does not answer is waited for, unless a timeout is set.
pub fn boot(options: &cli::BootOptions) -> Result<(), Error> {
    let text = command_line()?;
    let mut cmdline = Cmdline::parse(&text)?;
    let mut logging = options.logging;
    if cmdline.debug {
        logging.level = logging.level.max(Level::Info);
    }
    let report = Reporter::new(logging);
    for word in &cmdline.unknown {
        report.warning(format_args!(
            "kernel command line: unknown parameter {word} is ignored; see xget.cmdline(7)"
        ));
    }
    for word in cmdline.foreign.iter().filter(|_| cmdline.net != Net::Kernel) {
        report.warning(format_args!(
            "kernel command line: {word} is ignored: that is not for xget to set up; dracut's network \
             modules can"
        ));
    }
    for BadWord { word, why } in &cmdline.ignored {
        report.warning(format_args!("kernel command line: {word} is ignored: {why}"));
    }
    refuse_beside_own_net(&cmdline)?;
    let keys = keys(built_in_keys()?, &cmdline)?;
    let url = options
        .url
        .as_ref()
        .map(|text| Url::parse(text).map_err(|why| Error::Usage(format!("{text}: {why}"))));
    let url = url.transpose()?;
    if url.is_some() {
        cmdline.serves(url.as_ref());
    }
    let end = cmdline.timeout.and_then(|timeout| Instant::now().checked_add(timeout));
    let network = if url.is_some() || cmdline.asks() {
        address::bring_up(&cmdline.network, cmdline.net, &report, end)?
    } else {
        Network::default()
    };
    let asked = options.url.clone();
    let boot = Boot { cmdline, keys, text, logging, report, network, end, asked };
    match (&url, &boot.cmdline.kernel, &boot.cmdline.root) {
        (Some(url), _, _) => {
            let mut path = boot.fetch_url(url)?.into_os_string().into_encoded_bytes();
            path.push(b'\n');
            std::io::stdout().write_all(&path).map_err(Error::system("write to standard output"))
        }
        (None, Some(kernel), _) => boot.start(kernel),
        (None, None, Some(root)) if root.live => Err(Error::Boot(
            "root=live:xget:// needs dracut's livenet module, which is not in \
             this initramfs; use root=xget:// or add livenet"
                .into(),
        )),
        (None, None, Some(root)) => {
            let new_root = new_root();
            check_new_root(&new_root, &MOUNT_POINTS, Path::exists)?;
            boot.mount_root(&root.url, &new_root)
        }
        (None, None, None) => Err(Error::Boot(
            "nothing to boot: the kernel command line has neither root=xget://HOST/PATH nor \
             rd.xget.kernel=PATH"
                .into(),
        )),
    }
}

/// The own network is one link with an IPv4 address.
fn refuse_beside_own_net(cmdline: &Cmdline) -> Result<(), Error> {
    let is_v6 = |ip: &Ip| ip.method == Method::V6 || ip.address.is_some_and(|a| a.addr().is_ipv6());
    let what = match cmdline {
        Cmdline { net: Net::Auto | Net::Kernel, .. } => return Ok(()),
        Cmdline { network, .. } if !network.vlans.is_empty() => {
            "does not support VLANs: remove vlan="
        }
        Cmdline { network, .. } if network.ips.iter().any(is_v6) => {
            "does not support IPv6: use an IPv4 setting in ip="
        }
        _ => return Ok(()),
    };
    Err(Error::Boot(format!("rd.xget.net=own {what}, or use rd.xget.net=auto")))
}

/// The keys that the initramfs was made with, if it has any.
fn built_in_keys() -> Result<Option<Vec<Key>>, Error> {
    let path = Path::new(BUILT_IN_KEY);
    path.symlink_metadata().is_ok().then(|| key_file(path)).transpose()
}

/// The keys of which one must have signed. Whoever can write the kernel command line may not be able
/// to change the initramfs: what is built in is not added to, but chosen from.
fn keys(built_in: Option<Vec<Key>>, cmdline: &Cmdline) -> Result<Vec<Key>, Error> {
    trust::select_keys(built_in, &cmdline.keys).map_err(|other| {
        Error::Boot(format!(
            "rd.xget.key={other} is not trusted: this initramfs trusts only the keys in \
             {BUILT_IN_KEY}; add it there and rebuild the initramfs"
        ))
    })
}

struct Boot {
    cmdline: Cmdline,
    keys: Vec<Key>,
    text: Vec<u8>,
    logging: Logging,
    report: Reporter,
    network: Network,
    /// When to give up.
    end: Option<Instant>,
    /// The URL that is to be fetched in place of what the kernel command line asks for.
    asked: Option<String>,
}

impl Boot {
    /// Fetches a kernel and starts it.
    fn start(&self, kernel: &Kernel) -> Result<(), Error> {
        // To load a kernel the system reads it and its initrds whole, and then copies each page.
        make_files_room(3)?;
        let paths = || std::iter::once(&kernel.path).chain(&kernel.initrds);
        // Others have what is here already while the rest still comes; nobody is waited for after that.
        let serve = match self.cmdline.serve {
            Serve::No => Serve::No,
            Serve::Yes | Serve::Seconds(_) => Serve::Seconds(0),
        };
        self.fetch(paths().map(OsString::from), None, serve)?;
        let mut here = paths().map(|path| fetched(path));
        let (image, initrds) = (here.next().unwrap_or_default(), here.collect::<Vec<PathBuf>>());
        if initrds.len() > 1 {
            // Joining them takes one of them twice for a while.
            lift_files_limit()?;
        }
        let next = cmdline::next_cmdline(&self.text, &kernel.append);
        kexec::load(&image, &initrds, &next, free_memory)
            .inspect_err(|error| self.complain(None, error))?;
        self.report
            .notice(format_args!("starting kernel {} with command line: {next}", kernel.path));
        // A card that is still at work would write into the next kernel's memory.
        address::take_down(&self.report);
        Err(kexec::start())
    }

    /// Fetches a root file system and mounts it.
    fn mount_root(&self, url: &Url, new_root: &Path) -> Result<(), Error> {
        let fetched = self.fetch_url(url)?;
        let init = self.cmdline.init.as_deref();
        let became = root::make_root(&fetched, new_root, init, &self.report)
            .inspect_err(|error| self.complain(url.host.as_ref(), error))?;
        if became == root::Fetched::Copied && self.cmdline.serve == Serve::No {
            fs::remove_file(&fetched).map_err(Error::file("remove", &fetched))?;
        }
        Ok(())
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
        host: Option<&HostPort>,
        serve: Serve,
    ) -> Result<(), Error> {
        let arguments = self.arguments(sources, self.server(host)?, serve);
        // Nobody renews it while this takes, and perhaps nobody in the real root.
        address::keep(&self.network)?;
        launch::run(&arguments, self.asked.as_deref().map(OsStr::new))
    }

    /// Writes into the server's log what has gone wrong with what it has sent.
    fn complain(&self, host: Option<&HostPort>, error: &Error) {
        // The own network ends with the process that has fetched.
        if self.network.own.is_none()
            && let Ok(server) = self.server(host)
        {
            server::complain(&server, error);
        }
    }

    /// Those of an xget that fetches, with all that the kernel command line says about it.
    fn arguments(
        &self,
        sources: impl IntoIterator<Item = OsString>,
        server: String,
        serve: Serve,
    ) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["-n".into(), server.into()];
        let mut add =
            |option: &str, value: String| arguments.push(format!("--{option}={value}").into());
        for key in &self.keys {
            add("key", key.to_string());
        }
        if let Some(hash) = &self.cmdline.hash {
            add("hash", hash.to_string());
        }
        add("retries", "forever".into());
        if self.logging.level > Level::Notice {
            add("debug", (self.logging.level as u8 - Level::Notice as u8).to_string());
        }
        add("log", self.logging.format.name().into());
        if let Some(end) = self.end {
            let left = end.saturating_duration_since(Instant::now());
            add("timeout", left.as_secs().max(1).to_string());
        }
        if let Some(longest) = self.cmdline.retry {
            add("retry-wait", longest.as_secs().to_string());
        }
        if let Some(own) = &self.network.own {
            add("own-net", own.to_string());
        } else if serve != Serve::No {
            add("state", cli::DEFAULT_STATE_DIR.into());
        }
        add(
            "serve",
            match serve {
                // Only until the files are whole: whoever brings up the kernel's network afterwards
                // gets the same address.
                Serve::Yes if self.network.own.is_some() => "0".into(),
                Serve::Yes => "forever".into(),
                Serve::No => "no".into(),
                Serve::Seconds(seconds) => seconds.to_string(),
            },
        );
        arguments.extend(["--must-fit", "--"].map(OsString::from));
        arguments.extend(sources);
        arguments.push(FILES.into());
        arguments
    }

    /// Who serves, as `-n` takes it: who is named first: by the kernel command line's own option, by
    /// the URL, by `ip=`, or by DHCP.
    fn server(&self, host: Option<&HostPort>) -> Result<String, Error> {
        let named = &self.cmdline.servers;
        let servers: Vec<String> = match (named.is_empty(), host) {
            (false, _) => named.iter().map(HostPort::to_string).collect(),
            (true, Some(host)) => vec![host.to_string()],
            (true, None) => self.network.boot_servers(),
        };
        if servers.is_empty() {
            return Err(Error::Boot(
                "no server is known: set rd.xget.server=HOST, or name one in DHCP (next-server, \
                 option 66, or the boot file URL of DHCPv6)"
                    .into(),
            ));
        }
        Ok(servers.join(","))
    }
}

/// Where nobody would look for it a root is not mounted: each kind of initramfs has a directory of its own, with a file
/// that tells which kind it is.
fn check_new_root(
    new_root: &Path,
    mount_points: &[(&str, &str)],
    exists: impl Fn(&Path) -> bool,
) -> Result<(), Error> {
    if exists(new_root) {
        return Ok(());
    }
    let used = mount_points.iter().find(|(path, sign)| {
        Path::new(path) != new_root && exists(Path::new(path)) && exists(Path::new(sign))
    });
    used.map_or(Ok(()), |(path, _)| {
        Err(Error::Boot(format!(
            "nobody would use a root on {}, which does not exist: this initramfs has its root on \
             {path}; set NEWROOT={path}",
            new_root.display()
        )))
    })
}

fn new_root() -> PathBuf {
    env::var_os("NEWROOT").map_or(NEW_ROOT.into(), PathBuf::from)
}

/// Where a path of the server's is, once it was fetched.
fn fetched(path: &str) -> PathBuf {
    let name = Path::new(path).file_name();
    name.map_or(FILES.into(), |name| Path::new(FILES).join(name))
}

/// Mounts a tmpfs for what is fetched, unless there is one; each byte of it may take `copies` bytes of
/// memory.
fn make_files_room(copies: u64) -> Result<(), Error> {
    fs::create_dir_all(FILES).map_err(Error::file("create directory", FILES))?;
    let device = |path: &Path| fs::metadata(path).map(|found| found.dev()).ok();
    if device(Path::new(FILES)) != Path::new(FILES).parent().and_then(device) {
        return Ok(());
    }
    let size = free_memory() / copies;
    // A size of 0 would be no limit.
    let options = format!("mode=755,size={}", size.max(4096));
    mount("xget".as_ref(), Path::new(FILES), "tmpfs", FILES_FLAGS, &options)
        .map_err(Error::file("mount a tmpfs on", FILES))
}

/// Lets files grow into the room that was kept for copies of them.
fn lift_files_limit() -> Result<(), Error> {
    let flags = MountFlags { remount: true, ..FILES_FLAGS };
    mount("xget".as_ref(), Path::new(FILES), "tmpfs", flags, "size=0")
        .map_err(Error::file("change the size of the tmpfs on", FILES))
}

/// How many bytes of memory files may take.
fn free_memory() -> u64 {
    let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    available_bytes(&meminfo).unwrap_or(0).saturating_sub(SPARE_BYTES)
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

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: &str = "RWREtj0BI47rNz1eO6cA29KwkopMvwwALS4j0xELTu9jyDY9u7R1wrvm";
    const OTHER_KEY: &str = "RWR/UDnyyQ8qMzZCd0lj5DmxqAJwMNp/SiRFW1m9qkgiEQJPB1JTleDu";

    fn parsed(text: &str) -> Cmdline {
        Cmdline::parse(text.as_bytes()).unwrap()
    }

    /// The fetch that a kernel command line comes to, in an initramfs with these keys.
    fn fetch(text: &str, built_in: Option<Vec<Key>>) -> cli::FetchOptions {
        let cmdline = parsed(text);
        let boot = Boot {
            keys: keys(built_in, &cmdline).unwrap(),
            cmdline,
            text: text.into(),
            logging: Logging::default(),
            report: Reporter::new(Logging::default()),
            network: Network::default(),
            end: None,
            asked: None,
        };
        match cli::parse(boot.arguments(["root.img".into()], "head".to_owned(), Serve::Yes)) {
            Ok(cli::Command::Fetch(fetch)) => fetch,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_the_own_network_cannot_do_is_refused() {
        let refused = |words: &str| {
            let cmdline = Cmdline::parse(words.as_bytes()).unwrap();
            refuse_beside_own_net(&cmdline).err().map(|error| error.to_string())
        };
        assert!(refused("rd.xget.net=own vlan=eth0.5:eth0").unwrap().contains("support VLANs"));
        assert!(refused("rd.xget.net=own ip=auto6").unwrap().contains("support IPv6"));
        assert_eq!(refused("rd.xget.net=own ip=dhcp"), None);
        assert_eq!(refused("vlan=eth0.5:eth0 ip=auto6"), None);
    }

    #[test]
    fn keys_and_hash_of_the_kernel_command_line_are_those_of_the_fetch() {
        let hash = "5".repeat(64);
        let text = format!("rd.xget.key={KEY} rd.xget.hash={hash} rd.xget.key={OTHER_KEY}");
        let fetch = fetch(&text, None);
        assert_eq!(fetch.keys, [KEY, OTHER_KEY]);
        assert_eq!(fetch.hash.unwrap().to_string(), hash);
    }

    #[test]
    fn without_keys_on_the_kernel_command_line_those_of_the_initramfs_count() {
        let built_in = Key::parse_file(format!("{KEY}\n{OTHER_KEY}\n").as_bytes()).unwrap();
        assert_eq!(fetch("quiet", Some(built_in)).keys, [KEY, OTHER_KEY]);
        assert_eq!(fetch("quiet", None).keys, [""; 0]);
    }

    #[test]
    fn a_kernel_command_line_cannot_add_to_the_keys_of_the_initramfs() {
        let built_in = Some(vec![Key::parse(KEY).unwrap()]);
        let cmdline = parsed(&format!("rd.xget.key={OTHER_KEY}"));
        let error = keys(built_in, &cmdline).unwrap_err().to_string();
        assert!(error.contains(OTHER_KEY) && error.contains(BUILT_IN_KEY), "{error}");
    }

    #[test]
    fn a_root_is_not_mounted_where_this_initramfs_does_not_look_for_it() {
        let check = |new_root: &str, there: &[&str]| {
            let exists = |path: &Path| there.iter().any(|there| Path::new(there) == path);
            check_new_root(Path::new(new_root), &MOUNT_POINTS, exists)
        };
        let error = check("/sysroot", &["/new_root"]).unwrap_err().to_string();
        assert!(error.contains("NEWROOT=/new_root"), "{error}");
        let error = check("/sysroot", &["/root", "/scripts/functions"]).unwrap_err().to_string();
        assert!(error.contains("NEWROOT=/root"), "{error}");
        assert!(check("/new_root", &["/new_root"]).is_ok());
        assert!(check("/sysroot", &["/root"]).is_ok(), "nothing says where it looks");
    }

    #[test]
    fn memory_is_what_the_kernel_calls_available() {
        let meminfo = "MemTotal:  1000 kB\nMemFree:  1 kB\nMemAvailable:     512 kB\n";
        assert_eq!(available_bytes(meminfo), Some(512 << 10));
        assert_eq!(available_bytes("MemTotal: 1 kB\n"), None);
    }
}
