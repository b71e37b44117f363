"""Inference's engine is a LanguageModel, to mypy and at work."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from havoc_core.config import ModelConfig
from havoc_core.model import first_weights, place_weights
from havoc_core.models import havoc
from havoc_core.tokenizer import Tokenizer
from havoc_eval.held_out_text import HeldOutDocument
from havoc_eval.language_model import LanguageModel
from havoc_eval.runner import evaluate
from havoc_eval.scoring import score_documents
from havoc_inference.engine import Engine
from havoc_inference.load import LoadedModel


@pytest.fixture(scope="module")
def engine(tokenizer: Tokenizer) -> Engine:
    """A model of almost no size, untrained."""
    config = ModelConfig.model_validate(
        {
            "size": "nano",
            "vocab_size": 512,
            "d_model": 16,
            "num_layers": 1,
            "max_seq_len": 200,
            "attention": {"num_heads": 2, "num_kv_heads": 1, "head_dim": 8},
            "mlp": {"hidden_dim": 16},
        }
    )
    model = havoc.build(config)
    place_weights(model, first_weights(model, seed=0), dtype=torch.float32, device=torch.device("cpu"))
    return Engine(LoadedModel(model.eval(), tokenizer, config, step=0, dummy_data=False))


def test_the_engine_can_be_evaluated(engine: Engine, write: Callable[..., Path]) -> None:
    model: LanguageModel = engine  # mypy --strict checks this line
    files = {"domain": write("domain", ["The mean of a sample. " * 30, "Größe"])}
    found = evaluate(model, held_out=files, ratios={"domain": 1.0}, exam_problems=8)
    held_out, exam = found.result("held_out"), found.result("exam")
    assert held_out is not None and exam is not None
    assert held_out.total.value == pytest.approx(math.log2(512), rel=0.02)  # untrained: all 512 ids alike
    assert exam.total.value < 0.5
    assert len(exam.replies) == 8


def test_the_nats_of_the_engine_are_those_of_the_plain_model(engine: Engine, tokenizer: Tokenizer) -> None:
    text = "A mean, and a sum: Σ."
    (scored,) = score_documents(engine, [HeldOutDocument("a", "s", text=text)], window_tokens=200)
    ids = torch.tensor([tokenizer.bos_id, *tokenizer.encode(text)])
    with torch.no_grad():
        log_probs = engine._model.logits(engine._model(ids[None, :-1]))[0].double().log_softmax(-1)
    assert scored.nats == pytest.approx(-float(log_probs.gather(1, ids[1:, None]).sum()), rel=1e-6)  # float32 inside
