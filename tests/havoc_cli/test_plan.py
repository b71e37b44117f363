"""`havoc plan`: the founding table, limits, and what it says when something cannot be."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from havoc_cli.plan import epochs_by_source, tokens_by_source
from havoc_cli.plan_lines import duration, trace_lines
from havoc_core.config import TrainingConfig

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = str(ROOT / "configs/training/default_training.yaml")
PROGRAM = """
import sys, time
began = time.process_time()
from havoc_cli.main import main
code = main(sys.argv[1:])
print(code, "torch" in sys.modules, time.process_time() - began, file=sys.stderr)
"""


def number(text: str, pattern: str) -> float:
    found = re.search(pattern, text)
    assert found is not None, text
    return float(found[1].replace(",", ""))


@pytest.mark.parametrize(
    ("card", "preset", "host", "tokens_per_s"),
    [
        ("RTX 4090", "stream", (75, 80), (2000, 2800)),
        ("A100-40", "offload", (64, 67), (2900, 4200)),
        ("A100-80", "offload", (64, 67), (2900, 4200)),
        ("H200", "fp32_master", None, (10000, 15000)),
    ],
)
def test_the_founding_table_is_true_row_by_row(card, preset, host, tokens_per_s, havoc):
    said = havoc("plan", "--config", DEFAULT, "--gpu", card)
    assert (said.code, said.err) == (0, "")
    assert said.out.startswith(f"{card}: `memory: {preset}`")
    rows, steps = (int(part) for part in re.search(r"step +(\d+) x (\d+):", said.out).groups())
    assert rows * steps == 32, "65,536 tokens a step, on every card"
    needed, there = (
        number(said.out, rf"GPU memory +{pattern}") for pattern in (r"([\d.]+) GiB", r"[\d.]+ GiB of ([\d.]+)")
    )
    assert 0.5 * there < needed <= 0.98 * there
    if host is None:
        assert "host memory   little: everything is on the GPU" in said.out
    else:
        assert host[0] < number(said.out, r"host memory +([\d.]+) GiB, taken to be there") < host[1]
    speed = number(said.out, r"speed +([\d,]+) tokens/s \(predicted, limited by compute\)")
    assert tokens_per_s[0] < speed < tokens_per_s[1]
    days = number(said.out, r"([\d.]+) days per billion tokens")
    assert days == pytest.approx(1e9 / speed / 86400, rel=0.02)


def test_several_cards_are_a_row_each_and_no_line_is_too_long(havoc):
    cards = ["--gpu", "rtx 4090,A100-40", "--gpu", "A100-80", "--gpu", "H200"]
    said = havoc("plan", "--config", DEFAULT, *cards, "--tokens", "1B", "--price-per-hour", "2")
    assert said.code == 0
    lines = said.out.splitlines()
    assert lines[0].split() == [
        "GPU",
        "preset",
        "gradients",
        "batch",
        "recompute",
        "GPU",
        "GiB",
        "of",
        "RAM",
        "GiB",
        "tokens/s",
        "days/B",
    ]
    assert [line.split("  ")[0] for line in lines[1:5]] == ["RTX 4090", "A100-40", "A100-80", "H200"]
    assert "EUR" in said.out
    assert "predicted from the datasheet" in " ".join(said.out.split())
    assert max(map(len, lines)) <= 110


def test_no_line_of_a_plan_is_longer_than_110_columns(havoc):
    for arguments in (["--gpu", "a100 pcie 80", "--host-memory", "32"], ["--gpu", "5060 ti", "--tokens", "10B"]):
        said = havoc("plan", "--config", DEFAULT, *arguments)
        assert max(map(len, said.out.splitlines())) <= 110


def test_a_plan_answers_within_two_seconds_and_without_torch(tmp_path):
    """CPU time of the child, the least of three starts."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    arguments = ["plan", "--config", DEFAULT, "--gpu", "RTX 4090,A100-40,A100-80,H200", "--host-memory", "64"]
    seconds = []
    for _ in range(3):
        call = [sys.executable, "-c", PROGRAM, *arguments]
        done = subprocess.run(call, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        code, torch, cpu = done.stderr.split()
        assert (code, torch) == ("3", "False")
        seconds.append(float(cpu))
        if min(seconds) <= 2.0:
            break
    assert min(seconds) <= 2.0


def test_what_cannot_fit_is_exit_code_3_with_the_nearest_setting(havoc):
    said = havoc("plan", "--config", DEFAULT, "--gpu", "RTX 4090", "--host-memory", "64")
    assert said.code == 3
    assert said.err.startswith("PlanError  memory: this run needs ")
    assert "it has 22.6 GiB (RTX 4090)" in said.err
    assert "--memory stream --memory-options.moments bfloat16." in said.err
    several = havoc("plan", "--config", DEFAULT, "--gpu", "RTX 4090,H200", "--host-memory", "64")
    assert several.code == 3
    assert re.search(r"RTX 4090 +does not fit", several.out)
    assert "RTX 4090: this run needs " in several.out


def test_the_setting_that_is_proposed_is_understood(havoc):
    options = ["--memory", "stream", "--memory-options.moments", "bfloat16"]
    assert havoc("plan", "--config", DEFAULT, "--gpu", "RTX 4090", "--host-memory", "64", *options).code == 0


def test_this_machine_is_planned_for_without_a_card(config, havoc):
    said = havoc("plan", "--config", config())
    assert said.code == 0
    assert said.out.startswith("CPU: `memory: fp32_master`")
    assert "speed         not known for this device" in said.out
    assert "6 steps" in said.out
    assert "Epochs per source: there is no store yet" in said.out


def test_json_holds_the_plan(config, havoc):
    plan = json.loads(havoc("plan", "--config", config(), "--json").out)
    assert (plan["machine"], plan["total_steps"], plan["derived"]["tokens_per_step"]) == ("CPU", 6, 128)
    rows = json.loads(havoc("plan", "--config", DEFAULT, "--gpu", "H200,4090", "--host-memory", "16", "--json").out)
    assert rows[0]["pieces"]["preset"] == "fp32_master"
    assert rows[1]["machine"] == "RTX 4090"
    assert "GiB on the GPU" in rows[1]["error"]


def test_tokens_an_end_and_a_budget_set_the_length(havoc):
    arguments = ["plan", "--config", DEFAULT, "--gpu", "H200", "--price-per-hour", "3.5EUR", "--price-per-kwh", "0.3"]
    tokens = havoc(*arguments, "--tokens", "1B")
    assert "length        15,259 steps, 1.00 B tokens" in tokens.out
    assert re.search(r"energy +[\d.]+ kWh at 700 W a card", tokens.out)
    assert re.search(r"end +\w+day \d{4}-\d\d-\d\d \d\d:\d\d", tokens.out)
    budget = havoc(*arguments, "--budget", "50EUR", "--tokens", "100B")
    assert 49.9 < number(budget.out, r"money +([\d.]+) EUR") <= 50.0
    assert "--budget 50EUR gives" in budget.out
    assert "--tokens 100B would allow 1,525,879" in budget.out
    until = havoc(*arguments, "--until", "in 36 hours")
    assert number(until.out, r"time +([\d.]+) hours") == pytest.approx(36.0, abs=0.1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--gpu", "RTX 4070"], "--gpu: nothing is known of a 'RTX 4070'. Did you mean"),
        (["--gpu", "A100"], "'A100' is sold as A100-40 and as A100-80."),
        (["--gpu", "H200", "--host-memory", "lots"], "--host-memory: 'lots' is no size. Give it in GiB, such as 64."),
        (["--gpu", "H200", "--price-per-hour", "cheap"], "'cheap' is no amount of money. Write it like"),
        (["--gpu", "H200", "--price-per-hour", "2USD", "--budget", "50EUR"], "nothing is converted here."),
        (["--gpu", "H200", "--budget", "50"], "--budget: there is no price that it could be divided by."),
        (["--gpu", "H200", "--until", "yesterday"], "'yesterday' is no time that can be read."),
        (["--gpu", "H200", "--until", "2020-01-01"], "'2020-01-01' is in the past"),
        (["--gpu", "H200", "--tokens", "many"], "'many' is no number of tokens."),
        (["--gpu", "3090", "--fp8", "true"], "the RTX 3090 (compute capability 8.6) does not multiply 8-bit floats."),
        (["--gpu", "H200", "--probe"], "--probe: measures this machine, and --gpu plans for another. Leave one of them out."),
        (["--gpu", "H200", "--data.max-sequence-length", "8192"], "is above model.max_seq_len"),
    ],
)  # fmt: skip
def test_bad_input_is_one_message_with_a_remedy(arguments, message, havoc):
    said = havoc("plan", "--config", DEFAULT, *arguments)
    assert said.code == 2
    assert message in said.message


