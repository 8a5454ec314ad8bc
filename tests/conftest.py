"""What every test runs under: a clean environment, no network but loopback, one thread for torch and FAISS."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings

# the same examples on every machine, however slow it is; `--hypothesis-profile default` looks for new ones
settings.register_profile("fixed", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fixed")

# set before torch and FAISS are imported: their threads wait for each other busily when tests run side by side
os.environ.setdefault("OMP_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [n for n in os.environ if n.startswith("PERMAFROST_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")


@pytest.fixture
def pillows_resize(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resize by Pillow, as reference libraries do, so that vectors can be compared digit by digit.

    The kernel that is used otherwise is held against Pillow in test_decode_resize.
    """
    from embedder.decode import resize

    monkeypatch.setattr(resize, "KERNELS", {})


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--kills", default=50, help="how many kill -9 instants tests/index/test_faults.py tries")
    parser.addoption("--all-writes", action="store_true", help="test_faults.py: every write fails once, not a sample")
    parser.addoption("--seeds", type=int, default=40, help="seeds of each planted test; 200 is the full count")


@pytest.fixture(scope="session")
def seeds(request: pytest.FixtureRequest) -> range:
    """The seeds of a planted test."""
    return range(int(request.config.getoption("--seeds")))
