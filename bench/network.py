"""A switch and its hosts: network namespaces 0 (the master) to N on a bridge in one more.

Both directions of a link are shaped, each where it is sent: the host's own side by the host, the
other by the switch's port. The shaper is HTB, which charges a large packet by its length on the wire.
Neighbours are entered beforehand: N hosts need N * N entries, and the kernel has room for a thousand
learned ones in all namespaces together. No delay is added: the kernels this is meant for need not
have netem.

A link of 25 Mbit/s that stands for one of a gigabit must not cost more: TCP sends no less than ten
segments at a time, as it would on a fast link, no firewall looks at what crosses the switch, and the
shapers are cheap ones.
"""

import contextlib
import json
import os
import shutil
import subprocess

from sandbox import CLONE_NEWNET, call, processes

SWITCH = "switch"
PORT_QUEUE_BYTES = 256 << 10
# What nearly every machine has, whatever this one prefers.
CONGESTION_CONTROL = "cubic"
ALLOWED = "/proc/sys/net/ipv4/tcp_allowed_congestion_control"
SEGMENTS_AT_A_TIME = 10
MACHINE = {
    "/sys/module/sch_htb/parameters/htb_hysteresis": "1",
    "/proc/sys/net/core/netdev_max_backlog": "20000",
}


def address(host):
    return f"10.77.{(host + 1) >> 8}.{(host + 1) & 255}"


def hardware_address(host):
    return f"02:00:00:00:{host >> 8:02x}:{host & 255:02x}"


@contextlib.contextmanager
def cheap_shapers():
    """Meanwhile HTB looks at a bucket when it is empty, not after each packet: two processors would do
    little else than serve the timers of 130 shapers. What is sent to all then comes to all in long
    trains, for which the kernel's own queue gets room. Both are the whole machine's."""
    if shutil.which("modprobe"):
        subprocess.run(["modprobe", "-q", "sch_htb"], check=False)
    before = {name: read(name) for name in MACHINE if os.path.exists(name)}
    try:
        for name in before:
            write(name, MACHINE[name])
        yield
    finally:
        for name, value in before.items():
            write(name, value)


class Network:
    """with Network(rates): a host for each rate in bit/s; 0 leaves a link as fast as it is."""

    def __init__(self, rates):
        self.rates = rates
        self.hosts = range(len(rates))
        names = read(ALLOWED).split()
        if CONGESTION_CONTROL not in names:
            # No namespace but the first may choose another one.
            write(ALLOWED, " ".join([*names, CONGESTION_CONTROL]))

    def __enter__(self):
        batch(
            "ip",
            None,
            f"netns add {SWITCH}",
            *(f"netns add {host}" for host in self.hosts),
            *(
                f"link add name port{host} netns {SWITCH} type veth peer name eth0"
                f" address {hardware_address(host)} netns {host}"
                for host in self.hosts
            ),
        )
        batch(
            "ip",
            SWITCH,
            "link add bridge type bridge mcast_snooping 0",
            "link set bridge up",
            *(f"link set port{host} master bridge up" for host in self.hosts),
        )
        for host in self.hosts:
            batch(
                "ip",
                host,
                "link set lo up",
                f"addr add {address(host)}/16 brd + dev eth0",
                "link set eth0 up",
                "route add 224.0.0.0/4 dev eth0",
                *(
                    f"neigh add {address(other)} lladdr {hardware_address(other)} dev eth0"
                    for other in self.hosts
                    if other != host
                ),
            )
            settings(host, {"net.ipv4.tcp_congestion_control": CONGESTION_CONTROL})
            if self.rates[host]:
                settings(host, {"net.ipv4.tcp_min_tso_segs": SEGMENTS_AT_A_TIME})
                batch("tc", host, *shaper("eth0", self.rates[host], "pfifo limit 1000"))
        if os.path.exists("/proc/sys/net/bridge"):
            settings(SWITCH, {f"net.bridge.bridge-nf-call-{what}": 0 for what in ("iptables", "ip6tables", "arptables")})
        shaped = [host for host in self.hosts if self.rates[host]]
        queue = f"bfifo limit {PORT_QUEUE_BYTES}"
        batch("tc", SWITCH, *(line for host in shaped for line in shaper(f"port{host}", self.rates[host], queue)))
        return self

    def __exit__(self, *_):
        batch("ip", None, f"netns del {SWITCH}", *(f"netns del {host}" for host in self.hosts))

    def sent_bytes(self, host):
        """What left the host, headers and all; the shaper counts every frame's."""
        if self.rates[host]:
            return json.loads(run("tc", "-n", str(host), "-s", "-j", "qdisc", "show", "dev", "eth0"))[0]["bytes"]
        return json.loads(run("ip", "-n", str(host), "-s", "-j", "link", "show", "eth0"))[0]["stats64"]["tx"]["bytes"]

    def unplug(self, host):
        run("ip", "-n", SWITCH, "link", "set", f"port{host}", "down")

    def processes(self, host):
        """Those that run on that host."""
        there = os.stat(path(host)).st_ino
        return [pid for pid in processes() if namespace_of(pid) == there]


def shaper(device, rate, queue):
    burst = max(64 << 10, rate // 8 // 250)  # 4 ms, as a timer tick may be late
    return (
        f"qdisc add dev {device} root handle 1: htb default 1",
        f"class add dev {device} parent 1: classid 1:1 htb rate {rate}bit burst {burst} cburst {burst} quantum 60000",
        f"qdisc add dev {device} parent 1:1 handle 2: {queue}",
    )


def read(file):
    with open(file) as opened:
        return opened.read()


def write(file, text):
    with open(file, "w") as opened:
        opened.write(text)


def settings(host, values):
    run("ip", "netns", "exec", str(host), "sysctl", "-qw", *(f"{name}={value}" for name, value in values.items()))


def path(host):
    return f"/run/netns/{host}"


def go_to(host):
    """Moves this process there."""
    fd = os.open(path(host), os.O_RDONLY)
    call("setns", fd, CLONE_NEWNET)
    os.close(fd)


def namespace_of(pid):
    try:
        return os.stat(f"/proc/{pid}/ns/net").st_ino
    except OSError:
        return None


def batch(program, host, *lines):
    there = [] if host is None else ["-n", str(host)]
    run(program, *there, "-batch", "-", stdin="\n".join(lines) + "\n")


def run(*command, stdin=None):
    result = subprocess.run(command, input=stdin, text=True, capture_output=True, timeout=60)
    if result.returncode:
        raise RuntimeError(f"{' '.join(command)}: {result.stderr.strip()[:300]}")
    return result.stdout
