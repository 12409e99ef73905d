"""The ONNX graphs in other runtimes and with all optimisations, and the files of `fedmrn export-onnx`."""

import json
from collections import Counter

import numpy as np
import onnx
import onnxruntime
import pytest
from backend_cases import KINDS, Case
from onnx.reference import ReferenceEvaluator

import fedmrn_codec as fm
from fedmrn_codec.backends import onnx as backend
from fedmrn_codec.backends import onnx_graphs
from fedmrn_codec.backends.numpy import draws_of
from fedmrn_codec.backends.onnx_export import describe, models
from fedmrn_codec.cli.app import app
from fedmrn_codec.primitives.noise import BY_NAME, DISTRIBUTIONS

NAMES = [name for name, _ in models()]
OPERATORS = {
    "Add", "BitShift", "BitwiseAnd", "BitwiseXor", "Cast", "Concat", "ConstantOfShape", "Div", "Gather",
    "Identity", "Less", "MatMulInteger", "Max", "Mod", "Mul", "Neg", "Range", "Reshape", "Size", "Slice",
    "Sub", "Unsqueeze", "Where",
}  # fmt: skip


@pytest.fixture(scope="module")
def exported():
    return dict(models())


def case_of(name, size, start=0):
    """The inputs and the expected bytes of an exported file."""
    metadata = {prop.key: prop.value for prop in dict(models())[name].metadata_props}
    operation = metadata["fedmrn.operation"]
    noise = BY_NAME[metadata.get("fedmrn.distribution", "uniform")](0.01)
    kind = {"binary": 1, "signed": 2}.get(metadata.get("fedmrn.mask"), 1)
    case = Case(noise, kind, 2**64 - 5, 3, start, size)
    weights = np.random.default_rng(1).normal(size=size).astype(np.float32)
    given = {
        "seed": np.array(case.seed, np.uint64),
        "stream": np.array(case.stream, np.uint64),
        "start": np.array(case.start, np.uint64),
        "count": np.array(size, np.int64),
        "scale": np.array(noise.scale, np.float32),
        "payload": case.payload,
        "update": case.update,
        "draws": case.draws,
        "private_seed": np.array(case.private, np.uint64),
        "weight": np.array(case.weight, np.int64),
        "sums": case.sums,
        "weights": weights,
        "factors": np.random.default_rng(3).integers(-600, 601, size).astype(np.int32),
        "integers": np.random.default_rng(2).integers(1 - 2**24, 2**24, size).astype(np.int32),
    }
    if operation.startswith("grid-"):
        given["scale"] = np.array(2.0**-9, np.float32)
        decoded, sums = given["integers"].astype(np.float32) * given["scale"], case.sums.copy()
        sums += case.weight * given["integers"].astype(np.int64)
        wants = {"decode": decoded, "accumulate": sums, "apply": weights + decoded}
        want = wants[operation.removeprefix("grid-")].tobytes()
        return {key: given[key] for key in onnx_graphs.OPERATIONS[operation][0]}, want
    if operation == "accumulate-counts":
        q = draws_of(noise, case.seed, case.stream, start, size).astype(np.int64)
        want = (case.sums + case.weight * q * given["factors"]).tobytes()
        return {key: given[key] for key in onnx_graphs.OPERATIONS[operation][0]}, want
    if operation == "apply":
        want = (weights + np.frombuffer(case.run("numpy", "decode"), np.float32)).tobytes()
    else:
        want = case.run("numpy", operation)
    return {key: given[key] for key in onnx_graphs.OPERATIONS[operation][0]}, want


@pytest.mark.parametrize("size", [0, 1, 37])
@pytest.mark.parametrize("name", NAMES)
def test_reference_evaluator(exported, name, size):
    feeds, want = case_of(name, size)
    with np.errstate(over="ignore", under="ignore"):
        (got,) = ReferenceEvaluator(exported[name]).run(None, feeds)
    assert got.tobytes() == want


@pytest.mark.parametrize("start", [2**34 + 5, 2**63 + 31])
@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith(("words", "noise"))])
def test_reference_evaluator_with_far_starts(exported, name, start):
    feeds, want = case_of(name, 37, start)
    (got,) = ReferenceEvaluator(exported[name]).run(None, feeds)
    assert got.tobytes() == want


