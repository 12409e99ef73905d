"""A `fedmrn_codec.Request` as entries of a message's ConfigRecord."""

from __future__ import annotations

from flwr.app import ConfigRecord, Message, RecordDict

import fedmrn_codec as fm

PREFIX = "fedmrn."


class Request(fm.Request):
    """What the server requires of one client's frame in one round."""

    def add_to(self, content: RecordDict) -> RecordDict:
        """A copy of a message's content that includes this request; the other records are shared.

        The entries are added to the message's ConfigRecord, because Flower's own mods expect exactly one. If
        there is none, or more than one, they form a ConfigRecord "fedmrn".
        """
        configs = list(content.config_records)
        key = configs[0] if len(configs) == 1 else "fedmrn"
        config = ConfigRecord(dict(content.config_records.get(key, {})))
        config.update({PREFIX + name: value for name, value in self.to_dict().items()})
        return RecordDict({**dict(content), key: config})

    @classmethod
    def find(cls, message: Message) -> Request | None:
        """The request in a message, or None.

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
        """The request in a message.

        Raises
        ------
        fedmrn_codec.CodecError
            There is none, or an entry is missing or out of range.
        """
        found = cls.find(message)
        if found is None:
            expected = "a request (does fedmrn_flower.FedMRN wrap the server's strategy?)"
            raise fm.ArgumentError("message", expected, "none")
        return found
