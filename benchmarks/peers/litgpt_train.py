"""litgpt's pretraining on rows of tokens, until killed; it prints a line a step.

    python benchmarks/peers/litgpt_train.py ROWS_NPY OUT PRECISION SHAPE_JSON

Runs in a Python of its own that has litgpt (0.5.13). PRECISION is one of litgpt's: 32-true, bf16-mixed, bf16-true. It always
compiles the whole model; TORCHDYNAMO_DISABLE=1 in the environment makes it eager. Qwen3's block, an untied head, litgpt's own
cross-entropy and loop.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from litgpt.args import EvalArgs, TrainArgs
from litgpt.config import Config
from litgpt.data import DataModule
from litgpt.pretrain import setup
from torch.utils.data import DataLoader, Dataset

STEPS = 1_000_000


class Rows(Dataset):  # type: ignore[type-arg]
    """[length + 1] tokens each: a row and the first token of the next, because litgpt shifts labels itself."""

    def __init__(self, path: Path, length: int) -> None:
        self.tokens = np.load(path).reshape(-1)
        self.length = length

    def __len__(self) -> int:
        return (len(self.tokens) - 1) // self.length

    def __getitem__(self, index: int) -> torch.Tensor:
        begin = index * self.length
        return torch.from_numpy(self.tokens[begin : begin + self.length + 1].astype(np.int64))


class Data(DataModule):  # type: ignore[misc]
    """The rows, shuffled, for training; the same for litgpt's check of two batches before it starts."""

    def __init__(self, rows: Rows) -> None:
        super().__init__()
        self.rows = rows
        self.batch_size = 1

    def connect(self, tokenizer: Any = None, batch_size: int = 1, max_seq_length: int | None = None) -> None:
        self.batch_size = batch_size

    def train_dataloader(self) -> DataLoader[torch.Tensor]:
        order = torch.Generator().manual_seed(0)
        return DataLoader(self.rows, self.batch_size, shuffle=True, generator=order, drop_last=True)

    def val_dataloader(self) -> DataLoader[torch.Tensor]:
        return DataLoader(self.rows, self.batch_size, drop_last=True)


def main() -> None:
    rows, out, precision, shape_json = sys.argv[1:]
    shape = json.loads(shape_json)
    sys.argv = ["litgpt", "pretrain"]  # litgpt reads the command line again when it saves its hyperparameters
    config = Config(
        name="peer", block_size=shape["length"], vocab_size=shape["vocab"], padded_vocab_size=shape["vocab"],
        n_layer=shape["layers"], n_head=shape["heads"], n_query_groups=shape["kv_heads"], head_size=shape["head_dim"],
        n_embd=shape["width"], intermediate_size=shape["hidden"], rotary_percentage=1.0, parallel_residual=False,
        bias=False, norm_class_name="RMSNorm", norm_qk=True, norm_eps=1e-6, mlp_class_name="LLaMAMLP",
    )  # fmt: skip
    train = TrainArgs(
        save_interval=None, log_interval=1, global_batch_size=shape["rows"], micro_batch_size=shape["rows"],
        max_tokens=STEPS * shape["rows"] * shape["length"], max_norm=1.0, lr_warmup_steps=20, min_lr=6e-5,
        tie_embeddings=False,
    )  # fmt: skip
    optimizer = {
        "class_path": "torch.optim.AdamW",
        "init_args": {"lr": 6e-4, "weight_decay": 0.1, "betas": [0.9, 0.95]},
    }
    setup(
        "peer",
        model_config=config,
        out_dir=Path(out),
        precision=precision,
        data=Data(Rows(Path(rows), shape["length"])),
        train=train,
        eval=EvalArgs(interval=STEPS, max_iters=1, final_validation=False),
        optimizer=optimizer,
        devices=1,
        logger_name="csv",
        seed=0,
    )


if __name__ == "__main__":
    main()
