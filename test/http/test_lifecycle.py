"""Contract tests 2, 103-117, 163, 164: how serve starts, says how it is, and ends. Method: the program is started in an empty base directory
with a model beside it; what is slow is held by the test (a model.json that is a FIFO, a body that is sent in halves), not by a clock."""

import os
import re
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import threading
import time

import serve_bodies as bodies
from smelt_serve import (LIMIT_SECONDS, SANITIZER, SERVE, Closed, Connection, Server, Skip, Watch, expect, expect_equal, expect_match, expect_scores,
                         free_port, lay_model, main, model_files, need_root, scaled, shared, test, tree)

ONE = bodies.npy_u8(0)
NPY = "application/x-npy"


# Starts the program when the test has laid out what it wants: waits for the file "go".
WHEN_TOLD = ("sh", "-c", 'while [ ! -e "$SAGEMAKER_BASE_DIR/go" ]; do sleep 0.01; done; exec "$@"', "sh")


def go(server):
    with open(server.path("go"), "w"):
        pass


def held_server():
    """(server, path of a FIFO): a server that loads until release(path), because its file of labels is a FIFO."""
    fifo = os.path.join(tempfile.mkdtemp(dir=os.path.dirname(model_files())), "labels")
    os.mkfifo(fifo)
    server = Server(model={}, wait=False, wrapper=WHEN_TOLD, env={"SMELT_LABELS": fifo, "SMELT_MEAN": "0.507,0.487,0.441", "SMELT_STD": "0.267,0.256,0.276"})
    lay_model(server.path("model"), names=("model.safetensors",))
    go(server)
    return server, fifo


def release(fifo):
    with open(fifo, "w") as file:
        file.write("".join(f"class {k}\n" for k in range(100)))


@test(2, "serve runs with the word serve, without a word, and with a further one")
def words():
    for args in (("serve",), (), ("serve", "extra")):
        with Server(args=args, env={"SMELT_THREADS": "1"}) as server:
            expect_scores(server.invoke(ONE, NPY, NPY), 0)
    for option, pattern in (("--help", "SAGEMAKER_BIND_TO_PORT"), ("--version", r"serve \(smelt\) \d")):
        done = subprocess.run([SERVE, option], capture_output=True, text=True, timeout=60)
        expect_equal(done.returncode, 0, f"exit code of {option}")
        expect_match(pattern, done.stdout, f"output of {option}")


@test(103, "connections are accepted before the model is loaded; /ping is 503 while it loads, then 200, and never 503 again")
def accepts_before_loading():
    server, fifo = held_server()
    with server:
        with server.wait_connection() as first:
            first.request("GET", "/ping").read().refused(503, "load")
            server.invoke(ONE, NPY).refused(503, "load")
            for _ in range(3):
                first.request("GET", "/ping").read().refused(503)
            release(fifo)
            seen = server.wait_ready()
            expect_equal(set(seen[:-1]) - {503}, set(), "statuses before 200")
            first.request("GET", "/ping").read().ok()
            expect_scores(first.request("POST", "/invocations", ONE, server.headers(NPY)).read(), 0)
        expect_equal([server.ping().status for _ in range(20)], [200] * 20, "statuses after it")


@test("103b", "SIGTERM while the model loads ends it cleanly")
def stopped_while_loading():
    server, fifo = held_server()
    with server:
        server.wait_connection().close()
        server.terminate()
        # Whoever loads is let go; whether it waits for that is its own affair.
        threading.Thread(target=lambda: release(fifo), daemon=True).start()
        server.finish(0, limit=25 if not SANITIZER else LIMIT_SECONDS)


@test(104, "/ping: GET, HEAD and POST, an empty or tiny body, its length right")
def ping_forms():
    server = shared()
    for method in ("GET", "HEAD", "POST"):
        with server.connect() as connection:
            for _ in range(3):
                response = connection.request(method, "/ping").read(head_only=method == "HEAD").ok()
                expect(int(response.get("Content-Length")) < 100, f"{method}: {response}")
    expect_equal(server.request("GET", "/ping?x=1").status, 200, "with a query")
    for method in ("PUT", "DELETE"):
        expect_match("GET", server.request(method, "/ping").refused(405).get("Allow") or "", "Allow")


