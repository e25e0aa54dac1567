#!/usr/bin/env python3
"""Several hosts on one machine: network namespaces joined by a bridge, each with its own host name.

    hosts.py [--count N] [--rate RATE] [--delay DELAY] [--host K] -- COMMAND [ARGUMENT]...

runs COMMAND on every host (or on host K alone) with HOST_RANK, HOST_COUNT and MASTER_ADDR set, its lines
marked with the host's name, and ends with the first status that is not 0. Status 77: namespaces are not
permitted here. Each host sends at most RATE, e.g. 200mbit, and what it sends arrives DELAY later, e.g. 2ms. A rate
alone is the kernel's (tbf of tc); a delay goes through slow_link.py, since few kernels of virtual machines have netem.

As a module:

    with Hosts(2, rate="200mbit") as hosts:
        process = hosts.start(1, ["triptych", ...])
        hosts.cut(1)

The hosts are called host0, host1, ... and know each other by name. As on a fresh Debian, a host's own name stands
for 127.0.1.1 on itself, so a program that goes by its name finds an address that leads nowhere.
Everything lives in namespaces called triptych-<pid>-..., which go at the end, also after a failure; those of a
process that was killed go when the next one starts.
"""
import argparse
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.dont_write_bytecode = True
from slow_link import MTU, hardware_address  # noqa: E402

PREFIX = "triptych"
SKIPPED = 77


class NotPermitted(Exception):
    """This machine or user may not make network namespaces."""


def run(*words):
    done = subprocess.run(words, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)}: {done.stderr.strip() or done.returncode}")
    return done.stdout


def remove_stale():
    """Namespaces whose maker is gone. Their processes ended with it (PR_SET_PDEATHSIG)."""
    for line in run("ip", "netns", "list").splitlines():
        name = line.split()[0]
        parts = name.split("-")
        if parts[0] == PREFIX and len(parts) == 3 and not Path(f"/proc/{parts[1]}").exists():
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


UNITS = {"kbit": 125.0, "mbit": 125e3, "gbit": 125e6, "us": 1e-6, "ms": 1e-3, "s": 1.0}


def quantity(text, units):
    """"200mbit" in bytes a second, "2ms" in seconds; 0 for nothing."""
    if not text:
        return 0.0
    for unit in units:
        if text.endswith(unit):
            return float(text[:-len(unit)]) * UNITS[unit]
    raise ValueError(f"{text!r} is not a number with one of {', '.join(units)}")


def end_with_parent():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


