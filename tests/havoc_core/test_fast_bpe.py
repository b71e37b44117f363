"""Encoding through tiktoken gives the ids of the `tokenizers` library, or is not used."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, decoders, models, normalizers, pre_tokenizers, trainers
from tokenizers import Tokenizer as FastTokenizer

from havoc_core.fast_bpe import FastBpe, byte_alphabet
from havoc_core.tokenizer import PROOF_PAYS, SPECIAL_TOKENS, SPLIT_PATTERN, BpeEngine, Tokenizer
from havoc_data.prepare.train_tokenizer import train_bpe

TEXTS = [
    "The mean of a sample is the sum of its values over their number.\n\n\tdef mean(x):\n\t\treturn sum(x) / len(x)\n",
    "Größe and Σ are words; ∫₀¹ x² dx = 1/3, ∀ε>0 ∃δ, 𝔼[X] ≤ ℝ. It's we'll 12345\r\n" * 3,
    "平均値は標本の値の和を数で割ったものです。温度と圧力。 " * 4,
    "المتوسط هو مجموع القيم مقسوما على عددها. " * 4,
    "😀👩‍👩‍👧‍👦🏳️‍🌈 emoji 😀😀 and e\u0301 combining\n" * 4,
    r"\begin{align} \frac{\partial f}{\partial x} &= \sum_{i=1}^{n} \alpha_i x_i^{2} \\ \end{align}" * 3,
]
LLAMA_SPLIT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
ANY_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
PARTS = [
    "mean", " of", "'s", "'LL", "'\u017f", "\n", "\r\n", "  ", "\t", "x²", "12", "…\n", "\x1c", "\x85", "\u2028", "é", "<|eos|>",
    "温", "ا", "😀", "\u00a0", "!", "\u0301", "ﬁ", "𝔼", "\u200b", "\u212a",
]  # fmt: skip
PIECES = st.lists(st.sampled_from(PARTS), max_size=40).map("".join)


def byte_level(fast, pattern=SPLIT_PATTERN):
    """Split as byte-level tokenizers do."""
    fast.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(pattern), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    fast.decoder = decoders.ByteLevel()
    fast.encode_special_tokens = True  # as BpeEngine has it: a special token in a text is text
    return fast


def foreign(pattern=LLAMA_SPLIT, *, seed=0):
    """A tokenizer of others: bytes and merges in any order of ids, special tokens last."""
    trained = json.loads(train_bpe(iter(TEXTS), vocab_size=700)._fast.to_str())["model"]
    words = [word for word in trained["vocab"] if not word.startswith("<|")]
    random.Random(seed).shuffle(words)
    vocab = {word: number for number, word in enumerate(words)}
    fast = byte_level(FastTokenizer(models.BPE(vocab, [tuple(pair) for pair in trained["merges"]])), pattern)
    fast.add_special_tokens(["<|begin_of_text|>", "<|end_of_text|>"])
    return fast


KINDS = {
    "own_600": lambda: train_bpe(iter(TEXTS), vocab_size=600)._fast,
    "own_900": lambda: train_bpe(iter(TEXTS), vocab_size=900)._fast,
    "own_without_merges": lambda: train_bpe(iter(["a"]), vocab_size=520)._fast,
    "foreign": foreign,
}


@pytest.fixture(scope="module")
def tokenizers():
    """Name -> tokenizer, each of which tiktoken can reproduce."""
    made = {name: Tokenizer(BpeEngine(make())) for name, make in KINDS.items()}
    for each in made.values():
        assert each._engine.seek_faster()
    return made


def differences(tokenizer, texts):
    """The texts whose arrays are not their lists; by the faster way, where there is one."""
    tokenizer._engine.seek_faster()
    lists, arrays = tokenizer.encode_batch(texts), tokenizer.encode_arrays(texts)
    assert all(array.dtype == np.uint32 for array in arrays)
    return [text for text, one, other in zip(texts, lists, arrays, strict=True) if one != other.tolist()]


@settings(max_examples=150, deadline=None)
@given(text=st.one_of(ANY_TEXT, PIECES))
@example("")
@example("<|eos|><|bos|><|begin_of_text|> <|unused_599|>")
@example("a\x1cb\x1f \x85\u2028\u00a0\u3000x")
@example("'\u017f 'S '\ufb05 '\u212a")
def test_any_text_gets_the_same_ids(tokenizers, text):
    for name, tokenizer in tokenizers.items():
        assert differences(tokenizer, [text]) == [], name


@settings(max_examples=60, deadline=None)
@given(texts=st.lists(st.one_of(PIECES, ANY_TEXT), max_size=6))
def test_a_batch_is_encoded_in_its_order_whichever_way_each_text_goes(tokenizers, texts):
    assert differences(tokenizers["own_600"], texts) == []
    assert len(tokenizers["own_600"].encode_arrays(texts)) == len(texts)


@pytest.mark.parametrize("name", ["own_900", "foreign"])
def test_every_code_point_of_the_basic_plane_gets_the_same_ids_in_context(tokenizers, name):
    characters = [chr(code) for code in range(0x10000) if not 0xD800 <= code < 0xE000]
    # One text each would take the slow way for most; 16 together, so that one character decides for few others.
    groups = [characters[i : i + 16] for i in range(0, len(characters), 16)]
    texts = ["".join(f"a{c}b 1{c}2'{c}x {c}\n{c}{c}" for c in group) for group in groups]
    assert differences(tokenizers[name], texts) == []


def test_most_text_goes_the_fast_way_and_what_was_not_compared_does_not(tokenizers):
    """Otherwise all of these tests would compare the `tokenizers` library with itself."""
    encoder = tokenizers["own_900"]._engine._faster
    for text in (TEXTS[0], TEXTS[1], TEXTS[3], TEXTS[5], "", "x" * 2000, " " * 511 + "x", "<|eos|>"):
        assert encoder.takes(text), text[:20]
    for text in ("😀", "温", "\ue000", "\ud800", "x" * 2001, "a " + "é" * 2001, " " * 512, "x" + "\n" * 600, "a\x1cb"):
        assert not encoder.takes(text), text[:20]


RUNS = {
    "letters": "a" * 400_000, "spaces": " " * 400_000, "line ends": "\n" * 400_000, "mixed space": "\r\n\t " * 100_000,
    "signs": "!" * 400_000, "digits": "7" * 200_000, "apostrophes": "'" * 200_000, "long words": ("mean" * 500 + " ") * 200,
    "runs of spaces": (" " * 511 + "x") * 800, "runs before line ends": (" " * 511 + "\n") * 800,
    "signs and separators": "!\x1c" * 200_000, "words and separators": ("x" * 1999 + "\x1d") * 200,
    "Chinese": "平" * 150_000, "combining marks": "e\u0301" * 150_000,
}  # fmt: skip


@pytest.mark.parametrize("text", RUNS.values(), ids=RUNS)
def test_long_runs_get_the_same_ids_in_linear_time(tokenizers, text):
    """Regression: 511 spaces and a letter, again and again, were looked at 512 times each.

    The bounds are some ten times what it takes on one slow core, and less than a hundredth of what quadratic work takes.
    """
    encoder = tokenizers["own_600"]._engine._faster
    began = time.process_time()
    takes = encoder.takes(text)
    assert time.process_time() - began < 0.2
    ids = encoder.encode(text).tolist() if takes else None
    assert time.process_time() - began < 10
    assert ids is None or ids == tokenizers["own_600"].encode(text)
    assert differences(tokenizers["own_600"], [text]) == []


def test_a_text_that_is_cut_into_pieces_gets_the_same_ids(tokenizers):
    text = (TEXTS[0] + "\n") * 13_000
    assert len(text) > 1_300_000
    assert differences(tokenizers["own_600"], ["a", text, ""]) == []


def test_special_tokens_in_a_text_stay_text(tokenizers):
    own = tokenizers["own_900"]
    assert differences(own, [*SPECIAL_TOKENS, "".join(SPECIAL_TOKENS), "x<|eos|>\n<|eos|>"]) == []
    assert min(min(ids) for ids in own.encode_arrays(list(SPECIAL_TOKENS))) >= 256


@pytest.mark.parametrize("text", ["\ud800", "a\udfffb", "é\udc80"])
def test_half_a_surrogate_is_refused_by_both_alike(tokenizers, text):
    for encode in (tokenizers["own_600"].encode_batch, tokenizers["own_600"].encode_arrays):
        with pytest.raises(TypeError):
            encode([text])


# What tiktoken cannot do ------------------------------------------------------------------------------------------------


def changed(change, *, vocab_size=600):
    """Our own tokenizer after a change to its tokenizer.json."""
    spec = json.loads(train_bpe(iter(TEXTS), vocab_size=vocab_size)._fast.to_str())
    change(spec)
    fast = FastTokenizer.from_str(json.dumps(spec))
    fast.encode_special_tokens = True
    return fast


def with_normalizer():
    fast = foreign()
    fast.normalizer = normalizers.NFKC()
    return fast


def with_prefix_space():
    def change(spec):
        spec["pre_tokenizer"]["pretokenizers"][1]["add_prefix_space"] = True

    return changed(change)


def with_own_regex():
    fast = foreign()
    fast.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return fast


def with_another_split():
    return byte_level(foreign(), r"\p{L}+|\p{N}+")  # what it does not match is a piece too; tiktoken would drop it


def with_removed_pieces():
    fast = foreign()
    fast.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" "), behavior="merged_with_next"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    return fast


def with_an_added_word():
    fast = foreign()
    fast.add_tokens([AddedToken("the mean", special=False, normalized=False)])
    return fast


def with_whole_words():
    """Llama 3's way: a word that is in the vocabulary is taken whole, though no merge gives it."""

    def change(spec):
        spec["model"]["ignore_merges"] = True
        spec["model"]["vocab"]["sample"] = 600

    return changed(change)


