//! `ip=`, `BOOTIF=`, `ifname=`, `nameserver=`, `rd.route=` and `vlan=`, with the meaning that the kernel and dracut give them
//! (the kernel's `admin-guide/nfs/nfsroot`, dracut.cmdline(7)).

use std::net::{IpAddr, Ipv4Addr};

use ipnet::{IpNet, ipv4_mask_to_prefix};

use crate::network::class_prefix;

/// What is said of the network.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NetworkWish {
    /// Each `ip=`.
    pub(crate) ips: Vec<Ip>,
    /// `BOOTIF=`: the hardware address of the card that was booted from.
    pub(crate) boot_mac: Option<[u8; 6]>,
    /// Each `nameserver=`.
    pub(crate) name_servers: Vec<IpAddr>,
    /// Each `vlan=`.
    pub(crate) vlans: Vec<Vlan>,
    /// Each `ifname=`: what links are called here, by their hardware addresses.
    pub(crate) names: Vec<(String, [u8; 6])>,
    /// Each `rd.route=`.
    pub(crate) routes: Vec<StaticRoute>,
    /// A server is known that IPv6 may reach: by a name, or by such an address. Where there is none, IPv6
    /// does not do in place of IPv4.
    pub(crate) by_ipv6: bool,
    /// Any server is known. Else DHCP has to name one.
    pub(crate) names_server: bool,
    /// The servers' addresses, if all that are known are addresses.
    pub(crate) servers: Vec<IpAddr>,
}

/// `ip=`
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ip {
    /// Where the address comes from.
    pub(crate) method: Method,
    /// The only link that is meant.
    pub(crate) link: Option<String>,
    /// The address and its network's prefix.
    pub(crate) address: Option<IpNet>,
    /// Whom to boot from.
    pub(crate) server: Option<IpAddr>,
    /// The way to everywhere else.
    pub(crate) gateway: Option<IpAddr>,
    /// The node's own name.
    pub(crate) host_name: Option<String>,
    /// The link's MTU, in bytes.
    pub(crate) mtu: Option<u32>,
    /// The hardware address to give the link.
    pub(crate) mac: Option<[u8; 6]>,
    /// Name servers.
    pub(crate) name_servers: Vec<IpAddr>,
}

/// Where an address comes from.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Method {
    /// DHCPv4.
    #[default]
    Dhcp,
    /// A router's advertisement, and DHCPv6 where that says so.
    V6,
    /// DHCPv4, or else IPv6 if that may lead to a server.
    Either,
    /// The one that is given.
    Static,
    /// None is wanted.
    Off,
}

/// `rd.route=NETWORK/PREFIX:GATEWAY[:LINK]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct StaticRoute {
    /// Where it leads to.
    pub(crate) to: IpNet,
    /// By whom.
    pub(crate) gateway: IpAddr,
    /// The only link that is meant.
    pub(crate) link: Option<String>,
}

/// `vlan=NAME:LINK`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vlan {
    /// The name that the link with the tag gets.
    pub(crate) name: String,
    /// Its number, 1 to 4094.
    pub(crate) id: u16,
    /// The link below it.
    pub(crate) link: String,
}

impl NetworkWish {
    /// Adds what one word says: `ip`, `BOOTIF`, `ifname`, `nameserver`, `rd.route` or `vlan`. Returns what is wrong with
    /// parts of it that are left out.
    pub(super) fn add(&mut self, name: &str, value: &str) -> Result<Vec<String>, String> {
        let mut left_out = Vec::new();
        match name {
            "ip" => self.ips.push(Ip::parse(value, &mut left_out)?),
            "BOOTIF" => self.boot_mac = bootif(value)?,
            "vlan" => self.vlans.push(Vlan::parse(value)?),
            "rd.route" => self.routes.push(StaticRoute::parse(value)?),
            "ifname" => {
                let (name, mac) = value.split_once(':').ok_or("expected NAME:MAC")?;
                if name.is_empty() {
                    return Err("the name is missing".into());
                }
                self.names.push((name.to_owned(), mac_address(&mac.replace('-', ":"))?));
            }
            _ => self.name_servers.push(address(value)?),
        }
        Ok(left_out)
    }
}

impl StaticRoute {
    fn parse(text: &str) -> Result<StaticRoute, String> {
        let fields = fields(text)?;
        let field = |n: usize| fields.get(n).copied().filter(|field| !field.is_empty());
        let expected = "expected NETWORK/PREFIX:GATEWAY[:LINK]";
        let (network, mask) = field(0).and_then(|to| to.split_once('/')).ok_or(expected)?;
        let network = address(network.trim_start_matches('['))?;
        let mask = prefix(mask.trim_end_matches(']'), Some(network))?;
        let to = IpNet::new(network, mask).map_err(|_| expected)?.trunc();
        let gateway = address(field(1).ok_or(expected)?)?;
        if gateway.is_ipv4() != network.is_ipv4() {
            return Err(format!("{gateway} cannot be the gateway to {to}"));
        }
        Ok(StaticRoute { to, gateway, link: field(2).map(str::to_owned) })
    }
}

