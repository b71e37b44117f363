"""Text -> ids -> the same text, whatever the text is."""

from __future__ import annotations

import json
import random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, models, trainers
from tokenizers import Tokenizer as FastTokenizer

from havoc_core.errors import DataError
from havoc_core.tokenizer import (
    _SAFE_CUT,
    MAX_PIECE,
    SPECIAL_TOKENS,
    SPLIT_PATTERN,
    BpeEngine,
    Tokenizer,
    _pieces,
    byte_alphabet,
)
from havoc_data.prepare.train_tokenizer import train_bpe, train_sentencepiece

TEXTS = [
    "The mean of a sample is the sum of its values over their number.\n\n\tdef mean(x):\n\t\treturn sum(x) / len(x)\n"
    * 4,
    "Größe, 温度 and Σ are words; ∫₀¹ x² dx = 1/3, ∀ε>0 ∃δ, 𝔼[X] ≤ ℝ 😀 is none. It's we'll 12345\r\n" * 4,
]
# Mathematical operators and alphanumerics, letterlike, arrows, super- and subscripts, Greek, combining marks, technical.
MATHEMATICS = [
    (0x2200, 0x22FF), (0x2A00, 0x2AFF), (0x27C0, 0x27EF), (0x2980, 0x29FF), (0x1D400, 0x1D7FF), (0x1EE00, 0x1EEFF),
    (0x2100, 0x214F), (0x2190, 0x21FF), (0x27F0, 0x27FF), (0x2900, 0x297F), (0x2B00, 0x2BFF), (0x2070, 0x209F),
    (0x2150, 0x218F), (0x0370, 0x03FF), (0x0300, 0x036F), (0x20D0, 0x20FF), (0x2300, 0x23FF), (0x25A0, 0x25FF),
]  # fmt: skip
# The pre-tokenizer regex of "qwen2" in llama.cpp (src/llama-vocab.cpp, LLAMA_VOCAB_PRE_TYPE_QWEN2), flags written out.
QWEN2 = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PARTS = [
    "mean", " of", "\n", "\n\n", "\r\n", "  ", " \n", "\t", "x²", "!?", "\n\n  ", "12", "'s", "…\n", "\n#", "\x1c", "\x85", "\u2028",
]  # fmt: skip
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))


@pytest.fixture(scope="module")
def bpe():
    return Tokenizer(train_bpe(iter(TEXTS), vocab_size=600))


@pytest.fixture(scope="module")
def piece():
    return Tokenizer(train_sentencepiece(iter(TEXTS), vocab_size=640))


@settings(max_examples=300, deadline=None)
@given(text=ANY_TEXT)
@example("\0\0a\0")
@example("👩‍👩‍👧‍👦🏳️‍🌈e\u0301\ufeff\u2028\u2029\x85\x1c")
@example("  \n \r\n\t x  ")
@example("<|eos|><|bos|> <|unused_599|>")
@example("")
def test_decoding_what_was_encoded_gives_the_text_back(bpe, text):
    assert bpe.decode(bpe.encode(text)) == text


def test_every_character_of_the_mathematical_blocks_comes_back(bpe):
    for first, last in MATHEMATICS:
        text = "".join(chr(c) for c in range(first, last + 1))
        assert bpe.decode(bpe.encode(text)) == text
        assert [bpe.decode(ids) for ids in bpe.encode_batch(list(text))] == list(text)


def test_every_byte_has_a_token():
    assert sorted(byte_alphabet()) == list(range(256))
    assert len(set(byte_alphabet().values())) == 256


def test_special_tokens_in_a_text_are_text(bpe):
    for name in (*SPECIAL_TOKENS, "<|unused_599|>"):
        ids = bpe.encode(name)
        assert len(ids) > 1
        assert min(ids) >= 256, name
        assert bpe.decode(ids) == name


def test_ids_0_to_255_are_special_and_the_next_256_are_the_bytes(bpe):
    table = bpe.token_bytes()
    assert [bpe.special[name] for name in SPECIAL_TOKENS] == list(range(256))
    assert (bpe.bos_id, bpe.eos_id, bpe.pad_id) == (0, 1, 2)
    assert len(set(SPECIAL_TOKENS)) == 256
    assert table[:256] == [b""] * 256
    assert sorted(table[256:512]) == [bytes([byte]) for byte in range(256)]
    assert all(len(each) >= 2 for each in table[512:] if each)
    assert bpe.token_lengths().tolist() == [len(each) for each in table]


def test_a_special_token_stands_for_nothing(bpe):
    assert bpe.decode([bpe.bos_id, *bpe.encode("x = 1"), bpe.eos_id, bpe.pad_id]) == "x = 1"


