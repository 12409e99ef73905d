"""What the server asks of one client in one round, as entries of a message's ConfigRecord."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from flwr.app import ConfigRecord, Message, RecordDict

import fedmrn_codec as fm
from fedmrn_codec.noise import parse_noise

PREFIX = "fedmrn."


@dataclass(frozen=True)
class Request:
    """The settings of one client's frame.

    Attributes
    ----------
    seed : int
        Of the noise: unsigned 64-bit, the server's choice, another one for every client and round.
    noise : fedmrn_codec.Noise
    mask : {"binary", "signed"}
    round : int
    base_model : int
        Names the arrays that the update is to be added to: unsigned 64-bit, not 0.
    schema : fedmrn_codec.Schema
    """

    seed: int
    noise: fm.Noise
    mask: str
    round: int
    base_model: int
    schema: fm.Schema

    def add_to(self, content: RecordDict) -> RecordDict:
        """A copy of a message's content that also asks for this; the records that it holds are shared.

        The entries join the message's ConfigRecord, because Flower's own mods expect one of them; if there is
        none, or more than one, they come in a ConfigRecord "fedmrn".
        """
        configs = list(content.config_records)
        key = configs[0] if len(configs) == 1 else "fedmrn"
        config = ConfigRecord(dict(content.config_records.get(key, {})))
        config[PREFIX + "seed"] = self.seed
        config[PREFIX + "noise"] = f"{self.noise.name}:{self.noise.scale!r}"
        config[PREFIX + "mask"] = self.mask
        config[PREFIX + "round"] = self.round
        config[PREFIX + "base-model"] = self.base_model
        config[PREFIX + "schema"] = self.schema.data
        return RecordDict({**dict(content), key: config})

    @classmethod
    def find(cls, message: Message) -> Request | None:
        """What a message asks for; None if it asks for no frame.

        Raises
        ------
        fedmrn_codec.CodecError
            An entry is missing or out of range.
        """
        for config in message.content.config_records.values():
            if PREFIX + "seed" in config:
                return cls._read(config)
        return None

    @classmethod
    def of(cls, message: Message) -> Request:
        """As `find`, but a message that asks for no frame is an `ArgumentError`."""
        found = cls.find(message)
        if found is None:
            raise fm.ArgumentError(
                "message", "no fedmrn settings", "required: a strategy wrapped in fedmrn_flower.FedMRN"
            )
        return found

    @classmethod
    def _read(cls, config: ConfigRecord) -> Request:
        seed, noise, mask, number, base, schema = (
            _entry(config, name, kind)
            for name, kind in (
                ("seed", int),
                ("noise", str),
                ("mask", str),
                ("round", int),
                ("base-model", int),
                ("schema", bytes),
            )
        )
        return cls(seed, parse_noise(noise), mask, number, base, fm.Schema.from_bytes(schema))


def _entry(config: ConfigRecord, name: str, kind: type) -> Any:
    value = config.get(PREFIX + name)
    if not isinstance(value, kind):
        raise fm.ArgumentError(
            f"config entry {PREFIX + name!r}", type(value).__name__, f"required: {kind.__name__}"
        )
    return value