def test_a_gpu_that_is_asked_for_and_not_there_is_refused(havoc, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))  # no driver's program, whatever the machine has
    said = havoc("plan", "--config", DEFAULT, "--device", "cuda")
    assert said.code == 2
    assert said.message.startswith("ConfigError  device: 'cuda' was asked for, and nvidia-smi finds no GPU here.")
    assert 'Plan for a card: --gpu "RTX 4090"; or for this machine: --device cpu.' in said.message
    streamed = havoc("plan", "--config", DEFAULT, "--memory", "stream", "--model.size", "nano")
    assert "there is no GPU here. Use `memory: auto`" in streamed.message


@pytest.mark.slow
def test_the_trace_stands_beside_the_ledger(config, havoc):
    said = havoc("plan", "--config", config(model={"num_layers": 2}), "--trace")
    assert said.code == 0
    rows = re.findall(r"  ([a-z ]+?) +[\d.,]+ [GM]iB +[\d.,]+ [GM]iB +([+-][\d.]+)%", said.out.split("trace  ")[1])
    assert {"loss", "optimizer", "backward of the first block"} <= {name.strip() for name, _ in rows}
    assert all(abs(float(off)) <= 0.5 for _, off in rows), said.out


def test_what_only_one_of_ledger_and_trace_knows_has_a_row_of_its_own():
    lines = list(trace_lines({"loss": 2**31, "here": 2**30}, {"loss": 2**30, "there": 2**29}))
    assert [line.split()[-1] for line in lines[1:]] == ["difference", "+100.00%", "GiB", "GiB"]


