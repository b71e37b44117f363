"""Rule: help and mistakes are answered at once.

`havoc --help` within 0.3 s of CPU time and without the config; a config error within 1.0 s and without torch.
CPU time of the child process, the least of three starts: what it costs, not what else the machine does.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

STARTS = 3
CALL = """
import json, sys
from havoc_cli.main import main
try:
    code = main(sys.argv[2:])
except SystemExit as stop:
    code = stop.code
with open(sys.argv[1], "w") as file:
    json.dump([code, sorted(sys.modules)], file)
"""


def start(arguments, folder, root, *, limit_s):
    """(CPU seconds, exit code, modules that were imported, what was said) of `havoc ARGUMENTS`."""
    best = start_once(arguments, folder, root)
    for _ in range(STARTS - 1):
        if best[0] > limit_s:
            best = min(best, start_once(arguments, folder, root), key=lambda answer: answer[0])
    return best


def start_once(arguments, folder, root):
    answer = folder / "answer.json"
    environment = {**os.environ, "PYTHONPATH": str(root / "src"), "COLUMNS": "120"}
    with (folder / "said").open("w") as said:
        child = subprocess.Popen(
            [sys.executable, "-c", CALL, str(answer), *arguments], cwd=folder, env=environment, stdout=said, stderr=said
        )
        _, _, usage = os.wait4(child.pid, 0)
        child.returncode = 0
    code, imported = json.loads(answer.read_text())
    return usage.ru_utime + usage.ru_stime, code, set(imported), (folder / "said").read_text()


def test_havoc_help_answers_within_a_third_of_a_second_and_reads_no_config(tmp_path, root):
    seconds, code, imported, said = start(["--help"], tmp_path, root, limit_s=0.3)
    assert (code, "havoc COMMAND" in said) == (0, True)
    assert {"havoc_core.config", "pydantic", "tyro", "torch", "numpy"}.isdisjoint(imported)
    assert seconds <= 0.3


def test_a_misspelt_command_is_answered_without_the_config(tmp_path, root):
    seconds, code, imported, said = start(["trian"], tmp_path, root, limit_s=0.3)
    assert (code, "Did you mean 'train'?" in said) == (2, True)
    assert "havoc_core.config" not in imported
    assert seconds <= 0.3


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("optimiser: adamw\n", "Did you mean 'optimizer'?"),
        ("batch_size: [\n", "this is no YAML"),
        ("seed: x\n", "seed: 'x'"),
    ],
    ids=["misspelt", "no YAML", "wrong kind"],
)
def test_a_config_error_is_answered_within_a_second_and_without_torch(text, answer, tmp_path, root):
    (tmp_path / "run.yaml").write_text(text)
    seconds, code, imported, said = start(["train", "--config", "run.yaml"], tmp_path, root, limit_s=1.0)
    assert code == 2, said
    assert answer in said
    assert "Traceback" not in said
    assert "torch" not in imported
    assert seconds <= 1.0


@pytest.mark.parametrize(
    "arguments", [["train", "--help"], ["train", "--learning-rat", "1e-3"]], ids=["help", "misspelt flag"]
)
def test_help_of_a_command_and_a_misspelt_flag_are_answered_without_torch(arguments, tmp_path, root):
    seconds, code, imported, said = start(arguments, tmp_path, root, limit_s=1.0)
    assert code == (0 if "--help" in arguments else 2), said
    assert "--learning-rate" in said
    assert "torch" not in imported
    assert seconds <= 1.0


def test_importing_the_config_loads_no_torch(tmp_path, root):
    code = "import sys, havoc_core.config, havoc_core.config_files; print('torch' in sys.modules)"
    environment = {**os.environ, "PYTHONPATH": str(root / "src")}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "False"
