"""Secure aggregation (SECAGG.md): its parts, and whole rounds with all values."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from functools import cache

from fedmrn_codec.conformance import oracle as o
from vector_cases import secagg_primitives as primitives
from vector_cases.basics import Case, chaos, dense, f32, f32s, frame, ints, mask, masked, schema_json
from vector_cases.secagg_edges import clipped, edges
from vector_cases.secagg_round import (
    Agreed,
    Member,
    Round,
    Sizes,
    agreed_json,
    agreement,
    hexes,
    neighbours,
    packed,
    pad,
)

SCHEMA = (
    masked("conv.weight", 3, 5),
    dense("conv.bias", "float32", 3),
    dense("half", "float16", 2),
    masked("head", 4),
    dense("batches", "int64"),
)
STEPS = {"conv.bias": 2.0**-18, "half": 2.0**-10}
SIGNED = Agreed(
    SCHEMA, (o.SIGNED, o.BERNOULLI, f32(0.01)), STEPS, threshold=3, session=b"run 12", base_model=5, round=3
)
WEIGHTED = Agreed(
    SCHEMA,
    (o.BINARY, o.UNIFORM, 0.5),
    STEPS,
    threshold=3,
    largest_weight=5,
    signed=True,
    seed=2**63 + 1,
    round=1,
)
FOUR = (3, 8, 2**40 + 5, 2**41)
SEVEN = (1, 2, 3, 50, 60, 70, 2**45)
GRAPH_SEED = bytes(range(32))


def member(tag: str, id: int, weight: int, agreed: Agreed) -> Member:
    """A client with secrets and a frame that are the same on every run."""
    kind, distribution, scale = agreed.masks
    draw = [chaos(f"{tag} {id} {i}", 16) for i in range(2 * agreed.threshold)]
    t = agreed.threshold - 1
    values = [value / 1000 for value in chaos(f"{tag} {id} bias", 3)]
    values[0] *= -1000  # some are beyond the range, if weights are large
    contents = [
        o.Content(mask(f"{tag} {id} a", 15), kind, distribution, scale),
        o.Content(f32s([f32(value) for value in values])),
        o.Content(struct.pack("<2e", 0.25, -values[1])),
        o.Content(mask(f"{tag} {id} b", 4), kind, distribution, scale),
        o.Content(ints("int64", [id % 1000 - 500])),
    ]
    return Member(
        id,
        weight,
        chaos(f"{tag} {id} box", 32),
        draw[0],
        draw[1],
        tuple(draw[2 : 2 + t]),
        tuple(draw[2 + t : 2 + 2 * t]),
        frame(agreed.schema, contents, agreed.seed, agreed.base_model, agreed.round),
        chaos(f"{tag} {id} identity", 32),
    )


@cache
def four() -> Round:
    """Four clients with weight 1, the complete graph; one drops out before its vector."""
    members = [member("four", id, 1, SIGNED) for id in FOUR]
    return Round(SIGNED, members, FOUR, FOUR[:1] + FOUR[2:], FOUR[:1] + FOUR[2:])


@cache
def seven() -> Round:
    """Seven clients with weights and identity keys, a graph of degree 4; one drops out in each step."""
    members = [member("seven", id, 1 + at % 5, WEIGHTED) for at, id in enumerate(SEVEN)]
    left = SEVEN[1:], SEVEN[2:], SEVEN[2:6]
    return Round(WEIGHTED, members, *left, degree=4, graph_seed=GRAPH_SEED)


ROUNDS = {"four": four, "seven": seven, "edges": edges}


def good(name: str, spec: str, comment: str, **fields: object) -> Case:
    return {"id": name, "spec": spec.split(), "comment": comment, "result": "valid", **fields}


def part_cases() -> Iterator[Case]:
    """The parts that one can test on their own: agreement, graph, shares, pads."""
    for name, agreed in (("signed", SIGNED), ("weighted", WEIGHTED)):
        fields = {
            "agreed": agreed_json(agreed, schema_json(agreed.schema)),
            "agreement": agreement(agreed).hex(),
        }
        yield good(f"agreement-{name}", "2", "the digest of the agreed values", kind="agreement", **fields)
    for name, ids, degree in (("complete", FOUR, 0), ("seven", SEVEN, 4), ("circle", SEVEN, 2)):
        seed = GRAPH_SEED if degree else bytes(32)
        found = {str(i): list(others) for i, others in neighbours(ids, degree, seed).items()}
        fields = {"ids": list(ids), "degree": degree, "graph_seed": seed.hex(), "neighbours": found}
        yield good(f"graph-{name}", "3", f"degree {degree}", kind="graph", **fields)
    for threshold, holders in ((2, 3), (3, 5), (5, 40)):
        coefficients = shamir_example(threshold)
        shares = primitives.split(coefficients, holders)
        last = {x: shares[x - 1] for x in range(holders - threshold + 1, holders + 1)}
        assert primitives.combine(last) == coefficients[0]
        yield good(
            f"shamir-{threshold}-of-{holders}",
            "5.1 5.2 5.3",
            "the first coefficient is the secret",
            kind="shamir",
            coefficients=[each.hex() for each in coefficients],
            shares=[each.hex() for each in shares],
        )
    key = bytes(range(32))
    for bits in (2, 3, 4, 7, 10, 24):
        size = Sizes(bits, 40, 3, 2)
        numbers = pad(key, size)
        sections = [part.hex() for part in packed(numbers, size)]
        fields = {"key": key.hex(), "bits": bits, "fields": list(numbers[0]), "sections": sections}
        yield good(f"pad-{bits}", "6.2 6.4", f"40 fields of {bits} bits, 3 u32, 2 u64", kind="pad", **fields)


def shamir_example(threshold: int) -> list[bytes]:
    """Coefficients of 16 bytes each that count up."""
    return [bytes(range(16 * i, 16 * (i + 1))) for i in range(threshold)]


def round_case(name: str, r: Round) -> Case:
    """A whole round, with every value on the way."""
    people = []
    for i, m in r.members.items():
        person: Case = {
            "id": i,
            "weight": m.weight,
            "frame": o.encode(m.frame).hex(),
            "box_private": m.box_private.hex(),
            "key_seed": m.key_seed.hex(),
            "self_seed": m.self_seed.hex(),
            "self_coefficients": [each.hex() for each in m.self_coefficients],
            "key_coefficients": [each.hex() for each in m.key_coefficients],
            "pad_private": r.pad_private[i].hex(),
            "keys": r.keys[i].hex(),
            "neighbours": r.neighbours[i],
        }
        if r.agreed.signed:
            person["identity"] = m.identity.hex()
        if i in r.u2:
            person |= {
                "self_shares": [share.hex() for share in r.self_shares[i]],
                "key_shares": [share.hex() for share in r.key_shares[i]],
                "commitment": r.commitments[i].hex(),
                "box_keys": hexes({j: key for (k, j), key in r.box_keys.items() if k == i}),
                "shares": r.shares[i].hex(),
                "boxes": r.boxes_for[i].hex(),
                "self_key": r.self_keys[i].hex(),
                "pair_keys": hexes({j: key for (k, j), key in r.pair_keys.items() if k == i}),
            }
        if i in r.u3:
            person["vector"] = [part.hex() for part in packed(r.vectors[i], r.size)]
            person["masked"] = r.masked[i].hex()
            if name == "edges":
                person["clipped"] = clipped(m)
        if i in r.u4:
            person["reveal"] = r.reveal[i].hex()
        people.append(person)
    return good(
        f"round-{name}",
        "X-01 X-03 X-04 X-05 X-10",
        (ROUNDS[name].__doc__ or "").rstrip("."),
        kind="round",
        agreed=agreed_json(r.agreed, schema_json(r.agreed.schema)),
        agreement=r.agreement.hex(),
        degree=r.degree,
        graph_seed=r.graph_seed.hex(),
        clients=people,
        roster=r.roster.hex(),
        roster_digest=r.r.hex(),
        bits=r.size.bits,
        survivors=r.survivors.hex(),
        survivors_digest=r.s.hex(),
        masked_sum=[part.hex() for part in packed(r.masked_sum, r.size)],
        sum=[part.hex() for part in packed(r.sum, r.size)],
        frames=r.frames,
        mean=[each.hex() for each in r.means()],
    )


def secagg_cases() -> Iterator[Case]:
    yield from part_cases()
    for name, make in ROUNDS.items():
        yield round_case(name, make())
