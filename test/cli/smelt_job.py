"""smelt_job: one training job as the platform would start it, in a temporary /opt/ml, watched from outside.

A test is a function with @test(number, title); main() runs those of the file (arguments: numbers or parts of titles) and prints
one line each. A test fails by raising, is left out by raising Skip(reason). Nothing hangs: every run has a limit."""

import atexit
import concurrent.futures
import contextlib
import ctypes
import functools
import json
import os
import re
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import threading
import time
import traceback

import smelt_data

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
TRAIN = os.path.abspath(os.environ.get("SMELT_TRAIN", os.path.join(ROOT, "build/bin/train")))
HERE = os.path.dirname(os.path.abspath(__file__))
LIMIT_SECONDS = 180  # of one run; only a hang gets there
CONFIG = "input/config"
CHECKPOINT = re.compile(r"ckpt-(\d+)-(\d+)\.safetensors")  # epoch, step

# The smallest run that does everything once. Values are text, as the platform writes them. One thread: waiting threads only take
# time from other programs of a busy machine; test 52 shows that the number changes nothing.
QUICK = {"epochs": "1", "threads": "1", "batch_size": "32", "stem": "imagenet", "crop_padding": "4", "seed": "7"}


class Skip(Exception):
    """This machine cannot run the test; the text says why."""


# --- checks -----------------------------------------------------------------------------------------------------------


def expect(condition, text):
    if not condition:
        raise AssertionError(text)


def expect_equal(found, wanted, what):
    expect(found == wanted, f"{what}: found {found!r}, wanted {wanted!r}")


def expect_match(pattern, text, what):
    expect(re.search(pattern, text), f"{what}: nothing matches {pattern!r} in:\n{text[-3000:]}")


# --- registry ---------------------------------------------------------------------------------------------------------

_tests = []
_print_lock = threading.Lock()


def test(number, title):
    """Registers a test; `number` as in the contract's list ("15", or "15b" for a second part)."""

    def register(function):
        _tests.append((str(number), title, function))
        return function

    return register


def once(function):
    """Decorator of a value that several tests need: the first makes it, the others wait for it."""
    lock, cached = threading.Lock(), functools.lru_cache(maxsize=None)(function)

    @functools.wraps(function)
    def locked(*arguments):
        with lock:
            return cached(*arguments)

    return locked


def main(program=TRAIN):
    """Runs the file's tests, as many at a time as there are cores to use (at most SMELT_TEST_JOBS)."""
    wanted = sys.argv[1:]
    if not os.access(program, os.X_OK):
        print(f"[  FAILED  ] {program} is not there: run make first")
        sys.exit(1)
    chosen = [t for t in _tests if not wanted or any(w == t[0] or (not w.isdigit() and w in t[1]) for w in wanted)]
    if not chosen:
        print("[  FAILED  ] no test of that name")
        sys.exit(1)
    jobs = int(os.environ.get("SMELT_TEST_JOBS", min(4, len(os.sched_getaffinity(0)))))
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        passed = list(pool.map(lambda t: _run(*t), chosen))
    sys.exit(0 if all(passed) else 1)


def _run(number, title, function):
    """Runs one test and prints its line; False if it failed."""
    started, passed = time.monotonic(), True
    try:
        function()
        lines = f"[       OK ] {number} {title} ({time.monotonic() - started:.1f} s)"
    except Skip as skip:
        lines = f"[  SKIPPED ] {number} {title}: {skip}"
    except Exception:
        lines, passed = f"{traceback.format_exc()}[  FAILED  ] {number} {title}", False
    with _print_lock:
        print(lines, flush=True)
    return passed


# --- what must not stay behind ----------------------------------------------------------------------------------------

_held = []  # jobs and mounts, oldest first
_libc = ctypes.CDLL(None, use_errno=True)


def unmount(path):
    _libc.umount2(os.fsencode(path), 2)  # MNT_DETACH


def _release_all():
    for thing in reversed(list(_held)):
        thing.drop()


def _on_term(*_):
    _release_all()
    os._exit(1)


atexit.register(_release_all)
signal.signal(signal.SIGTERM, _on_term)


# --- the machine ------------------------------------------------------------------------------------------------------


def need_root(why):
    if os.geteuid() != 0:
        raise Skip(f"{why} needs root")


