"""The lock under which threads beside the main one talk to a GPU.

While the main thread records work for a GPU (`backbones/recorded.py`) the driver refuses most calls of any other, and the recording is lost.
"""

from __future__ import annotations

import threading

GPU_CALLS = threading.RLock()
"""Held by whoever records, and by a helper while it calls."""
