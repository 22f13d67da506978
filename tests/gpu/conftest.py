"""What only a real GPU can show. `make gpu`; without one nothing here runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest
import torch

HERE = Path(__file__).parent
# Models and batches are those of the unit tests.
sys.path.insert(0, str(HERE.parent / "unit"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    if torch.cuda.is_available() or os.environ.get("SENSORIUM_GPU_TESTS_ON"):
        torch.backends.cuda.matmul.allow_tf32 = False
        return
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.skip(reason="no GPU"))
