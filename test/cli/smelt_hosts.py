"""smelt_hosts: several jobs (smelt_job) that are the hosts of one training, on loopback addresses: a numeric address is a host's name then.
Each has its own base directory, as on the platform. ../long/smelt_net.py gives them networks and names of their own."""

import re
import socket

from smelt_job import Job, expect, expect_equal

# Three steps an epoch; sums of float32 in another order grow apart quickly at a high rate of learning.
RUN = {"batch_size": "32", "lr": "0.001", "lr_schedule": "constant", "warmup_epochs": "0", "sync_bn": "true", "log_every_steps": "1", "artifact_formats": "safetensors"}


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Hosts:
    """Jobs that are the hosts of one training. names: of the hosts, in any order; host i of the sorted ones is jobs[i]."""

    interface = "lo"

    def __init__(self, count, settings, names=None, port=None, **job):
        self.names = sorted(names or [f"127.0.0.{i + 1}" for i in range(count)])
        self.jobs = []
        for name in self.names:
            one = Job({**settings, "rendezvous_port": str(port or 0)}, **job)
            one.config("resourceconfig", {"current_host": name, "hosts": self.names[::-1], "network_interface_name": self.interface})
            self.jobs.append(one)
        self.set(rendezvous_port=str(port or free_port()))

    def set(self, **values):
        for job in self.jobs:
            job.set(**values)

    def start_host(self, host, **options):
        return self.jobs[host].start(**options)

    def start(self, **options):
        return [self.start_host(host, **options) for host in range(len(self.jobs))]

    def run(self, **options):
        processes = self.start(**options)
        return [process.finish() for process in processes]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for job in self.jobs:
            job.__exit__()


def losses(result):
    return [float(value) for value in re.findall(r"\[step\].* loss_now=(\S+)", result.out)]


def expect_close(found, wanted, tolerance, what):
    expect_equal(len(found), len(wanted), f"{what}: steps")
    worst = max(abs(a - b) / abs(b) for a, b in zip(found, wanted))
    expect(worst <= tolerance, f"{what}: losses {found} and {wanted} differ by {worst:.2e}, allowed {tolerance:.0e}")


def ranks_of(process):
    """The processes that a train has started, oldest first."""
    with open(f"/proc/{process.pid}/task/{process.pid}/children") as file:
        return [int(pid) for pid in file.read().split()]
