#!/usr/bin/env python3
"""What the stand-in `docker` starts: our programs as the containers of a compose file would run.

    compose.py compose -f FILE up [--build] [--abort-on-container-exit]
    compose.py run --rm IMAGE PROGRAM WORD…      a question, such as train --metrics

A service gets a mount namespace in which its volumes are mounted (so /opt/ml is /opt/ml), a terminal where the file says tty, and its environment and no
other. `train` gets a network with loopback alone, in which the services' aliases are 127.0.0.11, .12, …; `serve` stays in the machine's, and is told
to bind to the published port, for there is nothing here that could publish another one. The first service that ends ends the others (SIGTERM, ten seconds,
SIGKILL), and its exit code is compose's.

Environment: SMELT_TRAIN, SMELT_SERVE, the programs. As root."""

import fcntl
import os
import pty
import shlex
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
PROGRAMS = {name: os.path.abspath(os.environ.get(f"SMELT_{name.upper()}", os.path.join(ROOT, "build/bin", name))) for name in ("train", "serve")}
CMD = ["train"]  # the image's
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
GRACE_SECONDS = 10
APART = "SMELT_DOCKER_APART"


def loopback_up():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        fcntl.ioctl(control, 0x8914, struct.pack("16sH14s", b"lo", 0x1 | 0x40, b""))  # SIOCSIFFLAGS: up, running


class Service:
    def __init__(self, name, settings, hosts):
        self.name, self.tty = name, settings.get("tty", False)
        words = shlex.split(settings["command"]) if isinstance(settings.get("command"), str) else settings.get("command")
        self.words = settings.get("entrypoint") or words or CMD
        environment = {"PATH": PATH, "HOME": "/root", "HOSTNAME": name}
        environment.update(entry.split("=", 1) for entry in settings.get("environment") or [])
        for ports in settings.get("ports") or []:
            environment["SAGEMAKER_BIND_TO_PORT"] = ports.split(":")[0]
        script = ["set -e", "mount -t tmpfs none /opt"]
        # The outer mount first: /opt/ml/output before /opt/ml/output/data.
        for volume in sorted(settings.get("volumes") or [], key=lambda v: v.split(":")[1]):
            outside, inside = volume.removesuffix(":z").split(":")[:2]
            os.makedirs(outside, exist_ok=True)
            script.append(f"mkdir -p {shlex.quote(inside)} && mount --bind {shlex.quote(outside)} {shlex.quote(inside)}")
        script += [f"mount --bind {shlex.quote(hosts)} /etc/hosts", "cd /", 'exec "$@"']
        program = [PROGRAMS.get(self.words[0], self.words[0]), *self.words[1:]]
        self.read, write = pty.openpty() if self.tty else os.pipe()
        self.process = subprocess.Popen(["unshare", "--mount", "--propagation", "private", "sh", "-c", "\n".join(script), "sh", *program],
                                        env=environment, stdin=subprocess.DEVNULL, stdout=write, stderr=write, start_new_session=True)
        os.close(write)
        self.reader = threading.Thread(target=self.show)
        self.reader.start()

    def show(self):
        rest = b""
        while True:
            try:
                data = os.read(self.read, 1 << 16)
            except OSError:  # a terminal whose other side is closed
                data = b""
            lines = (rest + data).split(b"\n")
            rest = lines.pop()
            for line in lines:
                sys.stdout.buffer.write(b"%s  | %s\n" % (self.name.encode(), line))
            sys.stdout.buffer.flush()
            if not data:
                return

    def signal(self, number):
        if self.process.poll() is None:
            self.process.send_signal(number)


def up(path, detach):
    import yaml  # the client's own

    with open(path, encoding="utf-8") as file:
        services = yaml.safe_load(file)["services"]
    if detach:
        sys.exit("docker stand-in: --detach is not played")
    alone = not any(settings.get("command") == "serve" for settings in services.values())
    if alone and APART not in os.environ:
        os.execvpe("unshare", ["unshare", "--net", sys.executable, *sys.argv], {**os.environ, APART: "1"})
    if alone:
        loopback_up()
    with tempfile.NamedTemporaryFile("w", prefix="hosts-") as hosts:
        hosts.write("127.0.0.1 localhost\n")
        for at, (name, settings) in enumerate(services.items(), 11):
            aliases = (((settings.get("networks") or {}).get("sagemaker-local") or {}).get("aliases")) or [name]
            hosts.write(f"127.0.0.{at} {' '.join(aliases)}\n")
        hosts.flush()
        stopped = []
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: stopped.append(True))
        running = [Service(name, settings, hosts.name) for name, settings in services.items()]
        while not stopped and all(service.process.poll() is None for service in running):
            time.sleep(0.02)
        code = next((service.process.returncode for service in running if service.process.returncode is not None), 130)
        for service in running:
            if service.process.returncode is not None:
                print(f"{service.name} exited with code {service.process.returncode}", flush=True)
            service.signal(signal.SIGTERM)
        until = time.monotonic() + GRACE_SECONDS
        while any(service.process.poll() is None for service in running):
            if time.monotonic() > until:
                for service in running:
                    service.signal(signal.SIGKILL)
            time.sleep(0.02)
        for service in running:
            service.reader.join()
    return code if code >= 0 else 128 - code


def main(words):
    if words[:2] == ["compose", "-f"] and "up" in words:
        return up(words[2], "--detach" in words)
    if words[:2] == ["run", "--rm"] and words[3] in PROGRAMS:
        return subprocess.run([PROGRAMS[words[3]], *words[4:]], env={"PATH": PATH}, stdin=subprocess.DEVNULL).returncode
    print(f"docker stand-in: {' '.join(words)} is not played", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
