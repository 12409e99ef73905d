"""The settings of a run, and the defaults of the protocol for each data set."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, TypeVar

import numpy as np

import fedmrn_codec as fm
from fedmrn_codec.adapter_api import parse_noise

from . import partition, rates
from .data import Dataset

N = TypeVar("N", int, float)

DOWNLINKS = RAW, GRID = "raw", "grid"
"""The ways to send the model to the clients."""


@dataclass(frozen=True)
class Settings:
    """Everything that the result of a run depends on, except the code and the arithmetic of the machine.

    Attributes
    ----------
    dataset, model, method : str
    mask : {"binary", "signed"} or None
        None where the method has no masks.
    noise : str or None
        Distribution and scale of the noise, such as "uniform:0.01"; or "adaptive", for a noise that the
        server sets for each masked tensor and round (`fedmrn_codec.AdaptiveNoise`).
    partition : str
        "iid", "dirichlet:ALPHA", "labels:K", or "natural" for the natural clients of the data set.
    clients, clients_per_round, epochs, batch_size, rounds : int
    learning_rate : float
        Of the clients' optimiser in the first round.
    seed : int
        The source of all random numbers of a run.
    threads : int
        Of torch; sums of floats may depend on it.
    options : dict
        Options of this method alone, by name; the defaults are in `methods/NAME.py`.
    learning_rate_schedule : str
        How the learning rate falls over the rounds: see `rates.parse`.
    downlink : {"raw", "grid"}
        How the model is sent to the clients: see `download`.
    secure : bool
        Whether the server learns the sums of updates alone: see `secure`. For fedmrn over Bernoulli noise.
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
    learning_rate_schedule: str = rates.CONSTANT
    downlink: str = RAW
    secure: bool = False

    def as_json(self) -> dict[str, Any]:
        """The settings as a plain dictionary."""
        return asdict(self)

    def rate(self, round: int) -> float:
        """The learning rate of a round, from 1."""
        return self.learning_rate * rates.factor(self.learning_rate_schedule, round)

    @property
    def label(self) -> str:
        """The method's name with its mask kind, such as "fedmrn-binary"."""
        return f"{self.method}-{self.mask}" if self.mask else self.method


# Li et al., ACM MM 2024: 100 clients, 10 in each round, 10 local epochs of batches of 64; CNN4 and 100 rounds
# for Fashion-MNIST and SVHN, CNN8 and 200 rounds for CIFAR. The rows of the digits, which are too few for
# this, and of Shakespeare are this project's own. `presets/` holds the same settings, one file an experiment.
DATASET_DEFAULTS: dict[str, dict[str, Any]] = {
    "digits": {"model": "cnn2", "clients": 10, "clients_per_round": 5, "epochs": 5, "rounds": 15},
    "digits-equal": {"model": "logistic", "clients": 20, "clients_per_round": 5, "epochs": 2, "rounds": 400},
    "fashion-mnist": {"model": "cnn4", "clients": 100, "clients_per_round": 10, "epochs": 10, "rounds": 100},
    "svhn": {"model": "cnn4", "clients": 100, "clients_per_round": 10, "epochs": 10, "rounds": 100},
    "cifar10": {"model": "cnn8", "clients": 100, "clients_per_round": 10, "epochs": 10, "rounds": 200},
    "cifar100": {"model": "cnn8", "clients": 100, "clients_per_round": 10, "epochs": 10, "rounds": 200},
    "shakespeare": {"model": "lstm", "clients": 100, "clients_per_round": 10, "epochs": 1, "rounds": 100},
}
BATCH_SIZE = {"digits": 16, "digits-equal": 128, "shakespeare": 10}

