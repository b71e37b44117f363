"""What Qwen3 and Llama do not have is known from the settings alone."""

from __future__ import annotations

import subprocess
import sys

import pytest

from havoc_core.config import ModelConfig
from havoc_core.errors import ConfigError
from havoc_inference.export.exportable import (
    architecture,
    require_exportable,
    unexportable,
    unexportable_tokenizer,
)


def test_with_norms_on_heads_it_is_qwen3_and_without_llama():
    assert architecture(ModelConfig.model_validate({"attention": {"qk_norm": True}})) == "qwen3"
    assert architecture(ModelConfig.model_validate({"attention": {"qk_norm": False}})) == "llama"


@pytest.mark.parametrize("size", ["nano", "30m", "1b", "havoc_7b"])
def test_every_named_size_can_be_exported(size):
    assert unexportable(ModelConfig.model_validate(size)) == ()
    require_exportable(ModelConfig.model_validate(size))


def test_all_that_cannot_be_exported_is_named_at_once():
    config = ModelConfig.model_validate(
        {"size": "nano", "attention": {"rotary_dim": 16}, "mlp": {"activation": "geglu"}}
    )
    with pytest.raises(ConfigError, match=r"neither a Qwen3 nor a Llama: .*rotary_dim is 16.*; .*activation is geglu"):
        require_exportable(config)


def test_rotating_all_channels_by_number_is_what_null_means():
    assert unexportable(ModelConfig.model_validate({"size": "nano", "attention": {"rotary_dim": 32}})) == ()


def test_a_sentencepiece_tokenizer_is_named():
    assert "only byte-level BPE can be exported to GGUF" in unexportable_tokenizer("sentencepiece")[0]
    assert unexportable_tokenizer("bpe") == ()


def test_asking_imports_no_torch():
    code = "import sys; import havoc_inference.export.exportable; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
