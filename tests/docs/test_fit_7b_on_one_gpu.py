"""The numbers on the page about the 7B model are those that `havoc plan` prints; the page is to be written anew when they change."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from havoc_cli import plan

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/how_to/fit_7b_on_one_gpu.md").read_text(encoding="utf-8")
CONFIG = ["--config", str(ROOT / "configs/training/default_training.yaml")]
ROWS = {
    "RTX 3090 (24 GB)": ["--gpu", "RTX 3090", "--memory", "stream"],
    "RTX 4090 (24 GB)": ["--gpu", "RTX 4090", "--memory", "stream"],
    "A100 40GB": ["--gpu", "A100-40", "--memory", "offload", "--memory-options.gradients", "bfloat16"],
    "A100 80GB": ["--gpu", "A100-80", "--memory", "offload"],
    "H200 (141 GB)": ["--gpu", "H200"],
}
"""Row of the table -> flags besides those of its batch."""


def cells_of(row):
    (line,) = (line for line in PAGE.splitlines() if line.startswith(f"| {row} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def planned(arguments, capsys):
    assert plan.run([*CONFIG, *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


@pytest.mark.parametrize("row", ROWS)
def test_a_row_of_the_founding_table_is_what_the_plan_says(row, capsys):
    _, batch, preset, device, host, rate, days = cells_of(row)
    size, times = batch.split(" x ")
    found = planned([*ROWS[row], "--batch-size", size, "--gradient-accumulation-steps", times], capsys)
    assert found["description"].split("`")[1] == f"memory: {preset.split('`')[1]}"
    assert (found["micro_batch_size"], found["micro_batches"]) == (int(size), int(times))
    assert device == f"{found['peak_bytes'] / 2**30:.1f} of {found['device_bytes'] / 2**30:.1f} GiB"
    assert host == (f"{found['host_bytes'] / 2**30:.1f} GiB" if found["host_bytes"] else "–")
    assert rate == f"{found['tokens_per_s']:,.0f}"
    per_billion = found["derived"]["days_per_billion_tokens"]
    assert days == (f"{per_billion:.1f}" if per_billion >= 1.0 else f"{per_billion:.2f}")
    assert found["rate_origin"] == "predicted"


def test_the_shown_output_is_what_the_command_prints(capsys):
    command, shown = re.search(r"```bash\n(havoc plan [^\n]*H200\")\n```\n\n```\n(.*?)```", PAGE, re.DOTALL).groups()
    arguments = shlex.split(command.replace("configs/", f"{ROOT}/configs/"))[2:]
    assert plan.run(arguments) == 0
    assert capsys.readouterr().out.strip() == shown.strip()


def test_the_sizes_in_the_text_are_those_of_the_plan(capsys):
    exact = planned(["--gpu", "RTX 4090", "--memory", "stream"], capsys)
    narrow = planned(["--gpu", "RTX 4090", "--memory", "stream", "--memory-options.moments", "bfloat16"], capsys)
    sizes = [f"{each['host_bytes'] / 2**30:.1f}" for each in (exact, narrow)]
    assert f"bring the host's part from {sizes[0]} to {sizes[1]} GiB" in PAGE
    small = planned(["--gpu", "RTX 5060 Ti 16GB"], capsys)
    text = f"{small['peak_bytes'] / 2**30:.1f} GiB on the card and {small['host_bytes'] / 2**30:.1f} GiB of RAM"
    assert text in PAGE
    assert f"{16 * exact['parameters'] / 2**30:.1f} GiB for the 7.01 B parameters" in PAGE
