"""Every command and every YAML fragment in README.md, CONTRIBUTING.md and docs/ is understood by the real parsers.

Running them all would take too long; the slow test below runs one page from top to bottom.
"""

from __future__ import annotations

import importlib
import re
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from havoc_cli import flags as cli_flags
from havoc_cli.main import COMMANDS, main, module_of
from havoc_core.config_files import parse_yaml, read_yaml, resolve
from havoc_core.log import LOGGER

ROOT = Path(__file__).resolve().parents[2]
PAGES = [
    path
    for path in (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md")))
    if path.exists()
]
FENCE = re.compile(r"^[ \t]*```(\w*)[^\n]*\n(.*?)^[ \t]*```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\((?!\w+:|#)([^)#\s]+)")
KNOWN_TOOLS = {"git", "cd", "pip", "make", "mkdir", "cp", "ls", "cat", "source", "curl"}


@dataclass(frozen=True)
class Snippet:
    """A command, or a YAML fragment, and where it stands."""

    where: str
    text: str


def fenced(language):
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            if match[1] == language:
                line = text.count("\n", 0, match.start()) + 2
                yield Snippet(f"{page.relative_to(ROOT)}:{line}", match[2])


def command_lines():
    for block in fenced("bash"):
        for line in block.text.replace("\\\n", " ").splitlines():
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"\w+=.*", words[0]):
                words = words[1:]
            if words:
                yield Snippet(block.where, shlex.join(words))


def havoc_arguments(line):
    """The arguments of `havoc` that a line stands for; None if it is another tool."""
    words = shlex.split(line)
    programs = [Path(word).name for word in words]
    if programs[0] == "havoc":
        return words[1:]
    if "train.py" in programs and programs[0].startswith(("python", "torchrun")):
        assert (ROOT / words[programs.index("train.py")]).is_file(), line
        return ["train", *words[programs.index("train.py") + 1 :]]
    return None


class Parsed(Exception):  # noqa: N818 - nothing went wrong: the command has what it needs and need not run
    """The flags of a command, and the settings that were among them."""

    def __init__(self, flags, settings):
        super().__init__()
        self.flags = flags
        self.settings = settings


def parsed(arguments, monkeypatch):
    """What a command makes of its arguments, by its own parser; it stops there, in whatever file its parser is called."""
    command = importlib.import_module(module_of(arguments[0]))

    def parse(*args, **kwargs):
        raise Parsed(cli_flags.parse(*args, **kwargs), {})

    def parse_with_settings(*args, **kwargs):
        raise Parsed(*cli_flags.parse_with_settings(*args, **kwargs))

    for name, module in list(sys.modules.items()):
        if name.startswith("havoc_cli.") and module is not cli_flags:
            monkeypatch.setattr(module, "parse", parse, raising=False)
            monkeypatch.setattr(module, "parse_with_settings", parse_with_settings, raising=False)
    with pytest.raises(Parsed) as caught:
        command.run(arguments[1:])
    return caught.value


COMMAND_LINES = list(command_lines())
YAML_BLOCKS = list(fenced("yaml"))


@pytest.mark.parametrize("snippet", COMMAND_LINES, ids=lambda snippet: f"{snippet.where} {snippet.text[:40]}")
def test_a_command_in_the_docs_exists_and_its_flags_are_right(snippet, monkeypatch):
    arguments = havoc_arguments(snippet.text)
    if arguments is None:
        check_other_tool(shlex.split(snippet.text))
    elif arguments[0] != "--help":
        assert arguments[0] in COMMANDS, f"{snippet.where}: there is no command {arguments[0]}"
        if "--help" not in arguments:
            made = parsed(arguments, monkeypatch)
            config = getattr(made.flags, "config", None)
            assert resolve(read_yaml(ROOT / config) if config else {}, made.settings)


def check_other_tool(words):
    program = Path(words[0]).name
    if program == "make":
        targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
        assert [word for word in words[1:] if "=" not in word and word not in targets] == []
    elif program.startswith("python"):
        files = [word for word in words[1:] if word.endswith(".py")]
        assert "-m" in words or (files and all((ROOT / file).is_file() for file in files)), words
    else:
        assert program in KNOWN_TOOLS | {"pytest", "ruff", "mypy", "tensorboard"}, f"nobody knows {program}"


