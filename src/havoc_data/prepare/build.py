"""The whole way from sources to a token store, each part redone only if its inputs have changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from havoc_core.config import TrainingConfig
from havoc_core.errors import CheckpointError, DataError
from havoc_core.log import LOGGER
from havoc_core.run_files import RunFiles
from havoc_core.tokenizer import Tokenizer
from havoc_data.prepare.collect import Collecting, collect, inputs_key
from havoc_data.prepare.corpus import Corpus, open_corpus
from havoc_data.prepare.questions import ExamQuestions
from havoc_data.prepare.tokenize import build_store, is_current, store_key
from havoc_data.prepare.train_tokenizer import check_fits, make_tokenizer, tokenizer_key
from havoc_data.store import TokenStore, open_store


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
    if config.data.rebuild == "never" or config.data.store is not None:
        return open_prepared(config)
    files = RunFiles.of(config)
    corpus = collect_corpus(config)
    # Ids would mean something else to the model that learnt them: while the text grows under it, the tokenizer stays.
    if config.data.growing and _checkpoints(files) and (files.tokenizer / "inputs_key").is_file():
        tokenizer = Tokenizer.load(files.tokenizer)
        check_fits(tokenizer, config.model.vocab_size)
    else:
        tokenizer = make_tokenizer(config, corpus, folder=files.tokenizer)
    store = build_store(corpus, files.tokenizer, folder=files.store, data=config.data)
    return PreparedData(tokenizer, store)


def collect_corpus(config: TrainingConfig) -> Corpus:
    """The corpus of a run, in its `corpus/` folder.

    Raises:
        DataError: no text, or it would replace what a run was trained on.
    """
    files = RunFiles.of(config)
    _refuse_to_replace(config, files)
    return collect(collecting(config))


def collecting(config: TrainingConfig) -> Collecting:
    """What the corpus of a run is made of."""
    return Collecting(config.data, Path(), RunFiles.of(config).run_dir / "corpus", ExamQuestions.of(config))


def _refuse_to_replace(config: TrainingConfig, files: RunFiles) -> None:
    """Checkpoints can only go on with the store they were trained on: it is not built anew under them."""
    if config.data.growing or not _checkpoints(files) or not (files.store / "manifest.json").is_file():
        return
    key = inputs_key(collecting(config))
    key_file = files.tokenizer / "inputs_key"
    same_tokenizer = key_file.is_file() and key_file.read_text(encoding="utf-8") == tokenizer_key(config, key)
    corpus = open_corpus(files.run_dir / "corpus")
    # Without a corpus (a machine that was given the store alone) the store itself says what it was made of.
    same_text = (
        is_current(files.store, store_key(key, Tokenizer.load(files.tokenizer)))
        if corpus is None
        else corpus.key == key
    )
    if not same_text or not same_tokenizer:
        what = "the tokenizer's settings have" if same_text else "the text or its settings have"
        raise DataError(
            "data",
            f"{what} changed, and {files.checkpoints} holds checkpoints that were trained on them as they were.",
            "Start elsewhere: --run-dir NEW. To go on with the store as it stands: --data.rebuild never. To let the run learn "
            "from the new text from here on: --data.growing true.",
        )


def _checkpoints(files: RunFiles) -> list[Path]:
    return sorted(files.checkpoints.glob("checkpoint_*")) if files.checkpoints.is_dir() else []


def open_prepared(config: TrainingConfig) -> PreparedData:
    """Tokenizer and store as they stand.

    Raises:
        DataError: one of them is missing or damaged, or the store was made with another tokenizer.
        ConfigError: the tokenizer does not fit the model.
    """
    files = RunFiles.of(config)
    if config.data.store is not None and not files.tokenizer.is_dir():
        raise DataError(
            str(files.tokenizer),
            f"there is no tokenizer, and {config.data.store} is of use only with the one it was made with.",
            "Copy the tokenizer/ folder of the run that built the store.",
        )
    tokenizer = Tokenizer.load(files.tokenizer)
    check_fits(tokenizer, config.model.vocab_size)
    store = open_store(config.data.store or str(files.store), copies=files.run_dir / "store_copies")
    if store.manifest["tokenizer"] != tokenizer.fingerprint():
        raise DataError(
            str(store.folder),
            f"was made with another tokenizer than the one in {files.tokenizer}: its ids would mean other text.",
            "Put the tokenizer of the store there, or build the store again: havoc data build.",
        )
    return PreparedData(tokenizer, store)


def prepare_to_continue(config: TrainingConfig, *, store_id: str) -> PreparedData:
    """Tokenizer and store for a run that continues; nothing is built again, so nothing of the run is lost.

    Raises:
        CheckpointError: the store is not the one that the checkpoint was trained on, or the text has changed, and
            `data.growing` is false.
    """
    if config.data.growing:
        return prepare(config)
    data = open_prepared(config)
    remedy = (
        "Put the text back as it was, train on the store as it stands (--data.rebuild never), let the run learn from the new "
        "text from here on (--data.growing true), start afresh with --run-dir NEW, or take its weights along: "
        "havoc train --resume PATH --fine-tune --run-dir NEW."
    )
    if data.store.id != store_id:
        found = f"the token store is {data.store.id[:12]}…, the checkpoint was trained on {store_id[:12]}…."
        raise CheckpointError("data", found, remedy)
    if config.data.rebuild == "never" or config.data.store is not None:
        LOGGER.info("Training on the store as it stands.")
    elif not is_current(RunFiles.of(config).store, store_key(inputs_key(collecting(config)), data.tokenizer)):
        raise CheckpointError("data", "the text or its settings have changed since the checkpoint.", remedy)
    return data
