"""The bounds of sections: one keystream has 2^38 bytes (spec/SECAGG.md 6.4); [X-18], [X-38]."""

import pytest

import fedmrn_codec as fm
from fedmrn_secagg import Server
from fedmrn_secagg.terms import Terms


def request_of(*tensors):
    return fm.Request(1, fm.Bernoulli(1.0), "binary", 0, 0, fm.Schema(tensors))


def masked(elements):
    return fm.Tensor("m", (elements,), masked=True)


LONGEST = 8 * (2**38 // 24)  # fields of 24 bits


@pytest.mark.parametrize(
    ("elements", "most"),
    [(8, 2**24 - 1), (LONGEST, 2**24 - 1), (LONGEST + 1, 2**23 - 1), (2**39, 15), (2**40, 3)],
)
def test_a_field_takes_bits_of_a_keystream(elements, most):
    assert Terms(request_of(masked(elements)), 2).most_clients == most


def test_a_weight_counts_as_so_many_clients():
    assert Terms(request_of(masked(2**39)), 2, largest_weight=7).most_clients == 2


def test_more_clients_than_the_keystream_has_bits_for_are_refused():
    Server(request_of(masked(2**40)), clients=range(1, 4), threshold=2)
    with pytest.raises(fm.ArgumentError, match=r"^clients: expected at most 3, got 4$"):
        Server(request_of(masked(2**40)), clients=range(1, 5), threshold=2)


@pytest.mark.parametrize(
    "tensor",
    [
        masked(2**41 + 1),
        masked(2**40 + 1),
        fm.Tensor("f", (2**36,)),
        fm.Tensor("i", (2**35 + 1,), dtype="int8"),
    ],
    ids=["one bit", "two bits", "floats", "integers"],
)
def test_values_whose_sections_are_too_long_are_refused(tensor):
    with pytest.raises(fm.ArgumentError, match=r"^schema: expected sections of at most 274877906944 bytes"):
        Terms(request_of(tensor), 2)


def test_the_longest_sections_are_accepted():
    Terms(request_of(fm.Tensor("f", (2**36 - 1,)), fm.Tensor("i", (2**35,), dtype="int8")), 2)
