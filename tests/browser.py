"""A browser without a window, driven through the WebDriver protocol of chromedriver."""

import json
import re
import shutil
import subprocess
from contextlib import contextmanager
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage")
TIMEOUT = 60  # seconds, of one command
# Two frames later, what an event has changed is on the page.
SETTLE = """
const done = arguments[arguments.length - 1];
requestAnimationFrame(() => requestAnimationFrame(() => done()));
"""


def what_is_missing():
    """Say which program the tests need and is not installed; an empty text if all are."""
    if not any(map(shutil.which, BROWSERS)):
        return "no Chromium is installed"
    return "" if shutil.which("chromedriver") else "no chromedriver is installed"


class DriverError(Exception):
    """An error that the driver reports."""


class Browser:
    """Open pages, point, type and read what the page shows."""

    def __init__(self, port):
        self._open = build_opener(ProxyHandler({})).open
        self._base = f"http://127.0.0.1:{port}"
        binary = next(filter(None, map(shutil.which, BROWSERS)))
        options = {"binary": binary, "args": OPTIONS}
        asked = {
            "goog:chromeOptions": options,
            "goog:loggingPrefs": {"browser": "ALL"},
            "timeouts": {"script": 1000 * (TIMEOUT - 10)},
        }
        session = self._call("POST", "/session", capabilities={"alwaysMatch": asked})
        self._base += f"/session/{session['sessionId']}"

    def _call(self, method, path, **data):
        """Send a command and return its value."""
        body = json.dumps(data).encode() if method == "POST" else None
        request = Request(self._base + path, body, {"Content-Type": "application/json"})
        request.method = method
        try:
            with self._open(request, timeout=TIMEOUT) as answer:
                return json.load(answer)["value"]
        except HTTPError as e:
            raise DriverError(json.load(e)["value"]["message"]) from e

    def close(self):
        """End the browser."""
        self._call("DELETE", "")

    def open(self, url):
        """Open a page and forget what earlier ones have logged."""
        self._call("POST", "/url", url=url)
        self._call("POST", "/se/log", type="browser")
        self.settle()

    def run(self, script, *args):
        """Return what a script returns."""
        return self._call("POST", "/execute/sync", script=script, args=args)

    def run_async(self, script):
        """Return what a script hands to the function that is its last argument."""
        return self._call("POST", "/execute/async", script=script, args=[])

    def settle(self):
        """Wait until the page shows what it was told."""
        self.run_async(SETTLE)

    def devtools(self, command, **parameters):
        """Send a command of the browser's own tools."""
        self._call("POST", "/goog/cdp/execute", cmd=command, params=parameters)

    def logged(self):
        """Return what the page has logged, errors among it."""
        return [entry["message"] for entry in self._call("POST", "/se/log", type="browser")]

    def text(self, selector):
        """Return the text of the first element that a selector finds."""
        return self.run("return document.querySelector(arguments[0]).textContent", selector)

    def box(self, selector):
        """Return where the first element that a selector finds is in the window."""
        script = "return document.querySelector(arguments[0]).getBoundingClientRect().toJSON()"
        return self.run(script, selector)

    def press(self, selector, *keys):
        """Put the focus on an element and press keys, some of which hold others down."""
        self.run("document.querySelector(arguments[0]).focus()", selector)
        actions = [{"type": "keyDown", "value": key} for key in keys]
        actions += [{"type": "keyUp", "value": key} for key in reversed(keys)]
        self._act({"type": "key", "id": "keyboard", "actions": actions})

    def stroke(self, points, pointer="mouse"):
        """Press a mouse, pen or finger down at the first of some points, (x, y), move and lift."""
        moves = [
            {"type": "pointerMove", "duration": 0, "x": round(x), "y": round(y)} for x, y in points
        ]
        down, up = ({"type": f"pointer{what}", "button": 0} for what in ("Down", "Up"))
        actions = [moves[0], down, *moves[1:], up]
        kind = {"pointerType": pointer}
        self._act({"type": "pointer", "id": pointer, "parameters": kind, "actions": actions})

    def _act(self, action):
        """Let one device act, then let go of it."""
        self._call("POST", "/actions", actions=[action])
        self._call("DELETE", "/actions")
        self.settle()


def port_of(driver):
    """Return the port that a driver says it listens on."""
    told = ""
    for line in driver.stdout:
        told += line
        if found := re.search(r"successfully on port (\d+)", line):
            return found[1]
    raise DriverError(f"it ended at once: {told}")


@contextmanager
def browser():
    """Give a browser, and end it and its driver afterwards."""
    command = ["chromedriver", "--port=0"]
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    try:
        page = Browser(port_of(driver))
        try:
            yield page
        finally:
            page.close()
    finally:
        driver.terminate()
        driver.wait(TIMEOUT)
        driver.stdout.close()
