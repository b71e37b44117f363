"""Ray, started here as a local one."""

from __future__ import annotations

import math
import os
import subprocess
import sys

import pytest

from havoc_core.errors import ConfigError, DataError
from havoc_data.runner import RUNNERS
from havoc_data.runners.ray import Options, build

WITHOUT = """
import sys
sys.modules["ray"] = None
from havoc_data.runners.ray import Options, build
try:
    build(2, Options())
except Exception as error:
    print(type(error).__name__, error)
"""


def test_without_the_package_the_command_that_installs_it_is_named():
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    assert done.stdout.startswith(
        "MissingPackageError data.runner: 'ray' needs the package ray, which is not installed."
    )
    assert "pip install 'havoc[cluster]'" in done.stdout


@pytest.fixture
def local():
    """Two processes of a Ray that is started and ended by each call."""
    pytest.importorskip("ray", reason="the package ray is not installed")
    return build(2, Options(at_once=3))


@pytest.mark.slow
def test_more_tasks_than_are_handed_over_at_once_come_back_in_their_order(local):
    import ray

    assert list(local.map(math.sqrt, [float(n * n) for n in range(9, 0, -1)])) == [float(n) for n in range(9, 0, -1)]
    assert not ray.is_initialized(), "what was started here is ended here"


@pytest.mark.slow
def test_a_cluster_that_is_not_there_is_named():
    pytest.importorskip("ray", reason="the package ray is not installed")
    with pytest.raises(ConfigError, match=r"data.runner_options.address: Ray does not answer at 'auto' \(") as caught:
        list(build(2, Options(address="auto")).map(math.sqrt, [1.0]))
    assert "Start a cluster (ray start --head) and name it, or leave it out" in caught.value.remedy


@pytest.fixture(scope="module")
def running():
    """A Ray that runs already, for what need not start one: a start takes seconds. Such a Ray is used, and is not ended."""
    ray = pytest.importorskip("ray", reason="the package ray is not installed")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, configure_logging=False)
    yield
    assert ray.is_initialized()
    ray.shutdown()


@pytest.mark.slow
def test_what_a_task_raises_is_raised_here_with_all_its_parts(local, running):
    with pytest.raises(ConfigError, match="data.runner: 'nosuch' is not a runner here. There are: inline") as caught:
        list(local.map(RUNNERS.check, ["inline", "nosuch"]))
    assert caught.value.where == "data.runner"


@pytest.mark.slow
def test_a_process_that_dies_each_time_is_an_error_with_a_remedy(local, running):
    with pytest.raises(DataError, match="data.runner: a process that worked on the text died") as caught:
        list(local.map(os._exit, [9]))
    assert "What was finished is kept" in caught.value.remedy


@pytest.mark.slow
def test_a_module_of_the_users_own_is_found_by_every_process(local, running, tmp_path, monkeypatch):
    """Regression: Ray's processes knew nothing of the folders on the path of this one."""
    (tmp_path / "my_own_lab.py").write_text(
        "import os\ndef double(n):\n    return 2 * n, os.environ['RAYON_NUM_THREADS']\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    import my_own_lab

    assert list(local.map(my_own_lab.double, [1, 2])) == [(2, "1"), (4, "1")]
