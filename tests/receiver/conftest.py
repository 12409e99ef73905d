"""The modules of examples/receiver, for the tests; they are skipped where its extra is not installed."""

import sys
from importlib.util import find_spec
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "receiver"

if all(find_spec(name) for name in ("fastapi", "uvicorn", "prometheus_client", "httpx", "psutil")):
    sys.path.append(str(EXAMPLE))  # at the end: its modules have short names
else:
    collect_ignore_glob = ["test_*.py"]
