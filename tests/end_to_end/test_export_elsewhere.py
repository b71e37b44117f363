"""A trained run leaves for other software: transformers 5 and 4.57, llama.cpp; and it comes back."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from havoc_inference.export import proof_transformers
from havoc_inference.export.comparison import require_agreement
from havoc_inference.export.exported_weights import ExportedWeights
from havoc_inference.load import open_checkpoint

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
TRANSFORMERS_4 = ROOT / ".venv" / "transformers-4"


def figures(folder):
    """(runtime, what) -> (measured, limit)."""
    record = json.loads((Path(folder) / "havoc_export.json").read_text())
    assert all(each["made"] for each in record["comparisons"])
    return {
        (each["runtime"].split()[0], what): tuple(values)
        for each in record["comparisons"]
        for what, values in each["figures"].items()
    }


@pytest.fixture(scope="module")
def run(finished, tmp_path_factory):
    """The trained run, to be exported from."""
    folder = tmp_path_factory.mktemp("run") / "run"
    shutil.copytree(finished, folder)
    return folder


def test_the_folder_loads_in_transformers_5_and_in_4_57_and_comes_back(run, havoc, here):
    pytest.importorskip("transformers")
    said = havoc("export", run, "--to", "hf", "--out", "out")
    assert said.code == 0, said.err
    found = figures("out")
    assert found["transformers", "largest difference of a logit"][0] <= 1e-4
    assert found["transformers", "of 200 lines, encoded otherwise"] == (0, 0)
    assert found["transformers", "of 2 dialogs, rendered otherwise"] == (0, 0)

    assert havoc("import", "out", "--out", "back").code == 0
    texts = [havoc("generate", each, "--prompt", "The mean", "--max-new-tokens", "8").out for each in (run, "back")]
    assert texts[0] == texts[1]

    if not TRANSFORMERS_4.is_dir():
        pytest.skip(f"the rest needs {TRANSFORMERS_4}: `make test` installs it")
    contents = open_checkpoint(run)
    weights = ExportedWeights(contents, contents.dtype)
    comparison = proof_transformers.compare(contents, weights, here / "out", python_path=TRANSFORMERS_4)
    assert comparison.runtime == "transformers 4.57.6"
    require_agreement(comparison)
    assert comparison.figures[0].measured <= 1e-4


@pytest.mark.parametrize("kind", ["f32", "q8_0"])
def test_the_file_loads_in_llama_cpp_and_says_the_same(run, havoc, kind):
    for package in ("gguf", "xllamacpp"):
        pytest.importorskip(package)
    said = havoc("export", run, "--to", "gguf", "--dtype", kind, "--out", "out")
    assert said.code == 0, said.err
    found = figures("out")  # of a quantized file, the float32 copy of the same values comes last
    assert found["llama.cpp", "largest difference of a log-probability"][0] <= 1e-3
    greedy = next(value for (_, what), value in found.items() if "greedy choices" in what)
    assert greedy == (0, 0)
    assert found["llama.cpp", "of 200 lines, encoded otherwise"] == (0, 0)
    assert found["llama.cpp", "of 2 dialogs, rendered otherwise"] == (0, 0)
    if kind == "q8_0":
        assert 0 <= found["llama.cpp", "mean KL divergence in nats"][0] < 0.01
    card = (Path("out") / "README.md").read_text()
    assert "largest difference of a log-probability" in card and "DUMMY DATA" in card
