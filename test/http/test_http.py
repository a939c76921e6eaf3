"""Contract tests 118-133: HTTP as real clients and bad ones speak it. Method: bytes on a socket, answers read to the last byte; what a parallel
or a broken client gets is compared with what a lone, well-behaved one got."""

import re
import socket
import time

import serve_bodies as bodies
from smelt_serve import (LIMIT_SECONDS, SANITIZER, Closed, Connection, Server, expect, expect_equal, expect_match, expect_scores, main, once, scaled, shared,
                         test)

NPY = "application/x-npy"
ONE = bodies.npy_u8(0)


@once
def alone(count):
    """The answers to the first golden images when nobody else asks."""
    with Server(env={"SMELT_THREADS": "1"}) as server:
        return [server.invoke(bodies.npy_u8(n), NPY, NPY).ok().body for n in range(count)]


def head(*lines):
    return "\r\n".join(("POST /invocations HTTP/1.1", "Host: localhost") + lines) + "\r\n\r\n"


def chunked(data, size, extension="", trailer=""):
    out = b""
    for i in range(0, len(data), size):
        part = data[i:i + size]
        out += f"{len(part):x}{extension}\r\n".encode() + part + b"\r\n"
    return out + f"0\r\n{trailer}\r\n".encode()


@test(118, "header names in any case; optional space around values")
def header_case():
    for name in ("Content-type", "content-type", "CONTENT-TYPE", "cOnTeNt-TyPe"):
        with shared().connect() as connection:
            connection.send(f"POST /invocations HTTP/1.1\r\nhOST:localhost\r\n{name}:  {NPY}  \r\nACCEPT:{NPY}\r\ncontent-LENGTH:{len(ONE)}\r\n\r\n")
            expect_equal(expect_scores(connection.send(ONE).read(), 0).type, NPY, "Content-Type")


@test(119, "keep-alive: 1000 requests on one connection, among them refused ones")
def keep_alive():
    server = shared()
    with server.connect() as connection:
        for i in range(scaled(1000, 100, 40)):
            if i % 10 == 3:
                connection.request("POST", "/invocations", b"{", server.headers("application/json")).read().refused(400)
            elif i % 10 == 6:
                connection.request("GET", "/nowhere").read().refused(404)
            else:
                connection.request("POST", "/invocations", ONE, server.headers(NPY, NPY)).read().ok()
        expect_scores(connection.request("POST", "/invocations", ONE, server.headers(NPY, NPY)).read(), 0)


@test(120, "chunked bodies: any chunk size, extensions, trailers, written in pieces")
def chunks():
    server = shared()
    for size, extension, trailer in ((len(ONE), "", ""), (1000, "", ""), (7, "", ""), (512, ";name=value", ""), (512, ';a="b c"', "X-Trailer: yes\r\n")):
        with server.connect() as connection:
            connection.send(head(f"Content-Type: {NPY}", "Transfer-Encoding: chunked"))
            connection.send(chunked(ONE, size, extension, trailer))
            expect_scores(connection.read(), 0)
            expect_scores(connection.request("POST", "/invocations", ONE, server.headers(NPY)).read(), 0)
    with server.connect() as connection:
        connection.send(head(f"Content-Type: {NPY}", "transfer-encoding: Chunked"))
        data = chunked(ONE, 100)
        for i in range(0, len(data), 97):
            connection.send(data[i:i + 97])
        expect_scores(connection.read(), 0)


@test("120b", "broken chunks are refused or the connection ends; nobody waits for ever, nobody else is hurt")
def broken_chunks():
    server = shared()
    for data in (b"zz\r\nabc\r\n0\r\n\r\n", b"-5\r\nabc\r\n0\r\n\r\n", b"ffffffffffffffff\r\nabc", b"10000000000000000000\r\nabc", b"3\r\nabcdef\r\n0\r\n\r\n",
                 b"\r\n\r\n\r\n", b"3;" + b"x" * 70000):
        with server.connect() as connection:
            connection.send(head(f"Content-Type: {NPY}", "Transfer-Encoding: chunked"))
            try:
                connection.send(data)
                connection.socket.shutdown(socket.SHUT_WR)
                expect(connection.read().status >= 400, f"chunks {data[:20]!r} were taken")
            except (Closed, OSError):
                pass
    expect_scores(server.invoke(ONE, NPY), 0)