def _scratch_parent():
    """Memory-backed if there is room, because each run writes a few hundred megabytes."""
    try:
        space = os.statvfs("/dev/shm")
        if space.f_bavail * space.f_frsize > 4 << 30 and os.access("/dev/shm", os.W_OK):
            return "/dev/shm"
    except OSError:
        pass
    return None


class Tmpfs:
    """A tmpfs of `size_bytes` mounted on `path` for the length of a with block."""

    def __init__(self, path, size_bytes):
        need_root("mounting a tmpfs")
        self.path, self.size_bytes = path, size_bytes

    def __enter__(self):
        os.makedirs(self.path, exist_ok=True)
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={self.size_bytes}", "smelt-test", self.path], capture_output=True, text=True)
        if done.returncode != 0:
            raise Skip(f"mount of a tmpfs is refused here ({done.stderr.strip()})")
        _held.append(self)
        return self

    def resize(self, size_bytes):
        subprocess.run(["mount", "-o", f"remount,size={size_bytes}", self.path], check=True)

    def drop(self):
        unmount(self.path)

    def __exit__(self, *_):
        self.drop()
        _held.remove(self)


def fault_env(*faults, log=None):
    """Environment that makes libc calls fail: "call:pattern:n:what", n "3" (only the third) or "3+" (from it on); see fault.c."""
    env = {"LD_PRELOAD": fault_library(), "SMELT_FAULT": ";".join(faults), "ASAN_OPTIONS": "verify_asan_link_order=0"}
    if log:
        env["SMELT_FAULT_LOG"] = log
    return env


@once
def fault_library():
    compiler = shutil.which("gcc") or shutil.which("cc")
    if compiler is None:
        raise Skip("fault injection needs a C compiler")
    folder = os.path.join(ROOT, "build/test")
    os.makedirs(folder, exist_ok=True)
    made, library = os.path.join(folder, f"fault.{os.getpid()}.so"), os.path.join(folder, "fault.so")
    subprocess.run([compiler, "-std=c17", "-O2", "-Wall", "-Wextra", "-Werror", "-shared", "-fPIC", os.path.join(HERE, "fault.c"), "-o", made,
                    "-ldl"], check=True)
    os.rename(made, library)
    return library


# --- a run ------------------------------------------------------------------------------------------------------------


class Result:
    """What a finished run left: exit code (negative: killed by that signal), text of both streams, seconds."""

    def __init__(self, code, out, err, seconds, failure):
        self.code, self.raw_out, self.raw_err, self.seconds, self.failure = code, out, err, seconds, failure
        self.out, self.err = out.decode("utf-8", "replace"), err.decode("utf-8", "replace")
        self.lines = self.out.splitlines()
        self.text = self.out + self.err

    def tail(self):
        return f"exit {self.code} after {self.seconds:.1f} s; failure file {self.failure!r}\n--- stdout\n{self.out[-3000:]}\n--- stderr\n{self.err[-2000:]}"

    def expect_success(self):
        expect(self.code == 0, f"expected exit 0: {self.tail()}")
        expect(self.failure is None, f"a failure file on success: {self.tail()}")
        return self

    def expect_failure(self, code, *patterns):
        """Exit `code`, and every pattern in the failure file, whose text is also on stderr."""
        expect(self.code == code, f"expected exit {code}: {self.tail()}")
        expect(self.failure is not None, f"no failure file: {self.tail()}")
        text = check_failure_text(self.failure)
        for pattern in patterns:
            expect(re.search(pattern, text, re.I), f"failure text lacks {pattern!r}: {text}")
        expect(text.split("\n")[0].strip() in self.err, f"failure text is not on stderr: {self.tail()}")
        return self

    def metrics(self):
        """The epoch lines as [{name: text}]."""
        import smelt_read
        return [smelt_read.pairs(line) for line in self.lines if line.startswith("[metric]")]


