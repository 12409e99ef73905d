"""Signs times a scale a tensor, as a frame of signed masks over Bernoulli noise.

The noise of such a frame is -a or +a by the seed's bits, and a mask bit keeps or negates it: any pattern of
signs can be written, at one bit an element, and the 4 bytes of a are in the tensor's table entry. Every
decoder of the format decodes it.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

import fedmrn_codec as fm

from . import Task


def signs_frame(
    positive: Mapping[str, np.ndarray],
    scales: Mapping[str, float],
    dense: Mapping[str, np.ndarray],
    schema: fm.Schema,
    task: Task,
) -> bytes:
    """The frame that decodes to +scale where `positive` and -scale elsewhere.

    Parameters
    ----------
    positive : mapping of name to bool array
        One for each masked tensor, of its shape.
    scales : mapping of name to float
        One for each masked tensor; what is below the format's least (2^-126) becomes that.
    dense : mapping of name to array
    schema : fedmrn_codec.Schema
    task : Task
    """
    noise = {name: fm.Bernoulli(max(float(scale), fm.Bernoulli.least)) for name, scale in scales.items()}
    bits = {}
    for stream, tensor in enumerate(schema):
        if tensor.masked:
            draw = fm.noise(noise[tensor.name], seed=task.seed, stream=stream, count=tensor.size)
            bits[tensor.name] = (draw > 0).reshape(tensor.shape) == positive[tensor.name]
    return fm.encode_bits(
        bits,
        schema,
        seed=task.seed,
        noise=noise,
        mask="signed",
        dense=dense,
        round=task.round,
        base_model=task.base_model,
    )
