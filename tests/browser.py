"""A real browser for tests of pages: Chromium without a window, driven by its DevTools protocol.

What goes wrong in a page is collected: exceptions, errors on the console, and every request for something that is not
the page itself.
"""

from __future__ import annotations

import asyncio
import base64
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
START = 60
# Seconds between movements of the mouse, which a page takes in frame by frame.
REST = 0.15
# WebGL without a graphics card; root, in containers, has no sandbox.
OPTIONS = (
    "--headless=new", "--no-sandbox", "--disable-gpu-sandbox", "--use-angle=swiftshader", "--enable-unsafe-swiftshader",
    "--remote-debugging-port=0", "--no-first-run", "--disable-background-networking", "--disable-dev-shm-usage",
    "--disable-extensions", "--hide-scrollbars",
)  # fmt: skip


def program() -> str | None:
    """Path of the browser; None if there is none."""
    return next(filter(None, map(shutil.which, NAMES)), None)


class Page:
    """A page that is open.

    problems : exceptions and errors of the page. requests : addresses that it asked for, itself apart.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, socket: Any) -> None:
        self._loop, self._socket, self._number = loop, socket, 0
        self.problems: list[str] = []
        self.requests: list[str] = []
        self._address = ""

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Result of a method of the protocol. Raises RuntimeError if it fails."""
        self._number += 1
        number = self._number
        message = json.dumps({"id": number, "method": method, "params": parameters})
        return self._loop.run_until_complete(asyncio.wait_for(self._answer(number, message), START))

    async def _answer(self, number: int, message: str) -> dict[str, Any]:
        await self._socket.write_message(message)
        while True:
            found = json.loads(await self._socket.read_message())
            if found.get("id") == number:
                if "error" in found:
                    raise RuntimeError(found["error"]["message"])
                return found["result"]
            self._note(found)

    def _note(self, event: dict[str, Any]) -> None:
        what, of = event.get("method"), event.get("params", {})
        if what == "Runtime.exceptionThrown":
            details = of["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description") or details["text"])
        elif what == "Log.entryAdded" and of["entry"]["level"] in ("error", "warning"):
            # What the browser says of its own drawing: without a graphics card it may be slow.
            if of["entry"]["source"] == "rendering":
                return
            self.problems.append(of["entry"]["text"])
        elif what == "Runtime.consoleAPICalled" and of["type"] in ("error", "warning"):
            self.problems.append(" ".join(str(item.get("value", item.get("description"))) for item in of["args"]))
        elif what == "Network.requestWillBeSent":
            address = of["request"]["url"]
            if address != self._address and not address.startswith(("data:", "blob:")):
                self.requests.append(address)

    def open(self, path: Path, *, width: int, height: int, dark: bool = False) -> None:
        """Load a file in a window of so many pixels; what was noted of the page before is forgotten."""
        self._address = path.resolve().as_uri()
        self.problems.clear()
        self.requests.clear()
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 640
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url=self._address)
        self.wait("document.readyState === 'complete'")

    def value(self, expression: str) -> Any:
        """What an expression of the page's language is."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"].get("exception", {}).get("description", "failed"))
        return result["result"].get("value")

    def wait(self, expression: str) -> None:
        """Until an expression is true. Raises TimeoutError."""
        end = time.monotonic() + START
        while not self.value(expression):
            if time.monotonic() > end:
                raise TimeoutError(f"{expression}; {self.problems}")
            time.sleep(0.05)

    def click(self, x: float, y: float) -> None:
        """Go there, rest for a moment as a hand does, and click."""
        for kind in ("mouseMoved", "mousePressed", "mouseReleased"):
            buttons = {} if kind == "mouseMoved" else {"button": "left", "clickCount": 1}
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **buttons)
            time.sleep(REST)

    def drag(self, start: tuple[float, float], end: tuple[float, float]) -> None:
        self.call("Input.dispatchMouseEvent", type="mousePressed", x=start[0], y=start[1], button="left", clickCount=1)
        for part in (0.3, 0.6, 1.0):
            time.sleep(REST)
            place = [a + part * (b - a) for a, b in zip(start, end)]
            self.call("Input.dispatchMouseEvent", type="mouseMoved", x=place[0], y=place[1], button="left", buttons=1)
        time.sleep(REST)
        self.call("Input.dispatchMouseEvent", type="mouseReleased", x=end[0], y=end[1], button="left", clickCount=1)

    def picture(self, path: Path) -> None:
        """A picture of the whole page."""
        size = self.call("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        found = self.call("Page.captureScreenshot", captureBeyondViewport=True, clip=clip)
        path.write_bytes(base64.b64decode(found["data"]))


@contextmanager
def browser() -> Iterator[Page]:
    """A browser with an empty page; it ends with the block."""
    from tornado.websocket import websocket_connect

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        command = [str(program()), *OPTIONS, f"--user-data-dir={folder}", "about:blank"]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        loop = asyncio.new_event_loop()
        try:
            address = loop.run_until_complete(_page_address(Path(folder), process))
            socket = loop.run_until_complete(_connected(websocket_connect, address))
            try:
                yield Page(loop, socket)
            finally:
                socket.close()
                loop.run_until_complete(asyncio.sleep(0.05))
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            loop.close()


@pytest.fixture(scope="session")
def opened() -> Iterator[Page]:
    """One browser for all tests of a process, one after the other."""
    with browser() as page:
        yield page


async def _connected(connect: Any, address: str) -> Any:
    return await connect(address, max_message_size=1 << 28)


async def _page_address(folder: Path, process: subprocess.Popen[bytes]) -> str:
    from tornado.httpclient import AsyncHTTPClient

    end = time.monotonic() + START
    while time.monotonic() < end and process.poll() is None:
        with suppress(OSError, IndexError, StopIteration, ValueError):
            port = int((folder / "DevToolsActivePort").read_text().splitlines()[0])
            answer = await AsyncHTTPClient().fetch(f"http://127.0.0.1:{port}/json/list")
            return next(page["webSocketDebuggerUrl"] for page in json.loads(answer.body) if page["type"] == "page")
        await asyncio.sleep(0.1)
    raise TimeoutError("the browser did not start")
