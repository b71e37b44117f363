"""`havoc data card | build | look | replay | sample | export | import`."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Annotated

import tyro

from havoc_cli.data_card import show_card, write_card
from havoc_cli.data_exchange import run_export, run_import
from havoc_cli.data_replay import replay_step
from havoc_cli.flags import ConfigFlags, load_config, parse, parse_with_settings
from havoc_cli.run_lock import locked
from havoc_cli.subcommands import pick
from havoc_core.config import DataMixtureConfig
from havoc_core.errors import DataError
from havoc_core.run_files import RunFiles


@dataclass(frozen=True)
class SampleFlags:
    """Flags of `havoc data sample`."""

    folder: Annotated[str, tyro.conf.Positional] = "data"
    """Folder to write; must not exist."""


@dataclass(frozen=True)
class LookFlags(ConfigFlags):
    """Flags of `havoc data look`."""

    rows: int = 2
    """Rows of each source to show."""


def run(argv: Sequence[str]) -> int:
    """Look at text, build the token store of it, and look at that."""
    choices = {
        "card": show_card,
        "build": _build,
        "look": _look,
        "replay": replay_step,
        "sample": _sample,
        "export": run_export,
        "import": run_import,
    }
    return pick("data", choices, argv)


def _sample(argv: Sequence[str]) -> int:
    flags = parse(
        SampleFlags,
        argv,
        prog="havoc data sample",
        description="Write the text of the first run as a data/ folder: documentation of installed packages, and problems.",
    )
    from havoc_data.discovery import discover
    from havoc_data.document import Rejected, document_text

    folder = Path(flags.folder)
    if folder.exists():
        raise DataError(str(folder), "is there already.", "Name a folder that does not exist yet.")
    # Below a folder that is not there, there is no data/ either: what it finds is the fallback.
    for entry in discover(DataMixtureConfig(fallback="package_docs"), folder).entries:
        place = folder / entry.name
        try:
            place.mkdir(parents=True)
        except OSError as error:
            raise DataError(
                str(folder), f"cannot be created ({error.strerror}).", "Name a folder that you may write to."
            ) from None
        size = 0
        with (place / f"{entry.name}.jsonl").open("w", encoding="utf-8") as file:
            for item in chain.from_iterable(part.documents() for part in entry.source.parts()):
                if not isinstance(item, Rejected):
                    file.write(_as_line(item.text, item.messages) + "\n")
                    size += len(document_text(item).encode())
        print(f"{place}  {size / 1e6:.1f} MB")
    return 0


def _as_line(text: str, messages: Sequence[tuple[str, str]]) -> str:
    import json

    if messages:
        return json.dumps({"messages": [{"role": r, "content": c} for r, c in messages]}, ensure_ascii=False)
    return json.dumps({"text": text}, ensure_ascii=False)


def _build(argv: Sequence[str]) -> int:
    flags, given = parse_with_settings(
        ConfigFlags,
        argv,
        prog="havoc data build",
        description="Text -> tokenizer -> token store; redone only if something changed.",
    )
    config = load_config(flags, given).config
    from havoc_core import log
    from havoc_data.prepare.build import prepare

    log.to_screen()
    with locked(RunFiles.of(config)):
        data = prepare(config)
    store = data.store
    store.verify()  # a large one is not read through whenever it is opened
    for name, source in store.training.items():
        record = source.record
        fates = "  ".join(f"{fate.replace('_', ' ')} {count:,}" for fate, count in record.ledger.items())
        print(f"{name} ({source.group}): {record.tokens:,} tokens, {record.bytes / 1e6:.2f} MB   {fates}")
    for group, source in store.validation.items():
        print(f"held out of {group}: {source.record.documents:,} documents, {source.record.tokens:,} tokens")
    for group in store.manifest["missing_groups"]:
        print(f"no text for {group}: its share goes to the other groups")
    print(f"store {store.id}")
    card = write_card(config, data, made_from=flags.config or "the defaults")
    if card is not None:
        print(f"data card {card}")
    return 0


def _look(argv: Sequence[str]) -> int:
    flags, given = parse_with_settings(
        LookFlags,
        argv,
        prog="havoc data look",
        description="What the model will see: tokens, documents, packing, rejects. Builds the store first if there is none.",
    )
    config = load_config(flags, given).config
    from havoc_data.loading.loader import Loader, MixturePlan
    from havoc_data.prepare.build import open_prepared, prepare
    from havoc_data.prepare.corpus import open_corpus

    # A store that is there is looked at as it stands: looking must not build another in its place.
    if (RunFiles.of(config).store / "manifest.json").is_file():
        data = open_prepared(config)
    else:
        with locked(RunFiles.of(config)):
            data = prepare(config)
    corpus = open_corpus(RunFiles.of(config).run_dir / "corpus")
    for ledger in corpus.ledgers if corpus is not None else ():
        for example in ledger.examples:
            print(f"left out of {ledger.name}: {example}")
    for name, facts in corpus.facts.items() if corpus is not None else ():
        for rule, fired in facts["rules"].items():
            print(f"{rule} fired on {fired['documents']:,} documents of {name}, such as:")
            for origin, value, limit, excerpt in fired["examples"]:
                print(f"    {origin} ({value:.4g}, the limit is {limit:.4g}): {excerpt[:100]!r}")
    ratios: dict[str, float] = data.store.manifest["ratios"]
    plan = MixturePlan(ratios, config.data.weights, config.data.max_sequence_length, config.data.packing)
    pieces = data.tokenizer.token_bytes()
    loader = Loader(data.store, plan, seed=config.seed, token_bytes=pieces, pad_id=data.tokenizer.pad_id)
    special = {number: name for name, number in data.tokenizer.special.items()}
    for source in loader.sources.values():
        fill = source.plan.num_labels / (source.plan.num_rows * config.data.max_sequence_length)
        print(f"\n=== {source.name} ({source.group}): {source.plan.num_rows:,} rows, {fill:.2%} full")
        for position in range(min(flags.rows, source.plan.num_rows)):
            inputs, _, lengths = source.row(position)
            print(
                f"--- row {position}: {len(lengths)} documents or fragments of {', '.join(map(str, lengths[:12]))} tokens"
            )
            print("".join(_spelled(inputs.tolist()[: sum(lengths)], pieces, special)))
    return 0


def _spelled(ids: Sequence[int], pieces: Sequence[bytes], special: dict[int, str]) -> Iterator[str]:
    """Tokens set apart: by colour on a terminal, by a bar elsewhere."""
    coloured = sys.stdout.isatty()
    for number, token in enumerate(ids):
        text = special.get(token) or pieces[token].decode("utf-8", errors="replace")
        shown = "".join(c if c.isprintable() or c == "\n" else f"\\x{ord(c):02x}" for c in text)
        yield f"\x1b[{(44, 100)[number % 2]}m{shown}\x1b[0m" if coloured else f"{shown}│"
