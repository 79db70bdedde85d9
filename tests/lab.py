"""A JupyterLab server in a process of its own, with notebooks for the browser of the tests."""

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from importlib.util import find_spec
from urllib.request import ProxyHandler, Request, build_opener

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

from tools.notebooks import environment

START, RUN, END = 90, 120, 20  # seconds that a server, a cell and the end may take
OPTIONS = (
    "--no-browser",
    "--allow-root",
    "--ip=127.0.0.1",
    "--port=0",
    "--ServerApp.port_retries=0",
    "--IdentityProvider.token=drawn",
    "--LabApp.expose_app_in_browser=True",
    "--FileContentsManager.use_atomic_writing=False",
)


def what_is_missing():
    """Say which package the tests need and is not installed; an empty text if all are."""
    for name in ("jupyterlab", "anywidget"):
        if find_spec(name) is None:
            return f"{name} is not installed"
    return ""


def wait_for(seconds, what, call):
    """Return what a call returns as soon as that is true; AssertionError after some seconds."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := call():
            return found
        time.sleep(0.1)
    raise AssertionError(f"waited {seconds} s for {what}")


def folders(home):
    """Return the variables that keep Jupyter away from the settings of whoever runs the tests."""
    names = ("JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR", "IPYTHONDIR")
    own = {name: str(home / name.lower()) for name in names}
    own["JUPYTERLAB_SETTINGS_DIR"] = str(home / "settings")
    return own | {"JUPYTER_PREFER_ENV_PATH": "1", "JUPYTER_NO_CONFIG": "1", "OMP_NUM_THREADS": "1"}


class Lab:
    """A server, and where its notebooks are."""

    def __init__(self, home):
        self.home = home
        self.folder = home / "notebooks"
        self.folder.mkdir()
        # It would ask whether to fetch news.
        settings = home / "settings/@jupyterlab/apputils-extension/notification.jupyterlab-settings"
        settings.parent.mkdir(parents=True)
        settings.write_text('{"fetchNews": "false", "checkForUpdates": false}', encoding="utf-8")
        self.log = open(home / "log.txt", "w+", encoding="utf-8")
        command = [sys.executable, "-m", "jupyterlab", *OPTIONS]
        self.process = subprocess.Popen(
            [*command, f"--ServerApp.root_dir={self.folder}"],
            cwd=self.folder,
            env=environment("embedded") | folders(home),
            stdin=subprocess.DEVNULL,
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def start(self):
        """Wait until the server answers."""
        self.base = wait_for(START, "the server", self._base)
        wait_for(START, "an answer of the server", self._answers)

    def _base(self):
        """Return the server's address, once it has written that down."""
        if self.process.poll() is not None:
            self.log.seek(0)
            raise AssertionError(f"JupyterLab ended at once: {self.log.read()[-2000:]}")
        for file in (self.home / "jupyter_runtime_dir").glob("jpserver-*.json"):
            try:
                return json.loads(file.read_text(encoding="utf-8"))["url"]
            except ValueError:  # it is being written
                return None

    def _ask(self, method, path):
        """Send a request to the server's own interface."""
        header = {"Authorization": "token drawn"}
        request = Request(f"{self.base}api/{path}", headers=header, method=method)
        with build_opener(ProxyHandler({})).open(request, timeout=END) as answer:
            return answer.read()

    def _answers(self):
        try:
            return self._ask("GET", "status")
        except OSError:
            return None

    def write(self, name, *cells):
        """Write a notebook; return its address."""
        nb = new_notebook(cells=[new_code_cell(cell) for cell in cells])
        nb.metadata.kernelspec = {"name": "python3", "display_name": "Python 3"}
        nbformat.write(nb, self.folder / name)
        return f"{self.base}doc/tree/{name}?token=drawn"

    def end_kernels(self):
        """End all kernels."""
        for session in json.loads(self._ask("GET", "sessions")):
            self._ask("DELETE", f"sessions/{session['id']}")

    def read(self, name):
        """Return a notebook as it is saved."""
        return nbformat.read(self.folder / name, 4)

    def end(self):
        """End the kernels and the server, whatever state they are in."""
        try:
            if self.process.poll() is None:
                self._ask("POST", "shutdown")
                self.process.wait(END)
        except (AttributeError, OSError, subprocess.TimeoutExpired):
            pass
        finally:
            # A kernel ends when the server that has started it is gone.
            if self.process.poll() is None:
                os.killpg(self.process.pid, signal.SIGKILL)
                self.process.wait(END)
            self.log.close()


@contextmanager
def lab(home):
    """Give a server whose files are in a folder, and end it and its kernels afterwards."""
    server = Lab(home)
    try:
        server.start()
        yield server
    finally:
        server.end()
