"""Frames that encode signs with one scale for each tensor, as signed masks over Bernoulli noise.

The noise of such a frame is -a or +a, and a mask bit keeps or negates it: the mask can encode any pattern of
signs at one bit an element. The scale a is in the table entry of the tensor, 4 bytes. Every decoder of the
format can decode the frame.
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
        One for each masked tensor; values below the minimum of the format, 2^-126, are raised to it.
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
    return fm.encode_bits(bits, schema, noise=noise, mask="signed", dense=dense, **task.header)