def test_a_vocabulary_that_stops_short_is_filled_with_unused_names():
    tokenizer = Tokenizer(train_bpe(iter(["abab"]), vocab_size=700))
    unused = {name: i for name, i in tokenizer.special.items() if name.startswith("<|unused_")}
    assert tokenizer.vocab_size == 700
    assert unused
    assert all(name == f"<|unused_{i}|>" for name, i in unused.items())
    assert sorted(unused.values()) == list(range(700 - len(unused), 700))
    assert all(tokenizer.token_bytes()[i] == b"" for i in unused.values())


def test_the_split_is_that_of_qwen2_in_llama_cpp(bpe, tmp_path):
    assert SPLIT_PATTERN == QWEN2
    bpe.save(tmp_path)
    written = json.loads((tmp_path / "tokenizer.json").read_text(encoding="utf-8"))
    assert written["pre_tokenizer"]["pretokenizers"][0]["pattern"] == {"Regex": QWEN2}
    assert written["normalizer"] is None
    assert written["model"]["type"] == "BPE"


def test_digits_are_single(bpe):
    assert len(bpe.encode("1234567890")) == 10


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(PARTS), max_size=30).map("".join))
def test_wherever_a_long_text_may_be_cut_the_ids_are_the_same(bpe, text):
    whole = bpe.encode(text)
    for cut in _SAFE_CUT.finditer(text):
        assert bpe.encode(text[: cut.end()]) + bpe.encode(text[cut.end() :]) == whole


def test_a_long_text_is_cut_at_line_ends():
    text = ("x" * 79 + "\n") * 30_000
    pieces = list(_pieces(text))
    assert "".join(pieces) == text
    assert len(pieces) == 3
    assert all(len(piece) <= MAX_PIECE and piece.endswith("x\n") for piece in pieces)
    assert list(_pieces("")) == [""]
    assert list(_pieces("x" * MAX_PIECE)) == ["x" * MAX_PIECE]


@pytest.mark.slow
def test_a_long_text_is_encoded_in_pieces_with_the_same_result(bpe):
    text = "".join(random.Random(0).choices(PARTS, k=1_000_000))
    assert len(text) > 2 * MAX_PIECE
    whole = bpe._engine.encode([text])[0]
    assert bpe.encode(text) == whole
    assert bpe.encode_batch(["a", text, ""]) == [bpe.encode("a"), whole, []]


