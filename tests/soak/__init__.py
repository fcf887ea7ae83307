"""A harness that stops commands at their operations on files; see ``__main__``.

One thread for each process, because a process with threads cannot be forked.
"""

import importlib.metadata
import os
from functools import cache

for _threads in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_threads] = "1"

importlib.metadata.version = cache(importlib.metadata.version)  # which every record asks for
