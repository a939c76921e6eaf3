"""smelt_serve: the program serve as the platform would start it, and a client that reads every byte of its answers.

The program is SMELT_SERVE, else build/bin/serve. A test is a function with @test(number, title), as in test/cli (the registry, checks and
Process are test/cli/smelt_job.py's). Several tests of a file share one server (shared()); what changes it starts its own Server."""

import atexit
import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "cli"))
import smelt_job
from smelt_job import ROOT, Process, Skip, Tmpfs, Watch, expect, expect_equal, expect_match, fault_env, need_root, once, test, tree  # noqa: F401

import serve_bodies as bodies

SERVE = os.path.abspath(os.environ.get("SMELT_SERVE", os.path.join(ROOT, "build/bin/serve")))
HERE = os.path.dirname(os.path.abspath(__file__))
LIMIT_SECONDS = 120  # of one wait; only a hang gets there
SANITIZER = next((name for name in ("asan", "tsan") if f"/{name}/" in SERVE), None)  # slower, and with memory of its own
REPORT = re.compile(r"ERROR: \w+Sanitizer|WARNING: ThreadSanitizer|runtime error:|SUMMARY: \w+Sanitizer")
GRACE = {"SMELT_DRAIN_MS": "0"}  # a test that wants the grace after SIGTERM asks for it


def scaled(release, asan, tsan):
    """A count by how slow the build is."""
    return {None: release, "asan": asan, "tsan": tsan}[SANITIZER]


def main():
    smelt_job.main(SERVE)


# --- model directories ------------------------------------------------------------------------------------------------


@once
def _scratch():
    path = tempfile.mkdtemp(prefix="smelt-http-", dir=smelt_job._scratch_parent())
    atexit.register(shutil.rmtree, path, ignore_errors=True)
    return path


