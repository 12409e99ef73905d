"""The cache of parsed tables, which frames of one round share."""

import numpy as np

import fedmrn_codec as fm
from fedmrn_codec.format import frame, parsing

SCHEMA = fm.Schema(
    [fm.Tensor("w", (5, 8), masked=True), fm.Tensor("n", (2,), dtype="int64"), fm.Tensor("b", (3,))]
)
UPDATE = {
    "w": np.full((5, 8), 0.004, np.float32),
    "n": np.arange(2, dtype=np.int64),
    "b": np.ones(3, np.float32),
}


def encode(**options):
    return fm.encode(UPDATE, SCHEMA, seed=1, noise=fm.Uniform(0.01), **options)


def outcome(data):
    """The result of `inspect`, or the class and message of its error."""
    try:
        return fm.inspect(data, SCHEMA)
    except fm.CodecError as error:
        return type(error), str(error)


def test_cached_tables_give_the_results_and_errors_of_new_ones(monkeypatch):
    good = [encode(), encode(round=2), encode(embed_schema=True), encode(dense_coding="float16")]
    damaged = [
        whole[:at] + bytes([whole[at] ^ flip]) + whole[at + 1 :]
        for whole in good
        for at in range(frame.HEADER.size, len(whole))
        for flip in (1, 2, 0x80)
    ]
    cut = [whole[:-less] for whole in good for less in range(1, len(whole))]
    usual = [outcome(data) for data in good + damaged + cut + good]
    monkeypatch.setattr(parsing, "_table_bytes", lambda schema: 0)  # no table is long enough
    assert usual == [outcome(data) for data in good + damaged + cut + good]
    assert all(isinstance(each, fm.Info) for each in usual[:4] + usual[-4:])
    assert len({each[0] for each in usual if isinstance(each, tuple)}) > 8


def test_tables_of_embedded_schemas_are_not_cached():
    kept = parsing._usual_table, parsing._table_bytes
    for each in kept:
        each.cache_clear()  # a full one would not grow
    fm.decode(encode(embed_schema=True))
    assert [each.cache_info().currsize for each in kept] == [0, 0]
    fm.decode(encode(), SCHEMA)
    assert [each.cache_info().currsize for each in kept] == [1, 1]
