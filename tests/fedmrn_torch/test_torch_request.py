"""PSM.from_request: the frame that answers a request, and requests for another model."""

import pytest
import torch

import fedmrn_codec as fm
import fedmrn_torch


def network(out=2):
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, out))


def request_for(schema):
    return fm.Request(9, fm.Gaussian(0.01), "signed", 3, 77, schema)


def test_the_frame_passes_the_requests_check():
    model = network()
    request = request_for(fedmrn_torch.schema(model, ["0.weight"]))
    with fedmrn_torch.PSM.from_request(model, request, steps=1, progressive=False) as psm:
        model(torch.rand(6, 4)).relu().sum().backward()
        torch.optim.SGD(model.parameters(), lr=0.001).step(), psm.step()
        frame = psm.finish()
    info = request.check(frame, {name: t.numpy() for name, t in model.state_dict().items()})
    assert [entry.kind for entry in info.tensors].count("signed") == 1


@pytest.mark.parametrize(
    ("given", "codings"),
    [
        ({}, ["rans", "float16"]),
        ({"coding": "raw"}, ["raw", "float16"]),
        ({"dense_coding": {"bias": "bfloat16"}}, ["rans", "bfloat16"]),
    ],
    ids=str,
)
def test_codings_given_to_finish_override_the_requests(given, codings):
    model = torch.nn.Linear(64, 64)
    schema = fedmrn_torch.schema(model)
    request = fm.Request(9, fm.Gaussian(0.01), "binary", 3, 77, schema, coding="rans", dense_coding="float16")
    with fedmrn_torch.PSM.from_request(model, request, steps=1) as psm:
        info = request.check(psm.finish(**given))  # no training: all bits are 0
    assert [entry.coding for entry in info.tensors] == codings


def test_a_round_given_to_finish_overrides_the_requests():
    model = network()
    with fedmrn_torch.PSM.from_request(model, request_for(fedmrn_torch.schema(model)), steps=1) as psm:
        info = fm.inspect(psm.finish(round=0))
    assert (info.round, info.base_model) == (0, 77)


def test_a_numpy_server_and_a_torch_client_have_one_schema():
    model = network()
    arrays = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    assert fm.schema_of(arrays) == fedmrn_torch.schema(model)


@pytest.mark.parametrize(
    ("schema", "expected", "got"),
    [
        (
            fedmrn_torch.schema(network(3)),
            "the model's own, fedmrn_torch.schema(model)",
            "tensor 7 is '2.weight' float32[3, 8] masked, the caller's is '2.weight' float32[2, 8] masked",
        ),
        (
            fm.Schema(reversed(fedmrn_torch.schema(network()).tensors)),
            "the model's own, fedmrn_torch.schema(model)",
            "tensor 0 is '2.bias' float32[2], the caller's is '0.weight' float32[8, 4] masked",
        ),
        (
            fm.Schema([fm.Tensor("nowhere", (2,), masked=True)]),
            "names of trainable floating-point parameters",
            "['nowhere']",
        ),
    ],
    ids=["another shape", "another order", "another name"],
)
@pytest.mark.parametrize("remedy", [None, "send another model"])
def test_requests_for_another_model_are_refused(schema, expected, got, remedy):
    with pytest.raises(fm.SchemaError) as caught:
        fedmrn_torch.PSM.from_request(network(), request_for(schema), steps=1, remedy=remedy)
    hint = f" ({remedy})" if remedy else ""
    assert str(caught.value) == f"schema of the request: expected {expected}{hint}, got {got}"
