"""smelt_line: a bad network between namespaces: smelt_line.py DELAY_MS LOSS PID… makes an interface eth0 in the network of each process and
carries frames between them, each DELAY_MS late and with a chance of LOSS (0.02: 2 %) not at all. What tc's netem does, on kernels without it.

Prints "ready"; ends when its input does, and prints how many frames it carried and lost. Frames are large (a write of TCP is not cut up), as
between namespaces anyway."""

import collections
import ctypes
import fcntl
import os
import random
import select
import struct
import subprocess
import sys
import time

TUNSETIFF, IFF_TAP, IFF_NO_PI, CLONE_NEWNET = 0x400454CA, 0x2, 0x1000, 0x40000000
MTU = 60000


def interface_in(pid):
    """A tap "eth0" in the network of process `pid`: the descriptor of its other side."""
    with open(f"/proc/{pid}/ns/net") as network:
        if ctypes.CDLL(None, use_errno=True).setns(network.fileno(), CLONE_NEWNET) != 0:
            raise OSError(ctypes.get_errno(), "setns")
    tap = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(tap, TUNSETIFF, struct.pack("16sH22x", b"eth0", IFF_TAP | IFF_NO_PI))
    subprocess.run(["ip", "link", "set", "eth0", "mtu", str(MTU)], check=True)
    return tap


def main():
    delay, loss = float(sys.argv[1]) / 1000, float(sys.argv[2])
    taps = [interface_in(pid) for pid in sys.argv[3:]]
    where = {}  # hardware address -> its tap
    queue = collections.deque()  # (when, frame, taps to give it to); equal delays keep the order
    rng = random.Random(1)
    carried = lost = 0
    poll = select.poll()
    for fd in (0, *taps):
        poll.register(fd, select.POLLIN)
    print("ready", flush=True)
    while True:
        wait = max(0, queue[0][0] - time.monotonic()) * 1000 if queue else None
        for fd, _ in poll.poll(wait):
            if fd == 0:
                print(carried, lost)
                return
            try:
                frame = os.read(fd, MTU + 64)
            except OSError:  # not up yet
                time.sleep(0.001)
                continue
            where[frame[6:12]] = fd
            if rng.random() < loss:
                lost += 1
                continue
            known = where.get(frame[0:6])
            queue.append((time.monotonic() + delay, frame, [known] if known else [tap for tap in taps if tap != fd]))
        now = time.monotonic()
        while queue and queue[0][0] <= now:
            _, frame, to = queue.popleft()
            carried += 1
            for tap in to:
                try:
                    os.write(tap, frame)
                except OSError:  # its interface is down or full: lost
                    lost += 1


if __name__ == "__main__":
    main()
