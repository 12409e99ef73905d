"""The torch backend's functions on tensors: every available device, in place, with any torch settings."""

import numpy as np
import pytest
import torch
from backend_cases import KINDS, Case

import fedmrn_codec as fm
from fedmrn_codec.backends import torch as backend
from fedmrn_codec.primitives.noise import DISTRIBUTIONS

NOISES = list(DISTRIBUTIONS.values())


@pytest.fixture(params=["cpu", "cuda"])
def device(request):
    if request.param == "cuda" and not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    return request.param


def on(device, array):
    return torch.from_numpy(array.copy()).to(device)


def results(case, device):
    """The bytes of the results of the functions on tensors, by name."""
    place = case.noise, case.kind, case.seed, case.stream
    payload, update = on(device, case.payload), on(device, case.update)
    out = torch.full((case.size,), torch.nan, device=device)
    backend.decode_into(*place, payload, out)
    sums = on(device, case.sums)
    backend.accumulate_into(*place, payload, case.weight, sums)
    draws = on(device, case.draws.astype(np.int32))
    start = case.seed, case.stream, case.start, case.size
    found = {
        "words": backend.words_tensor(*start, device=device),
        "noise": backend.noise_tensor(case.noise, *start, device=device),
        "decode": out,
        "accumulate": sums,
        "sample": backend.sample_tensor(*place, update, draws),
        "sample-seeded": backend.sample_tensor(*place, update, case.private),
    }
    assert all(tensor.device.type == device for tensor in found.values())
    assert found["words"].dtype == torch.int64
    assert found["words"].min() >= 0
    found["words"] = found["words"].to(torch.int32)
    return {verb: tensor.cpu().numpy().tobytes() for verb, tensor in found.items()}


def expected(case):
    return {
        verb: case.run("numpy", verb)
        for verb in ("words", "noise", "decode", "accumulate", "sample", "sample-seeded")
    }


@pytest.mark.parametrize("size", [1, 1001, 300_000])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("noise", NOISES)
def test_functions_on_tensors(device, noise, kind, size):
    case = Case(noise(0.01), kind, 2**64 - 1, 2**40, 2**34 + 7, size, 2**39 - 1)
    assert results(case, device) == expected(case)


def test_blocks_of_an_accelerator(device, monkeypatch):
    monkeypatch.setattr(backend, "DEVICE_BLOCK", 64)
    case = Case(fm.Gaussian(0.01), size=1001)
    assert results(case, device) == expected(case)


def test_one_thread_takes_larger_blocks():
    case = Case(fm.Gaussian(0.01), size=300_001)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        assert results(case, "cpu") == expected(case)
    finally:
        torch.set_num_threads(threads)


def test_torch_settings_do_not_matter():
    case = Case(fm.Gaussian(0.01), size=1001)
    want = expected(case)
    backend._table.cache_clear()
    with torch.inference_mode():
        assert results(case, "cpu") == want
    torch.set_default_dtype(torch.float64)
    torch.use_deterministic_algorithms(True)
    try:
        with torch.device("meta"):
            out = np.full(case.size, np.nan, np.float32)
            backend.decode(case.noise, case.kind, case.seed, case.stream, case.payload, out)
        assert out.tobytes() == want["decode"]
    finally:
        torch.set_default_dtype(torch.float32)
        torch.use_deterministic_algorithms(False)


def test_a_parameter_is_written_without_a_gradient(device):
    case = Case(fm.Uniform(0.01), size=1001)
    parameter = torch.nn.Parameter(torch.ones(1001, device=device))
    place = case.noise, case.kind, case.seed, case.stream
    backend.add_into(*place, on(device, case.payload), 1, parameter)
    want = np.float32(1) + np.frombuffer(case.run("numpy", "decode"), np.float32)
    assert parameter.detach().cpu().numpy().tobytes() == want.tobytes()
    assert parameter.grad_fn is None


def test_read_only_arrays_are_shared_without_a_copy():
    array = np.arange(9, dtype=np.uint8)
    array.flags.writeable = False
    assert backend.shared(array).data_ptr() == array.ctypes.data
    assert not array.flags.writeable
