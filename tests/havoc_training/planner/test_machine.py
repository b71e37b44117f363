"""What there is to train on, as the driver, the kernel and the container say it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from havoc_core.config import TrainingConfig
from havoc_training.planner.machine import (
    CONTEXT_BYTES,
    Gpu,
    Host,
    machine_here,
    machine_of_card,
    machine_of_gpu,
    parse_gpus,
    read_gpus,
    read_host,
    visible_gpus,
    working_format,
)

MIB, GIB = 2**20, 2**30
ONE = Gpu("NVIDIA GeForce RTX 4090", 24564 * MIB, 1 * MIB, 24200 * MIB)
HOST = Host(total_bytes=64 * GIB, available_bytes=60 * GIB, swap_bytes=0)


def write(root: Path, **files: str) -> Path:
    for name, text in files.items():
        path = root / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


MEMINFO = "MemTotal:       65536000 kB\nMemFree: 100 kB\nMemAvailable:   50000000 kB\nSwapTotal:       2048 kB\nHugePages_Total: 0\n"


def program(folder: Path, said: str) -> str:
    """A program that says this, whatever it is asked."""
    path = folder / "smi"
    path.write_text(f"#!{sys.executable}\nprint({said!r})\n")
    path.chmod(0o755)
    return str(path)


def test_lines_of_the_driver_are_read_and_those_without_memory_are_passed_over():
    text = "NVIDIA A100-SXM4-80GB, 81920, 1024, 80200\nNVIDIA GB10, [N/A], [N/A], [N/A]\nOdd, name, 10, 1, 9\n\n"
    assert parse_gpus(text) == [
        Gpu("NVIDIA A100-SXM4-80GB", 81920 * MIB, 1024 * MIB, 80200 * MIB),
        Gpu("Odd, name", 10 * MIB, 1 * MIB, 9 * MIB),
    ]


def test_without_the_drivers_program_there_is_no_gpu(tmp_path):
    assert read_gpus(str(tmp_path / "nothing")) == []
    machine = machine_here(root=write(tmp_path, proc__meminfo=MEMINFO), program=str(tmp_path / "nothing"))
    assert (machine.kind, machine.name, machine.card) == ("cpu", "CPU", None)
    assert machine.device_bytes == machine.host_bytes == 50_000_000 * 1024
    assert machine.swap_bytes == 2048 * 1024


def test_a_card_of_the_table_gives_what_is_usable_of_it(tmp_path):
    smi = program(tmp_path, "NVIDIA GeForce RTX 4090, 24564, 1, 24200")
    machine = machine_here(root=write(tmp_path, proc__meminfo=MEMINFO), program=smi, environment={})
    assert (machine.kind, machine.name, machine.held_bytes) == ("cuda", "RTX 4090", 0)
    assert machine.card is not None
    assert machine.device_bytes == machine.card.usable_bytes == int(22.6 * GIB)


def test_cpu_asked_for_means_that_no_gpu_is_looked_for(tmp_path):
    smi = program(tmp_path, "NVIDIA GeForce RTX 4090, 24564, 1, 24200")
    assert machine_here("cpu", program=smi).kind == "cpu"
    assert machine_here("cuda", program=smi, environment={}).kind == "cuda"


def test_memory_that_others_hold_is_subtracted_and_said():
    busy = Gpu(ONE.name, ONE.total_bytes, 8000 * MIB, 16000 * MIB)
    machine = machine_of_gpu(busy, HOST, context_bytes=CONTEXT_BYTES)
    assert machine.held_bytes == 8000 * MIB
    assert machine.device_bytes == 16000 * MIB - CONTEXT_BYTES


def test_of_an_unknown_device_all_that_is_free_counts_and_its_speed_is_unknown():
    machine = machine_of_gpu(Gpu("NVIDIA Something New", 50 * GIB, 0, 50 * GIB), HOST)
    assert (machine.name, machine.device_bytes, machine.card) == ("Something New", 50 * GIB, None)


def test_visible_devices_choose_the_gpu():
    other = Gpu("NVIDIA H200", 143771 * MIB, 0, 143000 * MIB)
    assert visible_gpus([ONE, other], None) == [ONE, other]
    assert visible_gpus([ONE, other], "1") == [other]
    assert visible_gpus([ONE, other], "1,0") == [other, ONE]
    assert visible_gpus([ONE, other], "0,7,1") == [ONE], "nothing counts after a number that is not there"
    assert visible_gpus([ONE, other], "") == []
    assert visible_gpus([ONE, other], "-1") == []
    assert visible_gpus([ONE, other], "GPU-8932f937") == [ONE, other]


@pytest.mark.parametrize(
    "names",
    [
        (
            "sys__fs__cgroup__memory_DOT_max",
            "sys__fs__cgroup__memory_DOT_current",
            "sys__fs__cgroup__memory_DOT_stat",
            "",
        ),
        (
            "sys__fs__cgroup__memory__memory_DOT_limit_in_bytes",
            "sys__fs__cgroup__memory__memory_DOT_usage_in_bytes",
            "sys__fs__cgroup__memory__memory_DOT_stat",
            "total_",
        ),
    ],
    ids=["version 2", "version 1"],
)
def test_the_limit_of_a_container_holds_and_its_file_cache_counts_as_free(names, tmp_path):
    limit, used, stat, prefix = names
    files = {limit: f"{16 * GIB}\n", used: f"{10 * GIB}\n", stat: f"anon 5\n{prefix}inactive_file {4 * GIB}\n"}
    host = read_host(write(tmp_path, proc__meminfo=MEMINFO, **files))
    assert host == Host(total_bytes=16 * GIB, available_bytes=10 * GIB, swap_bytes=2048 * 1024)


def test_a_container_without_a_limit_has_what_the_machine_has(tmp_path):
    host = read_host(write(tmp_path, proc__meminfo=MEMINFO, sys__fs__cgroup__memory_DOT_max="max\n"))
    assert (host.total_bytes, host.available_bytes) == (65_536_000 * 1024, 50_000_000 * 1024)


def test_a_card_that_is_not_here_has_the_host_memory_that_is_given_or_enough():
    assert machine_of_card("4090").host_bytes is None
    machine = machine_of_card("4090", 64 * GIB)
    assert (machine.host_bytes, machine.here) == (64 * GIB, False)


def test_auto_precision_follows_the_device():
    slow = machine_here("cpu", root=Path("/nowhere"))
    auto = TrainingConfig(use_amp="auto")
    assert working_format(auto, slow) == "float32"
    assert working_format(auto, machine_of_card("H200")) == "bfloat16"
    assert working_format(TrainingConfig(use_amp=False), machine_of_card("H200")) == "float32"
    assert working_format(TrainingConfig(amp_dtype="float16"), machine_of_card("T4")) == "float16"


def test_fast_bfloat16_is_read_from_the_cpus_flags(tmp_path):
    write(tmp_path, proc__cpuinfo="flags : fpu amx_bf16 amx_tile\n", proc__meminfo=MEMINFO)
    assert machine_here("cpu", root=tmp_path).fast_bfloat16