@test(121, "Expect: 100-continue: 100 before the body, then 200; a body that would be refused is refused before it is sent")
def expect_continue():
    server = shared()
    with server.connect() as connection:
        connection.send(head(f"Content-Type: {NPY}", "Expect: 100-continue", f"Content-Length: {len(ONE)}"))
        expect_equal(connection.read_any().status, 100, "first answer")
        expect_scores(connection.send(ONE).read(), 0)
    with server.connect() as connection:
        connection.send(head(f"Content-Type: {NPY}", "Expect: 100-continue", f"Content-Length: {1 << 40}"))
        connection.read_any().refused(413)


@test(122, "Content-Length and Transfer-Encoding together, two lengths, bad lengths: 400 and the connection ends")
def smuggling():
    server = shared()
    cases = {
        "both": ("Content-Length: 5", "Transfer-Encoding: chunked"),
        "both, other order": ("Transfer-Encoding: chunked", "Content-Length: 5"),
        "two lengths": ("Content-Length: 5", "Content-Length: 6"),
        "two lengths in one field": ("Content-Length: 5, 6",),
        "a negative length": ("Content-Length: -1",),
        "a length with a sign": ("Content-Length: +5",),
        "a length that is text": ("Content-Length: five",),
        "a length beyond 64 bits": ("Content-Length: 99999999999999999999999",),
    }
    for name, lines in cases.items():
        with server.connect() as connection:
            connection.send(head(f"Content-Type: {NPY}", *lines)).send(b"0\r\n\r\nGET /ping HTTP/1.1\r\nHost: x\r\n\r\n")
            answer = connection.read()
            expect(answer.status == (413 if "beyond" in name else 400), f"{name}: {answer}")
            expect(connection.closed(), f"{name}: the connection goes on after {answer}")