def test_a_long_text_without_a_safe_place_still_comes_back(bpe):
    text = "ab" * (MAX_PIECE // 2) + "😀" + "c" * 1000
    assert bpe.decode(bpe.encode(text)) == text


@pytest.mark.parametrize("kind", ["bpe", "piece"])
def test_saving_and_loading_changes_nothing(kind, request, tmp_path):
    tokenizer = request.getfixturevalue(kind)
    tokenizer.save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert loaded.fingerprint() == tokenizer.fingerprint()
    assert (loaded.special, loaded.vocab_size) == (tokenizer.special, tokenizer.vocab_size)
    for text in (*TEXTS, "<|eos|> ∑\0"):
        assert loaded.encode(text) == tokenizer.encode(text)
    assert json.loads((tmp_path / "special_tokens.json").read_text()) == tokenizer.special
    assert np.load(tmp_path / "token_bytes.npy").tolist() == tokenizer.token_lengths().tolist()
    assert "<|assistant|>" in (tmp_path / "chat_template.jinja").read_text()


@settings(max_examples=100, deadline=None)
@given(texts=st.lists(ANY_TEXT, max_size=4))
@example([])
@example([""])
@example(["\u2581 a", "", "<|eos|> 温度\n\n"])
def test_arrays_hold_the_ids_of_the_lists_whatever_the_kind(bpe, piece, texts):
    for tokenizer in (bpe, piece):
        arrays = tokenizer.encode_arrays(texts)
        assert [array.tolist() for array in arrays] == tokenizer.encode_batch(texts)
        assert all(array.dtype == np.uint32 and array.ndim == 1 for array in arrays)


def test_arrays_of_a_long_text_are_joined_from_its_pieces(piece, bpe):
    text = ("mean of x\n" * 40 + "x") * 5000
    assert len(list(_pieces(text))) > 1
    (array,) = bpe.encode_arrays([text])
    assert array.tolist() == bpe.encode(text)


def test_another_vocabulary_has_another_fingerprint(bpe):
    other = Tokenizer(train_bpe(iter(TEXTS), vocab_size=601))
    assert bpe.fingerprint() != other.fingerprint()
    assert bpe.fingerprint() == Tokenizer(train_bpe(iter(TEXTS), vocab_size=600)).fingerprint()


@settings(max_examples=300, deadline=None)
@given(text=ANY_TEXT)
@example("  two  spaces ")
@example("\n\n\tx\0y\u2581z\u2581\u2581")
@example("<|eos|><unk></s><0x41>")
@example("e\u0301 ﬁ Å 温 😀 \u3000")
def test_sentencepiece_loses_nothing_either(piece, text):
    """Regression: U+2581, SentencePiece's own space, came back as a space."""
    assert piece.decode(piece.encode(text)) == text


def test_sentencepiece_has_the_same_special_ids(piece):
    assert [piece.special[name] for name in SPECIAL_TOKENS] == list(range(256))
    assert (piece.bos_id, piece.eos_id, piece.pad_id) == (0, 1, 2)
    assert piece.vocab_size <= 640
    for name in SPECIAL_TOKENS:
        assert min(piece.encode(name)) >= 256


def test_sentencepiece_splits_digits(piece):
    assert len([i for i in piece.encode("12345") if piece.token_bytes()[i].strip()]) == 5


def test_the_bytes_of_tokens_join_to_the_text(bpe):
    text = TEXTS[1]
    assert b"".join(bpe.token_bytes()[i] for i in bpe.encode(text)) == text.encode()
    assert bpe.decode_bytes(bpe.encode(text)) == text.encode()


def test_half_a_character_becomes_a_replacement_character(bpe):
    assert bpe.decode(bpe.encode("\U0001d53c")[:1]) == "\ufffd"


def foreign(special, *, added=(), alphabet=True):
    fast = FastTokenizer(models.BPE())
    trainer = trainers.BpeTrainer(
        special_tokens=special,
        initial_alphabet=list(byte_alphabet().values()) if alphabet else ["a"],
        show_progress=False,
    )
    fast.train_from_iterator([], trainer)
    fast.add_tokens([AddedToken(text, special=False, normalized=False) for text in added])
    return fast


def test_the_tokenizer_of_others_is_read_by_its_own_names(tmp_path):
    foreign(["<|endoftext|>"]).save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.load(tmp_path / "tokenizer.json")
    assert tokenizer.bos_id == tokenizer.eos_id == tokenizer.pad_id == 0


def test_an_added_token_that_is_not_special_stands_for_its_text(tmp_path):
    """Regression: runs of spaces, which GPT-NeoX keeps as added tokens, were lost in decoding."""
    foreign(["<s>", "</s>"], added=["    ", "π"]).save(str(tmp_path / "tokenizer.json"))
    tokenizer = Tokenizer.load(tmp_path / "tokenizer.json")
    ids = [tokenizer._engine._fast.token_to_id(text) for text in ("    ", "π")]
    assert tokenizer.decode(ids) == "    π"


def refusal(path):
    with pytest.raises(DataError) as caught:
        Tokenizer.load(path)
    assert "Train one: havoc tokenizer train." in caught.value.remedy
    return caught.value


def test_a_tokenizer_that_is_not_there_is_named(tmp_path):
    assert "holds no tokenizer.json" in refusal(tmp_path).found
    assert "there is no such tokenizer" in refusal(tmp_path / "tokenizer.json").found
    assert refusal(tmp_path).where == str(tmp_path)


def test_a_file_that_is_no_tokenizer_is_refused(tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    assert "is no tokenizer.json" in refusal(tmp_path).found
    (tmp_path / "a.model").write_bytes(b"nonsense")
    with pytest.raises(DataError, match=r"is no SentencePiece model \(.*Name a \.model file\."):
        Tokenizer.load(tmp_path / "a.model")


def test_a_tokenizer_that_is_not_byte_level_is_refused(tmp_path):
    """Regression: it was read as if it were, and most of its tokens stood for nothing."""
    foreign(["<s>", "</s>"], alphabet=False).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(DataError, match="no byte-level tokenizer") as caught:
        Tokenizer.load(tmp_path)
    assert "havoc tokenizer train" in caught.value.remedy
    assert caught.value.where == str(tmp_path / "tokenizer.json")


def test_a_tokenizer_without_beginning_and_end_is_refused():
    with pytest.raises(DataError, match=r"tokenizer: none of <\|bos\|>, .* is a special token of it\. Add one"):
        BpeEngine(foreign(["<x>"]))


def test_a_sentencepiece_model_without_beginning_and_end_is_refused(tmp_path):
    import io

    import sentencepiece

    out = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(TEXTS),
        model_writer=out,
        vocab_size=120,
        bos_id=-1,
        eos_id=-1,
        minloglevel=2,
        hard_vocab_limit=False,
    )
    (tmp_path / "a.model").write_bytes(out.getvalue())
    with pytest.raises(DataError, match="tokenizer: the SentencePiece model has no bos or eos id. Train it with both."):
        Tokenizer.load(tmp_path / "a.model")
