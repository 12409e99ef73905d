"""The command `fedmrn`. It needs the extra `cli`; no other room of the codec imports it."""

from __future__ import annotations

import sys

EXTRA = {"typer", "rich", "safetensors"}
"""The packages that the extra installs; `import fedmrn_codec.cli` needs none of them."""


def main() -> None:
    """Run the command line of this process, and exit."""
    try:
        from .app import run
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in EXTRA:
            raise
        print(f"fedmrn: the command line needs {missing}: pip install 'fedmrn-codec[cli]'", file=sys.stderr)
        sys.exit(2)
    run()