def test_a_probe_gives_a_speed_where_none_is_known(config, havoc):
    said = havoc("plan", "--config", config(), "--probe")
    assert said.code == 0, said.err
    assert number(said.out, r"speed +([\d,]+) tokens/s \(extrapolated from a probe\)") > 0


def test_a_store_tells_how_often_its_sources_are_read(config, here, havoc):
    manifest = here / "run" / "store" / "manifest.json"
    manifest.parent.mkdir(parents=True)
    sources = {"books": {"group": "domain", "tokens": 60_000}, "web": {"group": "general", "tokens": 60_000}}
    manifest.write_text(json.dumps({"sources": sources}))
    said = havoc("plan", "--config", config(max_steps=None, max_epochs=2.0))
    assert said.code == 0
    assert "length        1,875 steps, 240 K tokens" in said.out
    assert re.search(r"epochs +books +2.67\n +web +1.33\n", said.out)
    assert "it is estimated from the tokens of the store" in " ".join(said.out.split())


def test_tokens_are_read_from_the_manifest_and_a_damaged_one_counts_as_none(tmp_path):
    config = TrainingConfig(run_dir=str(tmp_path))
    assert tokens_by_source(config) is None
    manifest = tmp_path / "store" / "manifest.json"
    manifest.parent.mkdir()
    manifest.write_text(json.dumps({"sources": {"books": {"group": "domain", "tokens": 12}}}))
    assert tokens_by_source(config) == {"books": ("domain", 12)}
    for text in ("{", "{}", '{"sources": {}}', '{"sources": {"books": {"group": "domain"}}}', "[]"):
        manifest.write_text(text)
        assert tokens_by_source(config) is None


def test_epochs_are_shares_of_the_mixture_over_the_tokens_that_there_are():
    sources = {"maths": ("domain", 300), "stats": ("domain", 100), "web": ("general", 1000)}
    plain = epochs_by_source(TrainingConfig(), sources, 9000)
    # Dialog has no text: 0.6 and 0.3 become 2/3 and 1/3. Inside the domain sources share by their tokens.
    assert plain == pytest.approx({"maths": 15.0, "stats": 15.0, "web": 3.0})
    weighted = TrainingConfig.model_validate({"data": {"weights": {"stats": 0.5}}})
    assert epochs_by_source(weighted, sources, 9000) == pytest.approx({"maths": 10.0, "stats": 30.0, "web": 3.0})


def test_durations_are_in_the_unit_that_a_person_would_use():
    assert [duration(s) for s in (90, 600, 86400, 10 * 86400, 1e9)] == [
        "90 seconds", "10.0 minutes", "24.0 hours", "10.0 days", "31.7 years",
    ]  # fmt: skip
