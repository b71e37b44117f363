"""A checkpoint -> an export that was loaded back and compared, or nothing at all."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch

from havoc_core.costs import num_parameters
from havoc_core.errors import ConfigError
from havoc_inference.export import gguf, hugging_face, output_folder, proof_llama_cpp, proof_transformers
from havoc_inference.export.card import CardFacts, model_card
from havoc_inference.export.comparison import Comparison, require_agreement
from havoc_inference.export.exportable import Target, architecture, require_exportable
from havoc_inference.export.exported_weights import ExportedWeights
from havoc_inference.export.gguf_tokens import gguf_tokens
from havoc_inference.load import CheckpointContents

COPY_BYTES = 10_000_000_000
"""Largest float32 copy of a GGUF file that is made to be compared."""
_DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16, "f16": torch.float16}
_KINDS = {dtype: kind for kind, dtype in _DTYPES.items()}


@dataclass(frozen=True)
class Order:
    """What is to be made."""

    to: Target
    out: Path
    kind: str | None = None
    """f32 or bf16, for GGUF also q8_0 and q4_0; None: as the checkpoint."""
    facts: CardFacts = field(default_factory=lambda: CardFacts("model"))
    """For the card."""


@dataclass(frozen=True)
class Exported:
    """What was made."""

    folder: Path
    files: tuple[str, ...]
    """That hold weights."""
    comparisons: tuple[Comparison, ...]


def export(contents: CheckpointContents, order: Order, *, say: Callable[[str], None]) -> Exported:
    """Write the export beside its place, load it back, compare it, and only then give it its name.

    Args:
        contents: the checkpoint.
        order: what to make of it.
        say: told what is being done, and every figure.

    Raises:
        ConfigError: the model or its tokenizer cannot be represented, or `order.out` holds something else.
        MissingPackageError: the package for GGUF is not installed.
        CheckpointError: it cannot be written, or does not agree with the checkpoint.
    """
    require_exportable(contents.config)
    kind = _kind(contents, order)
    if order.to == "gguf":
        gguf.require_package()
        gguf_tokens(contents.tokenizer, vocab_size=contents.config.vocab_size)
    record: dict[str, Any] = {
        "to": order.to,
        "kind": kind,
        "step": contents.step,
        "dummy_data": contents.dummy_data,
        "architecture": architecture(contents.config),
        "tokenizer": contents.tokenizer.fingerprint(),
    }
    with output_folder.writing(order.out, record) as inside:
        make = _make_hugging_face if order.to == "hf" else _make_gguf
        files, stored, usage, comparisons = make(contents, inside, kind, say)
        record["comparisons"] = [
            {
                "runtime": each.runtime,
                "made": each.made,
                "figures": {figure.what: [figure.measured, figure.limit] for figure in each.figures},
            }
            for each in comparisons
        ]
        card = model_card(contents, order.facts, usage=usage, stored=stored, comparisons=comparisons)
        (inside / "README.md").write_text(card, encoding="utf-8")
    return Exported(order.out, tuple(files), tuple(comparisons))


def _kind(contents: CheckpointContents, order: Order) -> str:
    own = _KINDS[contents.dtype]
    kind = order.kind or ("f32" if order.to == "gguf" and own == "f16" else own)
    known = gguf.KINDS if order.to == "gguf" else ("f32", "bf16", *([own] if own == "f16" else []))
    if kind not in known:
        raise ConfigError(
            "--dtype", f"{kind} is not written to {order.to}.", f"Use one of: {', '.join(known)}; or leave it out."
        )
    return kind


_Made = tuple[list[str], str, str, list[Comparison]]


def _make_hugging_face(contents: CheckpointContents, inside: Path, kind: str, say: Callable[[str], None]) -> _Made:
    weights = ExportedWeights(contents, _DTYPES[kind])
    say(f"Writing {architecture(contents.config)} for transformers, {kind}.")
    files = hugging_face.write(contents, weights, inside)
    say("Comparing with transformers.")
    comparison = _required(proof_transformers.compare(contents, weights, inside), say)
    usage = (
        "```python\nfrom transformers import AutoModelForCausalLM, AutoTokenizer\n\n"
        'tokenizer = AutoTokenizer.from_pretrained("FOLDER")\nmodel = AutoModelForCausalLM.from_pretrained("FOLDER")\n'
        'ids = tokenizer("The mean of", return_tensors="pt").input_ids\n'
        "print(tokenizer.decode(model.generate(ids, max_new_tokens=50)[0]))\n```\n\n"
        "transformers 4.57 and 5, and what reads its folders: vLLM, SGLang, MLX."
    )
    stored = {"f32": "float32", "bf16": "bfloat16, norms in float32", "f16": "float16, norms in float32"}[kind]
    return files, stored, usage, [comparison]


def _make_gguf(contents: CheckpointContents, inside: Path, kind: str, say: Callable[[str], None]) -> _Made:
    name: gguf.Kind = next(each for each in gguf.KINDS if each == kind)
    config, tokenizer = contents.config, contents.tokenizer
    weights = ExportedWeights(contents, _DTYPES.get(kind, contents.dtype))
    path = inside / f"model-{kind}.gguf"
    say(f"Writing {architecture(config)} for llama.cpp, {kind}.")
    gguf.write(path, weights, config, tokenizer, kind=name)
    (inside / "Modelfile").write_text(gguf.modelfile(path.name, config, tokenizer), encoding="utf-8")
    say("Comparing with llama.cpp.")
    comparisons = [
        _required(proof_llama_cpp.compare(contents, weights, path, kind=name, subject=f"The {kind} file"), say)
    ]
    if kind != "f32" and comparisons[0].made:
        comparisons.append(_compare_copy(contents, weights, inside, say))
    wide = gguf.kept_wide(weights, config, name)
    stored = {"f32": "float32", "bf16": "bfloat16, norms in float32"}.get(kind, f"{kind}, norms in float32")
    if kind == "q4_0":
        stored += "; embedding and head in q8_0"
    if wide:
        stored += f"; {len(wide)} matrices whose rows are no multiple of {gguf.BLOCK} wide in bfloat16"
    usage = (
        f"```\nllama-cli -m {path.name} -no-cnv -p 'The mean of'\nollama create mymodel -f Modelfile\n```\n\n"
        "For K-quants, export bf16 and run llama.cpp's `llama-quantize` on the file."
    )
    return [path.name], stored, usage, comparisons


def _compare_copy(
    contents: CheckpointContents, weights: ExportedWeights, inside: Path, say: Callable[[str], None]
) -> Comparison:
    """The same values in float32, made in the same way: names, layout, positions and settings are proven exactly."""
    nbytes = 4 * num_parameters(contents.config)
    if nbytes > min(COPY_BYTES, shutil.disk_usage(inside).free - nbytes // 10):
        return Comparison(
            "llama.cpp in float32",
            f"the copy in float32 that it takes would be {nbytes / 1e9:.1f} GB. To have it made, export with --dtype f32.",
        )
    with TemporaryDirectory(dir=inside) as folder:
        copy = Path(folder) / "copy.gguf"
        gguf.write(copy, weights, contents.config, contents.tokenizer, kind="f32")
        subject = "A float32 copy of the same values, made in the same way"
        return _required(proof_llama_cpp.compare(contents, weights, copy, kind="f32", subject=subject), say)


def _required(comparison: Comparison, say: Callable[[str], None]) -> Comparison:
    for line in comparison.lines():
        say(line)
    require_agreement(comparison)
    return comparison
