"""What there is to train on: the GPU as the driver reports it, and the host's memory. Imports no torch."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from havoc_core.config import TrainingConfig
from havoc_core.processor import has_fast_bfloat16
from havoc_training.memory.presets import Working
from havoc_training.planner.cards import GIB, Card, card_of_device, find_card

CONTEXT_BYTES = int(0.6 * GIB)
"""What CUDA takes of a device before the first tensor; an estimate, 0.4 to 0.8 GiB on recent cards."""
_MIB = 2**20
_WORTH_SAYING = 256 * _MIB
"""Memory held by others below which nothing is said: a driver and a desktop take some."""
_QUERY = ("--query-gpu=name,memory.total,memory.used,memory.free", "--format=csv,noheader,nounits")


@dataclass(frozen=True)
class Gpu:
    """A device as the driver reports it."""

    name: str
    total_bytes: int
    used_bytes: int
    free_bytes: int


@dataclass(frozen=True)
class Host:
    """Memory of the machine, or of the container that this process runs in."""

    total_bytes: int
    available_bytes: int
    swap_bytes: int


@dataclass(frozen=True)
class Machine:
    """What a plan is made for."""

    name: str
    """Of the GPU, or "CPU"."""
    kind: Literal["cuda", "cpu"]
    device_bytes: int
    """What tensors can have on the device now; on a CPU the same memory as `host_bytes`."""
    host_bytes: int | None
    """Host memory that is available now; None: as much as is needed."""
    card: Card | None = None
    """None: nothing is known of its speed."""
    swap_bytes: int | None = None
    """None: unknown."""
    held_bytes: int = 0
    """What other processes hold on the GPU; `device_bytes` is without it."""
    here: bool = True
    """Whether it is the machine that this process runs on."""
    fast_bfloat16: bool = True
    """Whether matrix products are faster in bfloat16."""


def machine_of_card(name: str, host_bytes: int | None = None) -> Machine:
    """A machine with a card of the table.

    Args:
        name: of the card, as a user writes it.
        host_bytes: its memory; None: as much as is needed.

    Raises:
        ConfigError: the card is not in the table.
    """
    card = find_card(name)
    fast = card.bf16_flops_per_s is not None
    return Machine(card.name, "cuda", card.usable_bytes, host_bytes, card, here=False, fast_bfloat16=fast)


def machine_here(
    device: str = "auto",
    *,
    root: Path | None = None,
    program: str = "nvidia-smi",
    environment: Mapping[str, str] | None = None,
) -> Machine:
    """This machine. Asked before a run takes device memory of its own, which would count as held by others.

    Args:
        device: setting of that name; cpu and mps do not look for a GPU.
        root: where proc/ and sys/ are found; None: the root of the file system.
        program: that reports on GPUs; a missing one means that there is none.
        environment: CUDA_VISIBLE_DEVICES says which GPU is meant; None: of this process.
    """
    host = read_host(root)
    visible = (os.environ if environment is None else environment).get("CUDA_VISIBLE_DEVICES")
    gpus = visible_gpus(read_gpus(program), visible) if device in {"auto", "cuda"} else []
    if not gpus:
        fast = has_fast_bfloat16(root)
        return Machine(
            "CPU", "cpu", host.available_bytes, host.available_bytes, swap_bytes=host.swap_bytes, fast_bfloat16=fast
        )
    return machine_of_gpu(gpus[0], host, context_bytes=CONTEXT_BYTES)


def machine_of_gpu(gpu: Gpu, host: Host, *, context_bytes: int = 0) -> Machine:
    """A machine with a device that is there.

    Args:
        gpu: as it is now; what is used counts as held by others.
        host: its memory.
        context_bytes: what this process will still take before its first tensor; 0 if it has its context already.
    """
    card = card_of_device(gpu.name, memory_bytes=gpu.total_bytes)
    free = max(0, gpu.free_bytes - context_bytes)
    return Machine(
        name=card.name if card else gpu.name.removeprefix("NVIDIA ").removeprefix("GeForce "),
        kind="cuda",
        device_bytes=min(card.usable_bytes, free) if card else free,
        host_bytes=host.available_bytes,
        card=card,
        swap_bytes=host.swap_bytes,
        held_bytes=gpu.used_bytes if gpu.used_bytes >= _WORTH_SAYING else 0,
        fast_bfloat16=card is None or card.bf16_flops_per_s is not None,
    )


def working_format(config: TrainingConfig, machine: Machine) -> Working:
    """Format of the weights that are computed with, as `use_amp` and `amp_dtype` say."""
    wanted = config.use_amp
    if wanted == "auto":
        wanted = machine.kind == "cuda" or machine.fast_bfloat16
    return config.amp_dtype if wanted else "float32"


def read_gpus(program: str = "nvidia-smi") -> list[Gpu]:
    """The GPUs of the machine, in the driver's order; none where the driver's program is missing or fails."""
    try:
        said = subprocess.run([program, *_QUERY], capture_output=True, text=True, timeout=10, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return parse_gpus(said)


def parse_gpus(text: str) -> list[Gpu]:
    """GPUs from lines of "name, MiB, MiB used, MiB free"; a line that says anything else, such as [N/A], is passed over."""
    found = []
    for line in text.splitlines():
        name, *numbers = (part.strip() for part in line.rsplit(",", 3))
        if len(numbers) == 3 and all(number.isdigit() for number in numbers):
            total, used, free = (int(number) * _MIB for number in numbers)
            found.append(Gpu(name, total, used, free))
    return found


def visible_gpus(gpus: list[Gpu], visible: str | None) -> list[Gpu]:
    """Those that CUDA_VISIBLE_DEVICES lets through; numbers alone are understood, and up to the first that is none there."""
    if visible is None:
        return gpus
    parts = [part.strip() for part in visible.split(",")]
    if any(part and not part.lstrip("-").isdigit() for part in parts):
        return gpus  # names of devices (GPU-..., MIG-...): which of them is meant, only the driver knows
    chosen = []
    for part in parts:
        if not part or not 0 <= int(part) < len(gpus):
            break
        chosen.append(gpus[int(part)])
    return chosen


def read_host(root: Path | None = None) -> Host:
    """Memory and swap; the limit of a container holds where there is one (cgroup version 2 or 1)."""
    root = root or Path("/")
    lines = _meminfo(root / "proc/meminfo")
    total = lines.get("MemTotal") or _physical_bytes()
    available = lines.get("MemAvailable", total)
    limit, used = _limit(root / "sys/fs/cgroup")
    if limit is not None and limit < total:
        total, available = limit, min(available, max(0, limit - used))
    return Host(total, available, lines.get("SwapTotal", 0))


def _meminfo(path: Path) -> dict[str, int]:
    """Name -> bytes, from lines such as "MemTotal:  16384 kB"."""
    out = {}
    for line in _text(path).splitlines():
        name, _, rest = line.partition(":")
        words = rest.split()
        if len(words) == 2 and words[0].isdigit():
            out[name] = int(words[0]) * 1024
    return out


def _limit(folder: Path) -> tuple[int | None, int]:
    """(most bytes that the container may have, bytes that it holds and cannot give back)."""
    for limit_name, used_name, stat_name, key in (
        ("memory.max", "memory.current", "memory.stat", "inactive_file"),
        (
            "memory/memory.limit_in_bytes",
            "memory/memory.usage_in_bytes",
            "memory/memory.stat",
            "total_inactive_file",
        ),
    ):
        limit = _text(folder / limit_name).strip()
        if limit.isdigit():
            used = _text(folder / used_name).strip()
            words = dict(line.split() for line in _text(folder / stat_name).splitlines() if len(line.split()) == 2)
            cached = words.get(key, "0")  # the file cache that is given back when it is wanted
            return int(limit), max(0, int(used if used.isdigit() else 0) - int(cached if cached.isdigit() else 0))
    return None, 0


def _physical_bytes() -> int:
    if platform.system() == "Windows" or "SC_PHYS_PAGES" not in os.sysconf_names:
        return 0
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
