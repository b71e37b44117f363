"""The tokenizer's files, read by the `tokenizers` library alone; transformers' reading of them is part of every export."""

from __future__ import annotations

import json

import pytest
from tokenizers import Tokenizer as FastTokenizer

from havoc_core.tokenizer import CHAT_TEMPLATE, Tokenizer
from havoc_data.prepare.train_tokenizer import train_sentencepiece
from havoc_inference.export import probe
from havoc_inference.export.tokenizer_files import byte_level_spec, write_tokenizer


@pytest.fixture(scope="session")
def sentencepiece() -> Tokenizer:
    texts = ["\n".join(probe.lines()) for _ in range(3)]
    return Tokenizer(train_sentencepiece(iter(texts), vocab_size=900))


def test_a_text_begins_with_bos_as_in_training(tokenizer, tmp_path):
    write_tokenizer(tokenizer, tmp_path, max_seq_len=96)
    fast = FastTokenizer.from_file(str(tmp_path / "tokenizer.json"))
    assert fast.encode("The mean").ids == [tokenizer.bos_id, *tokenizer.encode("The mean")]
    assert Tokenizer.load(tmp_path).fingerprint() == tokenizer.fingerprint()


def test_what_both_generations_of_transformers_need_is_there(tokenizer, tmp_path):
    write_tokenizer(tokenizer, tmp_path, max_seq_len=96)
    config = json.loads((tmp_path / "tokenizer_config.json").read_text())
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert config["chat_template"] == (tmp_path / "chat_template.jinja").read_text() == CHAT_TEMPLATE
    assert (config["bos_token"], config["eos_token"], config["pad_token"]) == ("<|bos|>", "<|eos|>", "<|pad|>")
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "chat_template.jinja", "special_tokens_map.json", "tokenizer.json", "tokenizer_config.json",
    ]  # fmt: skip


def test_a_sentencepiece_model_goes_out_with_its_translation(sentencepiece, tmp_path):
    assert byte_level_spec(sentencepiece) is None
    write_tokenizer(sentencepiece, tmp_path, max_seq_len=96)
    assert Tokenizer.load(tmp_path / "tokenizer.model").fingerprint() == sentencepiece.fingerprint()
    fast = FastTokenizer.from_file(str(tmp_path / "tokenizer.json"))
    fast.encode_special_tokens = True
    lines = probe.lines()
    wrong = [line for line in lines if fast.encode(line, add_special_tokens=False).ids != sentencepiece.encode(line)]
    assert wrong == []
    assert [fast.decode(sentencepiece.encode(line)) for line in lines] == lines