@once
def model_files(classes=100):
    """A directory with model.json, model.safetensors and model.pth; with 100 classes its answers are those of test/golden/serve.txt."""
    maker, path = os.path.join(ROOT, "build/release/make_model"), os.path.join(_scratch(), f"model{classes}")
    subprocess.run(["make", "-s", "build/release/make_model"], cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
    subprocess.run([maker, path, "imagenet", str(classes)], check=True)
    return path


def lay_model(directory, names=("model.json", "model.safetensors"), classes=100):
    """Hard links, so that a model costs nothing."""
    os.makedirs(directory, exist_ok=True)
    for name in names:
        os.link(os.path.join(model_files(classes), name), os.path.join(directory, name))
    return directory


# --- ports ------------------------------------------------------------------------------------------------------------

_port_lock = threading.Lock()
_port_next = 10000 + os.getpid() * 40 % 20000  # below the range from which outgoing connections take theirs


def free_port():
    global _port_next
    with _port_lock:
        while True:
            _port_next = 10000 + (_port_next - 9999) % 20000
            with socket.socket() as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                try:
                    probe.bind(("0.0.0.0", _port_next))
                except OSError:
                    continue
            return _port_next


# --- the client -------------------------------------------------------------------------------------------------------


class Closed(Exception):
    """The server closed the connection where an answer was due."""


class Response:
    def __init__(self, version, status, headers, body):
        self.version, self.status, self.headers, self.body = version, status, headers, body

    def all(self, name):
        return [value for key, value in self.headers if key.lower() == name.lower()]

    def get(self, name):
        found = self.all(name)
        expect(len(found) <= 1, f"{name} comes {len(found)} times")
        return found[0] if found else None

    @property
    def type(self):
        return self.get("Content-Type")

    @property
    def text(self):
        return self.body.decode("utf-8")

    def json(self):
        def refuse(word):
            raise ValueError(f"{word} is not JSON")

        return json.loads(self.body.decode("utf-8"), parse_constant=refuse)

    def ok(self, type=None):
        expect(self.status == 200, f"expected 200: {self}")
        if type is not None:
            expect_equal(self.type, type, "Content-Type")
        return self

    def rows(self):
        """The scores, whatever type they came in: a list an image."""
        self.ok()
        if self.type in ("application/x-npy", "tensor/pt"):
            return bodies.npy_read(self.body)
        if self.type == "application/json":
            return self.json()
        expect(not self.body.endswith(b"\n"), "the last line ends with a newline")
        if self.type == "application/jsonlines":
            return [json.loads(line) for line in self.text.split("\n")]
        expect_equal(self.type, "text/csv", "Content-Type")
        return [[float(v) for v in line.split(",")] for line in self.text.split("\n")]

    def refused(self, status, *patterns):
        """An error as the contract wants it (test 149): a short JSON object, its sentence first, nothing of this machine in it."""
        expect(self.status == status, f"expected {status}: {self}")
        if self.body:  # absent for HEAD only
            expect_equal(self.type, "application/json", "Content-Type of an error")
            expect(len(self.body) <= 2048, f"an error body of {len(self.body)} bytes")
            error = self.json()["error"]
            expect_equal(sorted(error), ["code", "message"], "fields of an error")
            expect(re.match(r"\S.{7,}", error["message"]), f"the sentence says nothing: {error}")
            for hidden in (r"0x[0-9a-f]{6}", r"(^|[ \"'(])/(opt|tmp|dev|home|root|usr)/", r"\.[ch]:\d", r"\n\s+at ", r"[\x00-\x1f\x7f]"):
                expect(not re.search(hidden, error["message"]), f"an error says too much ({hidden}): {error}")
            for pattern in patterns:
                expect(re.search(pattern, error["message"], re.I), f"error lacks {pattern!r}: {error}")
        return self

    def __repr__(self):
        return f"{self.status} {self.headers} {self.body[:600]!r}"


class Connection:
    """One TCP connection. What it reads is held to the contract: bare types, one Content-Length, no chunks, heads below 4096 bytes."""

    def __init__(self, port, host="127.0.0.1", timeout=LIMIT_SECONDS):
        self.socket = socket.create_connection((host, port), timeout)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.rest = b""

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.socket.close()

    def reset(self):
        """Ends the connection at once: the other side sees a reset, not an end."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data.encode("latin-1") if isinstance(data, str) else data)
        return self

    def request(self, method, target, body=b"", headers=(), version="1.1", host="localhost"):
        """Sends one request; a body gets a Content-Length unless the headers say how it comes."""
        names = {name.lower() for name, _ in headers}
        lines = [f"{method} {target} HTTP/{version}"] + ([f"Host: {host}"] if host and "host" not in names else [])
        lines += [f"{name}: {value}" for name, value in headers]
        if not names & {"content-length", "transfer-encoding"} and (body or method in ("POST", "PUT")):
            lines.append(f"Content-Length: {len(body)}")
        return self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)

    def _more(self):
        try:
            data = self.socket.recv(1 << 16)
        except ConnectionError:
            data = b""
        except socket.timeout:
            raise AssertionError(f"hang: no answer within {self.socket.gettimeout()} s")
        if not data:
            raise Closed(f"closed after {self.rest[:200]!r}")
        self.rest += data

    def read(self, head_only=False):
        """The next answer that is not 100 Continue."""
        while True:
            response = self.read_any(head_only)
            if response.status != 100:
                return response

    def read_any(self, head_only=False):
        while b"\r\n\r\n" not in self.rest:
            self._more()
        head, self.rest = self.rest.split(b"\r\n\r\n", 1)
        expect(len(head) + 4 < 4096, f"a head of {len(head) + 4} bytes")
        first, *lines = head.decode("latin-1").split("\r\n")
        status = re.fullmatch(r"HTTP/(1\.[01]) (\d{3}) ([ -~]*)", first)
        expect(status, f"status line {first!r}")
        headers = []
        for text in lines:
            field = re.fullmatch(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([ -~]*)", text)
            expect(field, f"header line {text!r}")
            headers.append((field[1], field[2].rstrip()))
        response = Response(status[1], int(status[2]), headers, b"")
        if response.status == 100:
            return response
        expect_equal(response.all("Transfer-Encoding"), [], "Transfer-Encoding")
        length = response.get("Content-Length")
        if response.status == 204:
            return response
        expect(length is not None and re.fullmatch(r"\d+", length), f"Content-Length {length!r} in {response}")
        if not head_only:
            while len(self.rest) < int(length):
                self._more()
            response.body, self.rest = self.rest[:int(length)], self.rest[int(length):]
            if response.body and (response.type is not None or response.status < 400):  # libmicrohttpd's own refusals of what is no HTTP have none
                bare = response.type is not None and (";" not in response.type or response.type.startswith(("text/html;", "text/plain;")))
                expect(bare, f"Content-Type {response.type!r}")
        return response

    def closed(self):
        """True when the other side ends the connection and says nothing more."""
        try:
            self._more()
        except Closed:
            return True
        return False


# --- the server -------------------------------------------------------------------------------------------------------


class Server:
    """A running serve in a base directory of its own.

    model: "golden", "small" (10 classes), None (no model directory), or {name: bytes} as files of model/. wait: until /ping is 200.
    Leaving a with block stops it by SIGTERM and expects exit 0 and no sanitizer report."""

    def __init__(self, model="golden", env=None, args=("serve",), wait=True, wrapper=(), stdout="pipe", port=None, program=SERVE):
        self.scratch = tempfile.mkdtemp(prefix="server-", dir=_scratch())
        self.base, self.port, self.result = os.path.join(self.scratch, "ml"), port or free_port(), None
        os.makedirs(self.base)
        if model in ("golden", "small"):
            lay_model(self.path("model"), classes=100 if model == "golden" else 10)
        elif model is not None:
            os.makedirs(self.path("model"))
            for name, data in model.items():
                with open(self.path("model", name), "wb") as file:
                    file.write(data)
        environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": self.scratch, "LANG": "C.UTF-8",
                       "SAGEMAKER_BASE_DIR": self.base, "SAGEMAKER_BIND_TO_PORT": str(self.port), "AWS_REGION": "eu-west-1",
                       "UBSAN_OPTIONS": "print_stacktrace=1", "TSAN_OPTIONS": f"suppressions={HERE}/tsan.supp", **GRACE}
        environment.update(env or {})
        environment = {k: v for k, v in environment.items() if v is not None}
        smelt_job._held.append(self)
        self.process = None
        self.process = Process(self, [program, *args], environment, stdout, 0o022, wrapper)
        if wait:
            self.wait_ready()

    def path(self, *parts):
        return os.path.join(self.base, *parts)

    def failure(self):  # Process asks a job for its failure file; serve writes none
        return None

    def drop(self):
        if self.process is not None:
            self.process.kill()
        shutil.rmtree(self.scratch, ignore_errors=True)

    def __enter__(self):
        return self

    def __exit__(self, kind, *_):
        if kind is None and self.result is None:
            self.stop()
        self.drop()
        self.process.child.wait()
        smelt_job._held.remove(self)

    # its life

    @property
    def pid(self):
        return self.process.pid

    def log(self):
        """All that it wrote so far."""
        with self.process.done:
            return "\n".join(line for _, _, line in self.process.events)

    def expect_running(self):
        if not self.process.running():
            raise AssertionError(f"serve ended: {self.process.finish().tail()}")

    def wait_connection(self):
        """The first connection that is accepted."""
        deadline = time.monotonic() + LIMIT_SECONDS
        while True:
            try:
                return Connection(self.port)
            except OSError:
                self.expect_running()
                expect(time.monotonic() < deadline, "serve does not listen")
                time.sleep(0.001)

    def wait_ping(self, wanted):
        """Pings until the status is `wanted`; returns all statuses seen."""
        seen, deadline = [], time.monotonic() + LIMIT_SECONDS
        self.wait_connection().close()
        while not seen or seen[-1] != wanted:
            self.expect_running()
            expect(time.monotonic() < deadline, f"/ping is never {wanted}: {seen[-3:]} {self.log()[-2000:]}")
            seen.append(self.ping().status)
            time.sleep(0 if seen[-1] == wanted else 0.01)
        return seen

    def wait_ready(self):
        return self.wait_ping(200)

    def wait_draining(self):
        """After SIGTERM: until /ping is 503 or nobody listens any more."""
        deadline = time.monotonic() + LIMIT_SECONDS
        with contextlib.suppress(OSError, Closed):
            while self.ping().status == 200:
                expect(time.monotonic() < deadline, "still 200 after SIGTERM")

    def terminate(self):
        self.process.signal(signal.SIGTERM)
        return self

    def finish(self, code=0, limit=LIMIT_SECONDS):
        """Waits for the end; the exit code is `code` and no sanitizer has anything to say."""
        self.result = self.process.finish(limit)
        expect(not REPORT.search(self.result.text), f"a sanitizer's report:\n{self.result.text[-6000:]}")
        expect(self.result.code == code, f"expected exit {code}: {self.result.tail()}")
        return self.result

    def stop(self, limit=LIMIT_SECONDS):
        return self.terminate().finish(0, limit)

    # talking to it

    def connect(self, **options):
        return Connection(self.port, **options)

    def request(self, method, target, body=b"", headers=(), **options):
        with self.connect() as connection:
            return connection.request(method, target, body, headers, **options).read(head_only=method == "HEAD")

    def get(self, target):
        return self.request("GET", target)

    def ping(self):
        return self.get("/ping")

    def invoke(self, body, type=None, accept=None, target="/invocations", **headers):
        return self.request("POST", target, body, self.headers(type, accept, **headers))

    @staticmethod
    def headers(type=None, accept=None, **more):
        """custom_attributes="x" is X-Amzn-SageMaker-Custom-Attributes."""
        fields = [("Content-Type", type)] * (type is not None) + [("Accept", accept)] * (accept is not None)
        return fields + [("X-Amzn-SageMaker-" + "-".join(w.capitalize() for w in name.split("_")), value) for name, value in more.items()]

    # watching it

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def memory(self, field="VmRSS"):
        """Bytes, of /proc/PID/status."""
        with open(f"/proc/{self.pid}/status") as file:
            return int(re.search(rf"{field}:\s+(\d+) kB", file.read())[1]) * 1024

    def listening_ports(self):
        sockets = set()
        for name in os.listdir(f"/proc/{self.pid}/fd"):
            with contextlib.suppress(OSError):
                sockets.add(os.readlink(f"/proc/{self.pid}/fd/{name}"))
        ports = []
        for table in ("tcp", "tcp6"):
            with open(f"/proc/{self.pid}/net/{table}") as file:
                for row in file.read().splitlines()[1:]:
                    field = row.split()
                    if field[3] == "0A" and f"socket:[{field[9]}]" in sockets:
                        ports.append((int(field[1].split(":")[1], 16), field[1].split(":")[0]))
        return ports


@once
def shared():
    """One server with the golden model for all tests of a file that only ask it things."""
    server = Server()
    atexit.register(_stop_shared, server)
    return server


def _stop_shared(server):
    try:
        server.stop()
    except AssertionError as problem:
        print(f"{problem}\n[  FAILED  ] the shared server's end", flush=True)
        os._exit(1)


# --- comparing --------------------------------------------------------------------------------------------------------


def distance(found, wanted):
    expect(len(found) == len(wanted), f"{len(found)} values, wanted {len(wanted)}")
    return max(abs(a - b) for a, b in zip(found, wanted))


def expect_scores(response, *wanted, tolerance=1e-4):
    """The answer's rows are PyTorch's probabilities of these golden images."""
    rows = response.rows()
    expect_equal(len(rows), len(wanted), f"rows of {response}")
    for row, n in zip(rows, wanted):
        off = distance(row, bodies.probabilities(n))
        expect(off <= tolerance, f"image {n}: {off:.2e} away from PyTorch's probabilities (tolerance {tolerance}): {response}")
    return response
