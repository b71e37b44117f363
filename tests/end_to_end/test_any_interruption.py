"""What may befall a folder and a disk while text is prepared: a file changes, the disk is full, the process is killed."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from havoc_core.config import TrainingConfig
from havoc_core.run_files import RunFiles
from havoc_data.prepare.build import collecting, prepare
from havoc_data.prepare.corpus import open_corpus
from havoc_data.prepare.seal import is_sealed

CHILD = """
import os, re, signal, sys
from havoc_core.config import TrainingConfig
from havoc_data.prepare.build import prepare

def watch(event, arguments):
    if event == "open" and re.search({pattern!r}, str(arguments[0])):
        exec({deed!r}, {{"os": os, "signal": signal, "arguments": arguments}})

sys.addaudithook(watch)
try:
    prepare(TrainingConfig.model_validate_json({config!r}))
except Exception as error:
    print(type(error).__name__, error)
"""


@dataclass(frozen=True)
class Ended:
    """How a process ended, and what it said."""

    code: int
    said: str


@pytest.fixture
def child(forked):
    """`prepare` in a process that does something each time it opens a file whose path fits the pattern."""

    def run(config, pattern, deed):
        process, out = forked(CHILD.format(config=config.model_dump_json(), pattern=pattern, deed=deed))
        with out:
            said = out.read()
        process.join()
        return Ended(process.exitcode, said)

    return run


@pytest.fixture
def small(tmp_path, book):
    """A folder of text that may be spoilt."""
    folder = tmp_path / "data" / "math"
    folder.mkdir(parents=True)
    for number in range(30):
        (folder / f"{number:02}.txt").write_text(book("math", size=4000, seed=str(number)))
    return TrainingConfig.model_validate(
        {
            "run_dir": str(tmp_path / "run"),
            "model": {"size": "nano", "vocab_size": 600},
            "data": {"data_dir": str(tmp_path / "data"), "max_sequence_length": 64, "runner": "inline"},
            "evaluation": {"exam_problems": 0},
        }
    )


@pytest.mark.parametrize("time", [1, 2])
def test_a_file_that_changes_while_it_is_read_is_refused_by_name(small, child, tmp_path, time):
    """The first time it is read for its digest, the second for its text."""
    path = tmp_path / "data" / "math" / "07.txt"
    (tmp_path / "times").mkdir()
    deed = (
        f"times = {str(tmp_path / 'times')!r}\n"
        "if arguments[1] == 'r':\n"
        "    os.mkdir(times + '/' + str(len(os.listdir(times))))\n"
        f"    if len(os.listdir(times)) == {time}:\n"
        f"        os.write(os.open({str(path)!r}, os.O_WRONLY | os.O_APPEND), b'more')\n"
    )
    ended = child(small, r"07\.txt$", deed)
    assert ended.said.startswith(f"DataError {path}: changed while it was being read."), ended.said
    assert "Start again when nothing writes to it any more" in ended.said
    assert open_corpus(collecting(small).folder) is None
    prepare(small)
    assert open_corpus(collecting(small).folder) is not None


STAGES = {
    "examine": r"/parts/\.[0-9a-f]{32}\.writing/documents\.jsonl\.zst$",
    "arrays": r"/parts/\.[0-9a-f]{32}\.writing/signatures\.npy$",
    "compare": r"/\.signatures\.[^/]*/all\.npy$",
    "settle": r"/settled/\.[0-9a-f]{32}\.writing/fates\.npy$",
    "manifest": r"/corpus/\.manifest\.writing$",
    "tokenizer": r"/\.tokenizer\.writing/",
    "tokenize": r"/\.store\.parts/.*/training/00000\.tok$",
    "store": r"/\.store\.writing/math/00000\.tok$",
}


@pytest.mark.parametrize("stage", STAGES)
def test_a_full_disk_is_said_and_leaves_nothing_half_written(small, child, stage, contents):
    """From the moment at which a file is opened no file may have more than 16 bytes. The error has the number of a full
    disk, which the command line turns into a message."""
    deed = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (16, resource.RLIM_INFINITY))"
    ended = child(small, STAGES[stage], deed)
    assert "File too large" in ended.said, ended.said
    assert ended.said.startswith("OSError [Errno 27] File too large"), ended.said
    files, corpus = RunFiles.of(small), collecting(small).folder
    for folder in (corpus / "parts", corpus / "settled", files.run_dir / ".store.parts"):
        assert all(map(is_sealed, folder.iterdir() if folder.is_dir() else ())), folder
    assert not files.store.exists()
    assert (open_corpus(corpus) is None) == (stage in {"examine", "arrays", "compare", "settle", "manifest"})
    prepare(small)  # with room again it goes on
    other = small.model_copy(update={"run_dir": small.run_dir + "2"})
    prepare(other)
    assert texts_of(contents, small) == texts_of(contents, other)


def texts_of(contents, config):
    """Name -> hash of every file of a store."""
    return {name: digest for name, (_, digest) in contents(RunFiles.of(config).store).items()}


@pytest.mark.parametrize(
    "stage", ["corpus/parts", "corpus/settled", r"\.store\.parts", r"\.store\.writing", "tokenizer"]
)
def test_a_run_that_is_killed_in_any_stage_goes_on(small, child, stage, contents):
    ended = child(small, rf"/run/\.?{stage}.*(json|\.tok)$", "os.kill(os.getpid(), signal.SIGKILL)")
    assert ended.code == -9, ended.said
    assert not (RunFiles.of(small).store / "manifest.json").exists()
    prepare(small)
    other = small.model_copy(update={"run_dir": small.run_dir + "2"})
    prepare(other)
    assert texts_of(contents, small) == texts_of(contents, other)
