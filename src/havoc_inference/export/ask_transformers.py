"""What transformers makes of an exported folder. Run as a program of its own: it imports nothing of ours.

    python ask_transformers.py REQUEST.json ANSWERS.npz

A process of its own, so that any transformers can be asked (PYTHONPATH names it), and so that neither its memory nor
what it says at import reaches the export.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any


def main() -> None:
    """Answer the request."""
    import numpy as np
    import torch
    import transformers

    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    folder = request["folder"]
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    told = {"add_special_tokens": False, "split_special_tokens": True}
    answers: dict[str, Any] = {
        "version": transformers.__version__,
        "ids": [tokenizer(line, **told)["input_ids"] for line in request["lines"]],
        "begun": tokenizer(request["lines"][0])["input_ids"],
        "decoded": [tokenizer.decode(ids, skip_special_tokens=True) for ids in request["decode"]],
        "dialogs": [_dialog(tokenizer, messages) for messages in request["dialogs"]],
    }
    load = _by_block if request["by_block"] else _whole
    model = load(folder)
    answers["class"] = type(model).__name__
    kept: dict[int, Any] = {}
    with torch.inference_mode():
        for group in request["groups"]:  # padded on the right, where causal attention never looks
            rows = [request["rows"][at] for at in group]
            widest = max(map(len, rows))
            tokens = torch.tensor([row + [0] * (widest - len(row)) for row in rows])
            hidden = model.model(tokens, use_cache=False).last_hidden_state
            ends = [hidden[number, : len(row)][-request["last"] :] for number, row in enumerate(rows)]
            logits = model.lm_head(torch.cat(ends)).float().numpy()
            kept |= dict(zip(group, np.split(logits, np.cumsum([len(end) for end in ends])[:-1]), strict=True))
    ordered = [kept[at] for at in sorted(kept)]
    with Path(sys.argv[2]).open("wb") as file:
        np.savez(file, logits=np.concatenate(ordered), answers=json.dumps(answers))


def _dialog(tokenizer: Any, messages: list[dict[str, str]]) -> list[int]:
    text = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids: list[int] = tokenizer(text, add_special_tokens=False)["input_ids"]
    return ids


def _whole(folder: str) -> Any:
    """As everybody loads it, in float32."""
    import torch
    import transformers

    factory: Any = transformers.AutoModelForCausalLM
    return factory.from_pretrained(folder, dtype=torch.float32).eval()  # before 4.56 it was called torch_dtype


def _by_block(folder: str) -> Any:
    """Its own classes without weights; each part gets its own in float32 when it is called, and loses them after it."""
    import torch
    import transformers

    config = transformers.AutoConfig.from_pretrained(folder)
    factory: Any = transformers.AutoModelForCausalLM
    with torch.device("meta"):
        model = factory.from_config(config, dtype=torch.float32).eval()
    places = _places(Path(folder))
    if model.lm_head.weight is model.model.embed_tokens.weight:
        places["lm_head.weight"] = places["model.embed_tokens.weight"]
    if set(model.state_dict()) != set(places):
        raise SystemExit(f"names differ: {sorted(set(model.state_dict()) ^ set(places))[:3]}")
    inner = model.model
    inner.rotary_emb = type(inner.rotary_emb)(config=config)  # its table is computed, not stored
    parts = {"model.embed_tokens": inner.embed_tokens, "model.norm": inner.norm, "lm_head": model.lm_head}
    parts |= {f"model.layers.{number}": layer for number, layer in enumerate(inner.layers)}
    for prefix, part in parts.items():
        _borrow(part, prefix, places)
    return model


def _borrow(part: Any, prefix: str, places: dict[str, tuple[Path, str]]) -> None:
    import safetensors
    import torch

    def fill(module: Any, *_: Any) -> None:
        for name, parameter in list(module.named_parameters()):
            path, stored = places[f"{prefix}.{name}"]
            with safetensors.safe_open(str(path), framework="pt") as file:
                values = file.get_tensor(stored).float()
            if values.shape != parameter.shape:
                raise SystemExit(f"{stored} is {list(values.shape)}, its config says {list(parameter.shape)}")
            _set(module, name, values)

    def empty(module: Any, *_: Any) -> None:
        for name, parameter in list(module.named_parameters()):
            _set(module, name, torch.empty_like(parameter, device="meta"))

    part.register_forward_pre_hook(fill)
    part.register_forward_hook(empty)


def _set(module: Any, name: str, values: Any) -> None:
    import torch

    owner = module.get_submodule(name.rpartition(".")[0])
    setattr(owner, name.rpartition(".")[2], torch.nn.Parameter(values, requires_grad=False))


def _places(folder: Path) -> dict[str, tuple[Path, str]]:
    """Name -> the file that holds it, and its name there."""
    import safetensors

    places: dict[str, tuple[Path, str]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safetensors.safe_open(str(path), framework="pt") as file:
            places |= {name: (path, name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
    return places


if __name__ == "__main__":
    main()
