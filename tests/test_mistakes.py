"""Typical mistakes of a newcomer, each with the message that it gives: none passes silently."""

import re
import subprocess
import sys
import warnings

import numpy as np
import pytest
import torch

import fedmrn_codec as fm
import fedmrn_torch

SCHEMA = fm.Schema([fm.Tensor("w", (4, 8), masked=True), fm.Tensor("b", (4,))])
UPDATE = {"w": np.full((4, 8), 0.004, np.float32), "b": np.zeros(4, np.float32)}
NOISE = fm.Uniform(0.01)


def encode(update=UPDATE, schema=SCHEMA, **options):
    return fm.encode(update, schema, **{"seed": 7, "noise": NOISE, **options})


def trained(steps, taken):
    model = torch.nn.Linear(8, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with fedmrn_torch.PSM(model, seed=7, noise=fm.Uniform(10.0), steps=steps) as psm:
        for _ in range(taken):
            model(torch.ones(2, 8)).sum().backward()
            optimizer.step(), psm.step()
        psm.finish()


def checkpoint():
    model = torch.nn.Linear(8, 4)
    with fedmrn_torch.PSM(model, seed=7, noise=NOISE, steps=1):
        model.state_dict()


def of_another_round():
    server = fm.Aggregator(SCHEMA, noise=NOISE, round=4)
    server.add(encode(round=3), 600)


def own_scale():
    request = fm.Request(7, fm.Bernoulli(0.5), "binary", 1, 0, SCHEMA)
    request.check(encode(round=1))


def wrapped_twice():
    strategy = pytest.importorskip("flwr.serverapp.strategy")
    from fedmrn_flower import FedMRN

    FedMRN(FedMRN(strategy.FedAvg()))


MISTAKES = {
    "an array is left out": (lambda: encode({"w": UPDATE["w"]}), "update: expected "),
    "an array is transposed": (lambda: encode({**UPDATE, "w": UPDATE["w"].T}), "'w'"),
    "training has diverged": (lambda: encode({**UPDATE, "b": np.full(4, np.nan, np.float32)}), "'b'"),
    "the noise is a bare number": (
        lambda: encode(noise=0.01),
        "noise: expected Uniform, Gaussian or Bernoulli, got 0.01",
    ),
    "the mask kind is misspelt": (
        lambda: encode(mask="binery"),
        "mask: expected one of binary, signed, got 'binery'",
    ),
    "the private seed is the public one": (
        lambda: encode(private_seed=7),
        "private_seed: expected a value other",
    ),
    "a frame is decoded without its schema": (
        lambda: fm.decode(encode()),
        "schema, byte 6: expected a schema in the frame or from the caller, got neither",
    ),
    "a frame is of another model": (
        lambda: fm.decode(encode(), fm.Schema([fm.Tensor("w", (4, 9), masked=True)])),
        "schema digest, byte 32: expected ",
    ),
    "a frame is of another round": (of_another_round, "round, byte 24: expected 4, got 3"),
    "a weight is a share": (
        lambda: fm.Aggregator(SCHEMA).add(encode(), 0.5),
        "weight: expected a positive integer, got 0.5",
    ),
    "a client chose a scale of its own": (own_scale, "tensor 'w': expected binary mask of Bernoulli"),
    "psm.step() is called once an epoch": (
        lambda: trained(30, 3),
        "psm.step() was called 3 times, but the PSM has",
    ),
    "psm.step() is called too often": (lambda: trained(2, 3), "psm.step() was called"),
    "a checkpoint is taken while masks train": (checkpoint, "state_dict"),
    "FedMRN wraps a FedMRN": (wrapped_twice, "strategy: expected "),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_it_is_named(mistake):
    call, message = MISTAKES[mistake]
    with warnings.catch_warnings():
        warnings.simplefilter("error", RuntimeWarning)
        with pytest.raises((fm.CodecError, RuntimeWarning), match=re.escape(message)):
            call()


SHELL = {
    "no command": ([], "Usage"),
    "an unknown command": (["encrypt"], "No such command 'encrypt'"),
    "an unknown option": (["encode", "--sead", "7"], "No such option"),
    "a file that is not there": (["inspect", "nothing.fmrn"], "nothing.fmrn"),
    "no seed": (["encode", "update.npz", "--noise", "uniform:0.01"], "seed"),
    "a scale without a distribution": (
        ["encode", "update.npz", "--seed", "7", "--noise", "0.01"],
        "expected DISTRIBUTION:SCALE",
    ),
    "a sweep of nothing": (["sweep"], "Usage"),
}


@pytest.mark.parametrize("mistake", SHELL)
def test_the_shell_names_it_without_a_traceback(mistake, tmp_path):
    arguments, message = SHELL[mistake]
    np.savez(tmp_path / "update.npz", **UPDATE)
    done = subprocess.run(
        [sys.executable, "-m", "fedmrn_codec.cli", *arguments], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode in (2, 3)  # wrong usage, or a file that cannot be read
    assert message in done.stderr + done.stdout
    assert "Traceback" not in done.stderr
