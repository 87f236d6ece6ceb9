"""These tests run vLLM: the folder is collected where it can be imported, and then nothing in it is skipped."""

from __future__ import annotations

from importlib.util import find_spec

collect_ignore_glob = [] if find_spec("vllm") else ["test_*.py"]