def check_failure_text(data):
    """The rules of the failure file; returns its text."""
    expect(0 < len(data) <= 1024, f"failure file of {len(data)} bytes")
    text = data.decode("utf-8")  # raises if it is not UTF-8
    expect(not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", text), f"control characters in the failure text: {text!r}")
    expect(re.match(r"\S.{15,}", text), f"first sentence says nothing: {text!r}")
    return text


class Process:
    """A running train. stdout: "pipe", "pty", "closed" (no descriptor), "broken" (reader gone), or a path."""

    def __init__(self, job, argv, env, stdout, umask, wrapper):
        self.job, self.started, self.done = job, time.monotonic(), threading.Condition()
        self.events = []  # (seconds since start, "out" or "err", line)
        self.chunks = {"out": [], "err": []}
        command = list(wrapper) + list(argv)
        if stdout == "closed":
            command = ["sh", "-c", 'exec "$@" >&-', "sh"] + command
        read_end = out = None
        if stdout == "pty":
            try:
                read_end, out = os.openpty()
            except OSError as problem:
                raise Skip(f"no terminals here ({problem.strerror})") from None
        elif stdout in ("pipe", "broken"):
            read_end, out = os.pipe()
        elif stdout != "closed":
            out = os.open(stdout, os.O_WRONLY | os.O_CREAT, 0o644)
        err_read, err_write = os.pipe()
        # Python ignores SIGPIPE; restore_signals gives the program the default, as a container start does.
        self.child = subprocess.Popen(command, env=env, cwd=job.scratch, stdin=subprocess.DEVNULL, stdout=out, stderr=err_write,
                                      start_new_session=True, umask=umask, restore_signals=True)
        for fd in (out, err_write):
            if fd is not None:
                os.close(fd)
        if stdout == "broken":
            os.close(read_end)
            read_end = None
        self.readers = []
        for name, fd in (("out", read_end), ("err", err_read)):
            if fd is not None:
                self.readers.append(threading.Thread(target=self._read, args=(name, fd), daemon=True))
                self.readers[-1].start()

    def _read(self, name, fd):
        rest = b""
        while True:
            try:
                data = os.read(fd, 65536)
            except OSError:  # a terminal whose other side closed
                data = b""
            with self.done:
                if data:
                    self.chunks[name].append(data)
                    lines = (rest + data).split(b"\n")
                    rest = lines.pop()
                    now = time.monotonic() - self.started
                    self.events.extend((now, name, line.decode("utf-8", "replace")) for line in lines)
                self.done.notify_all()
            if not data:
                os.close(fd)
                return

    @property
    def pid(self):
        return self.child.pid

    def running(self):
        return self.child.poll() is None

    def wait_line(self, pattern, limit=LIMIT_SECONDS, start=0):
        """Waits for a line that matches, returns its index in events; raises when the program ends first."""
        deadline = time.monotonic() + limit
        at = start
        while True:
            with self.done:
                while at < len(self.events):
                    if re.search(pattern, self.events[at][2]):
                        return at
                    at += 1
                if not any(r.is_alive() for r in self.readers):
                    raise AssertionError(f"the program ended without a line {pattern!r}: {self.finish().tail()}")
                self.done.wait(0.2)
            expect(time.monotonic() < deadline, f"no line {pattern!r} within {limit} s")

    def wait_for(self, condition, what, limit=LIMIT_SECONDS):
        """Polls `condition()` while the program runs."""
        deadline = time.monotonic() + limit
        while not condition():
            expect(self.running(), f"the program ended before {what}: exit {self.child.poll()}")
            expect(time.monotonic() < deadline, f"{what}: not within {limit} s")
            time.sleep(0.002)

    def signal(self, number):
        if self.running():
            os.kill(self.child.pid, number)
        return self

    def finish(self, limit=LIMIT_SECONDS):
        """Waits for the end and returns the Result; a program that outlives `limit` seconds is killed and that is a failure."""
        hung = False
        try:
            self.child.wait(limit)
        except subprocess.TimeoutExpired:
            hung = True
            self.kill()
            self.child.wait()
        for reader in self.readers:
            reader.join(5)
        result = Result(self.child.returncode, b"".join(self.chunks["out"]), b"".join(self.chunks["err"]), time.monotonic() - self.started,
                        self.job.failure())
        expect(not hung, f"hang: still running after {limit} s: {result.tail()}")
        return result

    def kill(self):
        """Ends it and what it started, if it still runs."""
        if self.child.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.child.pid, signal.SIGKILL)


