"""`havoc data export | import`: token files of other stacks."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from havoc_cli.flags import parse
from havoc_cli.run_lock import locked
from havoc_core.config import TrainingConfig
from havoc_core.config_files import parse_yaml
from havoc_core.errors import ConfigError
from havoc_core.run_files import RunFiles

if TYPE_CHECKING:
    from havoc_data.token_format import Interchange


@dataclass(frozen=True)
class ExportFlags:
    """Flags of `havoc data export`."""

    folder: Annotated[str, tyro.conf.Positional]
    """Folder to write; must not exist."""
    format: str
    """megatron, datatrove, olmo; or a module of your own."""
    run_dir: str = "."
    """Run whose token store is written."""
    bos: bool = False
    """Keep the beginning-of-text token of each document; most stacks expect only the end."""
    format_options: str = "{}"
    """What the format alone understands, as YAML: "{dtype: int32}"."""


@dataclass(frozen=True)
class ImportFlags:
    """Flags of `havoc data import`."""

    path: Annotated[str, tyro.conf.Positional]
    """File of tokens, or a folder of them, which are joined."""
    format: str
    """megatron, datatrove, olmo; or a module of your own."""
    tokenizer: str
    """Tokenizer that the ids are of: a folder, a tokenizer.json or a SentencePiece model."""
    group: Literal["domain", "general", "dialog"]
    """Share of the mixture that the text belongs to."""
    name: str
    """What the source is called in the store."""
    run_dir: str = "."
    """Run that gets the store and the tokenizer; must not have a store."""
    licence: str | None = None
    """Licence of the text, as its SPDX name."""
    as_is: bool = False
    """Leave documents as they are, instead of adding the tokens for beginning and end where they are missing."""
    drop_empty: bool = False
    """Leave documents without text out, instead of stopping at one."""
    format_options: str = "{}"
    """What the format alone understands, as YAML: "{dtype: uint32}"."""


def run_export(argv: Sequence[str]) -> int:
    """Write the token store of a run in the format of another stack."""
    return export(
        parse(
            ExportFlags,
            argv,
            prog="havoc data export",
            description="Token store -> files of Megatron, datatrove or OLMo, with the tokenizer.",
        )
    )


def run_import(argv: Sequence[str]) -> int:
    """Make the token store of a run from files of another stack."""
    return import_files(
        parse(
            ImportFlags,
            argv,
            prog="havoc data import",
            description="Files of Megatron, datatrove or OLMo -> token store of a new run.",
        )
    )


def export(flags: ExportFlags) -> int:
    """Export as the flags say, and name every file."""
    interchange = _interchange(flags.format, flags.format_options)
    from havoc_core.tokenizer import Tokenizer
    from havoc_data.store import TokenStore
    from havoc_data.token_export import export_store

    files = RunFiles.of(TrainingConfig(run_dir=flags.run_dir))
    store, tokenizer = TokenStore(files.store), Tokenizer.load(files.tokenizer)
    written = export_store(store, tokenizer, folder=Path(flags.folder), interchange=interchange, bos=flags.bos)
    for source in written:
        print(f"{source.path}: {source.documents:,} documents, {source.tokens:,} tokens")
    ends = f"id {tokenizer.eos_id}"
    print(f"Documents end with {ends}" + (f" and begin with id {tokenizer.bos_id}." if flags.bos else "."))
    return 0


def import_files(flags: ImportFlags) -> int:
    """Import as the flags say, and tell how to train on it."""
    interchange = _interchange(flags.format, flags.format_options)
    from havoc_core.tokenizer import Tokenizer
    from havoc_data.token_import import TokenImport, import_tokens

    tokenizer = Tokenizer.load(Path(flags.tokenizer))
    order = TokenImport(
        path=Path(flags.path),
        interchange=interchange,
        name=flags.name,
        group=flags.group,
        licence=flags.licence,
        as_is=flags.as_is,
        drop_empty=flags.drop_empty,
    )
    files = RunFiles.of(TrainingConfig(run_dir=flags.run_dir))
    with locked(files):
        store = import_tokens(order, tokenizer, files=files)
    record, held_out = store.training[flags.name].record, store.validation[flags.group].record
    rejected = record.ledger["rejected"]
    left_out = f"; {rejected:,} without text left out" if rejected else ""
    print(f"{flags.name} ({flags.group}): {record.documents:,} documents, {record.tokens:,} tokens{left_out}")
    print(f"held out of {flags.group}: {held_out.documents:,} documents, {held_out.tokens:,} tokens")
    print(f"store {store.id}")
    command = ["havoc", "train", "--config", "CONFIG.yaml", "--run-dir", flags.run_dir, "--data.rebuild", "never"]
    print("There is no text to build it from again, so train on it as it stands, with the settings of a model that has")
    print(f"{tokenizer.vocab_size:,} ids:\n    {shlex.join(command)}")
    return 0


def _interchange(name: str, options: str) -> Interchange:
    from havoc_data.token_format import TOKEN_FORMATS

    values = parse_yaml(options, where="--format-options")
    if not isinstance(values, dict):
        raise ConfigError("--format-options", f"{options!r} names no settings.", 'Write "{name: value}".')
    checked = TOKEN_FORMATS.options(name, values)
    interchange: Interchange = TOKEN_FORMATS.module(name).build(checked)
    return interchange