@test(105, "/ping is answered while large batches compute: many pings come back before one of them does; their p99 is printed")
def ping_while_busy():
    with Server(env={"SMELT_QUEUE_MAX": "64"}) as server:
        count = scaled(1024, 256, 64)
        body = bodies.npy("|u1", (count, 3, 32, 32), bodies.pixels(0) * count)
        busy = [server.connect().request("POST", "/invocations", body, server.headers(NPY, NPY)) for _ in range(4)]

        def answered():
            return sum(bool(select.select([waiting.socket], [], [], 0)[0]) for waiting in busy)

        milliseconds = []
        with server.connect() as connection:
            while len(milliseconds) < 20 or (len(milliseconds) < 1000 and answered() < len(busy)):
                started = time.monotonic()
                connection.request("GET", "/ping").read().ok()
                milliseconds.append((time.monotonic() - started) * 1000)
                if len(milliseconds) == 20:
                    expect(answered() < len(busy), "every batch was answered before 20 pings were")
                time.sleep(0.001)
        for waiting in busy:
            expect_equal(len(waiting.read().rows()), count, "rows")
            waiting.close()
    milliseconds.sort()
    p50, p99 = (milliseconds[int(len(milliseconds) * share)] for share in (0.5, 0.99))
    print(f"105: {len(milliseconds)} pings while {len(busy)} batches of {count} images computed: p50 {p50:.2f} ms, p99 {p99:.2f} ms, longest {milliseconds[-1]:.2f} ms")


