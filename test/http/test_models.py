"""Contract tests 154, 155: a multi-model endpoint. Method: the platform's calls, on models with 100 and with 10 classes, whose answers
tell them apart; memory read from /proc."""

import json
import threading

import serve_bodies as bodies
from smelt_serve import SANITIZER, Server, expect, expect_equal, expect_match, expect_scores, lay_model, main, test

NPY, JSON = "application/x-npy", "application/json"
ONE = bodies.npy_u8(0)


def multi(**env):
    server = Server(model=None, env={"SAGEMAKER_MULTI_MODEL": "true", **env})
    for name, classes in (("a", 100), ("b", 10), ("c", 100)):
        lay_model(server.path("models", name, "model"), classes=classes)
    return server


def load(server, name, url):
    return server.request("POST", "/models", json.dumps({"model_name": name, "url": url}).encode(), [("Content-Type", JSON)])


def url(server, directory):
    return server.path("models", directory, "model")


@test(154, "load, load again 409, bad ones 4xx, list with pages, get, invoke, delete, 404 afterwards")
def api():
    with multi() as server:
        load(server, "first", url(server, "a")).ok()
        load(server, "second", url(server, "b")).ok()
        load(server, "first", url(server, "a")).refused(409)
        expect_scores(server.invoke(ONE, NPY, NPY, target="/models/first/invoke"), 0)
        expect_equal(len(server.invoke(ONE, NPY, NPY, target="/models/second/invoke").rows()[0]), 10, "classes of the second model")
        expect_scores(server.invoke(bodies.image_png(1), "image/png", JSON, target="/models/first/invoke", target_model="human.tar.gz"), 1)
        expect_equal(server.get("/models/first").ok(JSON).json(), {"modelName": "first", "modelUrl": url(server, "a")}, "GET /models/first")
        server.get("/models/third").refused(404)
        server.invoke(ONE, NPY, target="/models/third/invoke").refused(404)
        server.invoke(b"x", NPY, target="/models/first/invoke").refused(400)
        expect_match("DELETE|GET", server.request("PUT", "/models/first").refused(405).get("Allow"), "Allow")
        expect_equal(server.get("/models/first/invoke").refused(405).get("Allow"), "POST", "Allow")
        everything = server.get("/models").ok(JSON).json()
        expect_equal(sorted(m["modelName"] for m in everything["models"]), ["first", "second"], "GET /models")
        names, token = [], None
        for _ in range(5):
            page = server.get("/models?limit=1" + (f"&next_page_token={token}" if token else "")).ok().json()
            names += [m["modelName"] for m in page["models"]]
            expect_equal(len(page["models"]), 1, "models of a page")
            token = page.get("nextPageToken")
            if not token:
                break
        expect_equal(sorted(names), ["first", "second"], "all pages together")
        server.request("DELETE", "/models/first").ok()
        for answer in (server.request("DELETE", "/models/first"), server.get("/models/first"), server.invoke(ONE, NPY, target="/models/first/invoke")):
            answer.refused(404)
        load(server, "first", url(server, "c")).ok()
        expect_scores(server.invoke(ONE, NPY, NPY, target="/models/first/invoke"), 0)


@test("154b", "requests to load that are wrong: 4xx with a sentence, and nothing is loaded")
def wrong_loads():
    with multi(SMELT_THREADS="1") as server:
        bodies_and_status = [
            (b"", {400}), (b"{", {400}), (b"[]", {400}), (b"{}", {400}), (b'{"model_name":"x"}', {400}), (b'{"url":"/opt/ml/models/x/model"}', {400}),
            (b'{"model_name":5,"url":"/x"}', {400}), (b'{"model_name":"x","url":""}', {400}), (b'{"model_name":"","url":"%s"}' % url(server, "a").encode(), {400}),
            (json.dumps({"model_name": "x", "url": server.path("models/none/model")}).encode(), {400, 404}),
            (json.dumps({"model_name": "x", "url": server.path("models")}).encode(), {400, 404}),
            (json.dumps({"model_name": "x" * 100000, "url": url(server, "a")}).encode(), {400, 413}), (b'{"model_name":"\\u0000","url":"/x"}', {400, 404}),
        ]
        for body, wanted in bodies_and_status:
            answer = server.request("POST", "/models", body, [("Content-Type", JSON)])
            expect(answer.status in wanted, f"{body[:80]!r}: {answer}, wanted {wanted}")
            answer.refused(answer.status)
        expect_equal(server.get("/models").ok().json()["models"], [], "models")
        for query in ("?limit=0", "?limit=x", "?limit=-1", "?limit=99999999999999999999"):
            server.get("/models" + query).refused(400, "limit")
        expect_equal(server.get("/models?next_page_token=nobody").ok().json()["models"], [], "models after the last")