/// A hardware address, with colons or dashes, that stands where a link's name could.
pub(crate) fn mac_of(name: &str) -> Option<[u8; 6]> {
    mac_address(&name.replace('-', ":")).ok()
}

impl Ip {
    /// One of `METHOD`, `LINK:METHOD[:[MTU][:MAC]]`, and
    /// `[ADDRESS]:[SERVER]:[GATEWAY]:[NETMASK]:[NAME]:[LINK][:METHOD[:[MTU][:MAC]]` or
    /// `[:METHOD[:DNS[:DNS]]]]`. IPv6 addresses stand in brackets; LINK may be a hardware address.
    ///
    /// Parts without which the rest makes sense may be wrong: what is wrong with them goes to `left_out`.
    fn parse(text: &str, left_out: &mut Vec<String>) -> Result<Ip, String> {
        let text = with_dashes(text);
        let fields = fields(&text)?;
        let field = |n: usize| fields.get(n).copied().filter(|field| !field.is_empty());
        if let [method] = fields[..] {
            return match method.parse::<IpAddr>() {
                Ok(_) => Err("the netmask is missing".into()),
                Err(_) => Ok(Ip { method: Method::parse(method)?, ..Ip::default() }),
            };
        }
        if let Some(method) =
            field(1).filter(|_| fields.len() <= 9).and_then(|f| Method::parse(f).ok())
        {
            let mac = fields.get(3..).map(|fields| fields.join(":")).filter(|mac| !mac.is_empty());
            return Ok(Ip {
                method,
                link: field(0).map(str::to_owned),
                mtu: field(2).and_then(|text| sound(mtu(text), left_out)),
                mac: mac.and_then(|text| sound(mac_address(&text), left_out)),
                ..Ip::default()
            });
        }
        let client = field(0).map(address).transpose()?;
        let prefix = field(3).map(|mask| prefix(mask, client)).transpose()?;
        let method = match field(6) {
            Some(method) => Method::parse(method)?,
            None if client.is_some() => Method::Static,
            None => Method::Dhcp,
        };
        let address = client.and_then(|client| {
            let prefix = prefix.unwrap_or_else(|| usual_prefix(client));
            IpNet::new(client, prefix).ok()
        });
        let method = match (method, address) {
            // `none` with an address means: this one, without asking anybody.
            (Method::Off, Some(_)) => Method::Static,
            (method, _) => method,
        };
        let mut ip = Ip {
            method,
            link: field(5).map(str::to_owned),
            address,
            server: field(1).and_then(|text| sound(self::address(text), left_out)),
            gateway: field(2).and_then(|text| sound(self::address(text), left_out)),
            host_name: field(4).map(str::to_owned),
            ..Ip::default()
        };
        // The kernel's form: two name servers and a time server, which is none of ours; any may be missing.
        let addresses: Vec<_> = (7..10).map(|n| field(n).map(self::address)).collect();
        if addresses.iter().flatten().next().is_some_and(Result::is_ok) {
            let name_servers = addresses.into_iter().take(2).flatten();
            ip.name_servers = name_servers.filter_map(|server| sound(server, left_out)).collect();
        } else {
            ip.mtu = field(7).and_then(|text| sound(mtu(text), left_out));
            let mac = fields.get(8..).map(|f| f.join(":")).filter(|mac| !mac.is_empty());
            ip.mac = mac.and_then(|text| sound(mac_address(&text), left_out));
        }
        Ok(ip)
    }
}

/// A part of a word; None if it is wrong, which is noted.
fn sound<T>(part: Result<T, String>, left_out: &mut Vec<String>) -> Option<T> {
    part.map_err(|why| left_out.push(why)).ok()
}

