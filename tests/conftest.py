"""Fixtures shared by all tests."""

from pathlib import Path

import pytest
import torch

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """One thread per test process: results repeat, and parallel workers do not fight."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def shared() -> Path:
    """The data folder beside the checkout; tests that need it skip without it."""
    if not SHARED.is_dir():
        pytest.skip("needs the reference data in ../shared, which is not part of the repository")
    return SHARED
