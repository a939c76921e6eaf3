"""smelt_net: hosts (cli/smelt_hosts.py) that have a network each: a network namespace with an interface eth0, and a /etc/hosts of its own that
names algo-1, algo-2 …, as on the platform. The interfaces are veth pairs into a bridge; over a bad line they are taps of smelt_line.py.

A namespace has no name and nothing of it is in the machine's own: it lives as long as a process that reads from a pipe of ours, so it is gone,
with its links, when this program ends in whatever way. Needs root, iproute2 and util-linux; raises Skip otherwise."""

import contextlib
import os
import shutil
import subprocess
import sys
import time

import smelt_job
from smelt_hosts import Hosts
from smelt_job import Skip, expect

HERE = os.path.dirname(os.path.abspath(__file__))
PORT = 7000  # of the rendezvous; each training has a network of its own
TOOLS = ("ip", "unshare", "nsenter", "setpriv", "mount", "cat")


class Namespace:
    """A network, and a private view of mounts in which `binds` {path: what is seen there} hold."""

    def __init__(self, binds):
        script = "".join(f"mount --bind '{source}' '{path}' && " for path, source in binds.items()) + "ip link set lo up && echo ready && exec cat"
        self.holder = subprocess.Popen(["unshare", "--net", "--mount", "--propagation", "private", "sh", "-c", script], stdin=subprocess.PIPE,
                                       stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True)
        if self.holder.stdout.readline() != b"ready\n":
            why = self.holder.communicate()[1].decode().strip()
            raise Skip(f"no network namespaces here ({why})")
        self.network = os.stat(f"/proc/{self.holder.pid}/ns/net").st_ino

    @property
    def enter(self):
        """Words in front of a command. What is started so does not outlive the thread that starts it."""
        return ["setpriv", "--pdeathsig", "KILL", "nsenter", "-t", str(self.holder.pid), "-n", "-m", "--"]

    def run(self, *command):
        done = subprocess.run([*self.enter, *command], capture_output=True, text=True)
        expect(done.returncode == 0, f"{' '.join(command)}: {done.stderr.strip()}")
        return done.stdout

    def processes(self):
        """Of this network, but for the one that holds it; zombies do not count."""
        found = []
        for name in os.listdir("/proc"):
            if name.isdigit() and int(name) != self.holder.pid:
                with contextlib.suppress(OSError):
                    if os.stat(f"/proc/{name}/ns/net").st_ino == self.network:
                        found.append(int(name))
        return found

    def drop(self):
        self.holder.kill()
        self.holder.wait()
        for pipe in (self.holder.stdin, self.holder.stdout, self.holder.stderr):
            pipe.close()


class NetHosts(Hosts):
    """algo-1 … algo-count, each in a network of its own. line: (milliseconds of delay, share of packets lost) each way between any two of them,
    or None. unknown: names that no host can look up yet."""

    interface = "eth0"

    def __init__(self, count, settings, line=None, unknown=(), **job):
        smelt_job.need_root("making network namespaces")
        missing = [tool for tool in TOOLS if shutil.which(tool) is None]
        if missing:
            raise Skip(f"{missing[0]} is not installed")
        self.line = None
        self.networks = []
        super().__init__(count, settings, names=[f"algo-{i + 1}" for i in range(count)], port=PORT, **job)
        try:
            self._build(line, unknown)
        except BaseException:
            self.__exit__()
            raise

    def _build(self, line, unknown):
        for job in self.jobs:
            path = os.path.join(job.scratch, "hosts")
            open(path, "w").close()
            self.networks.append(Namespace({"/etc/hosts": path}))
        self.know(unknown)
        if line:
            self._join_with_line(*line)
        else:
            self._join_with_bridge()
        for i, network in enumerate(self.networks[:len(self.jobs)]):
            network.run("ip", "address", "add", f"{self.address(i)}/24", "dev", "eth0")
            network.run("ip", "link", "set", "eth0", "up")

    def _join_with_bridge(self):
        switch = Namespace({})
        self.networks.append(switch)
        self.switch = switch
        switch.run("ip", "link", "add", "bridge", "type", "bridge")
        switch.run("ip", "link", "set", "bridge", "up")
        for i in range(len(self.jobs)):
            switch.run("ip", "link", "add", f"port{i}", "type", "veth", "peer", "name", "eth0", "netns", str(self.networks[i].holder.pid))
            switch.run("ip", "link", "set", f"port{i}", "master", "bridge", "up")

    def _join_with_line(self, delay_ms, loss):
        if not os.path.exists("/dev/net/tun"):
            raise Skip("no /dev/net/tun here")
        pids = [str(network.holder.pid) for network in self.networks]
        self.line = subprocess.Popen([sys.executable, os.path.join(HERE, "smelt_line.py"), str(delay_ms), str(loss), *pids], stdin=subprocess.PIPE,
                                     stdout=subprocess.PIPE, text=True)
        expect(self.line.stdout.readline() == "ready\n", "the line did not start")

    @staticmethod
    def address(host):
        return f"10.77.0.{host + 1}"

    def know(self, unknown=()):
        """Writes /etc/hosts of all hosts, without the names `unknown`."""
        lines = ["127.0.0.1 localhost"] + [f"{self.address(i)} {name}" for i, name in enumerate(self.names) if name not in unknown]
        for job in self.jobs:
            with open(os.path.join(job.scratch, "hosts"), "w") as file:  # in place: it is bound by inode
                file.write("\n".join(lines) + "\n")

    def cut(self, host):
        """Nothing passes between this host and the others from now on."""
        self.switch.run("ip", "link", "set", f"port{host}", "down")

    def start_host(self, host, **options):
        return self.jobs[host].start(wrapper=self.networks[host].enter, **options)

    def expect_empty(self, host):
        """No process is left on this host. One whose parent was killed may need a moment to follow."""
        for _ in range(100):
            left = self.networks[host].processes()
            if not left:
                return
            time.sleep(0.05)
        raise AssertionError(f"processes {left} were left behind on {self.names[host]}")

    def line_figures(self):
        """Ends the bad line; (frames carried, frames lost)."""
        carried, lost = self.line.communicate()[0].split()
        return int(carried), int(lost)

    def __exit__(self, *_):
        super().__exit__()
        if self.line:
            self.line.kill()
            self.line.wait()
        for network in self.networks:
            network.drop()
        self.networks = []
