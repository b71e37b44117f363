"""What llama.cpp makes of an exported file. Run as a program of its own: it imports nothing of ours.

    python ask_llama_cpp.py REQUEST.json ANSWERS.npz

llama.cpp ends the whole process where a file is not as it expects; here that is an answer too. Keys and values are
float32, flash attention is off: with its defaults, differences of 1e-2 are llama.cpp's own.
"""

from __future__ import annotations

import json
import sys
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any


def main() -> None:
    """Answer the request."""
    import numpy as np

    request = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    server = _server(request)
    at = server.listening_address
    ids = [
        _post(at, "/tokenize", {"content": line, "add_special": False, "parse_special": False})["tokens"]
        for line in request["lines"]
    ]
    begun = _post(at, "/tokenize", {"content": request["lines"][0], "add_special": True})["tokens"]
    dialogs = [_dialog(at, messages) for messages in request["dialogs"]]
    with ThreadPoolExecutor(len(request["rows"])) as pool:  # side by side: weights are read once for all rows
        said = list(pool.map(lambda row: _continued(at, row, request), request["rows"]))
    steps = [step for row in said for step in row]
    top = min(len(step["top_logprobs"]) for step in steps)
    answers = {
        "version": _version(),
        "ids": ids,
        "begun": begun,
        "dialogs": dialogs,
        "tokens": [[step["id"] for step in row] for row in said],
    }
    of_ids = np.array([[each["id"] for each in step["top_logprobs"][:top]] for step in steps], dtype=np.int64)
    values = np.array([[each["logprob"] for each in step["top_logprobs"][:top]] for step in steps], dtype=np.float64)
    with Path(sys.argv[2]).open("wb") as file:
        np.savez(file, top_ids=of_ids, top_values=values, answers=json.dumps(answers))


def _server(request: dict[str, Any]) -> Any:
    import xllamacpp  # type: ignore[import-untyped]

    params = xllamacpp.CommonParams()
    params.model.path = request["file"]
    params.cache_type_k = params.cache_type_v = xllamacpp.ggml_type.GGML_TYPE_F32
    params.flash_attn_type = xllamacpp.llama_flash_attn_type.LLAMA_FLASH_ATTN_TYPE_DISABLED
    params.n_parallel = len(request["rows"])
    params.n_ctx = params.n_parallel * request["context"]
    params.n_gpu_layers = 0
    params.warmup = False
    params.fit_params = False
    params.no_extra_bufts = True  # no second copy of the weights in another layout
    params.verbosity = -1
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = request["threads"]
    return xllamacpp.Server(params)


def _continued(at: str, row: list[int], request: dict[str, Any]) -> list[dict[str, Any]]:
    body = {
        "prompt": row,
        "n_predict": request["new_tokens"],
        "temperature": 0.0,
        "n_probs": request["top"],
        "logit_bias": [[number, False] for number in request["never"]],
        "cache_prompt": False,
    }
    steps: list[dict[str, Any]] = _post(at, "/completion", body)["completion_probabilities"]
    return steps


def _dialog(at: str, messages: list[dict[str, str]]) -> list[int]:
    text = _post(at, "/apply-template", {"messages": messages})["prompt"]
    ids: list[int] = _post(at, "/tokenize", {"content": text, "add_special": True, "parse_special": True})["tokens"]
    return ids


def _post(at: str, path: str, body: dict[str, Any]) -> dict[str, Any]:
    question = urllib.request.Request(
        at + path, json.dumps(body).encode("utf-8", "surrogatepass"), {"Content-Type": "application/json"}
    )
    # A proxy of the environment must not see what is asked of this very machine.
    with urllib.request.build_opener(urllib.request.ProxyHandler({})).open(question) as answer:
        values: dict[str, Any] = json.load(answer)
    return values


def _version() -> str:
    import importlib.metadata

    return importlib.metadata.version("xllamacpp")


if __name__ == "__main__":
    main()