class Writer(threading.Thread):
    """Feeds a FIFO as the platform does: opens when a reader is there, writes, closes."""

    def __init__(self, path, data, delay=0.0, chunk=1 << 16, make=True):
        super().__init__(daemon=True)
        self.path, self.data, self.delay, self.chunk, self.make = path, data, delay, chunk, make
        self.written, self.stop, self.broken = 0, False, False
        if make and not delay:
            os.mkfifo(path)
        self.start()

    def run(self):
        if self.delay:
            time.sleep(self.delay)
            if self.make:
                os.mkfifo(self.path)
        while not self.stop:
            try:
                fd = os.open(self.path, os.O_WRONLY | os.O_NONBLOCK)
                break
            except OSError:  # no reader yet
                time.sleep(0.01)
        else:
            return
        os.set_blocking(fd, True)
        try:
            for i in range(0, len(self.data), self.chunk):
                self.written += os.write(fd, self.data[i:i + self.chunk])
        except BrokenPipeError:
            self.broken = True
        finally:
            os.close(fd)


class Job:
    """A temporary /opt/ml. Default: quick settings and a channel "train" with train.bin (100 pictures) and test.bin (32)."""

    TRAIN_COUNT, TEST_COUNT = 100, 32  # every class once; three steps an epoch

    def __init__(self, hyperparameters=None, channel="train", files=None, resource=True, **extra):
        self.scratch = tempfile.mkdtemp(prefix="smelt-", dir=_scratch_parent())
        self.base = os.path.join(self.scratch, "ml")
        self.processes, self.writers = [], []
        _held.append(self)
        for name in (CONFIG, "input/data", "model", "output/data", "checkpoints"):
            os.makedirs(self.path(name))
        self.inputs = {}
        settings = dict(QUICK)
        settings.update(hyperparameters or {})
        settings.update(extra)
        self.hyperparameters(settings)
        if resource:
            self.config("resourceconfig", {"current_host": "algo-1", "hosts": ["algo-1"], "network_interface_name": "eth0",
                                           "current_instance_type": "ml.c5.xlarge"})
        if channel:
            self.channel(channel, files if files is not None else self.tiny())
        else:
            self.config("inputdataconfig", {})

    @staticmethod
    @once
    def tiny():
        return {"train.bin": smelt_data.binary(Job.TRAIN_COUNT, 1), "test.bin": smelt_data.binary(Job.TEST_COUNT, 2)}

    def __enter__(self):
        return self

    def drop(self):
        """Kills what runs and removes the directory; waits for nothing, so it may run in a signal handler."""
        for process in self.processes:
            process.kill()
        for writer in self.writers:
            writer.stop = True
        shutil.rmtree(self.scratch, ignore_errors=True)

    def __exit__(self, *_):
        for process in self.processes:
            process.kill()
            process.child.wait()
        self.drop()
        _held.remove(self)

    # laying out

    def path(self, *parts):
        return os.path.join(self.base, *parts)

    def write(self, name, data):
        """Any file below the base; text or bytes."""
        path = self.path(name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)
        return path

    def config(self, name, value):
        """input/config/<name>.json; a string or bytes is written as it is."""
        return self.write(f"{CONFIG}/{name}.json", value if isinstance(value, (str, bytes)) else json.dumps(value))

    def hyperparameters(self, values):
        """The whole file as the platform writes it: every value a JSON string (a non-string is left bare on purpose)."""
        self.settings = dict(values)
        self.config("hyperparameters", values)

    def set(self, **values):
        self.hyperparameters({**self.settings, **values})

    def channel(self, name, files, mode="File", **entry):
        """A channel with these files, and its entry in inputdataconfig.json."""
        directory = self.path("input/data", name)
        os.makedirs(directory, exist_ok=True)
        for relative, data in files.items():
            self.write(f"input/data/{name}/{relative}", data)
        self.entry(name, {"TrainingInputMode": mode, "S3DistributionType": "FullyReplicated", "RecordWrapperType": "None", **entry})
        return directory

    def entry(self, name, entry):
        self.inputs[name] = entry
        self.config("inputdataconfig", self.inputs)

    def pipe(self, name, data, wrapper="None", index=0, **writer):
        """A Pipe channel, and a writer that feeds its FIFO number `index`."""
        self.entry(name, {"TrainingInputMode": "Pipe", "S3DistributionType": "FullyReplicated", "RecordWrapperType": wrapper})
        self.writers.append(Writer(self.path("input/data", f"{name}_{index}"), data, **writer))
        return self.writers[-1]

    def restart(self):
        """What a spot interruption does: model/ and output/ are empty again, the checkpoints stay."""
        for name in ("model", "output"):
            shutil.rmtree(self.path(name), ignore_errors=True)
            os.makedirs(self.path(name))
        os.makedirs(self.path("output/data"))

    # running

    def environment(self, env=None):
        environment = {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "HOME": self.scratch, "LANG": "C.UTF-8", "TERM": "xterm-256color",
                       "SAGEMAKER_BASE_DIR": self.base, "TRAINING_JOB_NAME": "smelt-test",
                       "TRAINING_JOB_ARN": "arn:aws:sagemaker:eu-west-1:123456789012:training-job/smelt-test", "AWS_REGION": "eu-west-1",
                       "UBSAN_OPTIONS": "print_stacktrace=1"}
        environment.update(env or {})
        return {k: v for k, v in environment.items() if v is not None}

    def start(self, *args, env=None, stdout="pipe", umask=0o022, wrapper=(), program=None):
        argv = [program or TRAIN, *args]
        process = Process(self, argv, self.environment(env), stdout, umask, wrapper)
        self.processes.append(process)
        return process

    def run(self, *args, limit=LIMIT_SECONDS, **options):
        return self.start(*args, **options).finish(limit)

    # what came out

    def read(self, name):
        with open(self.path(name), "rb") as file:
            return file.read()

    def exists(self, name):
        return os.path.exists(self.path(name))

    def failure(self):
        """The failure file's bytes; None when it is absent or holds nothing."""
        try:
            return self.read("output/failure") or None
        except OSError:
            return None

    def files(self, name):
        """Relative paths of all that is not a directory below `name`, sorted."""
        root = self.path(name)
        return sorted(os.path.relpath(os.path.join(folder, f), root) for folder, _, names in os.walk(root) for f in names)

    def model(self):
        return self.read("model/model.safetensors")

    def checkpoints(self, directory="checkpoints"):
        """Own checkpoints with a final name, oldest first."""
        found = [f for f in os.listdir(self.path(directory)) if CHECKPOINT.fullmatch(f) and os.path.isfile(self.path(directory, f))]
        return sorted(found, key=lambda f: int(CHECKPOINT.fullmatch(f)[2]))

    def drop_checkpoints(self):
        for name in self.checkpoints():
            os.remove(self.path("checkpoints", name))


