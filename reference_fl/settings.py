"""The settings of a run, and the protocol's defaults for each data set."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

import numpy as np

import fedmrn_codec as fm
from fedmrn_codec.primitives.noise import parse_noise

from . import partition
from .data import Dataset


@dataclass(frozen=True)
class Settings:
    """All that a run's result depends on, the code and the machine's arithmetic aside.

    Attributes
    ----------
    dataset, model, method : str
    mask : {"binary", "signed"} or None
        None where the method has no masks.
    noise : str or None
        Distribution and scale of the noise, as "uniform:0.01".
    partition : str
        "iid", "dirichlet:ALPHA", "labels:K", or "natural": the data's own clients.
    clients, clients_per_round, epochs, batch_size, rounds : int
    learning_rate : float
        Of the clients' plain SGD.
    seed : int
        Everything random in a run follows from it.
    threads : int
        Of torch; sums of floats may depend on it.
    options : dict
        What only this method knows, by name; what is left out has the default of `methods/NAME.py`.
    """

    dataset: str
    model: str
    method: str
    mask: str | None
    noise: str | None
    partition: str
    clients: int
    clients_per_round: int
    epochs: int
    batch_size: int
    learning_rate: float
    rounds: int
    seed: int
    threads: int
    options: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """The settings as a plain dictionary."""
        return asdict(self)

    @property
    def label(self) -> str:
        """The method's name with its mask kind, as in tables: "fedmrn-binary"."""
        return f"{self.method}-{self.mask}" if self.mask else self.method


# Li et al., ACM MM 2024: 100 clients, 10 a round, 10 local epochs of batches of 64; CNN4 and 100 rounds for
# Fashion-MNIST and SVHN, CNN8 and 200 for CIFAR. The digits are too few for that: their row is this project's
# own, and so is that of Shakespeare. The same, a file an experiment, is in `presets/`.
DATASET_DEFAULTS: dict[str, dict[str, Any]] = {
    "digits": {"model": "cnn2", "clients": 10, "clients_per_round": 5, "epochs": 5, "rounds": 15},
    "fashion-mnist": {"model": "cnn4", "clients": 100, "clients_per_round": 10, "epochs": 10, "rounds": 100},
    "svhn": {"model": "cnn4", "clients": 100, "clients_per_round": 10, "epochs": 10, "rounds": 100},
    "cifar10": {"model": "cnn8", "clients": 100, "clients_per_round": 10, "epochs": 10, "rounds": 200},
    "cifar100": {"model": "cnn8", "clients": 100, "clients_per_round": 10, "epochs": 10, "rounds": 200},
    "shakespeare": {"model": "lstm", "clients": 100, "clients_per_round": 10, "epochs": 1, "rounds": 100},
}
BATCH_SIZE = {"digits": 16, "shakespeare": 10}

# Of the clients' optimiser. FedAvg's and FedMRN's are those of Li et al., ACM MM 2024 (tuned on a grid); what
# compresses an ordinary update has FedAvg's. FedBAT's is that of its authors' code for the same experiment,
# FedPM's is Adam's for the scores in its authors' code.
LEARNING_RATE = {
    "fedavg": 0.03,
    "fedmrn": 0.1,
    "postmask": 0.03,
    "signsgd": 0.03,
    "topk": 0.03,
    "terngrad": 0.03,
    "drive": 0.03,
    "eden": 0.03,
    "fedsparsify": 0.03,
    "fedbat": 0.1,
    "fedpm": 0.1,
}
MASKS = ("fedmrn", "postmask")
"""The methods that have a mask kind and noise."""

NOISE = {"binary": "uniform:0.01", "signed": "uniform:0.005"}


def defaults(dataset: str, method: str, mask: str | None, **given: Any) -> Settings:
    """The protocol's settings for a data set and a method; what is `given` and not None replaces them.

    Raises
    ------
    ValueError
        An unknown method, mask or setting, or a mask where the method has none.
    """
    if method not in LEARNING_RATE:
        raise ValueError(f"method: found {method!r}, known are {', '.join(sorted(LEARNING_RATE))}")
    if method in MASKS:
        mask = mask or "binary"
        if mask not in NOISE:
            raise ValueError(f"mask: found {mask!r}, required: {' or '.join(NOISE)}")
    elif mask is not None:
        raise ValueError(f"mask: found {mask!r}, the method {method} has none")
    row = DATASET_DEFAULTS.get(dataset, DATASET_DEFAULTS["fashion-mnist"])
    settings = Settings(
        dataset=dataset,
        method=method,
        mask=mask,
        noise=NOISE[mask] if mask else None,
        partition="iid",
        batch_size=BATCH_SIZE.get(dataset, 64),
        learning_rate=LEARNING_RATE[method],
        seed=0,
        threads=2,
        **row,
    )
    known = {f.name for f in fields(Settings)}
    if unknown := set(given) - known:
        raise ValueError(f"settings: found {sorted(unknown)}, known are {sorted(known)}")
    settings = replace(settings, **{key: value for key, value in given.items() if value is not None})
    if settings.noise is not None:
        parse_noise(settings.noise)
    return settings


def noise_of(settings: Settings) -> fm.Noise:
    """The noise of a run whose method has masks."""
    assert settings.noise is not None
    return parse_noise(settings.noise)


def split(settings: Settings, data: Dataset) -> list[np.ndarray]:
    """The indices of each client's training samples.

    Raises
    ------
    ValueError
        A partition that does not exist, or that this data set does not allow.
    """
    if not 1 <= settings.clients_per_round <= settings.clients:
        found = settings.clients_per_round
        raise ValueError(f"clients a round: found {found}, required 1 to all {settings.clients}")
    name, _, argument = settings.partition.partition(":")
    labels = data.train_y.numpy()
    if name == "iid" and not argument:
        return partition.iid(labels, settings.clients, settings.seed)
    if name == "dirichlet" and argument:
        return partition.dirichlet(labels, settings.clients, settings.seed, alpha=float(argument))
    if name == "labels" and argument:
        return partition.labels_per_client(labels, settings.clients, settings.seed, k=int(argument))
    if name == "natural" and not argument:
        if data.groups is None:
            raise ValueError(
                f"partition: found 'natural', the data set {data.name} has no clients of its own"
            )
        return partition.by_group(data.groups.numpy(), settings.clients)
    required = "iid, dirichlet:ALPHA, labels:K or natural"
    raise ValueError(f"partition: found {settings.partition!r}, required {required}")
