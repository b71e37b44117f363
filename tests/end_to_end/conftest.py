"""The product as its users meet it: commands, folders of text, processes that are killed."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import urllib.request
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

ROOT = Path(__file__).resolve().parents[2]
SMALL: dict[str, Any] = {
    "model": {
        "size": "nano", "vocab_size": 520, "num_layers": 1, "d_model": 32, "max_seq_len": 64,
        "attention": {"num_heads": 2, "num_kv_heads": 1, "head_dim": 16}, "mlp": {"hidden_dim": 48},
    },
    "data": {"max_sequence_length": 64, "num_workers": 1},
    "batch_size": 2, "gradient_accumulation_steps": 1, "max_steps": 6, "warmup_steps": 2, "learning_rate": 1e-3,
    "eval_every_n_steps": 3, "eval_samples": 2, "save_every_n_steps": 3, "log_every_n_steps": 1, "threads": 1,
    "device": "cpu", "use_amp": False, "compile": "off", "tracking": {"trackers": []},
    "evaluation": {"exam_problems": 8, "sample_tokens": 4, "sample_prompts": ["The mean"]},
}  # fmt: skip
"""Minutes become seconds; everything else is as users have it."""
DUMMY = [
    {"kind": "dummy", "name": group, "group": group, "options": {"documents": 150, "words": 100, "seed": seed}}
    for seed, group in enumerate(("domain", "general", "dialog"))
]
WORDS = {
    "math": "integral derivative matrix vector limit series proof lemma kernel rank prime field group ring norm",
    "stats": "mean variance sample estimate interval test power bias median quantile prior normal regression error",
    "engineering": "beam stress load factor design control chart process yield alloy torque flow weld fatigue strain",
    "general": "river mountain city people water light winter morning garden bread music story letter house road",
}


@dataclass(frozen=True)
class Said:
    """How a command ended, and what it wrote."""

    code: int
    out: str
    err: str

    @property
    def message(self) -> str:
        """The one message of an error, checked to be one."""
        assert "Traceback" not in self.out + self.err, self.err
        assert self.err.strip().count("Error  ") == 1, self.err
        return self.err.strip()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty current folder; afterwards log and threads are as they were."""
    threads = torch.get_num_threads()
    monkeypatch.chdir(tmp_path)
    yield tmp_path
    LOGGER.handlers.clear()
    torch.set_num_threads(threads)


@pytest.fixture
def havoc(capsys: pytest.CaptureFixture[str]) -> Callable[..., Said]:
    """`havoc ARGUMENTS` in this process."""

    def call(*arguments: Any, default_config: str | None = None) -> Said:
        LOGGER.handlers.clear()  # they write to the screen of the last call, which may have been that of a fixture
        capsys.readouterr()
        try:
            code: Any = main([str(argument) for argument in arguments], default_config=default_config)
        except SystemExit as stop:
            code = stop.code
        out, err = capsys.readouterr()
        return Said(code, out, err)

    return call


@pytest.fixture
def process(here: Path) -> Callable[..., subprocess.Popen[str]]:
    """A process in the current folder: `havoc ARGUMENTS`, or `python scripts/train.py ARGUMENTS` where the first is "train"."""
    running: list[subprocess.Popen[str]] = []

    def start(*arguments: Any, preexec: Callable[[], None] | None = None) -> subprocess.Popen[str]:
        words = [str(argument) for argument in arguments]
        program = ["-c", "from havoc_cli.main import entry; entry()", *words]
        if words[0] == "train":
            program = [str(ROOT / "scripts" / "train.py"), *words[1:]]
        started = subprocess.Popen(
            [sys.executable, *program],
            cwd=here,
            env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            preexec_fn=preexec,
        )
        running.append(started)
        return started

    yield start
    for each in running:
        each.kill()
        each.wait()
        each.stdout.close()


@dataclass(frozen=True)
class Served:
    """`havoc serve` in a process of its own."""

    url: str
    key: str
    run: Path
    """The folder that it serves."""
    process: subprocess.Popen[str]


