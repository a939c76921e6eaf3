"""serve for a long time (contract tests 117, 119, 134 in full): ten minutes of mixed requests without growth, a connection that nobody uses
for 65 s, and 100 000 mutated requests under AddressSanitizer. Environment: SMELT_SOAK_SECONDS (600), SMELT_MUTATIONS (100000)."""

import os
import sys
import threading
import time

os.environ.setdefault("SMELT_TEST_JOBS", "1")
sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(os.path.abspath(__file__))), "http"))
import serve_bodies as bodies
import serve_mutations
import smelt_serve
from smelt_serve import ROOT, Server, expect, expect_scores, main, test

NPY = "application/x-npy"


def clients(server, seconds):
    """Eight clients with every kind of body, good and bad, kept alive and not, some of which leave early."""
    kinds = [(bodies.npy_u8(0), NPY, 200), (bodies.npy_f4(*range(4)), NPY, 200), (bodies.image_png(1), "image/png", 200), (bodies.jpeg("progressive"), "image/jpeg", 200),
             (bodies.csv(0, 1), "text/csv", 200), (bodies.json_lines([list(bodies.pixels(2))]), "application/jsonlines", 200), (b"{", "application/json", 400),
             (b"x", "text/weird", 415), (bodies.npz([("arr_0.npy", bodies.npy_u8(0))], True), "application/x-npz", 200)]
    end, problems, done = time.monotonic() + seconds, [], [0] * 8

    def work(n):
        try:
            while time.monotonic() < end and not problems:
                with server.connect() as connection:
                    for i in range(50):
                        body, type, status = kinds[(n + i) % len(kinds)]
                        connection.request("POST", "/invocations", body, server.headers(type, NPY if i % 2 else None))
                        answer = connection.read()
                        expect(answer.status == status, f"{type}: {answer}")
                        done[n] += 1
                    connection.request("POST", "/invocations", kinds[0][0], server.headers(NPY))
                    if n % 2:
                        connection.reset()  # without waiting for the answer
        except Exception as problem:
            problems.append(problem)

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    expect(not problems, f"{problems[:1]}")
    return sum(done)


@test(117, "a soak of mixed requests: no descriptor and no memory more at its end than after its first tenth")
def soak():
    seconds = float(os.environ.get("SMELT_SOAK_SECONDS", 600))
    with Server(env={"SMELT_ACCESS_LOG": "false"}) as server:
        clients(server, seconds / 10)
        time.sleep(1)
        descriptors, memory = server.descriptors(), server.memory()
        count = clients(server, seconds * 9 / 10)
        time.sleep(1)
        print(f"soak: {count} requests in {seconds * 9 / 10:.0f} s; descriptors {descriptors} -> {server.descriptors()}, resident {memory >> 10} -> {server.memory() >> 10} KB")
        expect(server.descriptors() <= descriptors + 2, f"{server.descriptors()} descriptors, {descriptors} before")
        expect(server.memory() - memory < 4 << 20, f"resident memory grew from {memory} to {server.memory()} bytes")


@test(119, "kept-alive connections that were idle for 65 s are used again, as the platform does; both kinds of request")
def idle():
    with Server() as server, server.connect() as pings, server.connect() as invocations:
        for seconds in (0, 65):
            time.sleep(seconds)
            expect_scores(invocations.request("POST", "/invocations", bodies.npy_u8(0), server.headers(NPY, NPY)).read(), 0)
            pings.request("GET", "/ping").read().ok()


@test(134, "100 000 mutated requests under AddressSanitizer")
def mutations():
    count = int(os.environ.get("SMELT_MUTATIONS", 100000))
    smelt_serve.SERVE = os.path.join(ROOT, "build/asan/bin/serve")
    try:
        with Server(env={"SMELT_PAGE": "on", "SMELT_ACCESS_LOG": "false"}) as server:
            seen = serve_mutations.run(server, count, seed=2)
            print(f"mutations: {dict(sorted(seen.items()))}")
            expect(not seen.get(500), f"statuses {seen}: a mutated request is never our fault")
    finally:
        smelt_serve.SERVE = os.path.join(ROOT, "build/bin/serve")


if __name__ == "__main__":
    main()
