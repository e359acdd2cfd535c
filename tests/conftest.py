"""Small tensors: threads that wait for each other cost more than they bring, the more so with tests side by side."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
