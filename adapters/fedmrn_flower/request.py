"""A `fedmrn_codec.Request` as entries of a message's ConfigRecord."""

from __future__ import annotations

from flwr.app import ConfigRecord, Message, RecordDict

import fedmrn_codec as fm

PREFIX = "fedmrn."


class Request(fm.Request):
    """What the server asks of one client in one round."""

    def add_to(self, content: RecordDict) -> RecordDict:
        """A copy of a message's content that also asks for this; the records that it holds are shared.

        The entries join the message's ConfigRecord, because Flower's own mods expect one of them; if there is
        none, or more than one, they come in a ConfigRecord "fedmrn".
        """
        configs = list(content.config_records)
        key = configs[0] if len(configs) == 1 else "fedmrn"
        config = ConfigRecord(dict(content.config_records.get(key, {})))
        config.update({PREFIX + name: value for name, value in self.to_dict().items()})
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
            entries = {name.removeprefix(PREFIX): config[name] for name in config if name.startswith(PREFIX)}
            if "seed" in entries:
                return cls.from_dict(entries)
        return None

    @classmethod
    def of(cls, message: Message) -> Request:
        """As `find`, but a message that asks for no frame is an `ArgumentError`."""
        found = cls.find(message)
        if found is None:
            raise fm.ArgumentError(
                "message", "those of a strategy wrapped in fedmrn_flower.FedMRN", "no fedmrn settings"
            )
        return found