/// An `ip=` with dashes in the hardware address that stands where the link's name could, so that its colons separate
/// no fields.
fn with_dashes(text: &str) -> String {
    let parts: Vec<&str> = text.split(':').collect();
    let is_mac = |six: &[&str]| {
        six.iter().all(|part| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    for at in [0, 5] {
        let (before, rest) = parts.split_at(at.min(parts.len()));
        if let Some((mac, rest)) = rest.split_at_checked(6)
            && is_mac(mac)
            && (at > 0 || rest.first().is_some_and(|method| Method::parse(method).is_ok()))
        {
            let mac = mac.join("-");
            return [before, &[mac.as_str()], rest].concat().join(":");
        }
    }
    text.to_owned()
}

impl Method {
    fn parse(text: &str) -> Result<Method, String> {
        let Some((method, rest)) = text.split_once(',') else { return Method::one(text) };
        let first = Method::one(method)?;
        // The kernel takes a client identifier behind it, which begins with a number; others write another method.
        if rest.split(',').next().is_some_and(|kind| kind.parse::<u8>().is_ok()) {
            return Ok(first);
        }
        match (first, Method::one(rest)?) {
            (Method::Dhcp, Method::V6) | (Method::V6, Method::Dhcp) => Ok(Method::Either),
            (first, second) if first == second => Ok(first),
            _ => Err(format!("{text} cannot be had together")),
        }
    }

    fn one(text: &str) -> Result<Method, String> {
        match text {
            "dhcp" | "on" | "any" | "all" | "single-dhcp" | "dhcp4" | "both" | "bootp" | "rarp" => {
                Ok(Method::Dhcp)
            }
            "dhcp6" | "auto6" | "link6" | "ra6" => Ok(Method::V6),
            "either6" | "auto" => Ok(Method::Either),
            "static" => Ok(Method::Static),
            // The last two are for others to bring up.
            "none" | "off" | "ibft" | "link-local" => Ok(Method::Off),
            _ => Err(format!("unknown method {text}: expected dhcp, auto6, either6 or none")),
        }
    }
}

impl Vlan {
    /// `NAME:LINK`, or `LINK.NUMBER` alone. The number stands at the name's end.
    pub(super) fn parse(text: &str) -> Result<Vlan, String> {
        let (name, link) = match text.split_once(':') {
            Some((name, link)) => (name, link),
            None => (text, text.rsplit_once('.').ok_or("expected NAME:LINK or LINK.ID")?.0),
        };
        let digits = name
            .rfind(|c: char| !c.is_ascii_digit())
            .map_or(name, |at| name.get(at..).and_then(|rest| rest.get(1..)).unwrap_or_default());
        let id = digits.parse().ok().filter(|id| (1..=4094).contains(id));
        let id = id.ok_or("expected a name that ends in a VLAN ID from 1 to 4094")?;
        if link.is_empty() {
            return Err("the link below the VLAN is missing".into());
        }
        Ok(Vlan { name: name.to_owned(), id, link: link.to_owned() })
    }
}

/// `01-aa-bb-cc-dd-ee-ff` as PXELINUX writes it, with colons in place of the dashes as well, or
/// without the hardware type in front. None for that of an InfiniBand card, which has 20 bytes: what is
/// meant may be an Ethernet all the same.
fn bootif(text: &str) -> Result<Option<[u8; 6]>, String> {
    let text = text.replace('-', ":");
    let without_type = match text.split(':').count() {
        8.. if text.starts_with("20:") => return Ok(None),
        7 => text.split_once(':').map_or("", |(_, mac)| mac),
        _ => &text,
    };
    mac_address(without_type).map(Some)
}

/// An IPv4 address, or an IPv6 one, in brackets or not.
fn address(text: &str) -> Result<IpAddr, String> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    bare.parse().map_err(|_| format!("{text} is not an IP address"))
}

fn mac_address(text: &str) -> Result<[u8; 6], String> {
    let wrong = || format!("{text} is not a hardware address");
    let bytes = text.split(':').map(|part| match part.len() {
        1 | 2 => u8::from_str_radix(part, 16).map_err(|_| wrong()),
        _ => Err(wrong()),
    });
    let bytes = bytes.collect::<Result<Vec<u8>, _>>()?;
    bytes.try_into().map_err(|_| wrong())
}

fn mtu(text: &str) -> Result<u32, String> {
    let mtu = text.parse().ok().filter(|mtu| (68..=65_535).contains(mtu));
    mtu.ok_or_else(|| format!("{text} is not an MTU (68 to 65535)"))
}

/// `255.255.255.0` or `24`.
fn prefix(text: &str, client: Option<IpAddr>) -> Result<u8, String> {
    let most = if matches!(client, Some(IpAddr::V6(_))) { 128 } else { 32 };
    let wrong = || format!("{text} is not a netmask");
    match text.parse::<Ipv4Addr>() {
        Ok(mask) => ipv4_mask_to_prefix(mask).map_err(|_| wrong()),
        Err(_) => text.parse().ok().filter(|bits| *bits <= most).ok_or_else(wrong),
    }
}

/// Where no netmask is given: that of the address's class, as the kernel does.
fn usual_prefix(client: IpAddr) -> u8 {
    match client {
        IpAddr::V6(_) => 64,
        IpAddr::V4(ip) => class_prefix(ip),
    }
}

/// What stands between the colons; those in brackets do not count.
fn fields(text: &str) -> Result<Vec<&str>, String> {
    let mut fields = Vec::new();
    let (mut begin, mut inside) = (0, false);
    for (at, c) in text.char_indices() {
        match c {
            '[' => inside = true,
            ']' => inside = false,
            ':' if !inside => {
                fields.push(text.get(begin..at).unwrap_or_default());
                begin = at + 1;
            }
            _ => {}
        }
    }
    fields.push(text.get(begin..).unwrap_or_default());
    if inside { Err("missing closing bracket".into()) } else { Ok(fields) }
}
