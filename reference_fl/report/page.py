"""The report: one self-contained HTML page; beside it its figures as PNG files and its numbers as CSV."""

from __future__ import annotations

import base64
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import jinja2
from markupsafe import Markup

from fedmrn_codec.primitives import atomic

from . import best, csv_files, figures, grids, steps, times
from .figures import Drawing, Styles
from .grids import Grid
from .runs import Run
from .sections import Section, sections

PAGE, TABLE, TIMES, ROUNDS = "index.html", "table.csv", "times.csv", "rounds.csv"


@dataclass(frozen=True)
class Part:
    """The figures and tables of one section of the page."""

    slug: str
    section: Section
    best: Grid
    accuracy: list[Drawing]
    sizes: list[Drawing]
    steps: Grid
    masks: list[Drawing]
    to_accuracy: list[Grid]

    @property
    def drawings(self) -> list[Drawing]:
        """All figures."""
        return [*self.accuracy, *self.sizes, *self.masks]


def write(runs: Sequence[Run], folder: Path, chosen: Sequence[float] = (), left_out: int = 0) -> list[Path]:
    """Write the page, its figures, and its numbers as CSV.

    Parameters
    ----------
    runs : sequence of Run
        Distinct runs, as `load` returns them.
    folder : pathlib.Path
        Made if it does not exist; existing files of the same names are replaced.
    chosen : sequence of float
        Accuracies to show the time to; empty for those of `times.targets`.
    left_out : int
        The number of other runs that have the settings and seed of one of these but other results.

    Returns
    -------
    list of pathlib.Path
        The files: the page, the figures, then `table.csv`, `times.csv` and `rounds.csv` (`csv_files`).
    """
    found = sections(runs)
    look = figures.styles(found)
    parts = [_part(s, slug, look, chosen) for s, slug in zip(found, _slugs(found), strict=True)]
    folder.mkdir(parents=True, exist_ok=True)
    files = []
    for part in parts:
        for drawing in part.drawings:
            files.append(folder / f"{part.slug}-{_slug(drawing.name)}.png")
            drawing.save(files[-1])
    tables = {TABLE: csv_files.table(found), TIMES: csv_files.to_accuracy(found, chosen)}
    for name, text in {**tables, ROUNDS: csv_files.rounds(found)}.items():
        files.append(folder / name)
        atomic.write(files[-1], text.encode())
    atomic.write(folder / PAGE, render(parts, left_out, tables).encode())
    return [folder / PAGE, *files]


def render(parts: Sequence[Part], left_out: int, tables: Mapping[str, str]) -> str:
    """The HTML of the page; names from the runs are escaped, and `tables`, CSV by file name, are links."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.jinja").render(
        parts=parts,
        grids=grids,
        inline=lambda part, drawing: Markup(drawing.inline(f"{part.slug}-{_slug(drawing.name)}")),
        left_out=left_out,
        tables={name: base64.b64encode(text.encode()).decode() for name, text in tables.items()},
        rounds=ROUNDS,
        runs=sum(len(row.runs) for part in parts for row in part.section.rows),
    )


def _part(section: Section, slug: str, look: Styles, chosen: Sequence[float]) -> Part:
    masks = [figures.mask_layers(section, row) for row in section.rows]
    targets = chosen or times.targets(section)
    return Part(
        slug=slug,
        section=section,
        best=best.grid(section, targets),
        accuracy=[
            figures.against_rounds(section, look),
            figures.against_bytes(section, look, "uplink"),
            figures.against_bytes(section, look, "total"),
        ],
        sizes=[figures.kinds_of_bytes(section)],
        steps=steps.grid(section),
        masks=[drawing for drawing in masks if drawing is not None],
        to_accuracy=[grids.to_accuracy(section, target) for target in targets],
    )


def _slugs(found: Sequence[Section]) -> list[str]:
    """A unique name for each section, for use in file names and links."""
    slugs: list[str] = []
    for section in found:
        slug = _slug(section.name)
        slugs.append(slug if slug not in slugs else f"{slug}-{len(slugs) + 1}")
    return slugs


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", text.lower()).strip("-")
