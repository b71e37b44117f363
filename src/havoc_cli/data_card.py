"""`havoc data card`: what is in a folder, before anything is trained; and the card of a run's text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from havoc_cli.flags import ConfigFlags, load_config, parse_with_settings
from havoc_core.config import DataMixtureConfig, SourceConfig, TrainingConfig
from havoc_core.errors import ConfigError, DataError
from havoc_core.run_files import RunFiles

if TYPE_CHECKING:
    from havoc_data.prepare.build import PreparedData


@dataclass(frozen=True)
class CardFlags(ConfigFlags):
    """Flags of `havoc data card`."""

    paths: Annotated[tuple[str, ...], tyro.conf.Positional] = field(default_factory=tuple)
    """Folders, archives or files; none: the text of the settings. A folder of folders is a source for each."""
    out: str = "card.html"
    """Page to write."""


def show_card(argv: Sequence[str]) -> int:
    """Say what is in some folders, on the terminal and as a page; nothing else is written."""
    flags, given = parse_with_settings(
        CardFlags,
        argv,
        prog="havoc data card",
        description="What is in a folder: formats, junk, duplicates, formulas, exam questions, and what it suffices for.",
    )
    config = load_config(flags, given).config
    data = config.data if not flags.paths else _with_sources(config.data, flags.paths)
    from havoc_core import log
    from havoc_data.prepare.card import data_card
    from havoc_data.prepare.collect import Collecting, collect
    from havoc_data.prepare.questions import ExamQuestions
    from havoc_report.data_lines import card_lines
    from havoc_report.data_page import data_page
    from havoc_report.page import write_page

    log.to_screen()
    out = Path(flags.out)
    if not out.parent.is_dir():
        raise ConfigError("--out", f"there is no folder {out.parent}.", "Create it, or name another file.")
    with TemporaryDirectory(prefix="havoc-card-") as folder:
        asked = Collecting(data, Path(), Path(folder) / "corpus", ExamQuestions.of(config), hold_out=False)
        corpus = collect(asked)
        named = ", ".join(flags.paths) or flags.config or "the defaults"
        card = data_card(
            corpus, data, title=", ".join(Path(path).name for path in flags.paths) or "data", made_from=named
        )
    write_page(out, data_page(card))
    print("\n".join(card_lines(card)))
    print(f"\n{out}")
    return 0


def _with_sources(data: DataMixtureConfig, paths: Sequence[str]) -> DataMixtureConfig:
    """The settings with these folders as their sources."""
    sources = [source for path in paths for source in _sources_of(Path(path), data)]
    names = [source.name for source in sources]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ConfigError("havoc data card", f"two of the folders are called '{twice}'.", "Name them one at a time.")
    return data.model_copy(update={"sources": sources})


def _sources_of(path: Path, data: DataMixtureConfig) -> list[SourceConfig]:
    if not path.exists():
        raise DataError(str(path), "there is no such file or folder.", "Check the path.")
    folders = [path]
    if path.is_dir():
        inside = sorted((each for each in path.iterdir() if not each.name.startswith(".")), key=lambda each: each.name)
        if inside and all(each.is_dir() for each in inside):
            folders = inside
    options: dict[str, Any] = {"exclude": data.exclude} if data.exclude else {}
    return [
        SourceConfig(
            kind="files",
            path=str(each),
            name=each.resolve().name,
            group="general" if each.name == "general" else "dialog" if each.name == "dialog" else "domain",
            options=options,
        )
        for each in folders
    ]


def write_card(config: TrainingConfig, data: PreparedData, *, made_from: str) -> Path | None:
    """Write logs/card.html of a run's text; None where the text is not here, but only the store.

    Args:
        config: the run.
        data: its tokenizer and store.
        made_from: shown on the page.
    """
    from havoc_core.costs import num_parameters
    from havoc_data.prepare.card import Planned, data_card
    from havoc_data.prepare.corpus import open_corpus
    from havoc_report.data_page import data_page
    from havoc_report.page import write_page
    from havoc_training.batch_plan import plan_batches
    from havoc_training.data_stages import make_loader

    files = RunFiles.of(config)
    corpus = open_corpus(files.run_dir / "corpus")
    if corpus is None:
        return None
    loader = make_loader(config, data)
    plan = plan_batches(config, world_size=1, rows_per_epoch=loader.rows_per_epoch, kept_rows_per_step=None)
    planned = Planned(
        store=data.store,
        vocabulary=data.tokenizer.vocab_size,
        epochs=loader.epochs_after(plan.total_steps * plan.rows_per_step),
        model_parameters=num_parameters(config.model),
    )
    card = data_card(corpus, config.data, title=files.run_dir.resolve().name, made_from=made_from, planned=planned)
    path = files.data_card
    path.parent.mkdir(parents=True, exist_ok=True)
    write_page(path, data_page(card))
    return path
