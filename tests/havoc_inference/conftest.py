"""A tiny model, its tokenizer and its checkpoint, made once."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from tokenizers import AddedToken, decoders, models, pre_tokenizers, trainers
from tokenizers import Regex as SplitRegex
from tokenizers import Tokenizer as FastTokenizer

from havoc_core import checkpoint, config_files
from havoc_core.config import ModelConfig, TrainingConfig
from havoc_core.model import first_weights, place_weights
from havoc_core.models import havoc
from havoc_core.tokenizer import SPECIAL_TOKENS, SPLIT_PATTERN, BpeEngine, Tokenizer
from havoc_inference import cpu_runner
from havoc_inference.engine import Engine, EngineOptions
from havoc_inference.load import LoadedModel, load_checkpoint

TEXT = [
    "The mean of a sample is the sum of its values over their number. ",
    "Größe, 温度 and Σ are words; 😀 is none. ",
]
CPU = torch.device("cpu")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> Iterator[None]:
    """Matrices this small are slower on two threads than on one, and far slower on a busy machine."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tokenizer() -> Tokenizer:
    """Byte-level BPE with 600 ids: 256 special, 256 bytes, 88 merges."""
    fast = FastTokenizer(models.BPE())
    split = pre_tokenizers.Split(SplitRegex(SPLIT_PATTERN), behavior="isolated")
    bytes_only = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    fast.pre_tokenizer = pre_tokenizers.Sequence([split, bytes_only])
    fast.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        min_frequency=1,
        show_progress=False,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=[AddedToken(name, special=True, normalized=False) for name in SPECIAL_TOKENS],
    )
    fast.train_from_iterator(TEXT, trainer)
    return Tokenizer(BpeEngine(fast))


@pytest.fixture(scope="session")
def config() -> TrainingConfig:
    """A model that takes no time; its vocabulary is larger than the tokenizer's. Wide weights make ties unlikely."""
    model = ModelConfig.model_validate(
        {
            "size": "nano",
            "vocab_size": 640,
            "d_model": 32,
            "num_layers": 2,
            "max_seq_len": 96,
            "initializer_range": 0.3,
            "attention": {"num_heads": 4, "num_kv_heads": 2, "head_dim": 16},
            "mlp": {"hidden_dim": 48},
        }
    )
    return TrainingConfig.model_validate({"model": model, "data": {"max_sequence_length": 96}})


@pytest.fixture(scope="session")
def weights(config: TrainingConfig) -> dict[str, torch.Tensor]:
    """Float32 first weights."""
    return first_weights(havoc.build(config.model), seed=5)


@pytest.fixture(scope="session")
def folder(
    tmp_path_factory: pytest.TempPathFactory,
    config: TrainingConfig,
    weights: dict[str, torch.Tensor],
    tokenizer: Tokenizer,
) -> Path:
    """A run's folder with one whole checkpoint, of step 7. Not to be changed."""
    run = tmp_path_factory.mktemp("run")
    with checkpoint.writing(run / "checkpoints" / "checkpoint_step_7") as inside:
        checkpoint.save_tensors(inside / "model.pt", weights)
        checkpoint.save_json(inside / "training_state.json", {"step": 7, "dummy_data": True})
        (inside / "config.json").write_text(config_files.to_json(config), encoding="utf-8")
        tokenizer.save(inside / "tokenizer")
    return run


@pytest.fixture(scope="session")
def loaded(folder: Path) -> LoadedModel:
    """The checkpoint, in float32 on the CPU."""
    return load_checkpoint(folder, device=CPU)


@pytest.fixture(scope="session")
def poisoned(loaded: LoadedModel) -> LoadedModel:
    """The same model, which gives no numbers for a text with the token 600."""
    weights = {name: values.clone() for name, values in loaded.model.state_dict().items()}
    weights["model.embed_tokens.weight"][600] = torch.nan
    model = havoc.build(loaded.config)
    place_weights(model, weights, dtype=torch.float32, device=CPU)
    return replace(loaded, model=model.eval())


@pytest.fixture(scope="session")
def engine(loaded: LoadedModel) -> Engine:
    """With room for everything at once."""
    return Engine(loaded)


@pytest.fixture(params=["compiled", "torch"])
def either(request: pytest.FixtureRequest, loaded: LoadedModel) -> Engine:
    """An engine of each kind; the compiled one where it can be built."""
    if request.param == "compiled" and not cpu_runner.is_supported(loaded.model, loaded.config):
        pytest.skip("no compiler here")
    return Engine(loaded, EngineOptions(compiled=request.param == "compiled"))
