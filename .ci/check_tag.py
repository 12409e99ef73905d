"""Stop a release whose tag is not "v" and the version of pyproject.toml: `python .ci/check_tag.py v0.1.0`."""

import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    """Compare the argument with the version."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    got = " ".join(sys.argv[1:])
    if got != f"v{version}":
        sys.exit(f"tag of the release: expected v{version}, the version of pyproject.toml, got {got!r}")


if __name__ == "__main__":
    main()
