"""A place of its own for a run: everything in it ends with it, however it ends.

enter() goes on in a child process that is the first of a new PID namespace and has its own mounts: a
/proc, a tmpfs at /run/netns (so that the network namespaces made here have names nobody else sees),
and a tmpfs to work in. When that process ends, or is killed, the kernel ends every process in it, and
with them go the mounts and the network namespaces. Nothing has to be tidied up, and nothing can be
left behind by Ctrl-C, a failure or a kill -9.
"""

import ctypes
import os
import signal
import subprocess
import sys
import tempfile

CLONE_NEWNS, CLONE_NEWPID, CLONE_NEWNET = 0x00020000, 0x20000000, 0x40000000
PR_SET_PDEATHSIG = 1

libc = ctypes.CDLL(None, use_errno=True)


def call(name, *args):
    if getattr(libc, name)(*args) < 0:
        raise OSError(ctypes.get_errno(), f"{name}: {os.strerror(ctypes.get_errno())}")


def enter(tmpfs_bytes, meanwhile):
    """Returns the work directory, in the child; the parent waits for it within the context `meanwhile`,
    and exits with its code."""
    work = tempfile.mkdtemp(prefix="xget-bench-")
    os.makedirs("/run/netns", exist_ok=True)
    call("unshare", CLONE_NEWPID)
    child = os.fork()
    if child:
        with meanwhile:
            code = wait_for(child, work)
        sys.exit(code)
    call("prctl", PR_SET_PDEATHSIG, signal.SIGKILL)
    call("unshare", CLONE_NEWNS)
    os.setsid()  # Ctrl-C is for the parent
    for mount in (
        ["--make-rprivate", "/"],
        ["-t", "proc", "proc", "/proc"],
        ["-t", "tmpfs", "-o", "mode=755", "netns", "/run/netns"],
        ["-t", "tmpfs", "-o", f"mode=755,size={tmpfs_bytes}", "work", work],
    ):
        subprocess.run(["mount", *mount], check=True)
    return work


def wait_for(child, work):
    """Its exit code. A signal is its end, at once, and gives the code that a shell would."""
    signals = []

    def end(number, _):
        signals.append(number)
        os.kill(child, signal.SIGKILL)

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, end)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    os.rmdir(work)
    if code >= 0:
        return code
    print("bench: cut short; the results so far are kept", file=sys.stderr)
    return 128 + (signals[0] if signals else -code)


def processes():
    """All others in here."""
    assert os.getpid() == 1, "not in a sandbox"
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and name != "1"]
