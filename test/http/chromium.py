"""chromium: a headless Chromium, driven over its DevTools socket with Python's standard library."""

import base64
import json
import os
import shutil
import socket
import subprocess
import tempfile
import time
import urllib.request

from smelt_serve import LIMIT_SECONDS, Skip, expect


class WebSocket:
    """As much of RFC 6455 as a client needs: whole text messages."""

    def __init__(self, url):
        host, path = url.split("://")[1].split("/", 1)
        name, port = host.split(":")
        self.socket = socket.create_connection((name, int(port)), LIMIT_SECONDS)
        key = base64.b64encode(os.urandom(16)).decode()
        self.socket.sendall((f"GET /{path} HTTP/1.1\r\nHost: {host}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: {key}\r\n"
                             "Sec-WebSocket-Version: 13\r\n\r\n").encode())
        self.rest = b""
        while b"\r\n\r\n" not in self.rest:
            self.rest += self.socket.recv(4096)
        head, self.rest = self.rest.split(b"\r\n\r\n", 1)
        expect(b" 101 " in head, f"no WebSocket: {head!r}")

    def send(self, text):
        data = text.encode()
        length = bytes([len(data) | 0x80]) if len(data) < 126 else (b"\xfe" + len(data).to_bytes(2, "big") if len(data) < 65536 else b"\xff" + len(data).to_bytes(8, "big"))
        self.socket.sendall(b"\x81" + length + b"\0\0\0\0" + data)  # masked with zeros

    def _take(self, count):
        while len(self.rest) < count:
            more = self.socket.recv(1 << 16)
            expect(more, "Chromium closed its socket")
            self.rest += more
        taken, self.rest = self.rest[:count], self.rest[count:]
        return taken

    def receive(self):
        text = b""
        while True:
            first, length = self._take(2)
            length &= 0x7F
            if length > 125:
                length = int.from_bytes(self._take(2 if length == 126 else 8), "big")
            data = self._take(length)
            if first & 0x0F in (0, 1):
                text += data
                if first & 0x80:
                    return text.decode()


class Browser:
    def __init__(self):
        program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
        if program is None:
            raise Skip("Chromium is not installed")
        self.profile = tempfile.mkdtemp(prefix="smelt-chromium-")
        self.process = subprocess.Popen(
            [program, "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync", "--hide-scrollbars", "--window-size=1100,1000", "--remote-debugging-port=0",
             "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", f"--user-data-dir={self.profile}", "about:blank"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env={**os.environ, "HOME": self.profile})
        self.number, self.events = 0, []
        deadline = time.monotonic() + LIMIT_SECONDS
        port = os.path.join(self.profile, "DevToolsActivePort")
        while not os.path.exists(port) or open(port).read().count("\n") < 1:
            if self.process.poll() is not None:
                self.close()
                raise Skip(f"Chromium does not run here (exit {self.process.returncode})")
            expect(time.monotonic() < deadline, "Chromium does not start")
            time.sleep(0.05)
        targets = json.load(urllib.request.urlopen(f"http://127.0.0.1:{open(port).read().split()[0]}/json/list", timeout=LIMIT_SECONDS))
        self.socket = WebSocket(next(t for t in targets if t["type"] == "page")["webSocketDebuggerUrl"])
        for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
            self.call(domain + ".enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.profile, ignore_errors=True)

    def call(self, method, **params):
        self.number += 1
        self.socket.send(json.dumps({"id": self.number, "method": method, "params": params}))
        while True:
            message = json.loads(self.socket.receive())
            if message.get("id") == self.number:
                expect("error" not in message, f"{method}: {message.get('error')}")
                return message["result"]
            self.events.append(message)

    def run(self, script):
        """The value of a JavaScript expression (a promise is waited for)."""
        result = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        expect("exceptionDetails" not in result, f"{script}: {result.get('exceptionDetails')}")
        return result["result"].get("value")

    def wait(self, script, what):
        deadline = time.monotonic() + LIMIT_SECONDS
        while not self.run(script):
            expect(time.monotonic() < deadline, f"{what}: never; the page says {self.run('document.body.innerText')!r}")
            time.sleep(0.05)

    def screenshot(self, path):
        os.makedirs(os.path.dirname(path), exist_ok=True)
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        shot = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip={"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1})
        with open(path, "wb") as file:
            file.write(base64.b64decode(shot["data"]))

    def seen(self, method):
        return [event["params"] for event in self.events if event["method"] == method]
