"""C++ of ours that the machine's own compiler turns into a library at first use; kept in the user's cache folder.

Nothing depends on it: every kernel has a form in torch, which does the work where there is no compiler.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
from pathlib import Path

import torch

from havoc_core.processor import cpu_flags

_OPTIONS = "-O3 -march=native -fno-math-errno -fno-trapping-math -std=c++17 -shared -fPIC -fopenmp"
_X86_OPTIONS = "-mprefer-vector-width=512"


def find_compiler() -> str | None:
    """The C++ compiler of this machine: $CXX, g++ or c++; None where there is none."""
    return shutil.which(os.environ.get("CXX", "g++")) or shutil.which("c++")


def is_buildable(needs: str | None) -> bool:
    """Whether a library that needs an instruction set of the CPU should build and load here.

    Args:
        needs: a flag of /proc/cpuinfo, such as "avx512_bf16"; None: any CPU will do.
    """
    return find_compiler() is not None and platform.system() == "Linux" and (not needs or needs in cpu_flags().split())


def load(
    source: Path, *, needs: str | None, with_torch: bool = False, contract: bool = True, cache: Path | None = None
) -> ctypes.CDLL | None:
    """The library of a source, built if need be; None where it cannot be built or loaded. Says nothing: the caller does.

    It is built once for each source, compiler, torch and CPU.

    Args:
        source: a .cpp file.
        needs: as for `is_buildable`.
        with_torch: whether it calls functions of torch; one that has gone is found out here, on loading.
        contract: whether the compiler may fuse a product with a sum wherever it likes.
        cache: where libraries are kept; by default the user's cache folder.
    """
    compiler = find_compiler()
    if compiler is None or not is_buildable(needs):
        return None
    x86 = _X86_OPTIONS.split() if platform.machine() == "x86_64" else []
    command = [compiler, *_OPTIONS.split(), *x86, *([] if contract else ["-ffp-contract=off"]), str(source)]
    if with_torch:
        command += [f"-L{Path(torch.__file__).parent / 'lib'}", "-ltorch_cpu"]
    try:
        folder = _default_cache() if cache is None else cache
        made = Path(compiler).stat()  # an upgrade keeps the name
        identity = [source.read_text(encoding="utf-8"), *command, torch.__version__, cpu_flags()]
        identity += [str(made.st_size), str(made.st_mtime_ns)]
        digest = hashlib.sha256("\0".join(identity).encode()).hexdigest()[:16]
        library = folder / f"{source.stem}_{digest}.so"
        if not library.exists():
            folder.mkdir(parents=True, exist_ok=True)
            # Beside it first: another process may be loading the same library.
            beside = library.with_suffix(f".{os.getpid()}")
            subprocess.run([*command, "-o", str(beside)], check=True, capture_output=True, timeout=120)
            beside.replace(library)
        return ctypes.CDLL(str(library))
    except (OSError, RuntimeError, subprocess.SubprocessError):  # Path.home() raises a RuntimeError where there is none
        return None


def _default_cache() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "havoc" / "kernels"
