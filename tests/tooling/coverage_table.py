"""Write the coverage that `make coverage` has measured into docs/testing.md, and as pages into htmlcov/."""

import io
import json
from pathlib import Path
from typing import Any

from coverage import Coverage

from reference_fl.commit import short_commit
from reference_fl.report import insert

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "testing.md"


def main() -> None:
    """Print the table of files, write the pages, and insert the table of packages into the document."""
    measured = Coverage(config_file=str(ROOT / "pyproject.toml"))
    measured.load()
    measured.report(file=(printed := io.StringIO()))
    print(printed.getvalue())
    measured.html_report()
    measured.json_report(outfile=str(ROOT / "htmlcov" / "coverage.json"))
    files = json.loads((ROOT / "htmlcov" / "coverage.json").read_text())["files"]
    table = packages(files)
    print(table)
    insert(DOCUMENT, f"Measured at commit {short_commit(DOCUMENT)}.\n\n{table}", "coverage")


def packages(files: dict[str, Any]) -> str:
    """A Markdown table with a row for each package, and for each room of `fedmrn_codec`."""
    counts: dict[str, list[int]] = {}
    for path, file in files.items():
        parts = Path(path).parts
        package = parts[1] if parts[0] == "adapters" else parts[0]
        room = f"{package}.{parts[1]}" if package == "fedmrn_codec" and len(parts) > 2 else None
        for name in filter(None, (package, room)):
            total = counts.setdefault(name, [0, 0, 0, 0])
            for i, key in enumerate(("covered_lines", "num_statements", "covered_branches", "num_branches")):
                total[i] += file["summary"][key]
    lines = ["| package | statements run | branches taken |", "|---|---|---|"]
    lines += [
        f"| `{name}` | {share(*counts[name][:2])} | {share(*counts[name][2:])} |" for name in sorted(counts)
    ]
    return "\n".join(lines)


def share(part: int, whole: int) -> str:
    """A percentage, rounded down to a tenth, so that 100 % means all."""
    return f"{1000 * part // whole / 10} % of {whole}" if whole else "none there"


if __name__ == "__main__":
    main()
