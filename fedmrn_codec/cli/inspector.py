"""The frame inspector: a page that shows bytes in a browser, without a server or any other file.

`inspector.html` beside this module is the page; `python spec/make_inspector.py --write` makes it.
"""

from __future__ import annotations

import base64
import json
import os
from importlib.resources import files

from ..format.schema import Schema

PLACE = '<script type="application/json" id="given">null</script>'
"""What the page holds in place of a file."""

AS = {"frame": "frame", "partial-sum": "sum", "tally": "tally", "schema": "schema"}
"""What the command calls contents, and what the page calls them."""


def page(file: str, data: bytes, what: str | None, schema_file: str | None, schema: Schema | None) -> str:
    """The page with a file in it, as HTML.

    Parameters
    ----------
    file : str
        The path of the file; the page shows its last part.
    data : bytes
        A frame, a partial sum, a tally or a schema, damaged or not.
    what : {"frame", "partial-sum", "tally", "schema"} or None
        What the bytes are read as; None: what they look like.
    schema_file : str or None
        The path of the schema.
    schema : Schema or None
        The reader's schema.
    """
    given: dict[str, object] = {"name": os.path.basename(file), "bytes": _base64(data)}
    if what is not None:
        given["as"] = AS[what]
    if schema is not None and schema_file is not None:
        given["schema"] = {"name": os.path.basename(schema_file), "bytes": _base64(schema.data)}
    text = json.dumps(given).replace("<", "\\u003c")  # HTML finds no tag in it
    empty = files(__package__).joinpath("inspector.html").read_text(encoding="utf-8")
    return empty.replace(PLACE, PLACE.replace("null", text), 1)


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
