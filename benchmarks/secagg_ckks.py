"""A round with homomorphic encryption: CKKS vectors of TenSEAL, in the context that NVFlare makes.

As in NVFlare's filters, each tensor is a vector of its own; the server adds vectors that it cannot decrypt.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import numpy as np
import tenseal
from nvflare.lighter.impl.he import HEBuilder

from .secagg_ledger import Ledger

ERROR = 1e-5
"""Of an element of the sum, at most: the scale of the encoding is 2^40."""

Arrays = list[np.ndarray]


def settings() -> str:
    """NVFlare's settings, for readers of the table."""
    builder = HEBuilder()
    moduli = ", ".join(map(str, builder.coeff_mod_bit_sizes))
    degree = f"polynomials of degree {builder.poly_modulus_degree:,}"
    return f"{degree}, moduli of {moduli} bits, scale 2^{builder.scale_bits}"


def play(updates: Mapping[int, Arrays], ledger: Ledger, silent: Mapping[int, str]) -> bool:
    """Play a round: encrypt, add, decrypt. Clients in `silent` send nothing; whether there is a sum.

    Raises
    ------
    AssertionError
        A client does not decrypt the sum of the updates.
    """
    builder = HEBuilder()
    builder.initialize(None, None)
    of_clients = tenseal.context_from(builder.get_serialized_context(is_client=True))
    of_server = tenseal.context_from(builder.get_serialized_context())
    there = {id: update for id, update in updates.items() if id not in silent}
    with silence():
        return play_in(of_clients, of_server, there, ledger)


def play_in(
    of_clients: tenseal.Context, of_server: tenseal.Context, there: Mapping[int, Arrays], ledger: Ledger
) -> bool:
    """Play a round of these clients in their context and in the server's."""
    sums: list[tenseal.CKKSVector] = []
    for id, update in there.items():
        with ledger.of_client(id):
            sent = [tenseal.ckks_vector(of_clients, array.ravel()).serialize() for array in update]
        ledger.up[id] += sum(map(len, sent))
        with ledger.of_server():
            vectors = [tenseal.ckks_vector_from(of_server, data) for data in sent]
            sums = [a + b for a, b in zip(sums, vectors, strict=True)] if sums else vectors
    if not sums:
        return False
    with ledger.of_server():
        answer = [vector.serialize() for vector in sums]
    wanted = [np.sum(each, axis=0, dtype=np.float64).ravel() for each in zip(*there.values(), strict=True)]
    for id in there:
        ledger.down[id] += sum(map(len, answer))
        with ledger.of_client(id):
            got = [tenseal.ckks_vector_from(of_clients, data).decrypt() for data in answer]
        if any(np.abs(np.subtract(a, b)).max() > ERROR for a, b in zip(got, wanted, strict=True)):
            raise AssertionError("the decrypted sum is not that of the updates")
    return True


@contextmanager
def silence() -> Iterator[None]:
    """Drop what TenSEAL writes: for each vector of several ciphertexts, that they cannot be multiplied."""
    kept = os.dup(1), os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 1), os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept[0], 1), os.dup2(kept[1], 2)
        for each in (*kept, nowhere):
            os.close(each)
