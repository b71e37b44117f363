"""The fit of losses against curves whose constants are known."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from havoc_core.config import MODEL_SIZES, ModelConfig, TrainingConfig
from havoc_core.config_files import to_json
from havoc_core.costs import num_parameters
from havoc_core.errors import ConfigError, DataError
from havoc_training.planner.loss_fit import FinishedRun, fit_points, fit_runs, read_run

HOFFMANN = (1.69, 406.4, 0.34, 410.7, 0.28)
"""E, A, alpha, B, beta of arXiv:2203.15556, appendix D.3."""
GRID = [(n, d) for n in (3e6, 1e7, 3e7) for d in (3e7, 1e8, 3e8)]


def loss_of(parameters, tokens):
    e, a, alpha, b, beta = HOFFMANN
    return e + a / parameters**alpha + b / tokens**beta


def made_up(points, *, noise=0.0, seed=0):
    """Runs on the curve, or `noise` away from it in log L."""
    away = noise * np.random.default_rng(seed).standard_normal(len(points))
    return [
        FinishedRun(f"run{i}", int(n), int(d), float(loss_of(n, d) * np.exp(x)), "t", "s", "p")
        for i, ((n, d), x) in enumerate(zip(points, away, strict=True))
    ]


def test_the_constants_of_a_curve_without_noise_are_found():
    fit = fit_points(made_up(GRID))
    found = (fit.irreducible, fit.size_coefficient, fit.size_exponent, fit.data_coefficient, fit.data_exponent)
    assert found == pytest.approx(HOFFMANN, rel=1e-6)


def test_the_constants_of_a_curve_with_a_little_noise_are_found_about():
    points = [(n, d) for n in (1e6, 1e7, 1e8, 1e9) for d in (1e7, 1e8, 1e9, 1e10)]
    fit = fit_points(made_up(points, noise=0.001))
    # A part in a thousand of the loss moves exponents by some hundredths over three decades.
    assert (fit.size_exponent, fit.data_exponent) == pytest.approx((0.34, 0.28), abs=0.03)
    assert fit.irreducible == pytest.approx(1.69, abs=0.15)


def test_runs_of_one_size_give_the_curve_in_the_tokens_alone():
    fit = fit_points(made_up([(3e6, d) for d in (1e6, 2e6, 4e6, 8e6, 16e6)]))
    assert (fit.data_coefficient, fit.data_exponent) == pytest.approx(HOFFMANN[3:], rel=1e-5)
    assert fit.irreducible == pytest.approx(1.69 + 406.4 / 3e6**0.34, rel=1e-5)
    assert (fit.size_coefficient, fit.size_exponent) == (0.0, 0.0)
    assert fit.expect(parameters=3_000_000, tokens=32_000_000).loss == pytest.approx(loss_of(3e6, 32e6), rel=1e-6)


@pytest.fixture(scope="module")
def sixty_fits():
    """Fits to the same curve with 0.5 % of noise, drawn sixty times."""
    return [fit_points(made_up(GRID, noise=0.005, seed=seed)) for seed in range(60)]


@pytest.mark.parametrize(
    "target", [(3e7, 3e8), (1e8, 1e9), (3e6, 1e9)], ids=["a corner", "three times beyond", "longer"]
)
def test_the_interval_covers_the_truth(sixty_fits, target):
    expected = [fit.expect(parameters=int(target[0]), tokens=int(target[1])) for fit in sixty_fits]
    assert sum(each.low <= loss_of(*target) <= each.high for each in expected) >= 0.85 * 60
    # It is no cover of everything: a loss 10 % off lies outside.
    assert sum(each.low <= 1.1 * loss_of(*target) <= each.high for each in expected) <= 6


def test_the_interval_is_for_one_more_run_and_not_for_the_curve(sixty_fits):
    """A new run has noise of its own, and its loss lies in the interval all the same."""
    hits = 0
    for seed, fit in enumerate(sixty_fits):
        expected = fit.expect(parameters=10**7, tokens=10**8)
        (new,) = made_up([(1e7, 1e8)], noise=0.005, seed=1000 + seed)
        hits += expected.low <= new.loss <= expected.high
    assert hits >= 0.85 * 60


def test_an_interval_is_wider_the_further_it_reaches_and_the_more_the_runs_scatter():
    calm, wild = fit_points(made_up(GRID, noise=0.002)), fit_points(made_up(GRID, noise=0.02))
    widths = []
    for fit in (calm, wild):
        for tokens in (10**8, 10**10):
            expected = fit.expect(parameters=10**7, tokens=tokens)
            widths.append(expected.high - expected.low)
    assert widths[0] < widths[1]
    assert widths[2] < widths[3]
    assert widths[0] < widths[2]


def test_three_runs_that_lie_on_their_curve_exactly_still_have_a_spread():
    """Three constants go through any three points; the next run would not lie on the curve."""
    fit = fit_points(made_up([(3e6, d) for d in (2e6, 4e6, 8e6)]))
    expected = fit.expect(parameters=3_000_000, tokens=8_000_000)
    assert fit.spread == pytest.approx(0.005, rel=0.01)
    assert expected.high - expected.low > 0.01 * expected.loss


def test_a_run_that_went_astray_moves_the_curve_less_than_its_own_error():
    runs = made_up(GRID, noise=0.001)
    runs[4] = replace(runs[4], loss=runs[4].loss * 1.3)
    expected = fit_points(runs).expect(parameters=30_000_000, tokens=300_000_000)
    assert expected.loss == pytest.approx(loss_of(3e7, 3e8), rel=0.03)


def test_reaching_far_beyond_the_runs_is_said():
    fit = fit_points(made_up(GRID))
    assert fit.expect(parameters=300_000_000, tokens=3_000_000_000).note == "fitted on 9 runs"
    far = fit.expect(parameters=7_000_000_000, tokens=1_000_000).note
    assert far == (
        "fitted on 9 runs; extrapolated far: 233 times the most parameters of any of them (30 M) and "
        "a 30th of the fewest tokens of any of them (30 M)"
    )


def test_the_same_runs_give_the_same_fit_to_the_last_bit():
    one, other = (fit_points(made_up(GRID, noise=0.01)) for _ in range(2))
    assert one == other
    assert one.expect(parameters=10**9, tokens=10**10) == other.expect(parameters=10**9, tokens=10**10)


def test_another_size_than_that_of_all_runs_is_not_guessed():
    fit = fit_points(made_up([(3e6, d) for d in (2e6, 4e6, 8e6)]))
    with pytest.raises(DataError, match="the runs are all of 3 M parameters and say nothing about 7 B") as caught:
        fit.expect(parameters=7_000_000_000, tokens=10**9)
    assert caught.value.where == "--fit"
    assert "Add runs of other sizes: at least 6 runs of 3 sizes" in caught.value.remedy


def write_run(folder: Path, *, size="nano", step=100, tokens=1_000_000, loss=3.0, **changes) -> Path:
    """The files of a run that a fit reads, as CheckpointKeeper and MetricsFile write them."""
    model = ModelConfig(size=size, vocab_size=4096, max_seq_len=512)
    config = TrainingConfig(model=model, data={"max_sequence_length": 512})
    state = {
        "step": step,
        "scored_tokens": tokens,
        "resolved": {"total_steps": changes.pop("total", step)},
        "identity": {"tokenizer": "tok", "store_id": "store", "plan_id": "plan", **changes},
    }
    checkpoint = folder / f"checkpoints/checkpoint_step_{step}"
    checkpoint.mkdir(parents=True)
    (checkpoint / "training_state.json").write_text(json.dumps(state))
    (checkpoint / "config.json").write_text(to_json(config))
    lines = [{"kind": "validation", "step": step // 2, "loss": 9.0}, {"kind": "train", "step": step, "loss": 8.0}]
    lines += [{"kind": "validation", "step": step, "loss": loss}]
    (folder / "logs").mkdir()
    (folder / "logs/metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"kind": "tra')
    return folder


def test_a_run_is_read_as_its_files_say(tmp_path):
    write_run(tmp_path / "a", step=50, total=100)
    run = read_run(write_run(tmp_path / "b", step=1000, tokens=123_456, loss=2.5))
    assert (run.tokens, run.loss, run.name) == (123_456, 2.5, str(tmp_path / "b"))
    assert run.parameters == num_parameters(ModelConfig(size="nano", vocab_size=4096))
    assert (run.tokenizer, run.store_id, run.plan_id) == ("tok", "store", "plan")


def test_the_newest_step_counts_and_not_the_first_by_name(tmp_path):
    write_run(tmp_path, step=1000, tokens=2_000_000, loss=2.0)
    old = tmp_path / "checkpoints/checkpoint_step_900"
    old.mkdir()
    (old / "training_state.json").write_text("{}")
    assert read_run(tmp_path).tokens == 2_000_000


def test_finished_runs_on_disk_are_fitted(tmp_path):
    sizes = {size: num_parameters(ModelConfig(size=size, vocab_size=4096)) for size in ("nano", "30m", "100m")}
    assert set(sizes) <= set(MODEL_SIZES)
    paths = [
        write_run(tmp_path / f"{size}-{tokens}", size=size, tokens=tokens, loss=loss_of(number, tokens))
        for size, number in sizes.items()
        for tokens in (10**7, 10**8, 10**9)
    ]
    fit = fit_runs(paths)
    assert fit.size_exponent == pytest.approx(0.34, abs=1e-4)
    assert fit.expect(parameters=10**8, tokens=10**9).loss == pytest.approx(loss_of(1e8, 1e9), rel=1e-4)


def three_lengths(folder):
    return [write_run(folder / f"r{k}", tokens=k * 10**6, loss=loss_of(3e6, k * 1e6)) for k in (1, 2, 4)]


def refusal(paths):
    with pytest.raises(DataError) as caught:
        fit_runs(paths)
    return caught.value


def test_a_folder_without_a_run_is_refused(tmp_path):
    error = refusal([*three_lengths(tmp_path), tmp_path / "nothing"])
    assert error.where == str(tmp_path / "nothing")
    assert error.found == "holds no checkpoints/checkpoint_step_N."
    assert "Give folders of finished runs" in error.remedy


def test_a_run_that_stopped_early_is_refused(tmp_path):
    error = refusal([*three_lengths(tmp_path), write_run(tmp_path / "stopped", step=500, total=2000)])
    assert error.where == str(tmp_path / "stopped")
    assert error.found == "stopped after step 500 of 2,000."
    assert "Finish it with --resume auto" in error.remedy


def test_a_run_whose_last_validation_is_missing_or_not_a_number_is_refused(tmp_path):
    for name, loss in (("none", None), ("zero", 0.0)):
        error = refusal([*three_lengths(tmp_path / name), write_run(tmp_path / name / "r", step=2500, loss=loss)])
        assert error.where == str(tmp_path / name / "r/logs/metrics.jsonl")
        assert "has no validation loss after the last step, 2,500" in error.found
        assert "Leave this run out of --fit" in error.remedy
    gone = write_run(tmp_path / "gone")
    (gone / "logs/metrics.jsonl").unlink()
    assert "has no validation loss" in refusal([gone]).found


def test_damaged_files_of_a_checkpoint_are_refused(tmp_path):
    run = write_run(tmp_path / "damaged")
    (run / "checkpoints/checkpoint_step_100/training_state.json").write_text('{"step": 100}')
    error = refusal([run])
    assert error.where.endswith("checkpoint_step_100")
    assert "cannot be read ('identity')" in error.found
    assert "Leave this run out" in error.remedy
    other = write_run(tmp_path / "config")
    (other / "checkpoints/checkpoint_step_100/config.json").write_text("{")
    with pytest.raises(ConfigError, match="this is no JSON"):
        read_run(other)


@pytest.mark.parametrize(
    ("changes", "what"),
    [
        ({"tokenizer": "other"}, "another tokenizer"),
        ({"store_id": "other"}, "another token store"),
        ({"plan_id": "other"}, "another data mixture or row length"),
    ],
)
def test_a_run_whose_loss_means_something_else_is_refused_by_name(tmp_path, changes, what):
    paths = three_lengths(tmp_path)
    error = refusal([*paths, write_run(tmp_path / "odd", **changes)])
    assert error.where == str(tmp_path / "odd")
    assert error.found == f"its losses cannot be compared with those of {paths[0]}: {what}."
    assert "Fit runs of one tokenizer on one text only" in error.remedy


def test_a_run_that_is_named_twice_is_refused(tmp_path):
    paths = three_lengths(tmp_path)
    error = refusal([*paths, tmp_path / "r2/../r1"])
    assert (error.where, "is named twice" in error.found) == ("--fit", True)
    assert "it would count double" in error.remedy


def test_too_few_runs_of_one_size_are_told_what_is_missing(tmp_path):
    error = refusal(three_lengths(tmp_path)[:2])
    assert error.found == "2 run(s) of one size with 2 different length(s) cannot be fitted."
    assert error.remedy == "Needed are runs of one size with 3 different lengths."
    assert "0 run(s) of one size" in refusal([]).found


def test_too_few_sizes_are_told_what_is_missing(tmp_path):
    paths = [*three_lengths(tmp_path), write_run(tmp_path / "large", size="30m", tokens=10**6)]
    error = refusal(paths)
    assert error.found == "4 runs of 2 sizes and 3 lengths are too few for a fit in size and length."
    assert (
        error.remedy == "Needed are 6 runs of 3 sizes and 3 lengths; or give runs of one size with 3 different lengths."
    )


def test_sizes_and_lengths_that_rise_together_are_refused(tmp_path):
    """Twenty tokens a parameter everywhere: any split between the two terms fits."""
    paths = []
    for size in ("nano", "30m", "100m"):
        number = num_parameters(ModelConfig(size=size, vocab_size=4096))
        for i in range(2):
            paths.append(
                write_run(tmp_path / f"{size}{i}", size=size, tokens=20 * number, loss=loss_of(number, 20 * number))
            )
    error = refusal(paths)
    assert "sizes and lengths rise together" in error.found
    assert error.remedy == "Add runs of one size with different lengths."


def test_the_fit_imports_neither_torch_nor_scipy():
    code = (
        "import sys\nfrom havoc_training.planner.loss_fit import FinishedRun, fit_points\n"
        "runs = [FinishedRun(str(d), 10, d, 3.0 + 1.0 / d, 't', 's', 'p') for d in (1, 2, 4)]\n"
        "fit_points(runs).expect(parameters=10, tokens=8)\nprint(sorted({'torch', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
