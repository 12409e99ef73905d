"""Encoding, and decoding and adding, of one tensor: this codec compared with its alternatives."""

from __future__ import annotations

from fedmrn_codec.sums.state import BATCH

from .contenders import COPY, EDEN, MINE, NUMPY, every, kinds
from .plan import Plan, every_thread
from .tables import Section, Table, Target, number
from .timing import Timings, Work, measure

VERBS = {"encode": "encode", "add": "decode and add"}
ONE, TWO, ALL = "one thread", "two threads", "all threads"


def run(plan: Plan) -> Section:
    """Tables of ratios by size, a comparison of the distributions, and the acceptance targets."""
    section = Section()
    for verb, what in VERBS.items():
        timings = {size: against(size, verb, plan) for size in sorted({*plan.sizes, plan.size})}
        section.tables.append(by_size(timings, f"Time to {what}, relative to {MINE} on one thread"))
        section.curves[what] = curves(timings)
        section.targets += targets(timings[plan.size], verb)
    section.targets += among_distributions(plan, section)
    return section


def works(size: int, verb: str) -> dict[str, Work]:
    """Every contender on one thread, and where possible on all threads; this codec also on two threads."""
    out = {}
    for name, contender in every(size).items():
        out[name] = contender.work(verb, 1)
        if name == MINE:
            out[f"{name}, {TWO}"] = contender.work(verb, 2)
        if contender.threads and every_thread() > 1 and not (name == MINE and every_thread() == 2):
            out[f"{name}, {ALL}"] = contender.work(verb, every_thread())
    return out


def against(size: int, verb: str, plan: Plan) -> Timings:
    """Time all contenders at one size."""
    return measure(works(size, verb), plan.rounds, plan.limit)


def by_size(timings: dict[int, Timings], title: str) -> Table:
    """A table of contenders by size; its last row is the speed to which the others are relative."""
    names = list(next(iter(timings.values())).seconds)
    rows = [[name, *(number(t.ratio(name, MINE)) for t in timings.values())] for name in names]
    rates = [number(size / t.median(MINE) / 1e6) for size, t in timings.items()]
    heads = "elements", *(f"{size:,}" for size in timings)
    rounds = ", ".join(str(t.rounds) for t in timings.values())
    notes = [
        f"medians of the ratios in each round; {rounds} rounds",
        f"{MINE}, adds {BATCH} frames at a time",
    ]
    return Table(title, heads, [*rows, [f"{MINE}, million elements/s", *rates]], notes)


def curves(timings: dict[int, Timings]) -> dict[str, list[tuple[float, float]]]:
    """Speed relative to a memory copy, by size."""
    names = next(iter(timings.values())).seconds
    return {n: [(size, t.ratio(COPY, n)) for size, t in timings.items()] for n in names if n != COPY}


def targets(timings: Timings, verb: str) -> list[Target]:
    """The acceptance targets of one operation."""
    if verb == "encode":
        return [Target("encode: times as fast as the NumPy idiom", timings.ratio(NUMPY, MINE), 3)]
    return [
        Target("decode and add: times as fast as the NumPy idiom", timings.ratio(NUMPY, MINE), 6),
        Target("decode and add: times as fast as the EDEN decoder", timings.ratio(EDEN, MINE), 20),
        Target("decode and add: two threads against one", timings.ratio(MINE, f"{MINE}, {TWO}"), 1.6),
    ]


def among_distributions(plan: Plan, section: Section) -> list[Target]:
    """Compare distributions and mask kinds with uniform binary ones, all on one thread."""
    base, timings = "uniform, binary", {}
    rows: dict[str, list[str]] = {}
    contenders = kinds(plan.size)
    for verb in VERBS:
        calls = {name: contender.work(verb, 1) for name, contender in contenders.items()}
        timings[verb] = measure(calls, plan.rounds, plan.limit)
        for name in calls:
            rows.setdefault(name, [name]).append(number(timings[verb].ratio(base, name)))
    title = f"Speed by noise and mask, relative to {base}; one thread, {plan.size:,} elements"
    section.tables.append(Table(title, ("noise, mask", *VERBS.values()), list(rows.values())))
    speed = {name: timings["add"].ratio(base, f"{name}, binary") for name in ("gaussian", "bernoulli")}
    return [
        Target("decode and add: Gaussian's speed, of uniform's", speed["gaussian"], 0.5),
        Target("decode and add: Bernoulli's speed, of uniform's", speed["bernoulli"], 1),
    ]
