"""What a schema's tensors may be, at the bounds, and the values that a frame's summary derives from them."""

import numpy as np
import pytest

import fedmrn_codec as fm
from fedmrn_codec import errors


def test_shapes_and_flags_are_kept_as_plain_values():
    tensor = fm.Tensor("w", [np.int64(2), 3], masked=1)
    assert type(tensor.shape) is tuple
    assert [type(d) for d in tensor.shape] == [int, int]
    assert tensor.masked is True
    assert tensor == fm.Tensor("w", (2, 3), masked=True)
    assert fm.Tensor("s", ()).shape == ()


@pytest.mark.parametrize("shape", [(-1,), (3, -1), (-1, 3)])
def test_negative_dimensions_are_refused(shape):
    with pytest.raises(errors.SchemaError) as caught:
        fm.Tensor("w", shape)
    assert (caught.value.field, caught.value.got) == ("shape of 'w'", str(shape))


def test_names_are_1_to_65535_bytes_long():
    longest = "é" * 32767 + "x"
    assert fm.Tensor(longest, ()).name == longest
    for name, size in (("", "0"), (longest + "x", "65536")):
        with pytest.raises(errors.SchemaError) as caught:
            fm.Tensor(name, ())
        assert (caught.value.field, caught.value.got) == ("tensor name", size)


def test_schemas_hold_tensors_only():
    with pytest.raises(errors.SchemaError) as caught:
        fm.Schema([fm.Tensor("w", ()), ("b", ())])
    assert (caught.value.field, caught.value.got) == ("schema", "('b', ())")


def test_errors_of_an_embedded_schema_have_their_place_in_the_frame():
    schema = fm.Schema([fm.Tensor("w", (8,), masked=True), fm.Tensor("b", (1,))])
    update = {"w": np.zeros(8, np.float32), "b": np.zeros(1, np.float32)}
    frame = bytearray(fm.encode(update, schema, seed=1, noise=fm.Uniform(0.01), embed_schema=True))
    role = 48 + 4 + 4 + 2 + 1  # header, schema length, tensor count, name length, name
    frame[role] = 9
    with pytest.raises(errors.UnknownRoleError) as caught:
        fm.inspect(bytes(frame))
    assert caught.value.offset == role
    assert caught.value.got == "9"


def test_the_bytes_of_a_frame_are_masks_dense_payloads_and_the_rest():
    schema = fm.Schema(
        [fm.Tensor("w", (17,), masked=True), fm.Tensor("b", (5,)), fm.Tensor("n", (2,), dtype="int8")]
    )
    update = {"w": np.zeros(17, np.float32), "b": np.zeros(5, np.float32), "n": np.zeros(2, np.int8)}
    info = fm.inspect(fm.encode(update, schema, seed=1, noise=fm.Uniform(0.01)), schema)
    assert (info.mask_bytes, info.dense_bytes, info.header_bytes) == (3, 22, 48 + 16 + 12 + 12 + 4)
    assert info.frame_bytes == 117


def test_only_contiguous_bytes_are_read():
    for data in (memoryview(bytes(200))[::2], "text", None):
        with pytest.raises(errors.ArgumentError) as caught:
            fm.inspect(data)
        assert caught.value.expected == "contiguous bytes"
        assert caught.value.got.startswith(type(data).__name__)