@pytest.mark.parametrize("snippet", YAML_BLOCKS, ids=lambda snippet: snippet.where)
def test_a_yaml_fragment_in_the_docs_binds(snippet):
    assert resolve(parse_yaml(snippet.text, where=snippet.where), {}, file_name=snippet.where)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_a_link_leads_somewhere_and_a_named_file_of_the_source_exists(page):
    text = page.read_text(encoding="utf-8")
    for target in LINK.findall(FENCE.sub("", text)):
        assert (page.parent / target).exists(), f"{page.name}: {target}"
    for path in re.findall(r"`((?:src|tests|configs|scripts|docs|benchmarks)/[\w./-]+)`", text):
        assert (ROOT / path).exists(), f"{page.name}: {path}"


def test_every_page_is_reached_from_the_map():
    reached, waiting = set(), [ROOT / "docs/index.md"]
    while waiting:
        page = waiting.pop().resolve()
        if page not in reached and page.suffix == ".md":
            reached.add(page)
            waiting += [
                page.parent / target for target in LINK.findall(FENCE.sub("", page.read_text(encoding="utf-8")))
            ]
    assert set((ROOT / "docs").rglob("*.md")) <= reached


@pytest.mark.parametrize("command", ["card", "build", "look", "replay", "sample", "export", "import"])
def test_the_docs_show_every_command_about_data(command):
    shown = [havoc_arguments(snippet.text) or [] for snippet in COMMAND_LINES]
    assert any(arguments[:2] == ["data", command] for arguments in shown)


def test_a_command_whose_parser_lies_in_another_file_is_parsed_and_not_run(monkeypatch, tmp_path):
    exported = parsed(["data", "export", str(tmp_path / "out"), "--format", "olmo", "--bos"], monkeypatch).flags
    assert (exported.format, exported.bos) == ("olmo", True)
    assert parsed(["data", "card", "one", "two"], monkeypatch).flags.paths == ("one", "two")
    assert parsed(["data", "replay", "--step", "7"], monkeypatch).flags.step == 7
    with pytest.raises(SystemExit, match="2"):
        parsed(["data", "import", "file", "--format", "olmo"], monkeypatch)
    assert list(tmp_path.iterdir()) == []


def test_a_wrong_flag_and_a_wrong_value_would_be_found(monkeypatch):
    with pytest.raises(SystemExit, match="2"):
        parsed(["train", "--learning-rat", "3e-4"], monkeypatch)
    assert parsed(["train", "--learning-rate", "3e-4"], monkeypatch).settings == {"learning_rate": 3e-4}


SMALL = shlex.split("""
    --model.num-layers 1 --model.d-model 32 --model.vocab-size 768 --model.mlp.hidden-dim 64
    --model.attention.num-heads 2 --model.attention.num-kv-heads 1 --data.max-sequence-length 64
    --max-steps 4 --batch-size 2 --eval-samples 1 --evaluation.exam-problems 8 --evaluation.sample-tokens 4
    --device cpu --compile off --threads 1 --data.num-workers 1
""")
"""Settings that turn minutes into seconds."""


@pytest.mark.slow
def test_the_page_on_your_own_text_works_from_top_to_bottom(tmp_path, monkeypatch, capsys):
    """With a data/ folder of two sources in place of the sample, and a model of a few thousand parameters."""
    for group, word in (("math", "integral"), ("general", "river")):
        folder = tmp_path / "data" / group
        folder.mkdir(parents=True)
        for number in range(40):
            lines = [
                f"{word} {number} {line} " + " ".join(f"{word}{line * k % 17}" for k in range(20)) for line in range(30)
            ]
            (folder / f"{number}.txt").write_text("\n".join(lines))
    monkeypatch.chdir(tmp_path)
    done = []
    for snippet in COMMAND_LINES:
        arguments = havoc_arguments(snippet.text.replace("configs/", f"{ROOT}/configs/"))
        on_the_page = snippet.where.startswith("docs/how_to/your_own_text.md")
        if on_the_page and arguments is not None and arguments[:2] != ["data", "sample"]:
            monkeypatch.setattr(LOGGER, "handlers", [])  # those of the command before write to its own screen
            code = main([*arguments, *SMALL])
            said = capsys.readouterr()
            assert code == 0, f"{snippet.text}\n{said.out}\n{said.err}"
            done.append(" ".join(word for word in arguments[:2] if not word.startswith("-")))
    assert done == ["data card", "data build", "data look", "run", "data replay"]
    for made in ("card.html", "runs/mine/logs/card.html", "runs/mine/logs/report.html"):
        assert (tmp_path / made).is_file(), made
