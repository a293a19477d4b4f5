"""The kernel of notebooks that run as programs: this very Python, registered nowhere."""

from __future__ import annotations

import sys

from jupyter_client import AsyncKernelManager
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from traitlets import default


class _ThisPython(KernelSpecManager):
    def get_kernel_spec(self, kernel_name: str) -> KernelSpec:
        argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
        return KernelSpec(
            argv=[*argv, "--HistoryManager.enabled=False", "--log-level=CRITICAL"],
            display_name="Python",
            language="python",
            env={"MPLBACKEND": "Agg"},
        )


class Kernel(AsyncKernelManager):
    """A manager of kernels that run on `sys.executable`."""

    @default("kernel_spec_manager")
    def _kernel_spec_manager_default(self) -> KernelSpecManager:
        return _ThisPython()
