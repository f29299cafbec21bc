"""What a number was measured with: processor, int8 instructions, threads, versions."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import torch

import rac_helpers

_PACKAGES = ("torch", "torchvision", "numpy")
_INT8_FLAGS = ("avx_vnni", "avx512_vnni", "avx_vnni_int8", "amx_int8", "asimddp", "i8mm")


def hardware() -> str:
    """Return cores and model of the processor, its int8 instructions, threads, and the GPU.

    Names of the machine or its user are not part of it.

    Examples
    --------
    >>> "threads" in hardware()
    True
    """
    usable = getattr(os, "sched_getaffinity", lambda _: range(os.cpu_count() or 1))(0)
    parts = [f"{len(usable)} × {_cpu_model()}", f"int8: {_int8_instructions()}"]
    parts.append(f"PyTorch threads: {torch.get_num_threads()}")
    if torch.cuda.is_available():
        parts.append(f"GPU: {torch.cuda.get_device_name()}")
    return "; ".join(parts)


def versions() -> dict[str, str]:
    """Return the versions of Python, of the packages that matter, and of this one.

    Examples
    --------
    >>> sorted(versions())
    ['numpy', 'python', 'rac_helpers', 'torch', 'torchvision']
    """
    found = {"python": platform.python_version(), "rac_helpers": rac_helpers.__version__}
    return found | {name: importlib.metadata.version(name) for name in _PACKAGES}


def _cpuinfo(*keys: str) -> str:
    """First value of one of the keys in Linux's list of processors, else ``""``."""
    path = Path("/proc/cpuinfo")
    lines = path.read_text(errors="replace").splitlines() if path.exists() else []
    pairs = [[part.strip() for part in line.split(":", 1)] for line in lines if ":" in line]
    return next((value for key, value in pairs if key in keys), "")


def _cpu_model() -> str:
    if platform.system() == "Darwin":
        command = ["sysctl", "-n", "machdep.cpu.brand_string"]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    return _cpuinfo("model name") or platform.processor() or platform.machine()


def _int8_instructions() -> str:
    flags = _cpuinfo("flags", "Features").split()
    if not flags:
        return "not known"
    return ", ".join(flag for flag in _INT8_FLAGS if flag in flags) or "none"
