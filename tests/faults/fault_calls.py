"""The public calls that faults are put into: what each works on, and what can be seen of that afterwards."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

import fedmrn_codec as fm
from fedmrn_codec import errors

SCHEMA = fm.Schema(
    [
        fm.Tensor("w", (5, 7), masked=True),
        fm.Tensor("v", (40,), masked=True),
        fm.Tensor("b", (4,)),
        fm.Tensor("half", (3,), dtype="float16"),
        fm.Tensor("n", (), dtype="int64"),
    ]
)
NOISE = fm.Bernoulli(0.01)
BASE = 99
BACKEND = "numpy"
REFUSED = "refuses"


def model(seed: int, size: float = 0.01) -> dict[str, np.ndarray]:
    """Arrays of the schema."""
    rng = np.random.default_rng(seed)
    return {
        t.name: np.asarray(rng.normal(0, size if t.type.is_float else 500, t.shape), t.type.numpy)
        for t in SCHEMA
    }


@cache
def frame(seed: int, coding: str = "raw") -> bytes:
    """A frame of such an update; the masks have few set bits, so that an entropy coding is shorter."""
    bits = {t.name: np.arange(t.size).reshape(t.shape) % 23 == seed % 23 for t in SCHEMA if t.masked}
    dense = {name: array for name, array in model(seed).items() if name not in bits}
    options = {"round": 3, "base_model": BASE, "coding": coding, "backend": BACKEND}
    return fm.encode_bits(bits, SCHEMA, seed=seed, noise=NOISE, dense=dense, **options)


def policy(**fields: Any) -> fm.Policy:
    """A policy that such frames satisfy."""
    stated = {"schema": SCHEMA, "noise": NOISE, "round": 3, "base_model": BASE, "max_weight": 1000}
    return fm.Policy(**stated | {"seeds": {"ann": 5, "bob": 6}, "max_value": 1e6, "max_norm": 1e6} | fields)


def request() -> fm.Request:
    """A request for such a frame."""
    return fm.Request(5, NOISE, "binary", 3, BASE, SCHEMA, coding="rans12")


def aggregator(count: int) -> fm.Aggregator:
    """An aggregator of the first frames."""
    out = fm.Aggregator(SCHEMA, noise=NOISE, round=3, base_model=BASE, backend=BACKEND)
    for seed in range(1, count + 1):
        out.add(frame(seed), seed)
    return out


def tally(count: int) -> fm.Tally:
    """A tally of frames of one seed."""
    out = fm.Tally(SCHEMA, weight=2, round=3, base_model=BASE, backend=BACKEND)
    for _ in range(count):
        out.add(frame(5))
    return out


def counts(tally: fm.Tally) -> Any:
    """What a tally says of its counts; it may refuse to say anything."""
    try:
        return tally.to_bytes()
    except errors.AggregateError:
        return REFUSED


def bytes_of(value: Any) -> Any:
    """A value with bytes in the place of arrays, which can be compared."""
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, Mapping):
        return {key: bytes_of(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [bytes_of(each) for each in value]
    if isinstance(value, fm.CheckedFrame):
        return bytes(value.view), bytes_of(fm.decode(value, backend=BACKEND))
    if isinstance(value, fm.Aggregator):
        return sums(value)
    if isinstance(value, fm.Tally):
        return counts(value)
    if isinstance(value, fm.Downlink):
        return downlink(value)
    if isinstance(value, fm.AdaptiveNoise):
        return value.to_json()
    return value


def sums(aggregator: fm.Aggregator) -> Any:
    """What an aggregator says of its sums; it may refuse to say anything."""
    try:
        return aggregator.weight, aggregator.frames, bytes_of(aggregator.mean())
    except errors.AggregateError:
        return REFUSED


def downlink(down: fm.Downlink) -> Any:
    """The versions of a downlink, and what it sends."""
    sent = [down.frame(have) for have in (None, *down.versions)]
    return down.model_id, down.versions, down.steps, bytes_of(down.model), sent


def intake(taken: fm.Intake) -> Any:
    """What an intake has accepted and refused, and who may still send."""
    return list(taken.accepted), dict(taken.refused), set(taken._clients), set(taken._seeds)


@dataclass(frozen=True)
class Call:
    """A public call.

    Attributes
    ----------
    make : function
        Gives what the call works on, anew for each point.
    run : function of that
        The call.
    see : function of that
        All that can be seen of it.
    """

    make: Callable[[], Any]
    run: Callable[[Any], Any]
    see: Callable[[Any], Any] = bytes_of


def pure(run: Callable[..., Any], *arguments: Any) -> Call:
    """A call that changes nothing: its arguments must stay as they are."""
    return Call(lambda: arguments, lambda given: run(*given))


def advanced() -> fm.Downlink:
    """A downlink with two versions."""
    down = fm.Downlink(SCHEMA, model(1), backend=BACKEND)
    down.advance(fm.apply(model(1), model(2, 0.001)))
    return down


def followed() -> tuple[fm.Replica, bytes]:
    """A replica of the first version of that, and the frame to the second."""
    down = advanced()
    replica = fm.Replica(SCHEMA, backend=BACKEND)
    replica.apply(fm.Downlink(SCHEMA, model(1), backend=BACKEND).frame())
    return replica, down.frame(replica.model_id)


def replica(given: tuple[fm.Replica, bytes]) -> Any:
    """The model of a replica."""
    return given[0].model_id, bytes_of(given[0].model), given[0].to_bytes()


def adapted() -> tuple[fm.AdaptiveNoise, fm.Aggregator]:
    """A rule, and the sum of a round."""
    rule = fm.AdaptiveNoise(SCHEMA, model(1))
    total = fm.Aggregator(SCHEMA, noise=rule.noise, backend=BACKEND)
    for seed in (1, 2):
        total.add(fm.encode(model(seed), SCHEMA, seed=seed, noise=rule.noise, private_seed=9), 1)
    return rule, total


def rule(given: tuple[fm.AdaptiveNoise, fm.Aggregator]) -> Any:
    """The state of a rule; it cannot go on without sums."""
    total = sums(given[1])
    return total if total == REFUSED else (given[0].to_json(), total)


def added(count: int, run: Callable[[fm.Aggregator], Any]) -> Call:
    """A call of an aggregator that has some frames."""
    return Call(lambda: aggregator(count), run, sums)


UPDATE = model(3)
BITS = {t.name: np.arange(t.size).reshape(t.shape) % 5 == 0 for t in SCHEMA if t.masked}
DENSE = {name: array for name, array in UPDATE.items() if name not in BITS}
SETTINGS = {"seed": 5, "noise": NOISE, "backend": BACKEND}
SECRET = fm.Key.hmac(bytes(32))
STEPS = dict.fromkeys(("w", "v", "b"), 2.0**-20) | {"half": 2.0**-12}


CALLS: dict[str, Call] = {
    "encode": pure(lambda u: fm.encode(u, SCHEMA, **SETTINGS, private_seed=6, coding="rans12"), UPDATE),
    "encode_bits": pure(
        lambda b, d: fm.encode_bits(b, SCHEMA, **SETTINGS, dense=d, coding="rans"), BITS, DENSE
    ),
    "encode_grid": pure(
        lambda u: fm.encode_grid(u, SCHEMA, step=STEPS, coding="rans14", backend=BACKEND), UPDATE
    ),
    "decode": pure(lambda f: fm.decode(f, SCHEMA, backend=BACKEND), frame(5, "rans12")),
    "decode_bits": pure(lambda f: fm.decode_bits(f, SCHEMA, backend=BACKEND), frame(5, "rans")),
    "verify": pure(lambda f: fm.verify(f, SCHEMA, backend=BACKEND), frame(5)),
    "inspect": pure(lambda f: fm.inspect(f, SCHEMA), frame(5)),
    "noise": pure(lambda: fm.noise(fm.Gaussian(0.1), seed=1, stream=2, start=3, count=99, backend=BACKEND)),
    "philox_words": pure(lambda: fm.philox_words(seed=1, stream=2, start=3, count=99, backend=BACKEND)),
    "difference": pure(lambda a, b: fm.difference(a, b, SCHEMA), UPDATE, model(4)),
    "apply": pure(lambda a, b: fm.apply(a, b, SCHEMA), UPDATE, model(4)),
    "model_id": pure(lambda a: fm.model_id(a, SCHEMA), UPDATE),
    "schema_of": pure(lambda a: fm.schema_of(a).data, UPDATE),
    "choose_seed": pure(lambda: fm.choose_seed(7, 3, "ann")),
    "Schema.from_json": pure(lambda e: fm.Schema.from_json(e).data, SCHEMA.to_json()),
    "seal, unseal": pure(lambda f: fm.unseal(fm.seal(f, SECRET), fm.KeyRing({1: SECRET})), frame(5)),
    "Request.from_json": pure(lambda e: fm.Request.from_dict(e).to_dict(), request().to_dict()),
    "Request.encode": pure(lambda u: request().encode(u, private_seed=6, backend=BACKEND), UPDATE),
    "Request.check": pure(lambda f: request().check(f), frame(5, "rans12")),
    "Policy.from_toml": pure(lambda text: fm.Policy.from_toml(text).to_toml(), policy().to_toml()),
    "Policy.check": pure(lambda f: policy().check(f, client="ann", weight=1, base=UPDATE), frame(5)),
    "Intake.accept": Call(
        lambda: fm.Intake(policy()), lambda taken: taken.accept("ann", frame(5), 1, base=UPDATE), intake
    ),
    "Aggregator.add": added(3, lambda a: a.add(frame(20), 20)),
    "Aggregator.add, the batch full": added(15, lambda a: a.add(frame(20), 20)),
    "Aggregator.add_many": added(3, lambda a: a.add_many([frame(20), frame(21, "rans12")], [20, 21])),
    "Aggregator.add_arrays": added(3, lambda a: a.add_arrays(DENSE, 20, bits=BITS, seed=20, noise=NOISE)),
    "Aggregator.merge": added(3, lambda a: a.merge(aggregator(2))),
    "Aggregator.mean": added(3, lambda a: a.mean()),
    "Aggregator.statistics": added(3, lambda a: str(a.statistics())),
    "Aggregator.to_bytes": added(3, lambda a: a.to_bytes()),
    "Aggregator.from_bytes": pure(
        lambda data: fm.Aggregator.from_bytes(data, SCHEMA, backend=BACKEND), aggregator(3).to_bytes()
    ),
    "Aggregator.add_tally": added(3, lambda a: a.add_tally(tally(3).to_bytes("rans14"))),
    "Tally.add": Call(lambda: tally(3), lambda t: t.add(frame(5, "rans12")), counts),
    "Tally.add, counts of two bytes": Call(lambda: tally(255), lambda t: t.add(frame(5)), counts),
    "Tally.merge": Call(lambda: tally(3), lambda t: t.merge(tally(2)), counts),
    "Tally.counts": Call(lambda: tally(3), lambda t: t.counts(), counts),
    "Tally.to_bytes": Call(lambda: tally(3), lambda t: t.to_bytes("rans14"), counts),
    "Tally.from_bytes": pure(
        lambda data: fm.Tally.from_bytes(data, SCHEMA, backend=BACKEND), tally(3).to_bytes()
    ),
    "AdaptiveNoise": pure(lambda m: fm.AdaptiveNoise(SCHEMA, m), UPDATE),
    "AdaptiveNoise.observe": Call(adapted, lambda given: given[0].observe(given[1]), rule),
    "Downlink": pure(lambda m: fm.Downlink(SCHEMA, m, backend=BACKEND), UPDATE),
    "Downlink.advance": Call(advanced, lambda down: down.advance(model(5)), downlink),
    "Downlink.frame": Call(
        advanced, lambda down: [down.frame(have) for have in (None, *down.versions)], downlink
    ),
    "Downlink.to_bytes": Call(advanced, lambda down: down.to_bytes(), downlink),
    "Downlink.from_bytes": pure(
        lambda data: fm.Downlink.from_bytes(data, SCHEMA, backend=BACKEND), advanced().to_bytes()
    ),
    "Replica.apply": Call(followed, lambda given: given[0].apply(given[1]), replica),
}
"""All public calls that compute something. Those that write files are the writers of `fault_writers`."""


def checked(name: str) -> tuple[Call, Any, Any, Any]:
    """A call, what can be seen before and after it, and its result."""
    call = CALLS[name]
    given = call.make()
    before = call.see(given)
    result = bytes_of(call.run(given))
    after = call.see(given)
    assert bytes_of(call.run(call.make())) == result, f"{name} gives another result the second time"
    return call, before, after, result


def outcome(name: str, known: tuple[Call, Any, Any, Any], given: Any) -> str:
    """What a call that was stopped has left: "before", "after", or an object that refuses to go on.

    What is as before must be able to make the call again, and nothing that all calls share may be damaged.
    """
    call, before, after, result = known
    seen = call.see(given)
    assert seen in (before, after, REFUSED), f"{name}: neither before nor after: {seen}"
    if seen == before:
        assert bytes_of(call.run(given)) == result, f"{name}: another result the second time"
        assert call.see(given) == after, f"{name}: not as after, the second time"
    assert bytes_of(call.run(call.make())) == result, f"{name}: another result afterwards"
    return "refuses" if seen == REFUSED else "before" if seen == before else "after"
