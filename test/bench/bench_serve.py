#!/usr/bin/env python3
"""serve under load, measured by wrk: requests/s and latency at 1, 8 and 64 connections with one-image npy bodies, images/s with 32-image bodies,
time from exec to the first 200 and to the first answer, resident memory, p99 of /ping under full load.

    python3 test/bench/bench_serve.py [--seconds 5] [--rounds 2] [--peers PYTHON]

With --peers, a Python that has PyTorch, flask, gunicorn, FastAPI, uvicorn and ONNX Runtime: the same for gunicorn + flask + PyTorch and for
FastAPI + ONNX Runtime on the same weights, in turns, and the ratio to the better one. Every server and wrk share this machine's cores."""
import argparse
import os
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
sys.path.insert(0, os.path.join(ROOT, "test/http"))
import serve_bodies as bodies

POST = """
local file = assert(io.open("%s", "rb"))
wrk.method, wrk.body = "POST", file:read("*a")
wrk.headers["Content-Type"], wrk.headers["Accept"] = "application/x-npy", "application/x-npy"
done = function(summary, latency)
	io.write(string.format("RESULT %%d %%d %%d %%.6f %%.6f\\n", summary.requests, summary.duration,
		summary.errors.status + summary.errors.connect + summary.errors.read + summary.errors.write + summary.errors.timeout,
		latency:percentile(50) / 1000, latency:percentile(99) / 1000))
end
"""


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def exchange(port, request):
    """One request on a connection of its own; the status, or 0 while nobody listens."""
    try:
        with socket.create_connection(("127.0.0.1", port), 60) as connection:
            connection.sendall(request)
            return int(connection.recv(65536).split(b" ")[1])
    except (OSError, IndexError, ValueError):
        return 0


def resident_bytes(pid):
    """Of a process and its children."""
    total = 0
    for entry in [pid] + [int(p) for p in open(f"/proc/{pid}/task/{pid}/children").read().split()]:
        total += int(re.search(r"VmRSS:\s+(\d+)", open(f"/proc/{entry}/status").read())[1]) * 1024
    return total


