"""Put faults into the codec at many points, and count what becomes of each: `make faults`.

    python tests/faults                        # all points; write the table into docs/testing.md
    python tests/faults --quick --only NAME    # a few points of one fault, printed

The exit status is 1 if a point ends with something else than the old state, the new one, or a refusal.
"""

import argparse
import sys
import traceback
from pathlib import Path

from fault_rows import FAULTS, Row

from reference_fl.commit import short_commit
from reference_fl.report import insert, markdown

DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "testing.md"
HEADS = "fault", "where", "points", "outcomes"


def main() -> int:
    """Run the faults of the command line, and print the table; 0 if every point ended well."""
    parser = argparse.ArgumentParser(prog="python tests/faults")
    parser.add_argument(
        "--only", choices=FAULTS, action="append", help="default: all; the table is not written"
    )
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--quick", action="store_true", help="a few points")
    how.add_argument("--points", type=int, help="the most points of each call and file, if that is fewer")
    given = parser.parse_args()
    rows: list[Row] = []
    failed = False
    for name in given.only or FAULTS:
        function, most, few = FAULTS[name]
        try:
            found = function(few if given.quick else min(most, given.points or most))
        except Exception:
            failed = True
            print(f"{name}: {traceback.format_exc()}", file=sys.stderr)
            continue
        rows += found
        print(markdown(HEADS, map(cells, found)), flush=True)
    if not given.only and not given.quick and not failed:
        most_points = f", at most {given.points} points each" if given.points else ""
        text = f"Run at commit {short_commit(DOCUMENT)}{most_points}.\n\n{markdown(HEADS, map(cells, rows))}"
        insert(DOCUMENT, text, "faults")
    return int(failed)


def cells(row: Row) -> tuple[str, str, str, str]:
    """The text of a row."""
    counts = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(row.outcomes.items()))
    return row.fault, row.where, f"{row.outcomes.total():,}", counts


if __name__ == "__main__":
    sys.exit(main())
