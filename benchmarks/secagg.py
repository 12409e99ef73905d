"""Secure aggregation: what a masked element costs a client and a server, beside a copy in memory.

A copy is that of the update in float32. Adding a pad is timed with its keystream and without it, the latter
with NumPy and, if it is installed, with Numba.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec

import numpy as np

import fedmrn_codec as fm
from fedmrn_secagg import fields
from fedmrn_secagg.layout import Layout
from fedmrn_secagg.outcome import aggregator_of
from fedmrn_secagg.terms import Terms
from fedmrn_secagg.vector import Vector

from .plan import Plan
from .tables import Section, Table, Target, number
from .timing import Work, measure

CLIENTS = 10, 100
COPY = "copy of the update in memory"
ADD = "both: add fields to fields, {}"
FASTEST = 3e8
"""Elements a second of the target."""


def run(plan: Plan) -> Section:
    """The time of each operation for two numbers of clients, and the targets."""
    rows, targets = [], []
    for clients in CLIENTS:
        works = works_of(plan.size, clients)
        times = measure(works, plan.rounds, plan.limit / 10)
        speeds = {name: plan.size / times.median(name) for name in works}
        rows += [
            [str(clients), name, number(speeds[name] / 1e6), number(times.ratio(name, COPY))]
            for name in works
        ]
        targets += [
            Target(f"{name}, {clients} clients: M elements/s on one thread", speed / 1e6, FASTEST / 1e6)
            for name, speed in speeds.items()
            if name.startswith(("both: add", "client: the mask"))
        ]
    heads = "clients", "operation", "M elements/s", "times the copy"
    notes = [f"a mask of {plan.size:,} elements, weights of 1; one thread"]
    return Section([Table("Secure aggregation", heads, rows, notes)], targets)


def works_of(size: int, clients: int) -> dict[str, Work]:
    """The operations on one mask of so many elements."""
    schema = fm.Schema([fm.Tensor("w", (size,), masked=True)])
    request = fm.Request(7, fm.Bernoulli(0.01), "signed", 1, 0, schema)
    layout = Layout(Terms(request, 2), clients)
    update = np.random.default_rng(1).normal(0, 0.005, size).astype(np.float32)
    frame = request.check(request.encode({"w": update}))
    total, other = Vector(layout), Vector(layout)
    other.pad(bytes(32))
    sums = Vector(layout)
    sums.words[0] = clients
    packed = other.fields.view(np.uint8)[: layout.sizes[0]]
    works = {
        COPY: update.copy,
        "client: the mask as fields": lambda: layout.sections(frame, 1),
        "both: add one pad": lambda: total.pad(bytes(32)),
        "server: fields as counts": lambda: fields.values(packed, layout.bits),
        "server: the aggregator of the sum": lambda: aggregator_of(sums, clients),
    }
    for name, backend in backends().items():
        works[ADD.format(name)] = partial(added, total, other, backend)
    return {name: Work(call, 1) for name, call in works.items()}


Combine = Callable[[np.ndarray, np.ndarray, np.ndarray], None]


def backends() -> dict[str, Combine]:
    """The ways to add fields."""
    found: dict[str, Combine] = {"numpy": fields.add}
    if find_spec("numba") is not None:
        from fedmrn_secagg import numba_fields

        found["numba"] = lambda into, other, top: numba_fields.combine(into, other, top, False)
    return found


def added(into: Vector, other: Vector, combine: Combine) -> None:
    """Add the fields of a vector, chunk by chunk."""
    top = fields.top_bits(into.layout.bits)
    for at in range(0, len(into.fields), len(top)):
        one, two = into.fields[at : at + len(top)], other.fields[at : at + len(top)]
        combine(one, two, top[: len(one)])