class Server:
    def __init__(self, command, port, env):
        self.port, started = port, time.perf_counter()
        self.process = subprocess.Popen(command, env={**os.environ, **env}, cwd=HERE, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.ready_ms = self.until(b"GET /ping HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", started)
        body = bodies.npy_f4(0)
        head = f"POST /invocations HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Type: application/x-npy\r\nContent-Length: {len(body)}\r\n\r\n"
        self.answer_ms = self.until(head.encode() + body, started)

    def until(self, request, started):
        while exchange(self.port, request) != 200:
            if self.process.poll() is not None:
                raise SystemExit(f"{self.process.args[0]} ended with {self.process.returncode}")
            if time.perf_counter() - started > 120:
                raise SystemExit(f"{self.process.args[0]} is not ready after two minutes")
            time.sleep(0.001)
        return 1000 * (time.perf_counter() - started)

    def stop(self):
        self.process.terminate()
        self.process.wait(60)


def wrk(port, script, connections, seconds):
    """(requests/s, p50 ms, p99 ms)"""
    done = subprocess.run(["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "60s", "-s", script, f"http://127.0.0.1:{port}/invocations"],
                          capture_output=True, text=True)
    found = re.search(r"RESULT (\d+) (\d+) (\d+) ([\d.]+) ([\d.]+)", done.stdout)
    if found is None or int(found[3]):
        raise SystemExit(f"wrk failed or got errors:\n{done.stdout}{done.stderr}")
    return int(found[1]) / int(found[2]) * 1e6, float(found[4]), float(found[5])


def ping_p99_ms(port, seconds, script):
    """Of a lone connection that pings every 5 ms while 64 others post."""
    load = threading.Thread(target=wrk, args=(port, script, 64, seconds + 1))
    load.start()
    time.sleep(0.5)
    times, end = [], time.perf_counter() + seconds
    with socket.create_connection(("127.0.0.1", port), 60) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        while time.perf_counter() < end:
            started = time.perf_counter()
            connection.sendall(b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
            if b" 200 " not in connection.recv(4096):
                raise SystemExit("/ping is not 200 under load")
            times.append(1000 * (time.perf_counter() - started))
            time.sleep(0.005)
    load.join()
    return sorted(times)[int(len(times) * 0.99)]


def measure(start, scripts, seconds):
    server = start()
    found = {"exec to /ping 200, ms": server.ready_ms, "exec to first answer, ms": server.answer_ms}
    try:
        wrk(server.port, scripts["one"], 1, 1)  # warm
        for connections in (1, 8, 64):
            rate, p50, p99 = wrk(server.port, scripts["one"], connections, seconds)
            found.update({f"requests/s, {connections} connections": rate, f"p50 ms, {connections} connections": p50, f"p99 ms, {connections} connections": p99})
        found["images/s, bodies of 32, 4 connections"] = 32 * wrk(server.port, scripts["many"], 4, seconds)[0]
        found["p99 of /ping ms, 64 connections posting"] = ping_p99_ms(server.port, seconds, scripts["one"])
        found["resident MB"] = resident_bytes(server.process.pid) / 1e6
    finally:
        server.stop()
    return found


def starters(folder, python):
    """Name → a function that starts it."""
    def smelt():
        port = free_port()
        return Server([os.path.join(ROOT, "build/bin/serve")], port, {"SAGEMAKER_BASE_DIR": folder, "SAGEMAKER_BIND_TO_PORT": str(port), "SMELT_DRAIN_MS": "0"})

    def flask():
        port = free_port()
        return Server([python, "-m", "gunicorn", "-k", "gthread", "--threads", "64", "-b", f"127.0.0.1:{port}", "--log-level", "error", "peer_flask:app"], port, peer)

    def onnx():
        port = free_port()
        return Server([python, "-m", "uvicorn", "--port", str(port), "--log-level", "error", "--no-access-log", "peer_onnx:app"], port, peer)

    peer = {"SMELT_PEER_MODEL": os.path.join(folder, "model"), "PYTHONDONTWRITEBYTECODE": "1"}
    if python is None:
        return {"smelt": smelt}
    subprocess.run([python, os.path.join(HERE, "peer_onnx.py"), os.path.join(folder, "model")], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return {"smelt": smelt, "gunicorn + flask + PyTorch": flask, "FastAPI + ONNX Runtime": onnx}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--peers")
    options = parser.parse_args()
    if shutil.which("wrk") is None:
        raise SystemExit("make bench-serve needs wrk: apt-get install wrk")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([os.path.join(ROOT, "build/release/make_model"), os.path.join(folder, "model"), "imagenet", "100"], check=True)
        scripts = {}
        for name, images in (("one", (0,)), ("many", (0, 1, 2, 3) * 8)):
            with open(os.path.join(folder, name + ".npy"), "wb") as file:
                file.write(bodies.npy_f4(*images))
            scripts[name] = os.path.join(folder, name + ".lua")
            with open(scripts[name], "w") as file:
                file.write(POST % os.path.join(folder, name + ".npy"))
        servers = starters(folder, options.peers)
        found = {name: [] for name in servers}
        for _ in range(options.rounds):
            for name, start in servers.items():
                found[name].append(measure(start, scripts, options.seconds))
    medians = {name: {row: statistics.median(r[row] for r in rounds) for row in rounds[0]} for name, rounds in found.items()}
    print(f"{len(os.sched_getaffinity(0))} cores, wrk on the same; median of {options.rounds} rounds of {options.seconds} s in turns; resnet34 7x7 stem, 32x32, fp32 npy")
    print(f"{'':42}" + "".join(f"{name:>28}" for name in servers) + ("  ratio to the better peer" if len(servers) > 1 else ""))
    for row in medians["smelt"]:
        print(f"{row:42}" + "".join(f"{medians[name][row]:28.2f}" for name in servers), end="")
        if len(servers) > 1:
            more_is_better = "/s" in row
            peers = [medians[name][row] for name in servers if name != "smelt"]
            best = max(peers) if more_is_better else min(peers)
            print(f"{(medians['smelt'][row] / best if more_is_better else best / medians['smelt'][row]):10.2f}x", end="")
        print()


if __name__ == "__main__":
    main()