# Of the clients' optimiser. FedAvg has the rate of Li et al., ACM MM 2024, tuned on a grid; FedMRN twice
# that, since binary masks halve the step (docs/noise_rule.md). The paper has 0.1 for FedMRN with fixed noise.
# Methods that compress an ordinary update have FedAvg's. FedBAT has the rate of its authors' code for the
# same experiment, FedPM that of Adam for the scores in its authors' code.
LEARNING_RATE = {
    "fedavg": 0.03,
    "fedmrn": 0.06,
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
SIGNED_LEARNING_RATE = 0.03
"""FedMRN's with signed masks, which send the whole step."""

ORDINARY = ("postmask", "signsgd", "topk", "terngrad", "drive", "eden", "fedsparsify")
"""The methods that compress an ordinary update: a preset's learning rate for FedAvg is theirs, too."""

MASKS = ("fedmrn", "postmask")
"""The methods that have a mask kind and a noise."""

NOISE = {"binary": "uniform:0.01", "signed": "uniform:0.005"}
"""The paper's, for methods without a rule that sets it."""

ADAPTIVE = "adaptive"
"""The noise of a method whose server sets it from round to round."""


def defaults(dataset: str, method: str, mask: str | None, **given: Any) -> Settings:
    """The settings of the protocol for a data set and a method; values in `given`, if not None, replace them.

    Raises
    ------
    ValueError
        An unknown method, mask, downlink or setting, a mask for a method without masks, or secure aggregation
        with settings that it does not allow.
    """
    if method not in LEARNING_RATE:
        raise ValueError(f"method: expected one of {', '.join(sorted(LEARNING_RATE))}, got {method!r}")
    if method in MASKS:
        mask = mask or "binary"
        if mask not in NOISE:
            raise ValueError(f"mask: expected {' or '.join(NOISE)}, got {mask!r}")
    elif mask is not None:
        raise ValueError(f"mask: expected none for the method {method}, got {mask!r}")
    row = DATASET_DEFAULTS.get(dataset, DATASET_DEFAULTS["fashion-mnist"])
    settings = Settings(
        dataset=dataset,
        method=method,
        mask=mask,
        noise=None if mask is None else ADAPTIVE if method == "fedmrn" else NOISE[mask],
        partition="iid",
        batch_size=BATCH_SIZE.get(dataset, 64),
        learning_rate=SIGNED_LEARNING_RATE
        if (method, mask) == ("fedmrn", "signed")
        else LEARNING_RATE[method],
        seed=0,
        threads=2,
        **row,
    )
    known = {f.name for f in fields(Settings)}
    if unknown := set(given) - known:
        raise ValueError(
            f"settings: expected only {', '.join(sorted(known))}, got {', '.join(sorted(unknown))}"
        )
    settings = replace(settings, **{key: value for key, value in given.items() if value is not None})
    if settings.noise is not None and not (settings.noise == ADAPTIVE and method == "fedmrn"):
        parse_noise(settings.noise)
    if settings.downlink not in DOWNLINKS:
        raise ValueError(f"downlink: expected {' or '.join(DOWNLINKS)}, got {settings.downlink!r}")
    settings.rate(1)  # refuses an unknown schedule
    if not isinstance(settings.secure, bool):
        raise ValueError(f"secure: expected true or false, got {settings.secure!r}")
    if settings.secure:
        _check_secure(settings)
    return settings


def _check_secure(settings: Settings) -> None:
    """Refuse settings with which a sum is not possible, or worse than that of frames (spec 11.4)."""
    where = "with secure aggregation"
    if settings.method != "fedmrn":
        raise ValueError(f"method: expected fedmrn {where}, got {settings.method!r}")
    if settings.noise != ADAPTIVE and not isinstance(noise_of(settings), fm.Bernoulli):
        raise ValueError(f"noise: expected {ADAPTIVE} or bernoulli:SCALE {where}, got {settings.noise!r}")
    if settings.clients_per_round < 2:
        raise ValueError(f"clients per round: expected at least 2 {where}, got {settings.clients_per_round}")


def noise_of(settings: Settings) -> fm.Noise:
    """The noise of a run whose method has masks and whose noise is not adaptive."""
    assert settings.noise is not None
    return parse_noise(settings.noise)


def split(settings: Settings, data: Dataset) -> list[np.ndarray]:
    """The indices of each client's training samples.

    Raises
    ------
    ValueError
        An unknown partition, or one that is not possible for this data set.
    """
    if not 1 <= settings.clients_per_round <= settings.clients:
        got = settings.clients_per_round
        raise ValueError(f"clients per round: expected 1 to {settings.clients} (all), got {got}")
    name, _, argument = settings.partition.partition(":")
    labels, clients, seed = data.train_y.numpy(), settings.clients, settings.seed
    if settings.partition == "iid":
        return partition.iid(labels, clients, seed)
    if name == "dirichlet" and (alpha := _parsed(float, argument)) is not None:
        return partition.dirichlet(labels, clients, seed, alpha=alpha)
    if name == "labels" and (k := _parsed(int, argument)) is not None:
        return partition.labels_per_client(labels, clients, seed, k=k)
    if settings.partition == "natural":
        if data.groups is None:
            raise ValueError(f"partition natural: expected a data set with natural clients, got {data.name}")
        return partition.by_group(data.groups.numpy(), clients)
    expected = "iid, dirichlet:ALPHA, labels:K or natural"
    raise ValueError(f"partition: expected {expected}, got {settings.partition!r}")


def _parsed(kind: type[N], text: str) -> N | None:
    try:
        return kind(text)
    except ValueError:
        return None
