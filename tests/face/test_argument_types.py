"""Arguments of the wrong type, and texts of any length, are errors of this library and stay short."""

import numpy as np
import pytest

import fedmrn_codec as fm
from fedmrn_codec import errors

SCHEMA = fm.Schema([fm.Tensor("w", (3,), masked=True), fm.Tensor("b", (2,))])
UPDATE = {"w": np.zeros(3, np.float32), "b": np.zeros(2, np.float32)}
FRAME = fm.encode(UPDATE, SCHEMA, seed=1, noise=fm.Uniform(0.01), mask="binary")


class NoInteger:
    def __index__(self):
        raise TypeError("no integer")

    def __repr__(self):  # the same in every process, as names of tests must be
        return "NoInteger()"


WEIGHTS = [None, 1.5, "3", [1], {}, True, -1, 0, -(10**5000), 10**5000, np.array([1, 2]), NoInteger()]


@pytest.mark.parametrize("weight", WEIGHTS, ids=lambda w: type(w).__name__)
def test_weights(weight):
    server = fm.Aggregator(SCHEMA)
    for add in (
        lambda: server.add(FRAME, weight),
        lambda: server.add_many([FRAME], [weight]),
        lambda: fm.Aggregator(SCHEMA, noise=fm.Uniform(0.01)).add_arrays(UPDATE, weight),
    ):
        with pytest.raises(errors.AggregateError, match="weight"):
            add()
    assert (server.frames, server.weight) == (0, 0)


@pytest.mark.parametrize("given", [None, 3, 1.5, NoInteger()], ids=lambda w: type(w).__name__)
def test_many_frames_and_weights_are_iterables(given):
    with pytest.raises(
        errors.AggregateError, match=f"weights: expected an iterable, got {type(given).__name__}"
    ):
        fm.Aggregator(SCHEMA).add_many([FRAME], given)
    with pytest.raises(errors.AggregateError, match="frames: expected an iterable"):
        fm.Aggregator(SCHEMA).add_many(given, [1])


@pytest.mark.parametrize("names", [3, 1.5, NoInteger(), "w", ["x"], [1, "x"], [["w"]], [{}], [None]], ids=str)
def test_names(names):
    with pytest.raises(errors.ArgumentError, match=r"^names: expected "):
        fm.decode(FRAME, SCHEMA, names=names)


@pytest.mark.parametrize("limits", [None, 3, "3", {"max_tensors": 3}, fm.Limits], ids=str)
def test_limits(limits):
    for read in (
        lambda: fm.decode(FRAME, SCHEMA, limits=limits),
        lambda: fm.decode_bits(FRAME, SCHEMA, limits=limits),
        lambda: fm.verify(FRAME, SCHEMA, limits=limits),
        lambda: fm.inspect(FRAME, SCHEMA, limits=limits),
        lambda: fm.Aggregator(SCHEMA, limits=limits),
        lambda: fm.Schema.from_bytes(SCHEMA.data, limits),
        lambda: fm.Request(1, fm.Uniform(0.01), "binary", 0, 0, SCHEMA, limits=limits),
    ):
        with pytest.raises(errors.ArgumentError, match=r"^limits: expected a Limits, got "):
            read()


@pytest.mark.parametrize("name", ["max_tensors", "max_schema_bytes", "max_elements"])
@pytest.mark.parametrize("value", [None, 1.5, "3", -1, True])
def test_each_limit(name, value):
    with pytest.raises(errors.ArgumentError, match=f"^{name}: expected an integer of 0 or more, got "):
        fm.Limits(**{name: value})


@pytest.mark.parametrize("value", [np.array([1, 2]), NoInteger(), 10**5000], ids=lambda w: type(w).__name__)
def test_seeds_and_rounds(value):
    for name in ("seed", "round", "base_model"):
        given = {"seed": 1, "round": 0, "base_model": 0} | {name: value}
        with pytest.raises(errors.ArgumentError, match=f"^{name}: expected "):
            fm.encode(UPDATE, SCHEMA, noise=fm.Uniform(0.01), mask="binary", **given)


LONG = "x" * 60_000


def test_messages_stay_short_whatever_strangers_send():
    many = fm.Schema([fm.Tensor(f"{LONG}{i}", (3,), masked=True) for i in range(3)])
    noise, zeros = fm.Uniform(0.01), {tensor.name: np.zeros(3, np.float32) for tensor in many}
    frame = fm.encode(zeros, many, seed=1, noise=noise, mask="binary", embed_schema=True)
    bad_name = fm.encode(zeros, many, seed=1, noise=noise, mask="binary", embed_schema=True).replace(
        b"x", b"\xff"
    )
    for read in (
        lambda: fm.decode(frame, SCHEMA),
        lambda: fm.decode(bad_name, SCHEMA),
        lambda: fm.decode(frame, names=[LONG]),
        lambda: fm.Aggregator(SCHEMA).add_many([frame], [1]),
        lambda: fm.Request(1, fm.Gaussian(0.01), "signed", 0, 0, many).check(frame),
        lambda: fm.Aggregator(SCHEMA).add(FRAME, LONG),
    ):
        with pytest.raises(errors.CodecError) as caught:
            read()
        error = caught.value
        assert len(str(error)) < 1700
        assert max(map(len, (error.field, error.expected, error.got))) < 550


