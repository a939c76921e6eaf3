"""The page at / (issue 4; not on the contract's list: numbered p1 …). Method: the real page in a headless Chromium that can reach nothing but
127.0.0.1; pictures come by the file field, by drop and by paste. Screenshots are left in build/page to be looked at."""

import base64
import json
import os
import tempfile
import time

import serve_bodies as bodies
from chromium import Browser
from smelt_serve import ROOT, Server, expect, expect_equal, expect_match, main, model_files, test

SHOTS = os.path.join(ROOT, "build/page")


def best(n):
    return max(range(100), key=lambda k: bodies.probabilities(n)[k])


@test("p1", "its two endpoints: status as JSON, a picture classified with the crop that the network saw; off by environment")
def endpoints():
    with Server(env={"SMELT_PAGE": "on"}) as server:
        page = server.get("/").ok()
        expect(len(page.body) < 30000, f"a page of {len(page.body)} bytes")
        for outside in ("http://", "https://", "//cdn", "@import", "src=\"/", "integrity="):
            found = page.text.replace("xmlns='http://www.w3.org/2000/svg'", "")
            expect(outside not in found, f"the page names something outside: {outside}")
        status = server.get("/page/status").ok("application/json").json()
        expect_equal(status["state"], "ready", "state")
        expect_equal((status["model"]["architecture"], status["model"]["classes"]), ("resnet34", 100), "model")
        answer = server.request("POST", "/page/classify", bodies.image_png(2)).ok("application/json").json()
        expect_equal(answer["predictions"][0]["index"], best(2), "best guess")
        expect_equal(len(answer["predictions"]), 5, "guesses")
        crop = base64.b64decode(answer["crop"])
        again = server.invoke(crop, "image/png", "application/x-npy").ok().body
        expect(again == server.invoke(bodies.image_png(2), "image/png", "application/x-npy").body, "the crop is not what the network saw")
        server.request("POST", "/page/classify", b"no picture").refused(400)
        server.request("POST", "/page/classify", b"").refused(400)
        server.get("/page/classify").refused(405)
    for env in ({"SMELT_PAGE": "off"}, {"SMELT_PAGE": "auto", "SAGEMAKER_BATCH": "true"}):
        with Server(env={"SMELT_THREADS": "1", **env}) as server:
            for target in ("/", "/page/status", "/page/classify"):
                server.get(target).refused(404)


GIVE = """(async () => {
	const bytes = Uint8Array.from(atob("%s"), c => c.charCodeAt(0)), data = new DataTransfer();
	data.items.add(new File([bytes], "%s", {type: "%s"}));
	%s;
})()"""


def give(browser, data, name, type, how):
    event = {"drop": 'document.body.dispatchEvent(new DragEvent("drop", {dataTransfer: data, bubbles: true, cancelable: true}))',
             "paste": 'document.body.dispatchEvent(new ClipboardEvent("paste", {clipboardData: data, bubbles: true}))'}[how]
    browser.run(GIVE % (bodies.b64(data), name, type, event))


def wait_label(browser, n):
    with open(os.path.join(model_files(), "model.json")) as file:
        label = json.load(file)["class_names"][best(n)].replace("_", " ")
    browser.wait(f'document.querySelectorAll("#guesses li").length === 5 && document.querySelector("#guesses b").textContent === {label!r}', f"the label {label!r}")


