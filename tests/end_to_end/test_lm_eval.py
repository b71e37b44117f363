"""EleutherAI's lm-eval in process and through `havoc serve`: the same rows, the same scores."""

from __future__ import annotations

import json

import pytest
import torch
import yaml

pytest.importorskip("lm_eval", reason="the extra `eval` is not installed")

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]

WORDS = ("mean", "variance", "sample", "estimate", "interval", "test", "power", "bias", "median", "quantile", "prior",
         "normal", "regression", "error")  # fmt: skip


@pytest.fixture
def tasks(here, monkeypatch):
    """A task of choices, one of a last word, and one of answers, as files; nothing is fetched."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("HF_DATASETS_OFFLINE", "1")
    monkeypatch.setenv("HF_HOME", str(here / "hub"))
    folder = here / "tasks"
    folder.mkdir()
    rows = [
        {"question": f"The {WORDS[i]} of a {WORDS[-1 - i]} is ", "choices": [WORDS[i], WORDS[(i * 3) % 14] + " 😀", "Σ x"],
         "answer": i % 3, "text": f"The {WORDS[i]} of {WORDS[i - 1]}"}
        for i in range(12)
    ]  # fmt: skip
    (folder / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    both = {"dataset_path": "json", "dataset_kwargs": {"data_files": {"test": str(folder / "rows.jsonl")}},
            "test_split": "test", "metadata": {"version": 1}}  # fmt: skip
    choices = {
        "task": "tiny_choices", "output_type": "multiple_choice", "doc_to_text": "{{question}}",
        "doc_to_choice": "{{choices}}", "doc_to_target": "answer",
        "metric_list": [{"metric": "acc"}, {"metric": "acc_norm"}],
    }  # fmt: skip
    word = {
        "task": "tiny_last_word", "output_type": "loglikelihood", "doc_to_text": "{{question}}",
        "doc_to_target": "{{choices[0]}}", "metric_list": [{"metric": "perplexity"}, {"metric": "acc"}],
    }  # fmt: skip
    answers = {
        "task": "tiny_answers", "output_type": "generate_until", "doc_to_text": "{{text}}", "doc_to_target": "{{answer}}",
        "generation_kwargs": {"until": ["\n", "e"], "max_gen_toks": 12}, "metric_list": [{"metric": "exact_match"}],
    }  # fmt: skip
    for task in (choices, word, answers):
        (folder / f"{task['task']}.yaml").write_text(yaml.safe_dump({**both, **task}))
    return folder


def responses(record, task):
    """Item -> what the model answered."""
    return {sample["doc_id"]: sample["resps"] for sample in record["samples"][task]}


def numbers(results):
    return {(task, name): value for task, scores in results.items() for name, value in scores.items() if "," in name}


def test_scores_in_process_and_through_the_server_are_the_same(served, tasks, monkeypatch):
    import lm_eval.models  # noqa: F401
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    from havoc_cli.harness import ScoringEngine
    from havoc_eval.harness import HarnessOptions, run
    from havoc_inference.engine import Engine
    from havoc_inference.load import load_checkpoint

    names = ["tiny_choices", "tiny_last_word", "tiny_answers"]
    engine = Engine(load_checkpoint(served.run, device=torch.device("cpu")))
    inside = run(ScoringEngine(engine), HarnessOptions(tuple(names), include=tasks))
    monkeypatch.setenv("OPENAI_API_KEY", served.key)
    through = {}
    for concurrent in (1, 3):
        through[concurrent] = simple_evaluate(
            model="local-completions",
            model_args={
                "model": "tiny", "base_url": f"{served.url}/v1/completions", "auth_token": served.key,
                "max_length": engine.max_seq_len, "num_concurrent": concurrent, "batch_size": 2,
            },
            tasks=names,
            task_manager=TaskManager(include_path=tasks, include_defaults=False),
            bootstrap_iters=1000,
        )  # fmt: skip
    for record in through.values():
        assert numbers(record["results"]).keys() == numbers(inside["results"]).keys()
        for key, value in numbers(inside["results"]).items():
            assert numbers(record["results"])[key] == pytest.approx(value, rel=1e-4), key
        for task in ("tiny_choices", "tiny_last_word"):
            mine, theirs = responses(inside, task), responses(record, task)
            for item, given in mine.items():
                for ((value, best),), ((other, other_best),) in zip(given, theirs[item], strict=True):
                    assert other == pytest.approx(value, abs=1e-4)
                    assert best == other_best
        assert responses(record, "tiny_answers") == responses(inside, "tiny_answers")
    values = [pair[0][0] for given in responses(inside, "tiny_choices").values() for pair in given]
    assert len(set(values)) > 12 and max(values) < 0
    assert any(answer[0][0] for answer in responses(inside, "tiny_answers").values())


def test_a_client_that_sends_text_gets_the_scores_with_the_beginning_of_text(served, tasks, monkeypatch):
    """The server puts that token before text and leaves it out of the echo: it would shift every score by one."""
    import lm_eval.models  # noqa: F401
    from lm_eval.evaluator import simple_evaluate
    from lm_eval.tasks import TaskManager

    from havoc_cli.harness import ScoringEngine
    from havoc_eval.harness import HarnessOptions, run
    from havoc_inference.engine import Engine
    from havoc_inference.load import load_checkpoint

    names = ["tiny_choices", "tiny_answers"]
    engine = Engine(load_checkpoint(served.run, device=torch.device("cpu")))
    inside = run(ScoringEngine(engine), HarnessOptions(tuple(names), include=tasks, add_bos=True))
    monkeypatch.setenv("OPENAI_API_KEY", served.key)
    record = simple_evaluate(
        model="local-completions",
        model_args={
            "model": "tiny", "base_url": f"{served.url}/v1/completions", "auth_token": served.key,
            "max_length": engine.max_seq_len, "tokenized_requests": False,
        },
        tasks=names,
        task_manager=TaskManager(include_path=tasks, include_defaults=False),
        bootstrap_iters=1000,
    )  # fmt: skip
    mine, theirs = responses(inside, "tiny_choices"), responses(record, "tiny_choices")
    for item, given in mine.items():
        for ((value, best),), ((other, other_best),) in zip(given, theirs[item], strict=True):
            assert (other, other_best) == (pytest.approx(value, abs=1e-4), best)
    assert responses(record, "tiny_answers") == responses(inside, "tiny_answers")


def test_the_command_prints_and_keeps_the_scores(served, tasks, havoc, here):
    out = here / "scores.json"
    said = havoc("evaluate", served.run, "--harness", "tiny_choices", "--harness-include", tasks, "--out", out)
    assert said.code == 0, said.err
    record = json.loads(out.read_text())
    score = record["results"]["tiny_choices"]["acc,none"]
    assert f"tiny_choices             acc              {score:.4f}  ±" in said.out
    assert record["n-samples"]["tiny_choices"]["effective"] == 12


def test_a_task_that_does_not_exist_is_said_in_one_message(served, tasks, havoc):
    said = havoc("evaluate", served.run, "--harness", "tiny_nothing", "--harness-include", tasks)
    assert said.code == 2
    assert "there is no task 'tiny_nothing' in" in said.message