@pytest.fixture(scope="session")
def served(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """The finished run behind HTTP, with a key and room for few: 4 answers at once, 4 more that wait."""
    key = "a-key-for-tests-of-the-whole-line"
    keys = tmp_path_factory.mktemp("keys") / "keys.txt"
    keys.write_text(key + "\n")
    words = ["serve", str(finished), "--port", "0", "--api-key-file", str(keys), "--name", "tiny", "--device", "cpu",
             "--max-running", "4", "--max-waiting", "4", "--grace-s", "5"]  # fmt: skip
    started = subprocess.Popen(
        [sys.executable, "-c", "from havoc_cli.main import entry; entry()", *words],
        env={**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert started.stdout is not None
    try:
        url = next(line.split(" at ")[1].split(" ")[0] for line in started.stdout if " is served at " in line)
        # What it goes on to say is read, or the pipe would fill and stop it.
        reader = threading.Thread(target=started.stdout.read)
        reader.start()
        urllib.request.urlopen(f"{url}/health", timeout=60).close()  # the socket listens already: it waits its turn
        yield Served(url, key, finished, started)
    finally:
        started.terminate()
        code = started.wait(30)
        reader.join(10)
        started.stdout.close()
    assert code == -signal.SIGTERM, "it ends as one that was asked to"


@pytest.fixture
def config(here: Path) -> Callable[..., str]:
    """A YAML file with the small settings and changes to them."""

    def make(run_dir: str = "run", **changes: Any) -> str:
        number = len(list(here.glob("*.yaml")))
        path = here / f"config_{number}.yaml"
        path.write_text(yaml.safe_dump(merge({**SMALL, "run_dir": run_dir}, changes)), encoding="utf-8")
        return path.name

    return make


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run on random words that was trained to its last step. Not to be changed."""
    folder = tmp_path_factory.mktemp("finished")
    path = folder / "config.yaml"
    changes = {"run_dir": str(folder / "run"), "data": {"sources": DUMMY}}
    path.write_text(yaml.safe_dump(merge(SMALL, changes)), encoding="utf-8")
    with contextlib.redirect_stdout(io.StringIO()) as said:
        assert main(["train", "--config", str(path)]) == 0, said.getvalue()
    LOGGER.handlers.clear()
    return folder / "run"


@pytest.fixture
def copy_store(finished: Path) -> Callable[[Path], None]:
    """Put corpus, tokenizer and store of that run into a folder of a test, ready to be trained on."""

    def copy(folder: Path) -> None:
        for part in ("corpus", "store", "tokenizer"):
            shutil.copytree(finished / part, folder / part)

    return copy


@pytest.fixture(scope="session")
def dummy_sources() -> list[dict[str, Any]]:
    """Random words for each group, for `data.sources`."""
    return DUMMY


@pytest.fixture(scope="session")
def book() -> Callable[..., str]:
    """Sentences about a subject, as many bytes as wanted, the same for the same seed."""

    def write(subject: str, *, size: int, seed: str) -> str:
        draw = random.Random(f"{subject} {seed}")
        words = WORDS[subject].split()
        lines, length = [], 0
        while length < size:
            picked = [draw.choice(words) for _ in range(draw.randint(5, 14))]
            line = f"The {' of '.join(picked[:2])} is {draw.randint(2, 9999)} when {' '.join(picked[2:])}.\n"
            if draw.random() < 0.05:
                line = f"\n# {picked[0].title()} and {picked[1]}\n\n" + line
            lines.append(line)
            length += len(line)
        return "".join(lines)

    return write


@pytest.fixture(scope="session")
def contents() -> Callable[..., dict[str, tuple[int, str]]]:
    """Name -> (time of the last change, hash) of every file below a folder."""

    def read(folder: Path) -> dict[str, tuple[int, str]]:
        return {
            str(path.relative_to(folder)): (path.stat().st_mtime_ns, hashlib.sha256(path.read_bytes()).hexdigest())
            for path in sorted(folder.rglob("*"))
            if path.is_file() and path.name != "havoc.lock"
        }

    return read
