"""Draws of chosen words, at the ends of octaves and segments, which no seed is likely to give."""

import numpy as np
import onnxruntime
import pytest
import torch
from onnx import helper

from fedmrn_codec.backends import onnx as onnx_backend
from fedmrn_codec.backends import onnx_graphs
from fedmrn_codec.backends import torch as torch_backend
from fedmrn_codec.primitives.noise import gaussian_draws, uniform_draws


def edge_words():
    """Words around every power of 2 and every end of a segment, both signs, and random ones."""
    ends = [(64 + s) << t for t in range(26) for s in range(64)]
    near = np.array([end + d for end in (*ends, *(2**k for k in range(32))) for d in range(-3, 4)], np.int64)
    random = np.random.default_rng(0).integers(0, 2**32, 10_000)
    low = np.concatenate([near % 2**31, random % 2**31])
    return np.concatenate([low, low + 2**31]).astype(np.uint32)


def by_torch(name, words):
    function = {"uniform": torch_backend._uniform, "gaussian": torch_backend._gaussian}[name]
    return function(torch.from_numpy(words.view(np.int32))).numpy()


def by_onnx(name, words):
    g = onnx_graphs.Graph()
    result = {"uniform": onnx_graphs.uniform, "gaussian": onnx_graphs.gaussian}[name](g, "w")
    graph = helper.make_graph(
        g.nodes,
        name,
        [helper.make_tensor_value_info("w", onnx_graphs.U32, ["count"])],
        [helper.make_tensor_value_info(result, onnx_graphs.I32, ["count"])],
        list(g.constants.values()),
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", onnx_graphs.OPSET)], ir_version=8)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), onnx_backend.options(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"w": words})[0]


@pytest.mark.parametrize("draws", [by_torch, by_onnx])
@pytest.mark.parametrize("name", ["uniform", "gaussian"])
def test_draws_of_edge_words(name, draws):
    words = edge_words()
    want = {"uniform": uniform_draws, "gaussian": gaussian_draws}[name](words)
    assert draws(name, words).tobytes() == want.tobytes()
    if name == "gaussian":
        assert np.abs(want).min() == 1  # the middle of the distribution, where q would be 0