def tiny(vocab, merges, **options):
    """All bytes, these tokens and these merges."""
    alphabet = {char: number for number, char in enumerate(byte_alphabet().values())}
    known = alphabet | {token: 256 + number for number, token in enumerate(vocab)}
    fast = byte_level(FastTokenizer(models.BPE(known, merges, **options)))
    fast.add_special_tokens(["<s>", "</s>"])
    return fast


def with_a_token_that_its_merges_do_not_give():
    """ "abc" is (ab, c), but b and c are joined first: `tokenizers` ends with a, bc; tiktoken with abc."""
    return tiny(["bc", "ab", "abc"], [("b", "c"), ("a", "b"), ("ab", "c")])


def with_a_merge_of_later_tokens():
    return tiny(["bc", "abc", "ab"], [("b", "c"), ("ab", "c"), ("a", "b")])


def with_two_ways_to_a_token():
    return tiny(["ab", "bc", "abc"], [("a", "b"), ("ab", "c"), ("b", "c"), ("a", "bc")])


def with_dropout():
    return tiny(["ab"], [("a", "b")], dropout=0.999999)


def with_a_prefix_inside_words():
    return tiny(["##b", "ab"], [("a", "##b")], continuing_subword_prefix="##")


@pytest.mark.parametrize(
    "make",
    [
        with_normalizer, with_prefix_space, with_own_regex, with_another_split, with_removed_pieces, with_an_added_word,
        with_whole_words, with_a_token_that_its_merges_do_not_give, with_a_merge_of_later_tokens,
        with_two_ways_to_a_token, with_dropout, with_a_prefix_inside_words,
    ],
)  # fmt: skip
def test_what_tiktoken_would_do_differently_is_left_to_the_tokenizers_library(make):
    """Regression: a token that its own merges do not give was taken for one that they give."""
    fast = make()
    assert FastBpe.of(fast) is None
    if "dropout" not in make.__name__:
        fast.add_special_tokens(["<s>", "</s>"])
        texts = [*TEXTS, "abc xabcx ab bc aabbcc", "the mean of ﬁ\u00a0x²", "sample samples"]
        assert differences(Tokenizer(BpeEngine(fast)), texts) == []


