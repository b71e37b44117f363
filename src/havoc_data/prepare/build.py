"""The whole way from sources to a token store, each part redone only if its inputs have changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from havoc_core.config import TrainingConfig
from havoc_core.errors import CheckpointError
from havoc_core.log import LOGGER
from havoc_core.run_files import RunFiles
from havoc_core.tokenizer import Tokenizer
from havoc_data.prepare.collect import Corpus, collect, inputs_key
from havoc_data.prepare.tokenize import build_store, is_current, store_key
from havoc_data.prepare.train_tokenizer import check_fits, make_tokenizer
from havoc_data.store import TokenStore


@dataclass(frozen=True)
class PreparedData:
    """What training needs of the data."""

    tokenizer: Tokenizer
    store: TokenStore


def prepare(config: TrainingConfig) -> PreparedData:
    """Collect, train the tokenizer, tokenize; what is current is left as it is.

    Raises:
        DataError: no text, too little of it, or a damaged store.
        ConfigError: the tokenizer does not fit the model.
    """
    if config.data.rebuild == "never":
        return open_prepared(config)
    corpus = collect_corpus(config)
    files = RunFiles.of(config)
    tokenizer = make_tokenizer(config, corpus, folder=files.tokenizer)
    store = build_store(corpus, files.tokenizer, folder=files.store, num_workers=config.data.num_workers)
    return PreparedData(tokenizer, store)


def collect_corpus(config: TrainingConfig) -> Corpus:
    """The corpus of a run, in its `corpus/` folder."""
    return collect(config.data, base=Path(), folder=RunFiles.of(config).run_dir / "corpus")


def open_prepared(config: TrainingConfig) -> PreparedData:
    """Tokenizer and store as they stand."""
    files = RunFiles.of(config)
    tokenizer = Tokenizer.load(files.tokenizer)
    check_fits(tokenizer, config.model.vocab_size)
    return PreparedData(tokenizer, TokenStore(files.store))


def prepare_to_continue(config: TrainingConfig, *, store_id: str) -> PreparedData:
    """Tokenizer and store for a run that continues; nothing is built again, so nothing of the run is lost.

    Raises:
        CheckpointError: the store is not the one that the checkpoint was trained on, or the text has changed.
    """
    data = open_prepared(config)
    remedy = (
        "Put the text back as it was, start afresh with --run-dir NEW, "
        "or take its weights along: havoc train --resume PATH --fine-tune --run-dir NEW."
    )
    if data.store.id != store_id:
        found = f"the token store is {data.store.id[:12]}…, the checkpoint was trained on {store_id[:12]}…."
        raise CheckpointError("data", found, remedy)
    if config.data.rebuild == "never":
        LOGGER.info("Training on the store as it stands (data.rebuild: never).")
    elif not is_current(RunFiles.of(config).store, store_key(inputs_key(config.data, base=Path()), data.tokenizer)):
        raise CheckpointError("data", "the text or its settings have changed since the checkpoint.", remedy)
    return data