@test("154c", "the memory cap: one more is 507 and loads after another was deleted")
def memory_cap():
    with multi(SMELT_MEMORY_MAX_MB="150") as server:
        load(server, "one", url(server, "a")).ok()
        refused = 0
        for name in ("two", "three", "four"):
            answer = load(server, name, url(server, "c"))
            if answer.status == 507:
                answer.refused(507, "memory|MB")
                refused += 1
            else:
                answer.ok()
        expect(refused >= 1, "four models of 40 MB and more fit into 150 MB")
        expect_scores(server.invoke(ONE, NPY, NPY, target="/models/one/invoke"), 0)
        server.request("DELETE", "/models/one").ok()
        load(server, "four", url(server, "c")).ok()
        expect_scores(server.invoke(ONE, NPY, NPY, target="/models/four/invoke"), 0)


@test("154d", "delete gives the memory back before it answers; fifty loads and deletes leave nothing behind")
def memory_returns():
    with multi() as server:
        load(server, "warm", url(server, "a")).ok()
        server.invoke(ONE, NPY, target="/models/warm/invoke").ok()
        server.request("DELETE", "/models/warm").ok()
        before, descriptors = server.memory(), server.descriptors()
        rounds = 3 if SANITIZER else 50
        for i in range(rounds):
            load(server, f"m{i}", url(server, "a")).ok()
            if i == 0 and not SANITIZER:
                expect(server.memory() - before > 20 << 20, "a loaded model takes no memory?")
            server.invoke(ONE, NPY, target=f"/models/m{i}/invoke").ok()
            server.request("DELETE", f"/models/m{i}").ok()
            if not SANITIZER:
                grown = server.memory() - before
                expect(grown < 16 << 20, f"grown by {grown} bytes after {i + 1} deletes")
        expect(server.descriptors() <= descriptors + 2, f"{server.descriptors()} descriptors, {descriptors} before")


@test(155, "/ping is 200 with no model; names are opaque: 64 hex digits, dots, percent-encoding; a missing directory is 4xx")
def opaque():
    with multi(SMELT_THREADS="1") as server:
        server.ping().ok()
        expect_equal(server.get("/models").ok().json()["models"], [], "models at first")
        answer = server.invoke(ONE, NPY)
        expect(400 <= answer.status < 500, f"/invocations without a model name: {answer}")
        for name, path in (("0123456789abcdef" * 4, None), ("a.b-c_d", None), ("with space/slash", "with%20space%2Fslash")):
            load(server, name, url(server, "b")).ok()
            expect_equal(len(server.invoke(ONE, NPY, NPY, target=f"/models/{path or name}/invoke").rows()[0]), 10, f"classes of {name!r}")
            expect_equal(server.get(f"/models/{path or name}").ok().json()["modelName"], name, "name")
            server.request("DELETE", f"/models/{path or name}").ok()
        answer = load(server, "x", server.path("models/absent/model"))
        expect(answer.status in (400, 404), f"a missing directory: {answer}")
        server.ping().ok()


@test("155b", "loading, deleting and invoking side by side: every answer is right or 404, 409; the process lives")
def side_by_side():
    with multi() as server:
        load(server, "stays", url(server, "a")).ok()
        problems, done = [], threading.Event()

        def guard(work):
            try:
                work()
            except Exception as problem:
                problems.append(problem)

        def invoke(name, classes):
            def work():
                while not done.is_set():
                    answer = server.invoke(ONE, NPY, NPY, target=f"/models/{name}/invoke")
                    if name == "stays" or answer.status == 200:
                        expect_equal(len(answer.rows()[0]), classes, f"classes of {name}")
                    else:
                        answer.refused(404)
            return work

        def churn():
            for _ in range(2 if SANITIZER else 8):
                answer = load(server, "comes", url(server, "b"))
                expect(answer.status in (200, 409), f"load: {answer}")
                answer = server.request("DELETE", "/models/comes")
                expect(answer.status in (200, 404), f"delete: {answer}")

        workers = [threading.Thread(target=guard, args=(w,)) for w in (invoke("stays", 100), invoke("comes", 10), invoke("comes", 10), invoke("stays", 100))]
        churners = [threading.Thread(target=guard, args=(churn,)) for _ in range(2)]
        for thread in workers + churners:
            thread.start()
        for thread in churners:
            thread.join()
        done.set()
        for thread in workers:
            thread.join()
        expect(not problems, f"{len(problems)} problems, the first: {problems[:1]}")
        expect_scores(server.invoke(ONE, NPY, NPY, target="/models/stays/invoke"), 0)


@test("155c", "outside of a multi-model endpoint there is no /models")
def single():
    with Server(env={"SMELT_THREADS": "1"}) as server:
        for method, target in (("GET", "/models"), ("POST", "/models"), ("GET", "/models/model"), ("POST", "/models/model/invoke"), ("DELETE", "/models/model")):
            server.request(method, target, b"" if method != "POST" else b"{}").refused(404)


if __name__ == "__main__":
    main()
