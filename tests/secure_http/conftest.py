"""The modules of examples/secure_http, for the tests; they are skipped where its extras are not installed."""

import sys
from importlib.util import find_spec
from pathlib import Path

EXAMPLE = Path(__file__).resolve().parents[2] / "examples" / "secure_http"

if all(
    find_spec(name) for name in ("fastapi", "uvicorn", "httpx", "cryptography", "Crypto", "torch", "sklearn")
):
    sys.path.append(str(EXAMPLE))  # at the end: its modules have short names
    import shared  # noqa: F401 - for the modules of examples/receiver
else:
    collect_ignore_glob = ["test_*.py"]