def test_a_token_that_no_merge_gives_and_that_is_never_given_does_no_harm():
    fast = tiny(["xyz", "ab"], [("a", "b")])
    assert FastBpe.of(fast) is not None
    assert differences(Tokenizer(BpeEngine(fast)), ["xyz abab aab"]) == []


def test_words_that_are_taken_whole_are_no_difference_where_merges_give_them_all():
    def change(spec):
        spec["model"]["ignore_merges"] = True
        for name in SPECIAL_TOKENS:
            del spec["model"]["vocab"][name]

    fast = changed(change)
    assert FastBpe.of(fast) is not None
    assert differences(Tokenizer(BpeEngine(fast)), [*TEXTS, "mean", "sample", "<|eos|>"]) == []


def test_a_byte_without_a_token_is_left_to_the_tokenizers_library():
    fast = byte_level(FastTokenizer(models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")])))
    assert FastBpe.of(fast) is None


def test_a_sentence_of_wordpieces_is_left_to_the_tokenizers_library():
    assert FastBpe.of(FastTokenizer(models.WordLevel({"a": 0, "<unk>": 1}, unk_token="<unk>"))) is None


def swapped(spec, one, other):
    merges = list(spec["model"]["merges"])
    merges[one], merges[other] = merges[other], merges[one]
    return {**spec, "model": {**spec["model"], "merges": merges}}


@pytest.mark.parametrize(("one", "other"), [(0, 1), (1, 2), (0, 3)])
def test_an_encoder_with_two_merges_swapped_is_refused(one, other):
    """No token depends on their order: only in a text do a b and b c compete for the b of abc."""
    fast = tiny(["ab", "bc", "ca", "bb"], [("a", "b"), ("b", "c"), ("c", "a"), ("b", "b")])
    spec = json.loads(fast.to_str())
    assert FastBpe.translated(spec).agrees_with(fast)
    wrong = FastBpe.translated(swapped(spec, one, other))
    assert any(wrong.encode(text).tolist() != fast.encode(text).ids for text in ("abc", "bca", "abb", "bbc", "cab"))
    assert not wrong.agrees_with(fast)


def test_an_encoder_with_two_merges_swapped_on_which_a_token_depends_is_refused():
    fast = tiny(["ab", "bc", "abc"], [("a", "b"), ("b", "c"), ("ab", "c")])
    spec = json.loads(fast.to_str())
    assert FastBpe.translated(spec).agrees_with(fast)
    assert FastBpe.translated(swapped(spec, 0, 1)) is None


@pytest.mark.parametrize("change", ["id", "pattern", "merge"])
def test_an_encoder_of_another_tokenizer_is_refused(change):
    fast = foreign()
    spec = json.loads(fast.to_str())
    assert FastBpe.translated(spec).agrees_with(fast)
    if change == "id":
        vocab = spec["model"]["vocab"]
        vocab["a"], vocab["b"] = vocab["b"], vocab["a"]
    elif change == "pattern":
        spec["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = SPLIT_PATTERN.replace(r"\s+(?!\S)|", "")
    else:
        spec["model"]["merges"].pop()
    encoder = FastBpe.translated(spec)
    assert encoder is not None
    assert not encoder.agrees_with(fast)


def test_without_tiktoken_the_ids_are_the_same(tokenizers, tmp_path):
    tokenizers["own_900"].save(tmp_path)
    (tmp_path / "texts.json").write_text(json.dumps(TEXTS))
    program = (
        "import json, sys\n"
        "from pathlib import Path\n"
        "if sys.argv[2] == 'without': sys.modules['tiktoken'] = None\n"
        "from havoc_core.tokenizer import Tokenizer\n"
        "folder = Path(sys.argv[1])\n"
        "tokenizer = Tokenizer.load(folder)\n"
        "tokenizer._engine.seek_faster()\n"
        "ids = tokenizer.encode_arrays(json.loads((folder / 'texts.json').read_text()))\n"
        "print(json.dumps([tokenizer._engine._faster is None, [each.tolist() for each in ids]]))\n"
    )
    answers = [
        json.loads(subprocess.run([sys.executable, "-c", program, str(tmp_path), how], capture_output=True, check=True).stdout)
        for how in ("with", "without")
    ]  # fmt: skip
    assert [missing for missing, _ in answers] == [False, True]
    assert answers[0][1] == answers[1][1] == tokenizers["own_900"].encode_batch(TEXTS)


def test_a_tokenizer_that_was_saved_and_loaded_is_as_fast(tokenizers, tmp_path):
    tokenizers["foreign"].save(tmp_path)
    loaded = Tokenizer.load(tmp_path)
    assert differences(loaded, TEXTS) == [] and loaded._engine.seek_faster()


def test_the_faster_way_is_looked_for_when_the_proof_pays(tokenizers, tmp_path):
    tokenizers["own_900"].save(tmp_path)
    tokenizer = Tokenizer.load(tmp_path)
    text = TEXTS[0] * (PROOF_PAYS // 2 // len(TEXTS[0]))
    before = tokenizer.encode_arrays([text])[0]
    assert tokenizer._engine._faster is None
    after, beyond = tokenizer.encode_arrays([text, text])
    assert tokenizer._engine._faster is not None
    assert before.tolist() == after.tolist() == beyond.tolist()


def test_a_bigger_vocabulary_of_random_words_gets_the_same_ids():
    draw = random.Random(3)
    letters = "etaoinshrdlu"
    words = ["".join(draw.choices(letters, k=draw.randint(1, 9))) for _ in range(3000)]
    text = " ".join(draw.choices(words, k=20_000))
    trainer = trainers.BpeTrainer(
        vocab_size=3000,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=list(byte_alphabet().values()),
        show_progress=False,
    )
    fast = byte_level(FastTokenizer(models.BPE()), LLAMA_SPLIT)
    fast.train_from_iterator([text], trainer)
    tokenizer = Tokenizer(BpeEngine(fast))
    fresh = ["".join(draw.choices(letters + " ", k=500)) for _ in range(40)]
    assert differences(tokenizer, [text, *fresh, "".join(draw.choices(letters, k=1900))]) == []
    assert tokenizer._engine._faster is not None
