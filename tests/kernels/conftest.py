"""Without a card Triton's kernels are interpreted: on such a machine nothing else in the process could run one, so nothing is disturbed."""
from __future__ import annotations

import os

if not os.path.exists("/dev/nvidiactl"):
    os.environ.setdefault("TRITON_INTERPRET", "1")
