"""A round of secure aggregation in plain integers, section by section of SECAGG.md, with all its values."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from fedmrn_codec.conformance import oracle as o
from vector_cases import ed25519
from vector_cases.basics import Case, u32, u64
from vector_cases.secagg_primitives import BASE, combine, hkdf, keystream, seal, sha256, split, x25519

KEYS, ROSTER, SHARES, BOXES, MASKED, SURVIVORS, REVEAL = range(1, 8)
FLOATS = {o.DTYPES[code].name: largest for code, (largest, _, _) in o.GRIDS.items()}
"""G of 6.3, by dtype."""


class Agreed(NamedTuple):
    """The agreed values (2); `masks` is (kind, distribution, scale) of masked tensors, `steps` by name."""

    schema: o.Schema
    masks: tuple[int, int, float]
    steps: Mapping[str, float]
    threshold: int
    largest_weight: int = 1
    session: bytes = b""
    signed: bool = False
    seed: int = 7
    base_model: int = 0
    round: int = 0


class Member(NamedTuple):
    """A client's id, weight, secrets (4.2), frame, and private identity key."""

    id: int
    weight: int
    box_private: bytes
    key_seed: bytes
    self_seed: bytes
    self_coefficients: tuple[bytes, ...]
    key_coefficients: tuple[bytes, ...]
    frame: o.Frame
    identity: bytes = b""


def label(name: str) -> bytes:
    return f"fedmrn secagg 1 {name}".encode() + b"\0"


def number(id: int) -> bytes:
    return struct.pack("<Q", id)


def agreement(agreed: Agreed) -> bytes:
    """A (2)."""
    kind, distribution, scale = agreed.masks
    data = label("agreement") + bytes([len(agreed.session)]) + agreed.session
    data += struct.pack("<QQIB", agreed.seed, agreed.base_model, agreed.round, kind)
    data += o.schema_digest(agreed.schema)
    for tensor in agreed.schema:
        if tensor.masked:
            data += struct.pack("<BI", distribution, o.f32_bits(scale))
        elif o.DTYPES[tensor.dtype].name in FLOATS:
            data += struct.pack("<I", o.f32_bits(agreed.steps[tensor.name]))
    data += struct.pack("<IIB", agreed.threshold, agreed.largest_weight, agreed.signed)
    return sha256(data)


