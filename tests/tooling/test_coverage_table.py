"""The coverage table adds up the files of each package and room, and never rounds up to 100 %."""

from coverage_table import packages, share


def file(*counts: int) -> dict:
    names = ("covered_lines", "num_statements", "covered_branches", "num_branches")
    return {"summary": dict(zip(names, counts, strict=True))}


def test_packages_and_rooms_are_sums_of_their_files() -> None:
    files = {
        "fedmrn_codec/errors.py": file(1, 2, 0, 0),
        "fedmrn_codec/sums/exact.py": file(3, 4, 1, 2),
        "fedmrn_codec/sums/state.py": file(5, 6, 2, 2),
        "adapters/fedmrn_torch/psm.py": file(7, 8, 0, 1),
    }
    assert packages(files).splitlines()[2:] == [
        "| `fedmrn_codec` | 75.0 % of 12 | 75.0 % of 4 |",
        "| `fedmrn_codec.sums` | 80.0 % of 10 | 75.0 % of 4 |",
        "| `fedmrn_torch` | 87.5 % of 8 | 0.0 % of 1 |",
    ]


def test_a_share_is_rounded_down() -> None:
    assert share(9999, 10000) == "99.9 % of 10000"
    assert share(10000, 10000) == "100.0 % of 10000"
    assert share(0, 0) == "none there"
