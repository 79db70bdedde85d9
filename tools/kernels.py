"""Starts kernels that have imported fastai before they begin.

Importing fastai takes several seconds, and nearly every notebook does it. On Linux the kernels of
`make course` are therefore forked from one process that has imported it, multiprocessing's fork
server. Elsewhere forking is unsafe or missing, and each kernel imports for itself.
"""

import json
import os
import subprocess
import sys
from functools import cache
from multiprocessing import get_context, set_start_method
from multiprocessing.context import ForkServerProcess

from jupyter_client import AsyncKernelManager
from jupyter_client.provisioning import LocalProvisioner

# matplotlib reads this when it is imported; a kernel would set it for itself, and too late.
BACKEND = "module://matplotlib_inline.backend_inline"
FEW = 5  # notebooks of one process
PRELOADED = [
    "fastai.vision.all",
    "ipykernel.kernelapp",
    "tools.course",  # the main program, which multiprocessing runs again in each fork
]


@cache
def path_of_a_fresh_python():
    """Return where a Python that has just begun looks for modules, its own folder apart."""
    program = "import json, sys; print(json.dumps(sys.path[1:]))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    return json.loads(done.stdout)


def run_kernel(arguments, env, folder, path):
    """Run a kernel in this process until it is told to stop, as if it had been started alone."""
    # Here, in a process that has imported them; the main program needs none of them.
    import numpy
    import torch
    from ipykernel.kernelapp import launch_new_instance

    os.environ.clear()
    os.environ.update(env)
    os.setsid()  # a signal to the kernel's group reaches what it has started, and nothing else
    os.chdir(folder)
    sys.path[:] = path
    set_start_method(None, force=True)  # the default again: this process came from a fork server
    numpy.random.seed()  # forks would all draw the same numbers; `random` sees to it by itself
    torch.seed()
    # The kernel watches its parent, the fork server, and ends when that is gone.
    launch_new_instance([*arguments, f"--IPKernelApp.parent_handle={os.getppid()}"])


class ForkedProcess(ForkServerProcess):
    """A forked process with what jupyter_client needs of a subprocess.Popen."""

    stdin = stdout = stderr = None

    def poll(self):
        """Return the exit code, or None while the process runs."""
        return self.exitcode

    def wait(self):
        """Wait until the process ends, and return its exit code."""
        self.join()
        return self.exitcode

    def send_signal(self, signum):
        """Send a signal to the process."""
        os.kill(self.pid, signum)


class ForkingProvisioner(LocalProvisioner):
    """Starts a kernel as a fork of the process that has imported fastai."""

    async def launch_kernel(self, cmd, *, env, cwd, **_):
        """Start the kernel; `cmd` is what would start one by itself."""
        arguments = cmd[cmd.index("ipykernel_launcher") + 1 :]
        path = path_of_a_fresh_python()
        self.process = ForkedProcess(target=run_kernel, args=(arguments, env, cwd, path))
        self.process.start()
        self.pid = self.process.pid
        self.pgid = self.pid  # by setsid
        self.cwd = cwd
        return self.connection_info


class ForkingKernelManager(AsyncKernelManager):
    """Manages one kernel that is forked from the process that has imported fastai."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.provisioner = ForkingProvisioner(kernel_spec=self.kernel_spec, parent=self)


def kernel_manager_for(n_notebooks):
    """Return the class that manages the kernels of this process, for so many notebooks.

    Importing for its forks costs a process as much as a few notebooks that import for themselves.
    """
    if sys.platform != "linux" or n_notebooks < FEW:
        return AsyncKernelManager
    os.environ.setdefault("MPLBACKEND", BACKEND)
    get_context("forkserver").set_forkserver_preload(PRELOADED)
    return ForkingKernelManager
