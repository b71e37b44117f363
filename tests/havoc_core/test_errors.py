"""Every error says where, what and what to do, and has its exit code."""

from __future__ import annotations

import pytest

from havoc_core import errors

CODES = {
    "ConfigError": 2,
    "DataError": 2,
    "MissingPackageError": 2,
    "PlanError": 3,
    "CheckpointError": 1,
    "TrainingError": 1,
}


@pytest.mark.parametrize("name", CODES)
def test_an_error_has_three_parts_and_an_exit_code(name):
    error = getattr(errors, name)("optimizer", "'adm' is none.", "Did you mean 'adamw'?")
    assert str(error) == "optimizer: 'adm' is none. Did you mean 'adamw'?"
    assert (error.where, error.found, error.remedy) == ("optimizer", "'adm' is none.", "Did you mean 'adamw'?")
    assert error.exit_code == CODES[name]
    assert isinstance(error, errors.HavocError)
    assert not isinstance(error, ValueError)


def test_no_part_can_be_left_out():
    with pytest.raises(TypeError):
        errors.ConfigError("optimizer", "is wrong")