@test("p2", "in a browser: loads, shows state and model; pictures by file, drop and paste; errors; keyboard; dark; nothing leaves the host")
def in_browser():
    with Server(env={"SMELT_PAGE": "on"}) as server, Browser() as browser, tempfile.TemporaryDirectory() as folder:
        origin = f"http://127.0.0.1:{server.port}/"
        browser.call("Page.navigate", url=origin)
        browser.wait('document.getElementById("state") && document.getElementById("state").dataset.state === "ready"', "the state ready")
        browser.screenshot(os.path.join(SHOTS, "empty.png"))
        expect_match("resnet34", browser.run('document.getElementById("card").innerText'), "the model's card")

        picture = os.path.join(folder, "picture.png")
        with open(picture, "wb") as file:
            file.write(bodies.image_png(0))
        node = browser.call("DOM.querySelector", nodeId=browser.call("DOM.getDocument")["root"]["nodeId"], selector="#file")["nodeId"]
        browser.call("DOM.setFileInputFiles", nodeId=node, files=[picture])
        wait_label(browser, 0)
        give(browser, bodies.image_png(1), "x.png", "image/png", "drop")
        wait_label(browser, 1)
        give(browser, bodies.bmp(2), "x.bmp", "image/bmp", "paste")
        wait_label(browser, 2)
        give(browser, b"GIF89a\1\0\1\0\x80\0\0\xff\0\0\0\0\0,\0\0\0\0\1\0\1\0\0\2\2D\1\0;", "x.gif", "image/gif", "drop")  # drawn by the browser
        browser.wait('/1 × 1|32 × 32/.test(document.getElementById("note").textContent) && document.querySelector("#guesses b").textContent !== ""', "a GIF's answer")
        browser.wait('document.querySelector("#drop img").naturalWidth === 32', "the crop")
        give(browser, bodies.picture_png(), "x.png", "image/png", "drop")
        wait_label(browser, "picture")
        expect_equal(browser.run('getComputedStyle(document.querySelector("#drop img")).imageRendering'), "pixelated", "how the crop is drawn")
        expect(browser.run('(r => Math.abs(r.width - r.height) < 2)(document.querySelector("#drop img").getBoundingClientRect())'), "the crop is not square")
        total = browser.run('[...document.querySelectorAll("#guesses span")].map(s => parseFloat(s.textContent)).reduce((a, b) => a + b)')
        expect(0 < total <= 100.1, f"percentages that add up to {total}")
        for _ in range(50):
            server.invoke(bodies.npy_u8(0), "application/x-npy").ok()
        browser.wait('parseFloat(document.querySelector("#figures dd").textContent) > 0', "requests a second")
        time.sleep(0.5)  # the bars move for a third of a second; only the screenshot waits for them
        browser.screenshot(os.path.join(SHOTS, "light.png"))
        browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
        browser.screenshot(os.path.join(SHOTS, "dark.png"))
        expect(browser.run('getComputedStyle(document.body).backgroundColor') != "rgb(250, 248, 245)", "dark is as light")
        browser.call("Emulation.setDeviceMetricsOverride", width=390, height=844, deviceScaleFactor=1, mobile=True)
        expect(browser.run("document.documentElement.scrollWidth <= 390"), "the page is wider than a telephone")
        browser.screenshot(os.path.join(SHOTS, "narrow.png"))
        browser.call("Emulation.clearDeviceMetricsOverride")

        give(browser, b"no picture at all", "x.txt", "text/plain", "drop")
        browser.wait('document.getElementById("note").classList.contains("bad")', "an error for a text file")

        browser.call("Page.setInterceptFileChooserDialog", enabled=True)
        browser.run('document.getElementById("drop").focus()')
        for kind in ("keyDown", "keyUp"):
            browser.call("Input.dispatchKeyEvent", type=kind, key="Enter", code="Enter", windowsVirtualKeyCode=13, text="\r" if kind == "keyDown" else "")
        browser.wait("true", "")
        expect(browser.seen("Page.fileChooserOpened"), "Enter on the field does not open the file chooser")

        problems = [p for p in browser.seen("Log.entryAdded") if p["entry"]["level"] == "error" and "400" not in p["entry"]["text"]]
        expect(not problems and not browser.seen("Runtime.exceptionThrown"), f"errors in the console: {problems} {browser.seen('Runtime.exceptionThrown')}")
        urls = {p["request"]["url"] for p in browser.seen("Network.requestWillBeSent")}
        outside = [u for u in urls if not u.startswith((origin, "data:", "blob:"))]
        expect(not outside, f"requests that leave the host: {outside}")
        expect(origin + "page/status" in urls and origin + "page/classify" in urls, f"requests {urls}")
        server.terminate()
        browser.wait('document.getElementById("state").dataset.state === "away"', "the state away")
        server.finish(0)


if __name__ == "__main__":
    main()
