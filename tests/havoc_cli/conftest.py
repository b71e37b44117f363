"""Commands are called in this process, as a shell would call them; a tiny run is made once and copied."""

from __future__ import annotations

import contextlib
import io
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from havoc_cli.main import main
from havoc_core.config_files import merge
from havoc_core.log import LOGGER

SETTINGS: dict[str, Any] = {
    "model": {
        "size": "nano", "vocab_size": 520, "num_layers": 1, "d_model": 32, "max_seq_len": 64,
        "attention": {"num_heads": 2, "num_kv_heads": 1, "head_dim": 16}, "mlp": {"hidden_dim": 48},
    },
    "data": {
        "max_sequence_length": 64, "num_workers": 1,
        "sources": [
            {"kind": "dummy", "name": group, "group": group, "options": {"documents": 150, "words": 100, "seed": seed}}
            for seed, group in enumerate(("domain", "general", "dialog"))
        ],
    },
    "batch_size": 2, "gradient_accumulation_steps": 1, "max_steps": 6, "warmup_steps": 2, "learning_rate": 1e-3,
    "eval_every_n_steps": 3, "eval_samples": 2, "save_every_n_steps": 3, "log_every_n_steps": 2, "threads": 1,
    "device": "cpu", "use_amp": False, "compile": "off", "tracking": {"trackers": []},
    "evaluation": {"exam_problems": 0, "sample_tokens": 4, "sample_prompts": ["abc"]},
}  # fmt: skip


@dataclass(frozen=True)
class Said:
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """The one message of an error, checked to be one: no traceback, nothing after it, its kind in front."""
        assert "Traceback" not in self.out + self.err, self.err
        lines = self.err.strip().splitlines()
        assert lines and not any(line.startswith(("ConfigError", "DataError")) for line in lines[1:]), self.err
        return self.err.strip()


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """The log's handlers belong to this test's screen; threads are what they were."""
    threads = torch.get_num_threads()
    yield
    LOGGER.handlers.clear()
    torch.set_num_threads(threads)


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty current folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "120")
    return tmp_path


@pytest.fixture
def havoc(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """`havoc ARGUMENTS`."""

    def call(*arguments: str, default_config: str | None = None) -> Said:
        LOGGER.handlers.clear()  # they write to the screen of the last call, which may have been that of a fixture
        capsys.readouterr()
        try:
            code: Any = main([str(argument) for argument in arguments], default_config=default_config)
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return Said(code, out, err)

    return call


def write_config(path: Path, run_dir: Path, **changes: Any) -> Path:
    path.write_text(yaml.safe_dump(merge({**SETTINGS, "run_dir": str(run_dir)}, changes)), encoding="utf-8")
    return path


@pytest.fixture
def config(here: Path) -> Callable[..., str]:
    """A YAML file with the tiny settings and changes to them."""

    def make(run_dir: str | Path = "run", **changes: Any) -> str:
        number = len(list(here.glob("*.yaml")))
        return str(write_config(here / f"config_{number}.yaml", here / run_dir, **changes))

    return make


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that went through every stage. Not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    path = write_config(folder / "config.yaml", folder / "run")
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert main(["run", "--config", str(path)]) == 0, said.getvalue()
    LOGGER.handlers.clear()
    return folder / "run"


@pytest.fixture
def run_copy(finished_run: Path, here: Path) -> Path:
    """A copy of the finished run, to be spoilt."""
    shutil.copytree(finished_run, here / "run")
    return here / "run"


@pytest.fixture
def prepared(finished_run: Path, here: Path) -> Path:
    """A copy of the finished run as it was before it was trained."""
    parts = ("corpus", "store", "tokenizer")
    for part in parts:
        shutil.copytree(finished_run / part, here / "run" / part)
    return here / "run"