def damaged():
    with open(os.path.join(model_files(), "model.safetensors"), "rb") as file:
        weights = file.read()
    with open(os.path.join(model_files(), "model.json"), "rb") as file:
        card = file.read()
    flipped = bytearray(weights)
    flipped[100:140] = b"\xff" * 40
    nan = bytearray(weights)
    nan[-4096:] = b"\xff" * 4096
    return {
        "no directory": None, "empty directory": {}, "no weights": {"model.json": card}, "no weights but a text": {"README": b"hello"},
        "truncated weights": {"model.json": card, "model.safetensors": weights[:len(weights) // 2]},
        "empty weights": {"model.json": card, "model.safetensors": b""}, "damaged header": {"model.json": card, "model.safetensors": bytes(flipped)},
        "NaN weights": {"model.json": card, "model.safetensors": bytes(nan)},
        "damaged model.json": {"model.json": card[:100], "model.safetensors": weights},
        "model.json of other classes": {"model.json": card.replace(b'"classes": 100', b'"classes": 99'), "model.safetensors": weights},
    }


@test(106, "a model that is missing or damaged: /ping is 500 with the reason, which is in the log too; never 200; the process stays")
def bad_models():
    for name, files in damaged().items():
        with Server(model=files, wait=False) as server:
            seen = server.wait_ping(500)
            expect_equal(set(seen) - {503, 500}, set(), f"{name}: statuses")
            reason = server.ping().refused(500).json()["error"]["message"]
            expect(len(reason) > 20, f"{name}: reason {reason!r}")
            server.invoke(ONE, NPY).refused(500)
            result = server.stop()
            logged = re.search(r"(?m)^.*(model|weights).*$", result.err)
            expect(logged, f"{name}: no reason in the log: {result.tail()}")


@test(107, "ready within 5 s on a machine with nothing else to do; serve's own ready line says how long it took")
def ready_soon():
    if SANITIZER:
        raise Skip(f"{SANITIZER} is slow")
    started = time.monotonic()
    with Server() as server:
        expect(time.monotonic() - started < 5, f"{time.monotonic() - started:.1f} s until /ping was 200")
        expect_match(r"ready", server.log(), "log")


@test(108, "SAGEMAKER_BIND_TO_PORT: that port and no other; a bad value is a sentence and exit 2; without it 8080")
def port():
    with Server() as server:
        ports = server.listening_ports()
        expect_equal({p for p, _ in ports}, {server.port}, "listening ports")
    for value in ("abc", "0", "65536", "-1", "80 81", "8080x", "99999999999999999999"):
        with Server(env={"SAGEMAKER_BIND_TO_PORT": value}, wait=False) as server:
            result = server.finish(2)
            expect_match("SAGEMAKER_BIND_TO_PORT", result.err, f"sentence for {value!r}")
            expect_match(re.escape(value), result.err, f"sentence for {value!r}")
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("0.0.0.0", 8080))
        except OSError:
            raise Skip("port 8080 is in use here; the rest of the test passed")
    with Server(env={"SAGEMAKER_BIND_TO_PORT": None}, port=8080) as server:
        expect_equal({p for p, _ in server.listening_ports()}, {8080}, "listening ports")


@test(109, "reachable by an address that is not loopback")
def other_address():
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: only asks which address would be used
            address = probe.getsockname()[0]
        except OSError:
            raise Skip("this machine has no address but loopback")
    with Connection(shared().port, host=address) as connection:
        connection.request("GET", "/ping").read().ok()


@test(110, "a read-only model directory serves, and nothing in it is touched")
def read_only_model():
    need_root("a read-only mount")
    with Server(model=None, wait=False, wrapper=WHEN_TOLD) as server:
        folder = lay_model(server.path("model"))
        before, watch = tree(folder), Watch(folder)
        mount = subprocess.run(["mount", "--bind", folder, folder], capture_output=True)
        mount = mount.returncode == 0 and subprocess.run(["mount", "-o", "remount,ro,bind", folder], capture_output=True).returncode == 0
        try:
            go(server)
            if not mount:
                raise Skip("a bind mount is refused here")
            server.wait_ready()
            expect_scores(server.invoke(ONE, NPY), 0)
            server.stop()
            expect_equal(watch.events(), [], "events in the model directory")
            expect_equal(tree(folder), before, "the model directory")
        finally:
            subprocess.run(["umount", "-l", folder], capture_output=True)
            watch.close()


@test("110b", "a read-only root file system serves")
def read_only_root():
    need_root("a mount namespace")
    script = 'mount --make-rprivate / && mount -o remount,ro,bind / && ! touch /smelt-test 2>/dev/null && exec "$@"'
    if subprocess.run(["unshare", "-m", "sh", "-c", script, "sh", "true"], capture_output=True).returncode != 0:
        raise Skip("a mount namespace is refused here")
    with Server(wrapper=("unshare", "-m", "sh", "-c", script, "sh")) as server:
        expect_scores(server.invoke(ONE, NPY), 0)
        expect_scores(server.invoke(bodies.image_png(1), "image/png"), 1)


@test(111, "a port that is in use: a sentence and exit 2")
def port_in_use():
    number = free_port()
    with socket.socket() as other:
        other.bind(("0.0.0.0", number))
        other.listen()
        with Server(port=number, wait=False) as server:
            result = server.finish(2)
            expect_match(rf"port {number}\b.*in use", result.err, "sentence")


def wait_in_flight(server, count):
    """Until so many requests' heads were read, the question itself apart."""
    deadline = time.monotonic() + LIMIT_SECONDS
    while int(re.search(r"(?m)^smelt_requests_in_flight (\d+)$", server.get("/metrics").text)[1]) < count + 1:
        expect(time.monotonic() < deadline, f"there are never {count} requests in flight")


@test(112, "SIGTERM: idle it ends with 0; a request in flight is still answered with 200, then it ends with 0")
def terminated():
    for number in (signal.SIGTERM, signal.SIGINT):
        with Server() as server:
            server.process.signal(number)
            server.finish(0, limit=25)
    with Server() as server:
        connection = server.connect()
        connection.send(f"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: {NPY}\r\nContent-Length: {len(ONE)}\r\n\r\n").send(ONE[:100])
        wait_in_flight(server, 1)
        server.terminate()
        server.wait_draining()
        connection.send(ONE[100:])
        expect_scores(connection.read(), 0)
        server.finish(0, limit=25)


@test("112b", "SIGTERM with many requests in flight: every one that was accepted is answered, all with 200")
def terminated_under_load():
    with Server(env={"SMELT_DRAIN_MS": None}) as server:
        body = bodies.npy_u8(0, 1, 2, 3)
        connections = [server.connect() for _ in range(scaled(64, 64, 16))]
        for connection in connections:
            connection.request("POST", "/invocations", body, server.headers(NPY, NPY))
        answers = [connections[0].read()]  # some are done, most are not
        server.terminate()
        answers += [connection.read() for connection in connections[1:]]
        for answer in answers:
            expect_scores(answer, 0, 1, 2, 3)
        server.finish(0, limit=25 if not SANITIZER else LIMIT_SECONDS)


@test("112c", "a second SIGTERM ends it at once, whoever is still connected")
def terminated_twice():
    with Server(env={"SMELT_DRAIN_MS": "20000"}) as server:
        with server.connect() as connection:
            connection.send(f"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Length: {len(ONE)}\r\n\r\n")
            wait_in_flight(server, 1)
            server.terminate()
            server.wait_ping(503)
            server.terminate()
            result = server.process.finish(15 if not SANITIZER else LIMIT_SECONDS)
            server.result = result
            expect(result.code >= 0, f"killed by a signal: {result.tail()}")


@test(113, "after SIGTERM /ping is 503, requests are still answered for a while, and answers carry Connection: close")
def draining():
    with Server(env={"SMELT_DRAIN_MS": "20000"}) as server:
        with server.connect() as old:
            old.request("GET", "/ping").read().ok()
            held = server.connect()
            held.send(f"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: {NPY}\r\nContent-Length: {len(ONE)}\r\n\r\n")
            wait_in_flight(server, 1)
            server.terminate()
            server.wait_ping(503)
            for answer in (server.ping(), server.invoke(ONE, NPY)):
                expect_equal((answer.get("Connection") or "").lower(), "close", f"Connection of {answer}")
            expect_scores(server.invoke(ONE, NPY), 0)
            answer = old.request("GET", "/ping").read().refused(503, "stop|drain|shut|end")
            expect_equal((answer.get("Connection") or "").lower(), "close", "Connection on an old connection")
            expect(old.closed(), "the connection stays open")
            held.send(ONE)
            expect_scores(held.read(), 0)
            held.close()
        server.terminate()
        server.process.finish(LIMIT_SECONDS)
        server.result = True


@test(114, "10 000 healthy pings write nothing into the log; a change of state is one line")
def quiet():
    with Server() as server:
        before = server.log()
        with server.connect() as connection:
            for _ in range(100):
                connection.send(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n" * 100)
                for _ in range(100):
                    connection.read().ok()
        expect_equal(server.log(), before, "log")
        server.invoke(ONE, NPY).ok()
        server.process.wait_line("POST|invocation")
        expect_equal(re.findall(r"(?m)^.*\bstate=(\w+)", server.log()), ["ready"], "changes of state in the log")


@test(115, "threads follow affinity: on one CPU there is one compute thread; SMELT_THREADS asks for another number")
def threads_follow_affinity():
    if shutil.which("taskset") is None:
        raise Skip("taskset is not here")
    cpu = str(min(os.sched_getaffinity(0)))
    for wrapper, env, wanted in ((("taskset", "-c", cpu), {}, 1), ((), {"SMELT_THREADS": "3"}, 3)):
        with Server(wrapper=wrapper, env=env) as server:
            expect_match(rf"\b{wanted} thread|threads={wanted}\b", server.log(), "log")
            expect_scores(server.invoke(ONE, NPY), 0)


@test(116, "variables that are not known are ignored; known ones with a wrong value are refused by name")
def variables():
    unknown = {"SAGEMAKER_PROGRAM": "inference.py", "SAGEMAKER_SUBMIT_DIRECTORY": "/opt/ml/model/code", "SAGEMAKER_MODEL_SERVER_VMARGS": "-Xmx1g",
               "SAGEMAKER_FOO": "x", "MMS_FOO": "1", "TS_BAR": "z", "SAGEMAKER_REGION": "eu-west-1", "SAGEMAKER_SAFE_PORT_RANGE": "9000-9099",
               "MMS_NUMBER_OF_GPU": "0", "SAGEMAKER_STARTUP_TIMEOUT": "600", "SMELT_NOTHING": "1"}
    with Server(env=unknown) as server:
        expect_scores(server.invoke(ONE, NPY), 0)
    for name, value in (("SMELT_OUTPUT", "odds"), ("SMELT_BATCH_MAX", "0"), ("SAGEMAKER_MODEL_SERVER_TIMEOUT", "soon"), ("SMELT_THREADS", "-2"),
                        ("SMELT_MEAN", "1,2"), ("SAGEMAKER_DEFAULT_INVOCATIONS_ACCEPT", "image/png")):
        with Server(env={name: value}, wait=False) as server:
            expect_match(f"{name}.*{re.escape(value)}", server.finish(2).err, f"sentence for {name}={value}")


@test(117, "2000 requests of many kinds leave no descriptor behind, and no memory")
def no_growth():
    with Server() as server:
        kinds = [(ONE, NPY, NPY), (bodies.image_png(0), "image/png", None), (bodies.csv(0, 1), "text/csv", "text/csv"), (b"[1,2", "application/json", None),
                 (b"x", "text/weird", None), (b"", NPY, None)]

        def round(count):
            for i in range(count):
                server.invoke(*kinds[i % len(kinds)])

        round(scaled(200, 100, 30))
        descriptors, memory = server.descriptors(), server.memory()
        round(scaled(2000, 300, 60))
        expect(server.descriptors() <= descriptors + 2, f"{server.descriptors()} descriptors, {descriptors} before")
        if not SANITIZER:
            grown = server.memory() - memory
            expect(grown < 8 << 20, f"grown by {grown} bytes")


@test(163, "on a terminal the log holds no control characters")
def terminal():
    with Server(stdout="pty") as server:
        server.invoke(ONE, NPY, inference_id="a\tb").ok()
        server.invoke(b"\x1b[31m", "text/\x1b[31m").refused(415)
        result = server.stop()
    text = result.raw_out.replace(b"\r\n", b"\n") + result.raw_err
    expect(not re.search(rb"[\x00-\x08\x0b-\x1f\x7f]", text.replace(b"\n", b"")), f"control characters in the log: {text!r}")


@test(164, "the SDK's ping loop passes from a cold start")
def sdk_loop():
    with Server(wait=False) as server:
        for attempt in range(23):
            try:
                if server.ping().status == 200:
                    return
            except (OSError, Closed):
                pass
            time.sleep(0.25)  # the SDK waits 5 s
        raise AssertionError("23 attempts were not enough")


if __name__ == "__main__":
    main()