@pytest.mark.parametrize("name", NAMES)
def test_optimisers_leave_every_float_operation(exported, name, tmp_path):
    """With and without optimisations, bytes and float operations are the same."""
    feeds, want = case_of(name, 70_001)
    levels = onnxruntime.GraphOptimizationLevel
    for level in (levels.ORT_DISABLE_ALL, levels.ORT_ENABLE_ALL):
        options = backend.options()
        options.graph_optimization_level = level
        options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
        session = onnxruntime.InferenceSession(
            exported[name].SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
        assert session.run(None, feeds)[0].tobytes() == want
    optimised = onnx.load(tmp_path / "optimised.onnx")
    assert len(optimised.graph.node) < len(exported[name].graph.node)
    assert float_operations(optimised) == float_operations(exported[name])


def float_operations(model):
    """How many nodes of each type have a float among inputs or outputs; Identity does not count."""
    graph = onnx.shape_inference.infer_shapes(model).graph
    values = [*graph.value_info, *graph.input, *graph.output]
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {constant.name: constant.data_type for constant in graph.initializer}
    assert all(name in types for node in graph.node for name in node.output)
    return Counter(
        (node.domain, node.op_type)
        for node in graph.node
        if node.op_type != "Identity"
        and any(types[name] == onnx.TensorProto.FLOAT for name in (*node.input, *node.output))
    )


@pytest.mark.parametrize("name", NAMES)
def test_models_are_plain_onnx(exported, name):
    model = exported[name]
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 18)]
    assert {node.domain for node in model.graph.node} == {""}
    assert {node.op_type for node in model.graph.node} <= OPERATORS
    assert all(value.doc_string for value in (*model.graph.input, *model.graph.output))
    metadata = describe(model)["metadata"]
    if name.startswith("grid-"):
        assert metadata["fedmrn.format"] == "1.3"
        assert "F-32" in metadata["fedmrn.caller_checks"]
        return
    assert metadata["fedmrn.format"] == ("1.4" if name.startswith("accumulate-counts") else "1.0")
    assert "N-02" in metadata["fedmrn.meets"]
    assert ("N-03" in metadata["fedmrn.caller_checks"]) == ("scale" in {i.name for i in model.graph.input})


def test_models_are_the_same_every_time(exported):
    for name, model in models():
        assert model.SerializeToString() == exported[name].SerializeToString()


def test_where_stands_between_product_and_sum(exported):
    """In `apply`, so that the two cannot be fused into one rounding."""
    for distribution in BY_NAME:
        graph = exported[f"apply-{distribution}-binary.onnx"].graph
        maker = {node.output[0]: node for node in graph.node}
        total = maker[maker["new_weights"].input[0]]
        assert (total.op_type, maker[total.input[1]].op_type) == ("Add", "Where")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cls", DISTRIBUTIONS.values())
def test_extreme_scales(cls, kind):
    for scale in (cls.least, cls.largest):
        case = Case(cls(scale), kind, size=3001)
        for verb in ("noise", "decode", "sample"):
            assert case.run("onnx", verb) == case.run("numpy", verb)


def test_export_writes_the_files(exported, runner, tmp_path):
    done = runner.invoke(app, ["export-onnx", "-o", str(tmp_path / "new" / "folder")])
    assert done.exit_code == 0
    written = {path.name: path.read_bytes() for path in (tmp_path / "new" / "folder").iterdir()}
    assert written == {name: model.SerializeToString() for name, model in exported.items()}
    assert len(done.stdout.splitlines()) == len(exported) == 40

    chosen = ["--operation", "decode", "--operation", "sample", "--distribution", "gaussian"]
    done = runner.invoke(app, ["export-onnx", "-o", str(tmp_path), *chosen, "--mask", "signed", "--json"])
    files = json.loads(done.stdout)["files"]
    assert [file["file"] for file in files] == [
        str(tmp_path / "decode-gaussian-signed.onnx"),
        str(tmp_path / "sample-gaussian-signed.onnx"),
    ]
    assert [i["name"] for i in files[0]["inputs"]] == onnx_graphs.OPERATIONS["decode"][0]
    assert files[0]["outputs"][0] == {
        "name": "decoded",
        "type": "float32",
        "shape": ["count"],
        "meaning": "the update: noise * mask (spec 4.2) or z * step (spec 6.12)",
    }


def test_export_errors(runner, tmp_path, monkeypatch):
    (tmp_path / "file").write_bytes(b"")
    assert runner.invoke(app, ["export-onnx", "-o", str(tmp_path / "file")]).exit_code == 3
    assert runner.invoke(app, ["export-onnx", "--mask", "ternary"]).exit_code == 2
    monkeypatch.setitem(__import__("sys").modules, "fedmrn_codec.backends.onnx_graphs", None)
    done = runner.invoke(app, ["export-onnx", "-o", str(tmp_path)])
    assert done.exit_code == 2
    assert "fedmrn-codec[onnx]" in done.stderr


def test_an_exported_decoder_reads_a_frame(exported):
    """An exported model decodes a frame's payload without this library."""
    schema = fm.Schema([fm.Tensor("b", (2,)), fm.Tensor("w", (30, 7), masked=True)])
    update = {"b": np.ones(2, np.float32), "w": np.full((30, 7), 0.004, np.float32)}
    frame = fm.encode(update, schema, seed=7, noise=fm.Uniform(0.01), mask="signed")
    entry = fm.inspect(frame, schema).tensors[1]
    feeds = {
        "seed": np.array(7, np.uint64),
        "stream": np.array(1, np.uint64),
        "start": np.array(0, np.uint64),
        "count": np.array(210, np.int64),
        "scale": np.array(0.01, np.float32),
        "payload": np.frombuffer(frame, np.uint8, entry.length, entry.offset),
    }
    session = onnxruntime.InferenceSession(
        exported["decode-uniform-signed.onnx"].SerializeToString(), providers=["CPUExecutionProvider"]
    )
    assert session.run(["decoded"], feeds)[0].tobytes() == fm.decode(frame, schema)["w"].tobytes()