# --- watching a directory ---------------------------------------------------------------------------------------------


class Watch:
    """inotify on one directory: every name that appeared by creation or by rename, in order, with the event."""

    CREATE, MOVED_TO, MODIFY, MOVED_FROM, DELETE = 0x100, 0x80, 0x2, 0x40, 0x200
    NAMES = {CREATE: "create", MOVED_TO: "moved_to", MODIFY: "modify", MOVED_FROM: "moved_from", DELETE: "delete"}

    def __init__(self, path):
        self.fd = _libc.inotify_init1(os.O_NONBLOCK)
        mask = self.CREATE | self.MOVED_TO | self.MODIFY | self.MOVED_FROM | self.DELETE
        if self.fd < 0 or _libc.inotify_add_watch(self.fd, os.fsencode(path), mask) < 0:
            raise Skip("inotify is not available")

    def events(self):
        """[(event, name)] since the last call."""
        out = []
        while True:
            try:
                data = os.read(self.fd, 1 << 16)
            except BlockingIOError:
                return out
            at = 0
            while at < len(data):
                mask = int.from_bytes(data[at + 4:at + 8], "little")
                size = int.from_bytes(data[at + 12:at + 16], "little")
                name = data[at + 16:at + 16 + size].rstrip(b"\0").decode()
                expect(not mask & 0x4000, "inotify lost events")
                out.extend((text, name) for bit, text in self.NAMES.items() if mask & bit)
                at += 16 + size

    def close(self):
        os.close(self.fd)


def tree(path):
    """{relative path: (type and mode, size, mtime)} of everything below, to show that nothing was touched."""
    out = {}
    for folder, folders, names in os.walk(path):
        for name in folders + names:
            full = os.path.join(folder, name)
            info = os.lstat(full)
            out[os.path.relpath(full, path)] = (stat.filemode(info.st_mode), info.st_size, info.st_mtime_ns)
    return out
