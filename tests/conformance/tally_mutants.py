"""Deliberately broken tallies: what is wrong, the text of the oracle that changes, and what breaks first."""

TALLIES = [
    ("twice the count, without n", "else 2 * c - n for c", "else 2 * c for c", "A-10"),
    ("signed counts as binary ones", "c if part.kind == BINARY else 2 * c - n", "c", "A-10"),
    ("counts added without the weight", "tuple(w * q[i] * m[i] for", "tuple(q[i] * m[i] for", "A-10"),
    ("limbs added without the weight", "tuple(w * limb for limb in row)", "tuple(row)", "A-10"),
    ("the weight added once", "PartialSum(tally.schema, n * w, n,", "PartialSum(tally.schema, w, n,", "A-10"),
    (
        "a tally counted as one frame",
        "PartialSum(tally.schema, n * w, n,",
        "PartialSum(tally.schema, n * w, 1,",
        "A-10",
    ),
    (
        "the noise of seed 0",
        "draw(part.distribution, tally.seed, stream, i)",
        "draw(part.distribution, 0, stream, i)",
        "A-10",
    ),
    (
        "the round of a tally not compared",
        "wanted = (tally.base_model, tally.round) == (base_model, round)",
        "wanted = tally.base_model == base_model",
        "A-10",
    ),
    (
        "any round where none is expected",
        "wanted = (tally.base_model, tally.round) == (base_model, round)",
        "wanted = tally.base_model == base_model and round in (0, tally.round)",
        "A-10",
    ),
    # the frames of a tally, and merges
    (
        "the seed of frames not compared",
        "require(a[:5] == b[:5], number",
        "require(a[2:5] == b[2:5], number",
        "A-08",
    ),
    (
        "the round of frames not compared",
        "alike = (frame.base_model, frame.round) == (first.base_model, first.round)",
        "alike = frame.base_model == first.base_model",
        "A-08",
    ),
    ("kinds and noise of frames not compared", "alike = x[1:] == y[1:]", "alike = True", "A-08"),
    ("grids counted", 'require(content.kind in (BINARY, SIGNED), "A-08"', 'require(True, "A-08"', "A-08"),
    (
        "the product of weight and frames not bounded",
        "require(frames * weight <= MAX_WEIGHT, number",
        "require(weight <= MAX_WEIGHT, number",
        "A-08",
    ),
    (
        "a merge without bounds",
        '    check_room(a.frames + b.frames, a.weight, "A-09")\n',
        "",
        "A-09",
    ),
    (
        "frames not counted in a merge of tallies",
        "frames, tensors = a.frames + b.frames, []",
        "frames, tensors = a.frames, []",
        "E-05",
    ),
    (
        "limbs of frames with the weight",
        "contents=contents), 1).tensors",
        "contents=contents), weight).tensors",
        "8.4",
    ),
    # the bytes
    (
        "counts most significant bit first",
        "for k in range(n.bit_length())]",
        "for k in reversed(range(n.bit_length()))]",
        "E-05",
    ),
    (
        "counts in bytes of their own",
        "return pack([c >> k & 1 for c in counts for k in range(n.bit_length())])",
        "return bytes(counts)",
        "E-05",
    ),
    ("rows of zeros in a tally", "if set(row) - {0}]", "]", "E-05"),
    ("coding 5 even where it is longer", "if len(wire) < len(payload):", "if wire:", "E-05"),
    ("coding 5 never chosen", "if len(wire) < len(payload):", "if not wire:", "E-05"),
    (
        "coded counts around n / 2 rounded up",
        "z = [c - n // 2 for c in part.rows[0]]",
        "z = [c - (n + 1) // 2 for c in part.rows[0]]",
        "E-05",
    ),
    (
        "weight before frames",
        'require(1 <= n <= MAX_FRAMES, "T-05"',
        'require(w >= 1, "T-06", "")\n    require(1 <= n <= MAX_FRAMES, "T-05"',
        "T-05",
    ),
    (
        "the product wraps at 2^64",
        "w >= 1 and w * n <= MAX_WEIGHT",
        "w >= 1 and w * n % 2**64 <= MAX_WEIGHT",
        "T-06",
    ),
    ("the product in a double", "w >= 1 and w * n <= MAX_WEIGHT", "w >= 1 and w <= MAX_WEIGHT", "T-06"),
    (
        "seed before the count of tensors",
        'require(count == len(schema), "T-08"',
        'require(seed in (None, its_seed), "T-09", "")\n    require(count == len(schema), "T-08"',
        "T-08",
    ),
    (
        "an expected seed of 0 is none",
        "require(seed in (None, its_seed)",
        "require(not seed or seed == its_seed",
        "T-09",
    ),
    (
        "kind 3 in a tally",
        'require(kind in (BINARY, SIGNED), "T-10"',
        'require(kind in (BINARY, SIGNED, GRID), "T-10"',
        "T-10",
    ),
    (
        "coding 1 in a tally",
        'require(coding in (RAW, RANS14), "T-12"',
        'require(coding in (RAW, RANS, RANS14), "T-12"',
        "T-12",
    ),
    (
        "scale before the reserved byte",
        'require(reserved == 0, "T-13"',
        'require(scale_allowed(distribution, scale), "T-14", at)\n    require(reserved == 0, "T-13"',
        "T-13",
    ),
    (
        "coded payloads of any length",
        "least, most = (raw, raw) if coding == RAW else (rans14_length(elements), raw - 1)",
        "least, most = (raw, raw) if coding == RAW else (rans14_length(elements), 2**64)",
        "T-15",
    ),
    (
        "checksum before the bytes that are left",
        'require(reader.at + 4 == size, "T-17"',
        'require(struct.pack("<I", zlib.crc32(data[:-4])) == data[-4:], "T-18", "")\n    '
        'require(reader.at + 4 == size, "T-17"',
        "T-17",
    ),
    (
        "only the last bit of the padding looked at",
        "require(string >> elements * b == 0,",
        "require(string >> elements * b < 1 << -elements * b % 8 >> 1 or not elements * b % 8,",
        "T-19",
    ),
    (
        "counts before the padding",
        'require(string >> elements * b == 0, "T-19"',
        'require(all(string >> i * b & ((1 << b) - 1) <= n for i in range(elements)), "T-20", "")\n'
        '    require(string >> elements * b == 0, "T-19"',
        "T-19",
    ),
    (
        "counts not compared with n",
        'require(all(0 <= c <= n for c in counts), "T-20"',
        'require(True, "T-20"',
        "T-20",
    ),
    (
        "coded counts below 0",
        "require(all(0 <= c <= n for c in counts),",
        "require(all(c <= n for c in counts),",
        "T-20",
    ),
    (
        "the bound of limbs with the weight",
        "bound, zeros = n * (DIGIT - 1)",
        "bound, zeros = w * n * (DIGIT - 1)",
        "T-20",
    ),
    (
        "rows of zeros in a tally that is read",
        "require(all(any(row) for row in part.values()),",
        "require(True,",
        "T-20",
    ),
]
"""The arguments of `Mutant`, in the order of FORMAT.md 8.6."""