def test_a_long_text_tells_its_length():
    error = errors.ReplyError("f", "short", LONG)
    assert error.got == "x" * errors.MOST_TEXT + "... (60000 characters)"
    assert errors.ReplyError("f", "y" * errors.MOST_TEXT, 1).expected == "y" * errors.MOST_TEXT


NO_MODELS = [None, 3, [UPDATE["w"]], "w", NoInteger()]


@pytest.mark.parametrize("model", NO_MODELS, ids=lambda w: type(w).__name__)
def test_models_are_mappings(model):
    got = f"expected a mapping of names to arrays, got {type(model).__name__}"
    for call in (lambda: fm.schema_of(model), lambda: fm.model_id(model), lambda: fm.Downlink(SCHEMA, model)):
        with pytest.raises(errors.SchemaError, match=f"^model: {got}$"):
            call()
    for call, field in (
        (lambda: fm.apply(model, UPDATE), "base"),
        (lambda: fm.apply(UPDATE, model), "update"),
        (lambda: fm.difference(model, UPDATE, SCHEMA), "trained arrays"),
        (lambda: fm.difference(UPDATE, model, SCHEMA), "received arrays"),
    ):
        with pytest.raises(errors.UpdateError, match=f"^{field}: {got}$"):
            call()


def test_models_hold_arrays():
    torch = pytest.importorskip("torch")
    for value, name in ((torch.zeros(3), "Tensor"), ([0.0], "list"), (None, "NoneType")):
        for call in (fm.schema_of, fm.model_id):
            with pytest.raises(
                errors.SchemaError, match=f"^'w' of the model: expected a NumPy array, got {name}$"
            ):
                call({"w": value})
        with pytest.raises(
            errors.SchemaError, match=f"^'w' of the model: expected a NumPy array, got {name}$"
        ):
            fm.Downlink(SCHEMA, UPDATE | {"w": value})
        for base, update in ((UPDATE, UPDATE | {"w": value}), (UPDATE | {"w": value}, UPDATE)):
            with pytest.raises(errors.UpdateError, match=f"^'w' of the model: expected .*a {name}"):
                fm.apply(base, update)


def test_the_id_of_a_model_refuses_another_dtype_than_the_schemas():
    """The elements would be converted, and another model could have the same id."""
    for dtype in (np.float64, np.int32):
        with pytest.raises(errors.SchemaError, match="dtype of 'b': expected float32, of a float32 tensor"):
            fm.model_id(UPDATE | {"b": np.zeros(2, dtype)}, SCHEMA)
    swapped = {name: array.astype(array.dtype.newbyteorder()) for name, array in UPDATE.items()}
    assert fm.model_id(swapped, SCHEMA) == fm.model_id(UPDATE, SCHEMA)


@pytest.mark.parametrize("entries", [None, 3, [], "{}", [["seed", 1]]], ids=str)
def test_requests_are_dictionaries(entries):
    with pytest.raises(errors.ArgumentError, match="request: expected a dictionary, got"):
        fm.Request.from_dict(entries)


def test_a_scale_beyond_the_floats():
    for value in (10**400, -(10**400), 1e300):
        with pytest.raises(errors.ScaleError, match="noise scale: expected"):
            fm.Uniform(value)


def test_the_number_of_threads(monkeypatch):
    from fedmrn_codec.backends.threads import processors, threads

    for given, expected in (("3", 3), ("0", processors()), ("-1", processors()), ("", processors())):
        monkeypatch.setenv("FEDMRN_THREADS", given)
        assert threads() == expected
    for given in ("auto", "2.5"):
        monkeypatch.setenv("FEDMRN_THREADS", given)
        with pytest.raises(
            errors.ArgumentError, match=f"variable FEDMRN_THREADS: expected an integer, got '{given}'"
        ):
            threads()


def test_integers_of_any_length_in_a_policy():
    settings = {"schema": SCHEMA, "noise": fm.Uniform(0.01), "round": 1, "base_model": 1}
    settings |= {"max_weight": 9}
    assert fm.Policy(**settings, seeds=2**4095).seed_of("ann") >= 0
    with pytest.raises(errors.ArgumentError, match="seeds: expected an integer of at most 4096 bits"):
        fm.Policy(**settings, seeds=16**5000)
    with pytest.raises(errors.ArgumentError, match="step: expected a power of two"):
        fm.Policy(**settings, seeds=None, kinds=["mask", "grid"], step=10**400)


def test_a_schema_of_lists_in_lists():
    nested = []
    for _ in range(5000):
        nested = [nested]
    with pytest.raises(errors.SchemaError):
        fm.Schema.from_json([{"name": "w", "shape": [3], "masked": nested}])
