"""One run at a time in a folder."""

from __future__ import annotations

import pytest

from havoc_cli.run_lock import locked
from havoc_core.config import TrainingConfig
from havoc_core.run_files import RunFiles


@pytest.mark.parametrize("command", [["train"], ["run"], ["data", "build"]], ids=" ".join)
def test_a_second_run_in_the_same_folder_is_refused(command, havoc, config, prepared):
    with locked(RunFiles.of(TrainingConfig(run_dir=str(prepared)))):
        said = havoc(*command, "--config", config())
    assert said.code == 2
    assert f"ConfigError  run_dir: another run works in {prepared}." in said.message
    assert "Wait for it, or choose another: --run-dir." in said.message
    assert not (prepared / "checkpoints").exists()


def test_the_lock_goes_with_the_one_who_held_it(havoc, config, prepared):
    with pytest.raises(KeyboardInterrupt), locked(RunFiles.of(TrainingConfig(run_dir=str(prepared)))):
        raise KeyboardInterrupt
    assert havoc("data", "build", "--config", config()).code == 0


@pytest.mark.parametrize("command", [["train"], ["run"], ["data", "build"]], ids=" ".join)
def test_a_file_in_the_place_of_the_folder_is_refused_and_stays(command, havoc, config, here):
    (here / "run").write_text("mine")
    said = havoc(*command, "--config", config())
    assert said.code == 2
    assert "ConfigError  run_dir: " in said.message
    assert "run cannot be written to (" in said.message
    assert "Choose another: --run-dir." in said.message
    assert (here / "run").read_text() == "mine"
