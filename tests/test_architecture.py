"""docs/architecture.md names files that exist, and its table of rooms has all of them."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
TEXT = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
TOP = {path.name for path in ROOT.iterdir()}
PACKAGE = ROOT / "fedmrn_codec"


def paths():
    """Every file or folder that the page names; a bare file name lies beside the path before it."""
    folder = ROOT
    for name in re.findall(r"`([\w./-]+)`", TEXT):
        if name.partition("/")[0] in TOP and ("/" in name or "." in name):
            path = ROOT / name
            folder = path if path.is_dir() else path.parent
            yield path
        elif re.fullmatch(r"(\w+/)+\w+\.py", name):
            yield PACKAGE / name
        elif re.fullmatch(r"\w+\.py", name):
            yield folder / name


def test_every_path_exists():
    found = list(paths())
    assert len(found) > 50
    assert [str(path.relative_to(ROOT)) for path in found if not path.exists()] == []


def test_every_room_has_a_row():
    rooms = {path.name for path in PACKAGE.iterdir() if path.is_dir() and not path.name.startswith("_")}
    first_cells = re.findall(r"^\| (`fedmrn_codec/[^|]*)", TEXT, re.M)
    assert {room for cell in first_cells for room in re.findall(r"`fedmrn_codec/(\w+)/`", cell)} == rooms
