"""Drive a real chromium from Python with what is installed anyway: tornado and the browser's own
DevTools protocol. For checking pages, not for use on the open web.

    with Browser(find()) as browser:
        browser.goto("file:///.../index.html")
        browser.evaluate("document.title")
        browser.errors
"""

import asyncio
import base64
import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

from tornado.websocket import websocket_connect

FLAGS = """--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-sync
--disable-background-networking --disable-component-update --disable-dev-shm-usage
--remote-debugging-port=0 --remote-allow-origins=* --hide-scrollbars""".split()
START = 60  # seconds; a busy machine is slow to start a browser


def find() -> str | None:
    """A chromium or chrome on this machine, or None."""
    named = os.environ.get("BROWSER", "")
    names = (named, "chromium", "chromium-browser", "google-chrome")
    return next((found for name in names if name and (found := shutil.which(name))), None)


class Browser:
    """One headless browser with one page. Close it, or use it in a `with`."""

    def __init__(self, binary: str):
        self.profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        command = [binary, *FLAGS, f"--user-data-dir={self.profile.name}", "about:blank"]
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.process = subprocess.Popen(command, **quiet)
        self.loop, self.count, self.events = asyncio.new_event_loop(), 0, []
        try:
            self._connect()
        except BaseException:
            self.close()
            raise

    def _connect(self) -> None:
        place, until = Path(self.profile.name) / "DevToolsActivePort", time.monotonic() + START
        while not (place.exists() and place.read_text().count("\n")):
            if time.monotonic() > until or self.process.poll() is not None:
                raise RuntimeError("the browser did not start")
            time.sleep(0.1)
        port, path = place.read_text().split("\n")[:2]
        url = f"ws://127.0.0.1:{port}{path}"
        self.socket = self._wait(lambda: websocket_connect(url, max_message_size=1 << 28), START)
        self.session = None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        attached = self.send("Target.attachToTarget", targetId=target, flatten=True)
        self.session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        self.process.terminate()
        self.process.wait()
        self.loop.close()
        self.profile.cleanup()

    def _wait(self, start, seconds: float):
        """The result of something that must be started while the loop runs."""

        async def run():
            return await asyncio.wait_for(start(), seconds)

        return self.loop.run_until_complete(run())

    def send(self, method: str, seconds: float = 60, **parameters) -> dict:
        """One command of the protocol and its result; what happens meanwhile goes to `events`."""
        self.count += 1
        message = {"id": self.count, "method": method, "params": parameters}
        message |= {"sessionId": self.session} if self.session else {}
        self._wait(lambda: self.socket.write_message(json.dumps(message)), seconds)
        while (answer := self._read(seconds)).get("id") != self.count:
            self.events.append(answer)
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    def _read(self, seconds: float) -> dict:
        text = self._wait(self.socket.read_message, seconds)
        if text is None:
            raise RuntimeError("the browser has gone")
        return json.loads(text)

    def evaluate(self, expression: str):
        """The value of a JavaScript expression (promises are awaited). Errors are raised."""
        found = self.send(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in found:
            raise RuntimeError(_told(found["exceptionDetails"]))
        return found["result"].get("value")

    def goto(self, url: str) -> None:
        """Open a page and wait until it has loaded."""
        self.events.clear()
        self.send("Page.navigate", url=url)
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            self.events.append(self._read(60))

    def wait_for(self, expression: str, seconds: float = 60) -> None:
        """Wait until a JavaScript expression is true; TimeoutError tells what was waited for."""
        until = time.monotonic() + seconds
        while not self.evaluate(f"!!({expression})"):
            if time.monotonic() > until:
                raise TimeoutError(f"never true: {expression}")
            time.sleep(0.1)

    def view(self, width: int, height: int, dark: bool = False) -> None:
        """The size of the window in CSS pixels, and whether the system prefers dark pages."""
        size = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def click(self, expression: str) -> None:
        """A real click into the middle of the element that a JavaScript expression names."""
        box = self.evaluate(
            f"(e => {{ e.scrollIntoView({{block: 'center'}}); const b = e.getBoundingClientRect();"
            f" return [b.x + b.width / 2, b.y + b.height / 2] }})({expression})"
        )
        for kind in ("mousePressed", "mouseReleased"):
            place = {"x": box[0], "y": box[1], "button": "left", "clickCount": 1}
            self.send("Input.dispatchMouseEvent", type=kind, **place)

    def press(self, key: str, code: int = 0) -> None:
        """A key as a person would press it: a letter, or a named key with its key code."""
        text = {"text": key} if len(key) == 1 else {"windowsVirtualKeyCode": code}
        self.send("Input.dispatchKeyEvent", type="keyDown", key=key, **text)
        self.send("Input.dispatchKeyEvent", type="keyUp", key=key, **text)

    def screenshot(self, path: Path) -> None:
        data = self.send("Page.captureScreenshot")["data"]
        Path(path).write_bytes(base64.b64decode(data))

    @property
    def errors(self) -> list[str]:
        """What the page complained about since `goto`: exceptions, console errors, failed loads."""
        self.evaluate("0")  # so that everything said until now has arrived
        return [told for event in self.events if (told := _complaint(event))]


def _complaint(event: dict) -> str:
    kind, what = event.get("method"), event.get("params", {})
    if kind == "Runtime.exceptionThrown":
        return _told(what["exceptionDetails"])
    if kind == "Runtime.consoleAPICalled" and what["type"] in ("error", "assert"):
        return " ".join(str(a.get("value", a.get("description", ""))) for a in what["args"])
    if kind == "Log.entryAdded" and what["entry"]["level"] == "error":
        return f"{what['entry']['text']} {what['entry'].get('url', '')}".strip()
    return ""


def _told(details: dict) -> str:
    return details.get("exception", {}).get("description") or details["text"]
