"""Makes the modules of the example `receiver` importable, which has what a server does for strangers."""

import sys
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "receiver"

if str(FOLDER) not in sys.path:
    sys.path.append(str(FOLDER))  # at the end: the modules of this folder come first
