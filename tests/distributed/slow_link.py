"""A switch between hosts whose links have a given rate and delay, for kernels without netem.

    slow_link.py RATE_BYTES_PER_S DELAY_S NAMESPACE...

makes a TAP interface eth0 in each network namespace, says "ready", and passes frames on between them until it is
killed: a frame of n bytes leaves its host when those before it have left and n / rate has passed, and arrives `delay` later.
A rate of 0 is none. Lines on standard input cut a host off and join it again: "cut 1", "join 1". No frame is lost otherwise.
"""
import ctypes
import fcntl
import heapq
import os
import select
import struct
import sys
import time

TUNSETIFF, IFF_TAP, IFF_NO_PI, CLONE_NEWNET = 0x400454CA, 0x0002, 0x1000, 0x40000000
MTU = 65000  # few large frames: the switch costs little of the machine's time


def hardware_address(host):
    return bytes([2, 0, 0, 0, 0, host + 1])


def open_tap(namespace):
    with open(f"/run/netns/{namespace}") as network:
        if ctypes.CDLL(None, use_errno=True).setns(network.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), f"setns {namespace}")
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH", b"eth0", IFF_TAP | IFF_NO_PI))
    return tap


def main():
    rate, delay, namespaces = float(sys.argv[1]), float(sys.argv[2]), sys.argv[3:]
    taps = [open_tap(namespace) for namespace in namespaces]
    host_of = {tap: host for host, tap in enumerate(taps)}
    by_address = {hardware_address(host): host for host in host_of.values()}
    print("ready", flush=True)
    free_at = [0.0] * len(taps)
    cut, on_the_way, number = set(), [], 0
    while True:
        wait = max(on_the_way[0][0] - time.monotonic(), 0) if on_the_way else None
        for ready in select.select([0, *taps], [], [], wait)[0]:  # epoll would round up to milliseconds
            if ready == 0:
                line = os.read(0, 4096).decode()
                if not line:
                    return
                for word, host in (command.split() for command in line.splitlines()):
                    (cut.add if word == "cut" else cut.discard)(int(host))
                continue
            source = host_of[ready]
            try:
                frame = os.read(ready, MTU + 100)
            except BlockingIOError:
                continue
            now = time.monotonic()
            free_at[source] = max(free_at[source], now) + (len(frame) / rate if rate else 0)
            target = by_address.get(frame[:6])
            for host in [target] if target is not None else set(host_of.values()) - {source}:
                number += 1
                heapq.heappush(on_the_way, (free_at[source] + delay, number, source, host, frame))
        while on_the_way and on_the_way[0][0] <= time.monotonic():
            _, _, source, host, frame = heapq.heappop(on_the_way)
            if source in cut or host in cut:
                continue
            try:
                os.write(taps[host], frame)
            except OSError:  # the interface is not up yet
                pass


if __name__ == "__main__":
    main()
