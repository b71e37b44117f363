"""Limits of the server."""

from __future__ import annotations

import pytest

from havoc_core.errors import ConfigError
from havoc_inference.server.limits import Limits


@pytest.mark.parametrize("name", ["max_body_bytes", "max_new_tokens", "request_timeout_s"])
def test_a_limit_of_nothing_is_refused_by_name(name):
    with pytest.raises(ConfigError, match=f"{name}: 0 is no limit to work with"):
        Limits(**{name: 0})


def test_none_stands_for_what_the_model_holds():
    assert Limits(max_prompt_tokens=None).max_prompt_tokens is None