def neighbours(ids: Sequence[int], degree: int, graph_seed: bytes) -> dict[int, list[int]]:
    """The neighbours of each id, ascending (3)."""
    if degree == 0:
        return {i: [j for j in ids if j != i] for i in ids}
    circle = sorted(ids, key=lambda i: sha256(label("graph") + graph_seed + number(i)))
    found: dict[int, list[int]] = {i: [] for i in ids}
    for place, i in enumerate(circle):
        for away in range(1, degree // 2 + 1):
            j = circle[(place + away) % len(circle)]
            found[i].append(j)
            found[j].append(i)
    return {i: sorted(found[i]) for i in ids}


def unsealed(kind: int, id: int, digest: bytes, body: bytes) -> bytes:
    """A message without its checksum (7.1)."""
    return b"FMRX" + struct.pack("<BBHQ", 1, kind, 0, id) + digest + body


def finished(data: bytes) -> bytes:
    return data + struct.pack("<I", zlib.crc32(data))


def bitmap(bits: Sequence[bool]) -> bytes:
    return o.pack([int(bit) for bit in bits])


class Sizes(NamedTuple):
    """The numbers of each section, and the bits of a field."""

    bits: int
    fields: int
    words: int
    longs: int


def sizes(agreed: Agreed, n: int) -> Sizes:
    """6.1 and 6.2."""
    fields = sum(8 * -(-tensor.elements // 8) for tensor in agreed.schema if tensor.masked)
    dense = [tensor for tensor in agreed.schema if not tensor.masked]
    words = sum(t.elements for t in dense if o.DTYPES[t.dtype].name in FLOATS)
    longs = sum(t.elements for t in dense if o.DTYPES[t.dtype].name not in FLOATS)
    return Sizes((n * agreed.largest_weight).bit_length(), fields, 1 + words, longs)


def vector(agreed: Agreed, member: Member, n: int) -> tuple[list[int], list[int], list[int]]:
    """The numbers of the three sections, not reduced (6.1 to 6.3)."""
    most = n * agreed.largest_weight
    fields: list[int] = []
    words, longs = [member.weight], []
    for tensor, content in zip(agreed.schema, member.frame.contents, strict=True):
        name = o.DTYPES[tensor.dtype].name
        if tensor.masked:
            bits = o.unpack(content.payload, tensor.elements)
            bits += [0] * (-len(bits) % 8)
            fields += [member.weight * bit for bit in bits]
        elif name in FLOATS:
            bound = min(FLOATS[name], (2**31 - 1) // most)
            for z in integers(tensor, content, agreed.steps[tensor.name]):
                words.append(member.weight * max(-bound, min(z, bound)))
        else:
            values = [int(v) for v in exact(content.payload, tensor)]
            assert all(abs(value) <= (2**63 - 1) // most for value in values)
            longs += [member.weight * value for value in values]
    return fields, words, longs


def exact(payload: bytes, tensor: o.Tensor) -> list[Fraction]:
    """The values of raw elements."""
    kind = o.DTYPES[tensor.dtype]
    return [o.exact_value(word, kind) for word in o.words_of(payload, tensor.dtype)]


def integers(tensor: o.Tensor, content: o.Content, step: float) -> list[int]:
    """The z of a dense tensor of a float dtype, before they are bounded (6.3)."""
    if content.kind == o.GRID:
        return [
            round(Fraction(z) * Fraction(content.scale) / Fraction(step)) for z in o.integers(content.payload)
        ]
    return [round(value / Fraction(step)) for value in exact(content.payload, tensor)]


def pad(key: bytes, size: Sizes) -> tuple[list[int], list[int], list[int]]:
    """The pad of a key as numbers (6.4)."""
    lengths = size.bits * size.fields // 8, 4 * size.words, 8 * size.longs
    streams = [keystream(key, struct.pack("<IQ", s, 0), length) for s, length in enumerate(lengths, 1)]
    string = int.from_bytes(streams[0], "little")
    fields = [string >> (size.bits * e) & (2**size.bits - 1) for e in range(size.fields)]
    words = [int.from_bytes(streams[1][4 * e : 4 * e + 4], "little") for e in range(size.words)]
    return fields, words, [int.from_bytes(streams[2][8 * e : 8 * e + 8], "little") for e in range(size.longs)]


def plus(a: Any, b: Any, sign: int, size: Sizes) -> tuple[list[int], list[int], list[int]]:
    """a + sign * b, number by number, modulo a power of two in each section."""
    moduli = 2**size.bits, 2**32, 2**64
    first, second, third = (
        [(x + sign * y) % modulus for x, y in zip(p, q, strict=True)]
        for p, q, modulus in zip(a, b, moduli, strict=True)
    )
    return first, second, third


def packed(numbers: Any, size: Sizes) -> list[bytes]:
    """The three sections as bytes."""
    string = sum((value % 2**size.bits) << (size.bits * e) for e, value in enumerate(numbers[0]))
    return [
        string.to_bytes(size.bits * size.fields // 8, "little"),
        b"".join((value % 2**32).to_bytes(4, "little") for value in numbers[1]),
        b"".join((value % 2**64).to_bytes(8, "little") for value in numbers[2]),
    ]


class Round:
    """All values of a round; `u2` to `u4` are the ids that are left after each step."""

    def __init__(
        self,
        agreed: Agreed,
        members: Sequence[Member],
        u2: Sequence[int],
        u3: Sequence[int],
        u4: Sequence[int],
        degree: int = 0,
        graph_seed: bytes = bytes(32),
    ) -> None:
        self.agreed, self.u2, self.u3, self.u4 = agreed, u2, u3, u4
        self.members = {member.id: member for member in sorted(members)}
        self.ids = list(self.members)
        self.degree, self.graph_seed = degree, graph_seed
        self.agreement = agreement(agreed)
        self.pad_private = {
            i: hkdf(m.key_seed, self.agreement, label("key") + number(i)) for i, m in self.members.items()
        }
        self.keys_body = {i: self._keys_body(i) for i in self.ids}
        self.keys = {i: finished(unsealed(KEYS, i, self.agreement, self.keys_body[i])) for i in self.ids}
        head = struct.pack("<II", len(self.ids), degree) + graph_seed
        entries = b"".join(number(i) + self.keys_body[i] for i in self.ids)
        roster = unsealed(ROSTER, 0, self.agreement, head + entries)
        self.roster, self.r = finished(roster), sha256(label("roster") + roster)
        self.neighbours = neighbours(self.ids, degree, graph_seed)
        self.holders = {i: sorted([*self.neighbours[i], i]) for i in self.ids}
        self._shares()
        self._masked()
        self._reveal()

    def _keys_body(self, i: int) -> bytes:
        member = self.members[i]
        body = x25519(member.box_private, BASE) + x25519(self.pad_private[i], BASE)
        if self.agreed.signed:
            body += ed25519.sign(member.identity, label("sign") + unsealed(KEYS, i, self.agreement, body))
        return body

    def _product(self, i: int, j: int, pads: bool) -> bytes:
        private = self.pad_private[i] if pads else self.members[i].box_private
        begin = 32 if pads else 0
        return x25519(private, self.keys_body[j][begin : begin + 32])

    def _shares(self) -> None:
        t = self.agreed.threshold
        self.commitments = {
            i: sha256(label("commit") + self.r + number(i) + self.members[i].self_seed) for i in self.u2
        }
        self.self_shares, self.key_shares = {}, {}
        for i, m in self.members.items():
            assert len(m.self_coefficients) == len(m.key_coefficients) == t - 1
            count = len(self.holders[i])
            self.self_shares[i] = split([m.self_seed, *m.self_coefficients], count)
            self.key_shares[i] = split([m.key_seed, *m.key_coefficients], count)
        self.box_keys, self.boxes = {}, {}
        for i in self.u2:
            for x, j in enumerate(self.holders[i]):
                if j != i:
                    info = label("box") + number(i) + number(j)
                    self.box_keys[i, j] = hkdf(self._product(i, j, False), self.r, info)
                    plain = self.self_shares[i][x] + self.key_shares[i][x]
                    self.boxes[i, j] = seal(self.box_keys[i, j], bytes(12), plain)
        self.shares, self.boxes_for = {}, {}
        for i in self.u2:
            body = self.commitments[i] + b"".join(self.boxes[i, j] for j in self.neighbours[i])
            self.shares[i] = finished(unsealed(SHARES, i, self.r, body))
            there = [j in self.u2 for j in self.neighbours[i]]
            body = bitmap(there) + b"".join(self.boxes[j, i] for j in self.neighbours[i] if j in self.u2)
            self.boxes_for[i] = finished(unsealed(BOXES, i, self.r, body))

    def _masked(self) -> None:
        n = len(self.ids)
        self.size = sizes(self.agreed, n)
        self.self_keys = {
            i: hkdf(self.members[i].self_seed, self.r, label("self") + number(i)) for i in self.u2
        }
        self.pair_keys = {
            (i, j): hkdf(
                self._product(i, j, True), self.r, label("pad") + number(min(i, j)) + number(max(i, j))
            )
            for i in self.u2
            for j in self.neighbours[i]
            if j in self.u2
        }
        self.vectors = {i: vector(self.agreed, self.members[i], n) for i in self.u3}
        self.masked_vectors, self.masked = {}, {}
        for i in self.u3:
            y = plus(self.vectors[i], pad(self.self_keys[i], self.size), 1, self.size)
            for j in self.neighbours[i]:
                if j in self.u2:
                    y = plus(y, pad(self.pair_keys[i, j], self.size), 1 if j > i else -1, self.size)
            self.masked_vectors[i] = y
            self.masked[i] = finished(unsealed(MASKED, i, self.r, b"".join(packed(y, self.size))))

    def _reveal(self) -> None:
        survivors = unsealed(SURVIVORS, 0, self.r, bitmap([i in self.u3 for i in self.ids]))
        self.survivors, self.s = finished(survivors), sha256(label("survivors") + survivors)
        self.revealed: dict[int, dict[int, bytes]] = {i: {} for i in self.u2}
        self.reveal = {}
        for i in self.u4:
            body = b""
            for j in self.holders[i]:
                if j in self.u2:
                    x = self.holders[j].index(i)
                    share = (self.self_shares if j in self.u3 else self.key_shares)[j][x]
                    self.revealed[j][x + 1] = share
                    body += share
            self.reveal[i] = finished(unsealed(REVEAL, i, self.s, body))
        total = plus(
            ([0] * self.size.fields, [0] * self.size.words, [0] * self.size.longs),
            pad(bytes(32), self.size),
            0,
            self.size,
        )
        for i in self.u3:
            total = plus(total, self.masked_vectors[i], 1, self.size)
        self.masked_sum = total
        for i in self.u2:
            chosen = dict(sorted(self.revealed[i].items())[: self.agreed.threshold])
            if i in self.u3:
                seed = combine(chosen)
                assert seed == self.members[i].self_seed
                total = plus(
                    total, pad(hkdf(seed, self.r, label("self") + number(i)), self.size), -1, self.size
                )
                continue
            assert combine(chosen) == self.members[i].key_seed
            for j in self.neighbours[i]:
                if j in self.u3:
                    total = plus(total, pad(self.pair_keys[i, j], self.size), 1 if i < j else -1, self.size)
        self.sum = total
        self._compare()

    def _compare(self) -> None:
        """The sum of the vectors without any pad is the same."""
        moduli = 2**self.size.bits, 2**32, 2**64
        for section, modulus in enumerate(moduli):
            plain = [
                sum(column) % modulus
                for column in zip(*(v[section] for v in self.vectors.values()), strict=True)
            ]
            assert plain == self.sum[section], section

    @property
    def frames(self) -> int:
        """M, the sum of the weights."""
        return self.sum[1][0]

    def means(self) -> list[bytes]:
        """The mean of each tensor (FORMAT.md 8): of the survivors' frames, dense floats on their grid."""
        parts = []
        for i in self.u3:
            contents = list(self.members[i].frame.contents)
            at = 1
            for stream, tensor in enumerate(self.agreed.schema):
                if not tensor.masked and o.DTYPES[tensor.dtype].name in FLOATS:
                    z = [v // self.members[i].weight for v in self.vectors[i][1][at : at + tensor.elements]]
                    at += tensor.elements
                    payload = b"".join(struct.pack("<i", value) for value in z)
                    contents[stream] = o.Content(payload, o.GRID, scale=self.agreed.steps[tensor.name])
            frame = self.members[i].frame._replace(contents=tuple(contents))
            parts.append(o.sum_frame(frame, self.members[i].weight))
        return o.mean(o.merge_all(parts))


def hexes(values: Mapping[Any, bytes]) -> dict[str, str]:
    return {str(key): value.hex() for key, value in values.items()}


def agreed_json(agreed: Agreed, schema: list[Case] | None) -> Case:
    kind, distribution, scale = agreed.masks
    return {
        "session": agreed.session.hex(),
        "seed": u64(agreed.seed),
        "base_model": u64(agreed.base_model),
        "round": agreed.round,
        "mask": {1: "binary", 2: "signed"}[kind],
        "distribution": {1: "uniform", 2: "gaussian", 3: "bernoulli"}[distribution],
        "scale": u32(o.f32_bits(scale)),
        "schema": schema,
        "steps": {name: u32(o.f32_bits(step)) for name, step in agreed.steps.items()},
        "threshold": agreed.threshold,
        "largest_weight": agreed.largest_weight,
        "signed": agreed.signed,
    }
