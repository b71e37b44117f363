"""`havoc run`: the whole line, as a graph of stages that goes on where it was stopped."""

from __future__ import annotations

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

from havoc_cli.flags import ConfigFlags, load_config, parse_with_settings
from havoc_cli.run_lock import locked
from havoc_cli.stages import StageLog, key_of
from havoc_core.config import TrainingConfig
from havoc_core.errors import ConfigError
from havoc_core.run_files import RunFiles

_NOT_IN_THE_KEY = {
    "log_every_n_steps", "log_dir", "keep_last_n_checkpoints", "save_every_n_steps", "checkpoint_dir", "run_dir",
    "resume_from_checkpoint", "tracking", "evaluation",
}  # fmt: skip
"""Settings that change nothing about the trained weights."""


def run(argv: Sequence[str]) -> int:
    """Do what has not been done yet; gives 0, or 128 + the signal that stopped training."""
    flags, given = parse_with_settings(
        ConfigFlags,
        argv,
        prog="havoc run",
        description="Text -> tokenizer -> training -> evaluation -> report. Call it again to go on where it was stopped.",
    )
    config = load_config(flags, given).config
    if config.resume_from_checkpoint not in {None, "auto"}:
        raise ConfigError(
            "resume_from_checkpoint", "`havoc run` always goes on by itself.", "Leave it out, or use havoc train."
        )
    config = config.model_copy(update={"resume_from_checkpoint": "auto"})
    from havoc_core import log

    log.to_screen()
    with locked(RunFiles.of(config)):
        return run_stages(config, command=shlex.join(["havoc", "run", *argv]))


def run_stages(config: TrainingConfig, *, command: str) -> int:
    """The graph, from top to bottom."""
    from havoc_core.device import choose_device
    from havoc_data.prepare.build import collect_corpus, collecting
    from havoc_data.prepare.collect import inputs_key
    from havoc_data.prepare.tokenize import build_store, store_key
    from havoc_data.prepare.train_tokenizer import make_tokenizer, tokenizer_key
    from havoc_data.store import TokenStore
    from havoc_training.build import check_fit

    choose_device(config.device)
    check_fit(config)  # whether it fits is said before any work is done
    files, stages = RunFiles.of(config), StageLog.open(RunFiles.of(config).stages)
    corpus_key = inputs_key(collecting(config))
    stages.do(
        "data", corpus_key, lambda: _only_do(collect_corpus(config)), is_there=(files.run_dir / "corpus").is_dir()
    )
    corpus = collect_corpus(config)
    stages.do(
        "tokenizer",
        tokenizer_key(config, corpus.key),
        lambda: _only_do(make_tokenizer(config, corpus, folder=files.tokenizer)),
        is_there=files.tokenizer.is_dir(),
    )
    tokenizer = make_tokenizer(config, corpus, folder=files.tokenizer)
    stages.do(
        "store",
        store_key(corpus.key, tokenizer),
        lambda: _only_do(build_store(corpus, files.tokenizer, folder=files.store, data=config.data)),
        is_there=files.store.is_dir(),
    )
    train_key = key_of(TokenStore(files.store).id, config.model_dump(mode="json", exclude=_NOT_IN_THE_KEY))
    code = _train(config, stages, train_key, command)
    if code:
        return code
    checkpoint = _final_checkpoint(config)
    evaluation = config.evaluation.model_dump(mode="json")
    evaluate_key = key_of(_content_hash(checkpoint / "manifest.json"), evaluation)
    stages.do("evaluate", evaluate_key, lambda: _evaluate(config, checkpoint), is_there=files.evaluation.is_file())
    report_key = key_of(_content_hash(files.evaluation), _content_hash(files.metrics), config.model_dump(mode="json"))
    stages.do(
        "report",
        report_key,
        lambda: _report(config, command, checkpoint, stages.seconds()),
        is_there=files.report.is_file(),
    )
    _say_goodbye(files)
    return 0


def _train(config: TrainingConfig, stages: StageLog, key: str, command: str) -> int:
    from havoc_cli.train import train

    code = 0

    def work() -> None:
        nonlocal code
        code = train(config, go_on_with=command)
        if code:
            raise _StoppedError

    there = bool(_finished(config))
    try:
        stages.do("train", key, work, is_there=there)
    except _StoppedError:
        pass
    return code


class _StoppedError(Exception):
    """Training was stopped by a signal: the stage is not finished, and nothing went wrong."""


def _finished(config: TrainingConfig) -> Path | None:
    """The step checkpoint with the most steps, if any."""
    from havoc_core.checkpoint import step_checkpoints

    found = step_checkpoints(RunFiles.of(config).checkpoints)
    return found[-1] if found else None


def _final_checkpoint(config: TrainingConfig) -> Path:
    folder = _finished(config)
    assert folder is not None, "training that reached its last step saved a checkpoint"
    return folder


def _evaluate(config: TrainingConfig, checkpoint: Path) -> None:
    from havoc_cli.evaluate import evaluate_checkpoint, save

    files = RunFiles.of(config)
    evaluation = evaluate_checkpoint(
        checkpoint,
        store=files.store,
        corpus=files.run_dir / "corpus",
        exam_problems=config.evaluation.exam_problems,
        device=config.device,
    )
    save(evaluation, files.evaluation)
    _write_samples(config, checkpoint)


def _write_samples(config: TrainingConfig, checkpoint: Path) -> None:
    from havoc_core.device import choose_device
    from havoc_inference.engine import Engine
    from havoc_inference.load import load_checkpoint
    from havoc_inference.sampling import SamplingOptions

    engine = Engine(load_checkpoint(checkpoint, device=choose_device(config.device)))
    options = SamplingOptions(max_new_tokens=config.evaluation.sample_tokens)
    prompts = config.evaluation.sample_prompts
    generations = engine.generate([engine.encode_prompt(prompt) for prompt in prompts], options)
    settings = f"temperature {options.temperature}, top-k {options.top_k}, top-p {options.top_p}, seed {options.seed}"
    rows = [
        {"prompt": prompt, "text": generation.text, "settings": settings}
        for prompt, generation in zip(prompts, generations, strict=True)
    ]
    path = RunFiles.of(config).logs / "samples.json"
    path.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _report(config: TrainingConfig, command: str, checkpoint: Path, seconds: Mapping[str, float]) -> None:
    from havoc_cli.data_card import write_card
    from havoc_cli.report import write_report
    from havoc_data.prepare.build import open_prepared

    write_card(config, open_prepared(config), made_from=command)
    write_report(
        config, command=command, checkpoint=checkpoint, stages={k: v for k, v in seconds.items() if k != "report"}
    )


def _say_goodbye(files: RunFiles) -> None:
    """A sample, where the report is, and how to go on."""
    path = files.logs / "samples.json"
    rows = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    if rows:
        text = f"{rows[0]['prompt']}{rows[0]['text']}".replace("\n", "\n    ")
        print(f"\nA sample:\n    {text}")
    print(f"\nReport: {files.report}\nThe text it learnt from: {files.data_card}")
    print(f"Talk to it: havoc chat {files.run_dir}, or in a browser: havoc serve {files.run_dir}")


def _content_hash(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


def _only_do(made: object) -> None:
    """Take a stage's result, which later stages read from disk."""
