"""`havoc serve`: what is said before anything is loaded, and what the flags become."""

from __future__ import annotations

import sys

import pytest

from havoc_cli.model_folder import open_model
from havoc_cli.serve import ServeFlags, open_app
from havoc_inference.server.gate import Door
from havoc_inference.server.limits import Limits
from havoc_inference.server.listening import listen


def test_others_may_not_reach_a_server_without_keys(havoc):
    said = havoc("serve", "nothing", "--host", "0.0.0.0", "--port", "0")
    assert said.code == 2
    assert "on 0.0.0.0 anybody who reaches this machine could use the model" in said.message


def test_a_port_that_is_taken_is_said_before_a_model_is_looked_for(havoc):
    with listen("127.0.0.1", 0) as taken:
        said = havoc("serve", "nothing", "--port", str(taken.getsockname()[1]))
    assert said.code == 2 and "cannot be listened on" in said.message


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (("--api-key-file", "nothing"), "nothing cannot be read"),
        (("--max-body-bytes", "0"), "max_body_bytes: 0 is no limit to work with"),
        (("--request-timeout-s", "-1"), "request_timeout_s: -1.0 is no limit"),
    ],
)
def test_a_wrong_flag_is_said_before_a_model_is_looked_for(flags, words, havoc):
    said = havoc("serve", "nothing", "--port", "0", *flags)
    assert said.code == 2 and words in said.message


def test_without_its_packages_the_extra_is_named(havoc, monkeypatch):
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    said = havoc("serve", "nothing")
    assert said.code == 2
    assert "needs a package that cannot be imported" in said.message and "pip install 'havoc[serve]'" in said.message


def test_where_there_is_no_model_it_is_said(havoc, here):
    said = havoc("serve", here, "--port", "0")
    assert said.code == 1 and "is no checkpoint (no manifest.json)" in said.message


def test_a_model_is_called_by_the_folder_of_its_run_and_a_checkpoint_in_it_too(finished_run, capsys):
    inside = finished_run / "checkpoints" / "checkpoint_step_6"
    for path in (finished_run, inside):
        opened = open_model(path, device="cpu")
        assert (opened.name, opened.folder) == ("run", finished_run.resolve())
    assert "DUMMY DATA" in capsys.readouterr().out


def test_a_name_of_ones_own_is_taken(finished_run):
    flags = ServeFlags(checkpoint=str(finished_run), name="my-model", device="cpu", max_new_tokens=5)
    assert open_app(flags, limits=flags.limits(), door=Door()).name == "my-model"
    assert flags.limits() == Limits(max_new_tokens=5)


@pytest.mark.slow
def test_an_exported_folder_is_served_too(finished_run, here, havoc):
    exported = havoc("export", finished_run, "--to", "hf", "--out", "out")
    assert exported.code == 0, exported.err
    opened = open_model(here / "out", device="cpu")
    assert opened.name == "out"
    assert (
        opened.loaded.tokenizer.fingerprint() == open_model(finished_run, device="cpu").loaded.tokenizer.fingerprint()
    )
