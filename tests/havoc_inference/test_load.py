"""A checkpoint is read when it is whole and fits, and otherwise says what is wrong."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from havoc_core import checkpoint, config_files
from havoc_core.config import ModelConfig, TrainingConfig
from havoc_core.errors import CheckpointError
from havoc_core.model import first_weights
from havoc_core.models import havoc
from havoc_core.tokenizer import Tokenizer
from havoc_inference.load import find_checkpoint, load_checkpoint

CPU = torch.device("cpu")
NAME = "model.layers.1.self_attn.q_proj.weight"
Weights = dict[str, torch.Tensor]


@pytest.fixture
def write(tmp_path: Path, config: TrainingConfig, weights: Weights, tokenizer: Tokenizer) -> Callable[..., Path]:
    """Writes a checkpoint, whole or with one part changed."""

    def write_one(
        name: str = "checkpoint_step_3",
        *,
        weights: Any = weights,
        state: Any = None,
        values: Any = None,
        config_values: Any = None,
        with_tokenizer: bool = True,
    ) -> Path:
        folder = tmp_path / "checkpoints" / name
        with checkpoint.writing(folder) as inside:
            checkpoint.save_tensors(inside / "model.pt", weights)
            checkpoint.save_json(inside / "training_state.json", state or {"step": 3, "dummy_data": False})
            checkpoint.save_json(inside / "config.json", config_values or json.loads(config_files.to_json(config)))
            if with_tokenizer:
                tokenizer.save(inside / "tokenizer")
        return folder

    return write_one


def test_a_checkpoint_comes_back_as_it_was_saved(folder: Path, weights: Weights, tokenizer: Tokenizer) -> None:
    loaded = load_checkpoint(folder / "checkpoints" / "checkpoint_step_7", device=CPU)
    assert (loaded.step, loaded.dummy_data) == (7, True)
    assert loaded.tokenizer.fingerprint() == tokenizer.fingerprint()
    assert not loaded.model.training
    for name, parameter in loaded.model.named_parameters():
        assert torch.equal(parameter, weights[name])
        assert not parameter.requires_grad


def test_weights_can_take_another_format_and_norms_stay_float32(folder: Path) -> None:
    loaded = load_checkpoint(folder, device=CPU, dtype=torch.bfloat16)
    formats = {parameter.dim() > 1: parameter.dtype for parameter in loaded.model.parameters()}
    assert formats == {True: torch.bfloat16, False: torch.float32}


def test_without_a_format_matrices_stay_as_they_were_saved(write: Callable[..., Path], weights: Weights) -> None:
    narrow = {name: values.bfloat16() if values.dim() > 1 else values for name, values in weights.items()}
    assert load_checkpoint(write(weights=narrow), device=CPU).model.head.dtype == torch.bfloat16


def test_only_the_model_section_of_the_config_is_read(write: Callable[..., Path], config: TrainingConfig) -> None:
    values = {"model": config.model.model_dump(mode="json"), "of_a_later_version": 1}
    assert load_checkpoint(write(config_values=values), device=CPU).config == config.model


def test_a_tied_head_may_be_written_under_both_names(write: Callable[..., Path], config: TrainingConfig) -> None:
    tied = config.model_copy(update={"model": config.model.model_copy(update={"tie_embeddings": True})})
    weights = first_weights(havoc.build(tied.model), seed=1)
    values = json.loads(config_files.to_json(tied))
    assert "lm_head.weight" not in weights
    both = {**weights, "lm_head.weight": weights["model.embed_tokens.weight"].clone()}
    for given in (weights, both):
        model = load_checkpoint(write(weights=given, config_values=values), device=CPU).model
        assert model.head is model.get_parameter("model.embed_tokens.weight")


def test_a_run_folder_means_its_newest_whole_checkpoint(
    write: Callable[..., Path], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for step in (9, 10, 100):
        write(f"checkpoint_step_{step}", state={"step": step})
    write("checkpoint_best", state={"step": 200})
    write("checkpoint_error", state={"step": 300})
    assert find_checkpoint(tmp_path).name == "checkpoint_step_100"
    assert find_checkpoint(tmp_path / "checkpoints").name == "checkpoint_step_100"
    write("checkpoint_interrupted", state={"step": 101})
    assert find_checkpoint(tmp_path).name == "checkpoint_interrupted"
    (tmp_path / "checkpoints" / "checkpoint_interrupted" / "training_state.json").write_text("{")
    (tmp_path / "checkpoints" / "checkpoint_step_100" / "model.pt").unlink()
    logger = logging.getLogger("havoc")
    logger.addHandler(caplog.handler)  # the program's own logger does not propagate once it writes to the screen
    try:
        assert find_checkpoint(tmp_path).name == "checkpoint_step_10"
    finally:
        logger.removeHandler(caplog.handler)
    assert "checkpoint_step_100" in caplog.text and "checkpoint_interrupted" in caplog.text
    assert load_checkpoint(tmp_path, device=CPU).step == 10


def test_without_whole_step_checkpoints_the_best_is_taken(write: Callable[..., Path], tmp_path: Path) -> None:
    write("checkpoint_best")
    assert find_checkpoint(tmp_path).name == "checkpoint_best"


def test_a_checkpoint_put_aside_is_still_read(write: Callable[..., Path], tmp_path: Path) -> None:
    folder = write()
    folder.rename(folder.with_name("checkpoint_step_3.old"))
    assert load_checkpoint(folder, device=CPU).step == 3
    assert load_checkpoint(tmp_path, device=CPU).step == 3


def test_a_run_without_checkpoints_says_so(tmp_path: Path) -> None:
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(CheckpointError, match=r"checkpoints: holds no checkpoint\. Train first \(havoc train\)"):
        load_checkpoint(tmp_path, device=CPU)


def test_a_run_whose_checkpoints_are_all_damaged_says_so(write: Callable[..., Path], tmp_path: Path) -> None:
    (write() / "model.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"none of its 1 checkpoints is whole\. Train first"):
        load_checkpoint(tmp_path, device=CPU)


def test_a_folder_that_is_no_checkpoint_and_one_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"is no checkpoint \(no manifest\.json\)"):
        load_checkpoint(tmp_path, device=CPU)
    with pytest.raises(CheckpointError, match=r"nowhere: there is no such folder\."):
        load_checkpoint(tmp_path / "nowhere", device=CPU)


@pytest.mark.parametrize("name", ["model.pt", "config.json", "tokenizer/tokenizer.json"])
def test_one_changed_byte_is_noticed(write: Callable[..., Path], name: str) -> None:
    path = write() / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"its checksum is not the manifest's"):
        load_checkpoint(path.parents[name.count("/")], device=CPU)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda w: w.pop(NAME), rf"does not fit its config: {NAME} is missing\. It belongs to another config"),
        (lambda w: w.update(more=torch.ones(1)), r"does not fit its config: more is not part of the model\."),
        (
            lambda w: w.update({NAME: torch.ones(32, 31)}),
            rf"does not fit its config: {NAME} is \[32, 31\], the config says \[64, 32\]\.",
        ),
        (lambda w: [w.update({f"x{n}": torch.ones(1)}) for n in range(5)], r"x2 is not part of the model and 2 more\."),
    ],
)
def test_weights_that_do_not_fit_the_config_are_named(
    write: Callable[..., Path], weights: Weights, change: Callable[[Weights], Any], message: str
) -> None:
    changed = dict(weights)
    change(changed)
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(write(weights=changed), device=CPU)


@pytest.mark.parametrize("weights", [[1, 2], {"a": 3}])
def test_a_file_without_weights_is_refused(write: Callable[..., Path], weights: Any) -> None:
    with pytest.raises(CheckpointError, match=r"model\.pt: holds no weights by name\. It belongs to another config"):
        load_checkpoint(write(weights=weights), device=CPU)


@pytest.mark.parametrize("values", [{"seed": 1}, [1], {"model": {"d_model": -1}}, {"model": 5}])
def test_a_config_without_a_model_is_refused(write: Callable[..., Path], values: Any) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json: has no valid `model` section .*Use another checkpoint"):
        load_checkpoint(write(config_values=values), device=CPU)


@pytest.mark.parametrize("state", [{"steps": 1}, [1], {"step": "7"}])
def test_a_state_without_a_step_is_refused(write: Callable[..., Path], state: Any) -> None:
    with pytest.raises(CheckpointError, match=r"training_state\.json: says no step .*Use another checkpoint"):
        load_checkpoint(write(state=state), device=CPU)


def test_a_checkpoint_without_a_tokenizer_is_refused(write: Callable[..., Path]) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer.*no such tokenizer|holds no tokenizer\.json.*Use another"):
        load_checkpoint(write(with_tokenizer=False), device=CPU)


def test_a_tokenizer_larger_than_the_model_is_refused(write: Callable[..., Path], config: TrainingConfig) -> None:
    small = ModelConfig.model_validate({**config.model.model_dump(), "vocab_size": 512})
    weights = first_weights(havoc.build(small), seed=0)
    values = {"model": small.model_dump(mode="json")}
    with pytest.raises(CheckpointError, match=r"tokenizer: has \d+ ids, the model only 512\. It belongs to another"):
        load_checkpoint(write(weights=weights, config_values=values), device=CPU)


def test_a_link_out_of_the_folder_is_not_followed(write: Callable[..., Path], tmp_path: Path) -> None:
    folder = write()
    shutil.move(folder / "model.pt", tmp_path / "elsewhere.pt")
    (folder / "model.pt").symlink_to(tmp_path / "elsewhere.pt")
    with pytest.raises(CheckpointError, match=r"is a link, and a checkpoint follows none"):
        load_checkpoint(folder, device=CPU)