class Hosts:
    """`count` hosts, addresses 10.77.0.1, 10.77.0.2, ... and fd77::1, fd77::2, ...; interface eth0."""

    def __init__(self, count, rate=None, delay=None):
        self.count = count
        self._made, self._running = [], []
        self._folder = self._slow = None
        if shutil.which("ip") is None:
            raise NotPermitted("iproute2 is not installed")
        if os.geteuid() != 0:
            raise NotPermitted("network namespaces need root")
        try:
            remove_stale()
            self._namespace("probe")
        except RuntimeError as error:
            raise NotPermitted(str(error)) from error
        try:
            self._wire(rate, delay)
        except BaseException:
            self.close()
            raise

    def _namespace(self, what):
        name = f"{PREFIX}-{os.getpid()}-{what}"
        run("ip", "netns", "add", name)
        self._made.append(name)
        run("ip", "-n", name, "link", "set", "lo", "up")
        return name

    def _wire(self, rate, delay):
        self._folder = tempfile.TemporaryDirectory(prefix="triptych_hosts_")
        self._names = [self._namespace(str(host)) for host in range(self.count)]
        if delay:
            self._connect_slowly(quantity(rate, ("kbit", "mbit", "gbit")), quantity(delay, ("us", "ms", "s")))
        else:
            self._connect()
        for host, name in enumerate(self._names):
            run("ip", "-n", name, "addr", "add", f"{self.address(host)}/24", "dev", "eth0")
            run("ip", "-n", name, "addr", "add", f"{self.address6(host)}/64", "dev", "eth0", "nodad")
            run("ip", "-n", name, "link", "set", "eth0", "up")
            lines = ["127.0.0.1 localhost", f"127.0.1.1 host{host}"]
            lines += [f"{self.address(other)} host{other}" for other in range(self.count) if other != host]
            (Path(self._folder.name) / f"hosts{host}").write_text("\n".join(lines) + "\n")
            if rate and not delay:
                self.limit(host, rate)

    def _connect(self):
        """By a bridge in a namespace of its own."""
        self._switch = self._namespace("switch")
        run("ip", "-n", self._switch, "link", "add", "br0", "type", "bridge")
        run("ip", "-n", self._switch, "link", "set", "br0", "up")
        for host, name in enumerate(self._names):
            port = f"port{host}"
            run("ip", "-n", self._switch, "link", "add", port, "type", "veth", "peer", "name", "eth0", "netns", name)
            run("ip", "-n", self._switch, "link", "set", port, "master", "br0", "up")

    def _connect_slowly(self, rate, delay):
        self._slow = subprocess.Popen([sys.executable, Path(__file__).parent / "slow_link.py", str(rate), str(delay),
                                       *self._names], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                                      start_new_session=True, preexec_fn=end_with_parent)
        self._running.append(self._slow)
        if self._slow.stdout.readline() != "ready\n":
            raise RuntimeError("slow_link.py did not start")
        for host, name in enumerate(self._names):
            run("ip", "-n", name, "link", "set", "eth0", "address", hardware_address(host).hex(":"), "mtu", str(MTU))

    def address(self, host):
        return f"10.77.0.{host + 1}"

    def address6(self, host):
        return f"fd77::{host + 1}"

    def limit(self, host, rate):
        """Host `host` sends at most `rate` from now on."""
        name = self._names[host]
        subprocess.run(["tc", "-n", name, "qdisc", "del", "dev", "eth0", "root"], capture_output=True)
        # A burst of 64 KiB is one large segment; the queue holds what sockets may have in flight.
        run("tc", "-n", name, "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", rate, "burst", "64kb", "limit", "16mb")

    def cut(self, host):
        """Host `host` reaches nobody any more; its processes go on."""
        self._link(host, "cut", "down")

    def join(self, host):
        self._link(host, "join", "up")

    def _link(self, host, word, state):
        if self._slow:
            self._slow.stdin.write(f"{word} {host}\n")
            self._slow.stdin.flush()
        else:
            run("ip", "-n", self._switch, "link", "set", f"port{host}", state)

    def start(self, host, command, environment=None, **options):
        """Starts `command` on `host`; the rest as subprocess.Popen takes it. The pid is the command's own."""
        inside = 'mount --bind "$0" /etc/hosts && hostname "$1" && shift && exec "$@"'
        words = ["nsenter", f"--net=/run/netns/{self._names[host]}", "unshare", "--uts", "--mount", "sh", "-c", inside,
                 str(Path(self._folder.name) / f"hosts{host}"), f"host{host}", *map(str, command)]
        process = subprocess.Popen(words, env={**os.environ, **(environment or {})}, start_new_session=True,
                                   preexec_fn=end_with_parent, **options)
        self._running.append(process)
        return process

    def close(self):
        for process in self._running:
            if process.poll() is None:
                try:
                    os.killpg(process.pid, signal.SIGKILL)
                except ProcessLookupError:
                    pass
                process.wait()
        for name in self._made:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
        self._made = []
        if self._folder:
            self._folder.cleanup()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=2)
    parser.add_argument("--rate", help='e.g. "200mbit"')
    parser.add_argument("--delay", help='e.g. "2ms"')
    parser.add_argument("--host", type=int, help="run the command on this host alone")
    parser.add_argument("command", nargs="+")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        hosts = Hosts(arguments.count, arguments.rate, arguments.delay)
    except NotPermitted as reason:
        print(f"skipped: {reason}", file=sys.stderr)
        return SKIPPED

    def pass_on(process, host):
        for line in process.stdout:
            sys.stdout.write(f"[host{host}] {line}")
            sys.stdout.flush()

    with hosts:
        processes, threads = [], []
        for host in range(arguments.count) if arguments.host is None else [arguments.host]:
            environment = {"HOST_RANK": str(host), "HOST_COUNT": str(arguments.count), "MASTER_ADDR": "host0"}
            processes.append(hosts.start(host, arguments.command, environment, stdout=subprocess.PIPE,
                                         stderr=subprocess.STDOUT, text=True))
            threads.append(threading.Thread(target=pass_on, args=(processes[-1], host)))
            threads[-1].start()
        statuses = [process.wait() for process in processes]
        for thread in threads:
            thread.join()
    return next((status for status in statuses if status), 0)


if __name__ == "__main__":
    sys.exit(main())
