"""serve_mutations: requests that were once right, changed at random from a fixed seed, sent by many connections. Nobody says what each
answer must be: only that every one is whole HTTP or an ended connection, and that the server is as well afterwards as before."""

import json
import random
import select
import socket
import threading

import serve_bodies as bodies
from smelt_serve import Closed, expect, expect_scores

NPY = "application/x-npy"
PATIENCE_SECONDS = 0.03
WORDS = (b"\r\n", b"\r\n\r\n", b"\n", b" ", b":", b"0", b"-1", b"\0", b"\xff" * 8, b"99999999999999999999", b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n",
         b"Expect: 100-continue\r\n", b"HTTP/1.0", b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n", b"[" * 50, b"NaN", b"{\"image\":\"", b"\x93NUMPY\x01\x00", b"PK\x03\x04",
         b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"top_k=7", b"X-Amzn-SageMaker-Custom-Attributes: output=logits\r\n", b"Content-Encoding: gzip\r\n")


def originals():
    flat = list(bodies.pixels(0))
    small = [(bodies.npy_u8(0), NPY), (bodies.npy_f4(1), NPY), (bodies.npz([("arr_0.npy", bodies.npy_u8(0))], True), "application/x-npz"),
             (bodies.csv(0, 1), "text/csv"), (json.dumps(flat).encode(), "application/json"), (json.dumps({"image": bodies.b64(bodies.image_png(0))}).encode(), "application/json"),
             (bodies.json_lines([flat, {"instances": [flat]}]), "application/jsonlines"), (bodies.image_png(0), "image/png"), (bodies.jpeg("baseline"), "image/jpeg"),
             (bodies.jpeg("progressive"), "image/jpeg"), (bodies.bmp(0), "image/bmp"), (bodies.pixels(0) + bodies.pixels(1), "application/octet-stream")]
    requests = []
    for body, type in small:
        head = f"POST /invocations HTTP/1.1\r\nHost: localhost\r\nContent-Type: {type}\r\nAccept: application/json\r\n"
        requests.append((head + f"Content-Length: {len(body)}\r\n\r\n").encode() + body)
        requests.append((head + "Transfer-Encoding: chunked\r\n\r\n").encode() + b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n")
    requests += [b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n" * 3, b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /execution-parameters HTTP/1.1\r\nHost: x\r\n\r\n",
                 b"GET /models?limit=1&next_page_token=x HTTP/1.1\r\nHost: x\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /page/status HTTP/1.1\r\nHost: x\r\n\r\n"]
    return requests


def mutate(request, rng):
    data = bytearray(request)
    head = max(data.find(b"\r\n\r\n"), 1)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        # Half of all changes hit the head or what lies just behind it: that is where bodies have their headers too.
        at = rng.randrange(min(len(data), head + 160)) if rng.random() < 0.6 else rng.randrange(len(data))
        how = rng.randrange(6)
        if how == 0:
            data[at] ^= 1 << rng.randrange(8)
        elif how == 1:
            data[at] = rng.randrange(256)
        elif how == 2:
            del data[at:at + rng.choice((1, 2, 8, 100))]
        elif how == 3:
            data[at:at] = rng.choice(WORDS)
        elif how == 4:
            data[at:at] = data[at:at + rng.choice((1, 4, 64))]
        else:
            del data[at:]
        if not data:
            data += b"\0"
    return bytes(data)


def run(server, count, seed, connections=16):
    """Sends `count` mutated requests; returns the statuses seen as {status: count}, 0 for an ended connection."""
    requests, seen, lock, problems = originals(), {}, threading.Lock(), []

    def work(first):
        for i in range(first, count, connections):
            if problems:
                return
            rng = random.Random(seed * 1000003 + i)
            data = mutate(requests[rng.randrange(len(requests))], rng)
            status = 0
            try:
                with server.connect() as connection:
                    connection.send(data)
                    # One that ends its side at once would count as gone. What is no whole request is never answered otherwise.
                    select.select([connection.socket], [], [], PATIENCE_SECONDS)
                    connection.socket.shutdown(socket.SHUT_WR)
                    while True:
                        status = connection.read(head_only=data.startswith(b"HEAD")).status
            except (Closed, OSError):
                pass
            except Exception as problem:
                problems.append(f"mutated request {i} of seed {seed} ({data[:300]!r}): {problem}")
            with lock:
                seen[status] = seen.get(status, 0) + 1

    threads = [threading.Thread(target=work, args=(n,)) for n in range(connections)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expect(not problems, problems[0] if problems else "")
    expect(server.process.running(), "the server ended")
    expect_scores(server.invoke(bodies.npy_u8(0), NPY, NPY), 0)
    return seen
