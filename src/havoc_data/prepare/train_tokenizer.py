"""Trains the tokenizer on the training side of the corpus, or loads the one that was named."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path

from tokenizers import Regex, decoders, models, pre_tokenizers, trainers
from tokenizers import Tokenizer as FastTokenizer

from havoc_core.config import TrainingConfig
from havoc_core.errors import ConfigError, DataError
from havoc_core.tokenizer import (
    NUM_SPECIAL,
    SPECIAL_TOKENS,
    SPLIT_PATTERN,
    BpeEngine,
    SentencePieceEngine,
    Tokenizer,
)
from havoc_data.document import document_text
from havoc_data.prepare.corpus import Corpus
from havoc_data.store import written_whole

SAMPLE_BYTES_PER_ID = 8 * 1024
"""Text that the trainer sees for every id of the vocabulary: even rare ones are then learnt from many places."""


def tokenizer_key(config: TrainingConfig, corpus_key: str) -> str:
    """Hash of everything that the tokenizer depends on."""
    settings = config.tokenizer.model_dump()
    content = None
    if config.tokenizer.path is not None:
        path = Path(config.tokenizer.path)
        content = hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
    inputs = [settings, SAMPLE_BYTES_PER_ID, content, config.model.vocab_size, None if content else corpus_key]
    return hashlib.blake2b(json.dumps(inputs, sort_keys=True).encode(), digest_size=16).hexdigest()


def make_tokenizer(config: TrainingConfig, corpus: Corpus, *, folder: Path) -> Tokenizer:
    """The tokenizer of a run; trained again only if the text or a setting has changed, or it is damaged.

    Raises:
        ConfigError: it has more ids than the model, or `kind: huggingface` came without a path.
    """
    key = tokenizer_key(config, corpus.key)
    tokenizer = _current(folder, key)
    if tokenizer is None:
        made = _make(config, corpus)
        with written_whole(folder) as beside:
            made.save(beside)
            (beside / "inputs_key").write_text(key, encoding="utf-8")
        tokenizer = Tokenizer.load(folder)
    check_fits(tokenizer, config.model.vocab_size)
    return tokenizer


def _current(folder: Path, key: str) -> Tokenizer | None:
    """The tokenizer in a folder, if it was made from these inputs and can be read."""
    try:
        current = (folder / "inputs_key").read_text(encoding="utf-8") == key
        return Tokenizer.load(folder) if current else None
    except (OSError, UnicodeDecodeError, DataError):
        return None


def check_fits(tokenizer: Tokenizer, vocab_size: int) -> None:
    """Refuse a tokenizer with more ids than the model's embedding has rows.

    Raises:
        ConfigError: it does not fit.
    """
    if tokenizer.vocab_size > vocab_size:
        raise ConfigError(
            "model.vocab_size",
            f"the tokenizer has {tokenizer.vocab_size:,} ids, the model {vocab_size:,}.",
            f"Set model.vocab_size to {-(-tokenizer.vocab_size // 128) * 128:,}, or train a smaller tokenizer.",
        )


def _make(config: TrainingConfig, corpus: Corpus) -> Tokenizer:
    settings = config.tokenizer
    if settings.path is not None:
        return Tokenizer.load(Path(settings.path))
    if settings.kind == "huggingface":
        raise ConfigError(
            "tokenizer.path", "is null, and `kind: huggingface` uses an existing file.", "Name a tokenizer.json."
        )
    size = settings.vocab_size or config.model.vocab_size
    texts = _sample(corpus, settings.sample_bytes or SAMPLE_BYTES_PER_ID * size)
    if settings.kind == "sentencepiece":
        return Tokenizer(train_sentencepiece(texts, vocab_size=size))
    return Tokenizer(train_bpe(texts, vocab_size=size))


def train_bpe(texts: Iterator[str], *, vocab_size: int) -> BpeEngine:
    """Byte-level BPE without normalisation: 256 special ids, 256 bytes, then merges.

    Where the text has too few pairs to fill the vocabulary, the remaining ids are named <|unused_i|>.
    """
    fast = FastTokenizer(models.BPE())
    fast.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(SPLIT_PATTERN), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    fast.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    fast.train_from_iterator(texts, trainer)
    short = vocab_size - fast.get_vocab_size()
    if short > 0:
        first = fast.get_vocab_size()
        fast.add_special_tokens([f"<|unused_{i}|>" for i in range(first, first + short)])
    return BpeEngine(fast)


def train_sentencepiece(texts: Iterator[str], *, vocab_size: int) -> SentencePieceEngine:
    """SentencePiece BPE that loses nothing: no normalisation, single digits, unknown characters as bytes."""
    import sentencepiece

    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        # One line a sentence; the trainer skips what is longer than max_sentence_length bytes.
        sentence_iterator=(line for text in texts for line in text.split("\n") if line.strip()),
        model_writer=out,
        model_type="bpe",
        vocab_size=vocab_size,
        hard_vocab_limit=False,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        add_dummy_prefix=False,
        allow_whitespace_only_pieces=True,
        split_digits=True,
        byte_fallback=True,
        character_coverage=0.9995,
        max_sentence_length=65_536,
        unk_id=NUM_SPECIAL - 1,
        bos_id=0,
        eos_id=1,
        pad_id=2,
        bos_piece=SPECIAL_TOKENS[0],
        eos_piece=SPECIAL_TOKENS[1],
        pad_piece=SPECIAL_TOKENS[2],
        unk_piece=SPECIAL_TOKENS[-1],
        control_symbols=list(SPECIAL_TOKENS[3:-1]),
        minloglevel=2,
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=out.getvalue())
    return SentencePieceEngine(processor, out.getvalue())


def _sample(corpus: Corpus, sample_bytes: int) -> Iterator[str]:
    """Training documents, thinned by their hash so that each group has at most its share of `sample_bytes`."""
    for source, group in corpus.groups.items():
        group_bytes = sum(ledger.kept_bytes for ledger in corpus.ledgers if ledger.group == group)
        share = sample_bytes * corpus.ratios.get(group, 0.0) / max(1, group_bytes)
        limit = int(min(1.0, share) * 2**128)
        for identity, document in corpus.documents(source, held_out=False):
            # Reversed digits: the plain hash decides who is held out, and must not decide this too.
            if int(identity[::-1], 16) < limit:
                yield document_text(document)