@test("122b", "requests that are no HTTP end the connection or get 400, at once")
def no_http():
    server = shared()
    for data in (b"\0\1\2\3\r\n\r\n", b"GET\r\n\r\n", b"GET /ping\r\n\r\n", b"GET /ping HTTP/9.9\r\nHost: x\r\n\r\n", b"GET /ping HTTP/1.1\r\nno colon\r\n\r\n",
                 b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200 + b"\r\n\r\n", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"):
        with server.connect() as connection:
            connection.send(data)
            try:
                connection.socket.shutdown(socket.SHUT_WR)
                status = connection.read().status
                expect(status >= 400, f"{data[:30]!r}: {status}")
            except (Closed, OSError):
                pass
    server.ping().ok()


@test("122c", "a request without Host is 400 in HTTP/1.1; the path may be absolute, percent-encoded and have a query")
def targets():
    server = shared()
    expect_equal(server.request("GET", "/ping", host=None).status, 400, "no Host")
    for target in ("http://localhost/ping", "/ping?a=b&c", "/p%69ng", "/%70%69%6e%67?x"):
        expect_equal(server.get(target).status, 200, target)
    expect_scores(server.invoke(ONE, NPY, target="/invocations?x=1"), 0)
    expect_scores(server.invoke(ONE, NPY, target="http://x/invocat%69ons"), 0)
    for target in ("/ping/", "/pin", "/../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "/ping%00", "/" + "a" * 2000, "/invocations-bidirectional-stream", "//"):
        server.get(target).refused(404)


@test("122d", "a head over the limit is refused or ends the connection; many small fields are no way around it")
def large_heads():
    server = shared()
    for name, data in (("one field", b"X: " + b"a" * 200000 + b"\r\n"), ("many fields", b"".join(b"X-%d: y\r\n" % i for i in range(20000))),
                       ("the path", None)):
        with server.connect() as connection:
            start = b"GET /ping HTTP/1.1\r\nHost: x\r\n" + data if data else b"GET /" + b"a" * 200000 + b" HTTP/1.1\r\nHost: x\r\n"
            try:
                connection.send(start + b"\r\n")
                status = connection.read().status
                expect(status in (400, 413, 414, 431), f"{name}: {status}")
            except (Closed, OSError):
                pass
    with server.connect() as connection:
        expect_equal(connection.request("GET", "/ping", headers=[("X-Large", "a" * 8000)]).read().status, 200, "a head of 8 KB")


@test(123, "a body of 25 MB is taken; a larger one is 413 that names the limit, early, and the connection ends; memory stays")
def large_bodies():
    with Server() as server:
        count = 25 * (1 << 20) // 3072 - 1
        if not SANITIZER:
            large = bodies.npy("|u1", (count, 3, 32, 32), bodies.pixels(0) * count)
            rows = server.invoke(large, NPY, NPY).rows()
            expect_equal(len(rows), count, "rows")
            expect(rows[0] == rows[-1], "equal images differ")
        before = server.memory("VmHWM")
        for length in (26214401, 1 << 33, 1 << 62):
            with server.connect() as connection:
                connection.send(head(f"Content-Type: {NPY}", f"Content-Length: {length}")).send(ONE)
                connection.read().refused(413, "26214400|25 ?M")
                try:
                    for _ in range(400):
                        connection.send(b"\0" * 65536)
                    connection.socket.shutdown(socket.SHUT_WR)
                    connection.closed()
                except OSError:
                    pass
        with server.connect() as connection:  # no length to see beforehand
            connection.send(head(f"Content-Type: {NPY}", "Transfer-Encoding: chunked"))
            refused = None
            try:
                for _ in range(500):
                    connection.send(b"10000\r\n" + b"\0" * 65536 + b"\r\n")
            except OSError:
                pass
            try:
                refused = connection.read()
            except Closed:
                pass
            expect(refused is not None, "an endless chunked body: no answer")
            refused.refused(413)
        grown = server.memory("VmHWM") - before
        expect(grown < 100 << 20, f"grown by {grown} bytes at the most")
        expect_scores(server.invoke(ONE, NPY), 0)
    with Server(env={"SAGEMAKER_MAX_PAYLOAD_IN_MB": "1"}) as server:
        server.invoke(b"\0" * (1048576 + 1), NPY).refused(413, "1048576|1 ?M")


@test(124, "a body of 0 bytes is 400, however it is said to be empty")
def empty_body():
    server = shared()
    for type in (NPY, "application/json", "text/csv", "image/png", "application/octet-stream", None):
        server.invoke(b"", type).refused(400, "empty|no body|0 bytes")
    with server.connect() as connection:
        connection.send(head(f"Content-Type: {NPY}", "Transfer-Encoding: chunked")).send(b"0\r\n\r\n").read().refused(400)
        connection.send(head(f"Content-Type: {NPY}")).read().refused(400)


@test(125, "a wrong method is 405 with Allow, an unknown path 404, both JSON; HEAD has no body")
def methods():
    server = shared()
    for method in ("GET", "PUT", "DELETE", "PATCH"):
        expect_equal(server.request(method, "/invocations").refused(405).get("Allow"), "POST", f"Allow for {method}")
    expect_equal(server.request("HEAD", "/invocations").status, 405, "HEAD")
    server.request("POST", "/nowhere", b"x").refused(404)
    server.get("/favicon.ico").refused(404)
    with server.connect() as connection:  # the body of a refused request is not taken for the next request
        connection.request("POST", "/nowhere", b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n" * 1000).read().refused(404)
        try:
            connection.request("GET", "/elsewhere").read().refused(404, "elsewhere")
        except (Closed, OSError):
            pass


@test("125b", "Content-Encoding: gzip is read, within the limit of bodies; others are 415")
def content_encoding():
    import gzip
    server = shared()
    for word, data in (("gzip", gzip.compress(ONE)), ("GZIP", gzip.compress(ONE)), ("identity", ONE)):
        expect_scores(server.request("POST", "/invocations", data, server.headers(NPY) + [("Content-Encoding", word)]), 0)
    for word in ("deflate", "br", "zstd", "gzip, gzip", "x"):
        server.request("POST", "/invocations", ONE, server.headers(NPY) + [("Content-Encoding", word)]).refused(415)
    bomb = gzip.compress(b"\0" * (200 << 20), 9)
    before = server.memory("VmHWM")
    server.request("POST", "/invocations", bomb, server.headers(NPY) + [("Content-Encoding", "gzip")]).refused(413)
    expect(SANITIZER or server.memory("VmHWM") - before < 64 << 20, "memory for a gzip bomb")
    server.request("POST", "/invocations", gzip.compress(ONE)[:-20], server.headers(NPY) + [("Content-Encoding", "gzip")]).refused(400)


@test(126, "slow clients: heads and bodies that do not go on are ended by a timeout, and nobody else waits for them")
def slow_loris():
    with Server(env={"SMELT_HEAD_TIMEOUT_S": "1", "SMELT_BODY_TIMEOUT_S": "1", "SMELT_IDLE_TIMEOUT_S": "1"}) as server:
        starts = (b"P", b"POST /invocations HTTP/1.1\r\nHost: x\r\n", head(f"Content-Type: {NPY}", f"Content-Length: {len(ONE)}").encode() + ONE[:50],
                  head("Transfer-Encoding: chunked").encode() + b"5\r\nab", b"")
        slow = [(start, server.connect().send(start)) for start in starts * 20]
        expect_scores(server.invoke(ONE, NPY), 0)
        for start, connection in slow:
            try:
                answer = connection.read()
                expect_equal(answer.status, 408, f"answer to a request that stops after {start[-20:]!r}")
            except Closed:
                pass
            connection.close()
        # One byte at a time does not keep it alive for ever.
        dripping, ended = server.connect().send("GET /ping HTTP/1.1\r\nX: "), False
        deadline = time.monotonic() + LIMIT_SECONDS
        while not ended:
            expect(time.monotonic() < deadline, "a head that comes byte by byte is waited for without end")
            try:
                dripping.send("a")
                dripping.socket.settimeout(0.1)
                dripping.socket.recv(4096)  # a refusal or the end
                ended = True
            except socket.timeout:
                pass
            except OSError:
                ended = True
        expect_scores(server.invoke(ONE, NPY), 0)


@test(127, "clients that leave: before, within and after the body, before and within the answer; the server lives on and keeps nothing")
def disconnects():
    hour = "3600"  # no timeout tidies up behind the test
    with Server(env={"SMELT_HEAD_TIMEOUT_S": hour, "SMELT_BODY_TIMEOUT_S": hour, "SMELT_IDLE_TIMEOUT_S": hour}) as server:
        many = bodies.npy("|u1", (64, 3, 32, 32), bodies.pixels(0) * 64)
        full = head(f"Content-Type: {NPY}", f"Accept: {NPY}", f"Content-Length: {len(many)}").encode() + many
        server.ping().ok()
        server.invoke(many, NPY).ok()
        descriptors = server.descriptors()
        for round in range(scaled(10, 3, 1)):
            for cut in (0, 1, 30, 80, len(full) // 2, len(full) - 1, len(full)):
                for end in (Connection.close, Connection.reset):
                    end(server.connect().send(full[:cut]))
            for _ in range(10):  # the end arrives together with the last bytes
                server.connect().send(full[:-1]).close()
            reader = server.connect()
            reader.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            reader.send(full).socket.recv(100)
            reader.reset()
            half = server.connect().send(full)
            half.socket.shutdown(socket.SHUT_WR)  # has sent all, may still read: looks the same as one that left
            try:
                expect_equal(len(half.read().rows()), 64, "rows of a half-closed client")
            except Closed:
                pass
            half.close()
        expect_scores(server.invoke(ONE, NPY), 0)
        deadline = time.monotonic() + LIMIT_SECONDS
        while server.descriptors() > descriptors + 1:
            expect(time.monotonic() < deadline, f"{server.descriptors()} descriptors, {descriptors} before")
            time.sleep(0.05)


def parallel(server, count, rounds):
    """count connections at a time, each asking `rounds` times for its image; every answer is the lone client's to the bit."""
    wanted = alone(4)
    connections = [server.connect() for _ in range(count)]
    for round in range(rounds):
        for i, connection in enumerate(connections):
            connection.request("POST", "/invocations", bodies.npy_u8((i + round) % 4), server.headers(NPY, NPY))
        for i, connection in enumerate(connections):
            answer = connection.read().ok(NPY)
            expect(answer.body == wanted[(i + round) % 4], f"connection {i}, round {round}: not the answer that a lone client gets")
    for connection in connections:
        connection.close()


@test(128, "64 connections at a time: every answer equals, to the bit, the one that a lone client gets")
def parallel_64():
    parallel(shared(), 64, scaled(6, 2, 1))


@test("128b", "512 connections at a time; bodies of different kinds and sizes share batches")
def parallel_512():
    server = shared()
    parallel(server, scaled(512, 512, 128), 1)
    wanted = {}
    kinds = [(ONE, NPY), (bodies.csv(1, 2), "text/csv"), (bodies.image_png(3), "image/png"), (bodies.npy_f4(0, 1, 2, 3), NPY), (b"{", "application/json")]
    for i, (body, type) in enumerate(kinds):
        wanted[i] = server.invoke(body, type, NPY)
    connections = [server.connect() for _ in range(100)]
    for i, connection in enumerate(connections):
        body, type = kinds[i % len(kinds)]
        connection.request("POST", "/invocations", body, server.headers(type, NPY))
    for i, connection in enumerate(connections):
        answer = connection.read()
        expect_equal((answer.status, answer.body), (wanted[i % len(kinds)].status, wanted[i % len(kinds)].body), f"mixed request {i}")
        connection.close()


@test(129, "a full queue: 503 or 429 with Retry-After, at once; those that were accepted are answered")
def queue_full():
    with Server(env={"SMELT_QUEUE_MAX": "4", "SMELT_BATCH_MAX": "8"}) as server:
        count = scaled(128, 32, 8)
        body = bodies.npy("|u1", (count, 3, 32, 32), bodies.pixels(0) * count)
        connections = [server.connect() for _ in range(40)]
        for connection in connections:
            connection.request("POST", "/invocations", body, server.headers(NPY, NPY))
        answers = [connection.read() for connection in connections]
        good = [a for a in answers if a.status == 200]
        full = [a for a in answers if a.status != 200]
        expect(len(good) >= 4, f"only {len(good)} of 40 were answered with a queue of 4")
        expect(full, "40 requests fit into a queue of 4")
        for answer in full:
            expect(re.fullmatch(r"\d+", answer.refused(answer.status if answer.status in (429, 503) else 503, "waiting").get("Retry-After") or ""),
                   f"Retry-After of {answer}")
        for answer in good:
            expect_equal(len(answer.rows()), count, "rows")
        for connection in connections:
            connection.close()
        expect_scores(server.invoke(ONE, NPY), 0)


@test("129b", "a request whose deadline passes in the queue is refused, and the queue goes on")
def deadline():
    count = scaled(8000, 1024, 256)
    with Server(env={"SAGEMAKER_MODEL_SERVER_TIMEOUT": "1", "SMELT_THREADS": "1", "SMELT_BATCH_MAX": "64"}) as server:
        body = bodies.npy("|u1", (count, 3, 32, 32), bodies.pixels(0) * count)
        connections = [server.connect() for _ in range(6)]
        for connection in connections:
            connection.request("POST", "/invocations", body, server.headers(NPY, NPY))
        answers = [connection.read() for connection in connections]
        expect({a.status for a in answers} <= {200, 503}, f"statuses {[a.status for a in answers]}")
        expect(any(a.status == 503 for a in answers), "no deadline passed; is this machine so fast?")
        for answer in answers:
            if answer.status == 503:
                answer.refused(503)
        expect_scores(server.invoke(ONE, NPY), 0)


@test(130, "HTTP/1.0 is answered and closed; pipelined requests are answered in order")
def old_and_pipelined():
    server = shared()
    with server.connect() as connection:
        expect_scores(connection.request("POST", "/invocations", ONE, server.headers(NPY), version="1.0", host=None).read(), 0)
        expect(connection.closed(), "an HTTP/1.0 connection stays open")
    with server.connect() as connection:
        for n in (0, 1, 2):
            connection.request("POST", "/invocations", bodies.npy_u8(n), server.headers(NPY))
        connection.request("GET", "/ping")
        connection.request("POST", "/invocations", b"x", server.headers("text/weird"))
        for n in (0, 1, 2):
            expect_scores(connection.read(), n)
        connection.read().ok()
        connection.read().refused(415)
    with server.connect() as connection:
        answer = connection.request("POST", "/invocations", ONE, server.headers(NPY) + [("Connection", "close")]).read()
        expect_equal((answer.get("Connection") or "").lower(), "close", "Connection")
        expect(connection.closed(), "the connection stays open")


@test(131, "large answers have a Content-Length and come whole (the client refuses chunked ones everywhere)")
def whole_answers():
    server = shared()
    count = scaled(512, 64, 16)
    for accept in (NPY, "application/json", "application/jsonlines", "text/csv"):
        expect_equal(len(server.invoke(bodies.npy("|u1", (count, 3, 32, 32), bodies.pixels(1) * count), NPY, accept).rows()), count, accept)


@test(132, "custom attributes come back, up to 1024 characters; what could break a header does not")
def custom_attributes():
    server = shared()
    name = "X-Amzn-SageMaker-Custom-Attributes"
    for value in ("trace=abc-123", "c000b4f9-df62-4c85-a0bf-7c525f9104a4", "x" * 1024, "a=b; c=\"d e\", f"):
        expect_equal(expect_scores(server.invoke(ONE, NPY, NPY, custom_attributes=value), 0).get(name), value, "echo")
    for raw in (b"caf\xc3\xa9", b"a\tb\x01c", b"\x7f", b"x" * 1025, b"\xff\xfe"):
        with server.connect() as connection:
            connection.send(f"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: {NPY}\r\nContent-Length: {len(ONE)}\r\n{name}: ".encode() + raw + b"\r\n\r\n" + ONE)
            answer = connection.read()
            expect(answer.status in (200, 400), f"{raw[:20]!r}: {answer}")
            expect(raw.decode("latin-1") not in (answer.get(name) or ""), f"reflected raw: {answer}")
    with server.connect() as connection:  # an old line folding or an encoded line end makes no header of its own
        connection.send(f"POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: {NPY}\r\nContent-Length: {len(ONE)}\r\n{name}: a%0d%0aEvil: 1\r\n Evil2: 2\r\n\r\n").send(ONE)
        answer = connection.read()
        expect_equal((answer.all("Evil"), answer.all("Evil2")), ([], []), "headers that the client made")


@test("132b", "custom attributes choose: output=, top_k=; a wrong one is 400 by name")
def chosen_by_attributes():
    import math
    server = shared()
    probabilities = server.invoke(ONE, NPY, NPY).rows()[0]
    for word, wanted, tolerance in (("probabilities", probabilities, 0), ("logits", bodies.logits(0), 1e-4),
                                    ("log_probabilities", [math.log(p) for p in bodies.probabilities(0)], 1e-4)):
        row = server.invoke(ONE, NPY, NPY, custom_attributes=f"output={word}").rows()[0]
        off = max(abs(a - b) for a, b in zip(row, wanted))
        expect(off <= tolerance, f"{word}: off by {off}")
    server.invoke(ONE, NPY, custom_attributes="output=odds").refused(400, "odds")
    for word in ("0x5", "-1", "many", "5.5"):
        server.invoke(ONE, NPY, custom_attributes=f"top_k={word}").refused(400, "top_k")


@test(133, "unknown headers are ignored; the inference id is in the access line, and nothing of a body is")
def access_line():
    with Server() as server:
        extra = [("X-Amzn-SageMaker-Target-Variant", "AllTraffic"), ("X-Amzn-SageMaker-Session-Id", "NEW_SESSION"), ("X-Whatever", "1"), ("Cookie", "a=b"),
                 ("X-Amzn-SageMaker-Enable-Explanations", "`[0]>0.8`"), ("Accept-Encoding", "gzip, deflate"), ("User-Agent", "python-urllib3/2")]
        answer = server.request("POST", "/invocations", ONE, server.headers(NPY, inference_id="id-4711") + extra)
        expect_scores(answer, 0)
        at = server.process.wait_line("id-4711")
        line = server.process.events[at][2]
        expect_match(r"\b200\b", line, "access line")
        for word in ("queue", "decode", "infer|predict|compute", "bytes", "images|records"):
            expect_match(word, line, "access line")
        server.invoke(b'{"secret-body-text', "application/json", inference_id="id-4712").refused(400)
        line = server.process.events[server.process.wait_line("id-4712")][2]
        expect_match(r"\b400\b", line, "access line of a refused request")
        with server.connect() as connection:
            connection.send(head(f"Content-Type: {NPY}", "X-Amzn-SageMaker-Inference-Id: x\x1b[2J\xe9 y", f"Content-Length: {len(ONE)}")).send(ONE).read()
        text = server.stop().text
        expect("secret-body-text" not in text, "a body is in the log")
        expect(not re.search(r"[\x00-\x08\x0b-\x1f\x7f]", text), "control characters in the log")


@test("133b", "/metrics: Prometheus text that counts what happened")
def metrics():
    with Server() as server:
        for _ in range(5):
            server.invoke(ONE, NPY).ok()
        server.invoke(b"x", "text/weird").refused(415)
        deadline = time.monotonic() + LIMIT_SECONDS  # a request is counted when its answer has left
        while sum(int(n) for n in re.findall(r"(?m)^smelt_invocations_total.* (\d+)$", server.get("/metrics").text)) < 6:
            expect(time.monotonic() < deadline, "an invocation is never counted")
        answer = server.get("/metrics").ok()
        families, samples = {}, {}
        for line in answer.text.splitlines():
            if line.startswith("# TYPE "):
                _, _, name, kind = line.split(" ")
                expect(name not in families, f"{name} is declared twice")
                families[name] = kind
            elif not line.startswith("#"):
                found = re.fullmatch(r'([a-zA-Z_:][a-zA-Z0-9_:]*)(\{(?:[a-zA-Z_]\w*="(?:[^"\\\n]|\\.)*",?)*\})? (-?[0-9.e+-]+|\+Inf|NaN)', line)
                expect(found, f"line {line!r}")
                expect(any(found[1] == f or (found[1].startswith(f) and k == "histogram") for f, k in families.items()), f"no TYPE for {line!r}")
                samples[found[1] + (found[2] or "")] = float(found[3])
        counts = {status: samples.get(f'smelt_invocations_total{{status="{status}"}}') for status in (200, 415)}
        expect_equal(counts, {200: 5.0, 415: 1.0}, "invocations by status")
        buckets = {}
        for key, value in samples.items():
            if "_bucket{" in key:
                buckets.setdefault(re.sub(r'(,|(?<=\{))le="[^"]*"', "", key).replace("_bucket", "_count", 1).replace("{}", ""), []).append(value)
        expect(buckets, "no histogram")
        for name, counts in buckets.items():
            expect(counts == sorted(counts) and counts[-1] == samples[name], f"{name}: {samples.get(name)}, buckets {counts}")
        expect(any("resident" in name or "memory" in name for name in families), "no memory")


if __name__ == "__main__":
    main()
