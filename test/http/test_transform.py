"""Contract tests 150-153: a batch transform job. Method: the environment of the platform, and line-wise bodies with bad lines among good."""

import json

import serve_bodies as bodies
from smelt_serve import SANITIZER, Server, expect, expect_equal, expect_match, main, shared, test

CSV, LINES, NPY = "text/csv", "application/jsonlines", "application/x-npy"


@test(150, "SAGEMAKER_BATCH=true and True: /execution-parameters is JSON of whole numbers whose product is at most 100; else it is that or 404")
def execution_parameters():
    for word in ("true", "True"):
        with Server(env={"SAGEMAKER_BATCH": word, "SMELT_THREADS": "1"}) as server:
            answer = server.get("/execution-parameters").ok("application/json").json()
            transforms, payload = answer["MaxConcurrentTransforms"], answer["MaxPayloadInMB"]
            expect(type(transforms) is int and type(payload) is int and transforms >= 1 and payload >= 1, f"{answer}")
            expect(transforms * payload <= 100, f"{answer}")
            expect_equal(sorted(answer), ["MaxConcurrentTransforms", "MaxPayloadInMB"], "keys (151: a BatchStrategy would break the SDK's local transform)")
            server.request("POST", "/execution-parameters").refused(405)
    answer = shared().get("/execution-parameters")
    expect(answer.status in (200, 404), f"without SAGEMAKER_BATCH: {answer}")


@test(151, "what the platform set for the job is what /execution-parameters says")
def told():
    with Server(env={"SAGEMAKER_BATCH": "true", "SAGEMAKER_MAX_PAYLOAD_IN_MB": "2", "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "3",
                     "SAGEMAKER_BATCH_STRATEGY": "MULTI_RECORD", "SMELT_THREADS": "1"}) as server:
        answer = server.get("/execution-parameters").ok().json()
        expect_equal((answer["MaxConcurrentTransforms"], answer["MaxPayloadInMB"]), (3, 2), "answer")


@test(152, "a body of many CSV lines: as many lines out, in order; none is blank, the last has no newline")
def many_lines():
    count = 400 if SANITIZER else 10000
    each = [bodies.csv(n) for n in range(4)]
    with Server(env={"SAGEMAKER_BATCH": "true", "SAGEMAKER_MAX_PAYLOAD_IN_MB": "0"}) as server:
        wanted = server.invoke(b"\n".join(each), CSV, CSV).ok(CSV).text.split("\n")
        for what, end in (("no newline at the end", b""), ("a newline at the end", b"\n")):
            text = server.invoke(b"\n".join(each[i % 4] for i in range(count)) + end, CSV, CSV).ok(CSV).text
            found = text.split("\n")
            expect_equal(len(found), count, f"{what}: lines out")
            expect(all(found[i] == wanted[i % 4] for i in range(count)), f"{what}: lines in another order, or other answers")
            count = min(count, 40)
        answer = server.invoke(each[0], CSV).ok()
        expect_equal(answer.type, LINES, "default for lines in a batch transform")


@test("152b", "a bad line gives a placeholder in its place; the others are answered; without SAGEMAKER_BATCH the body is refused")
def placeholders():
    good = bodies.csv(0).decode()
    text = "\n".join([good, "1,2,3", good, "", "x" * 100, bodies.csv(1).decode()]).encode()
    with Server(env={"SAGEMAKER_BATCH": "true", "SMELT_THREADS": "1"}) as server:
        rows = [json.loads(line) for line in server.invoke(text, CSV, LINES).ok(LINES).text.split("\n")]
        expect(len(rows) in (5, 6), f"{len(rows)} lines out for 5 records and a blank line between them")
        bad = [i for i, row in enumerate(rows) if isinstance(row, dict)]
        expect_equal(bad, [1, 3] if len(rows) == 5 else [1, 3, 4], "places of placeholders")
        expect_match("3 .*3072|3072", rows[1]["error"], "placeholder")
        off = max(abs(a - b) for a, b in zip(rows[-1], bodies.probabilities(1)))
        expect(off <= 1e-4, f"the line after a bad one: off by {off}")
        lines = [json.dumps(list(bodies.pixels(2))), "{", json.dumps([1, 2]), json.dumps({"image": bodies.b64(bodies.image_png(3))})]
        rows = [json.loads(line) for line in server.invoke("\n".join(lines).encode(), LINES, LINES).ok(LINES).text.split("\n")]
        expect_equal([isinstance(row, dict) for row in rows], [False, True, True, False], "placeholders of JSON Lines")
        answer = server.invoke(text, CSV, CSV).ok(CSV)
        expect_equal(len(answer.text.split("\n")), len(bad) + 3, "CSV lines")
        answer = server.invoke(b"", CSV)
        expect(answer.status in (200, 204) and not answer.body, f"an empty body in a batch transform: {answer}")
    shared().invoke(text, CSV).refused(400, "line 2")


@test(153, "SAGEMAKER_MAX_PAYLOAD_IN_MB raises the limit; 0 is no limit, with chunked bodies")
def payload():
    for value, count in (("40", 30 << 20), ("0", 30 << 20)):
        with Server(env={"SAGEMAKER_BATCH": "true", "SAGEMAKER_MAX_PAYLOAD_IN_MB": value, "SMELT_BATCH_MAX": "8", "SMELT_THREADS": "1"}) as server:
            body = b"x" * count  # not an image: refused for what it is, not for its size
            expect_equal(server.invoke(body, "application/json").status, 400, f"30 MB with {value}")
            with server.connect() as connection:
                connection.send("POST /invocations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n")
                for i in range(0, count, 1 << 20):
                    connection.send(b"100000\r\n" + body[i:i + (1 << 20)] + b"\r\n")
                expect_equal(connection.send(b"0\r\n\r\n").read().status, 400, f"30 MB in chunks with {value}")


if __name__ == "__main__":
    main()
