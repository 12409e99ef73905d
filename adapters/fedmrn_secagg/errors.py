"""What secure aggregation refuses: a class with a stable code for each check (spec/SECAGG.md 10)."""

from __future__ import annotations

from typing import Self

import fedmrn_codec as fm


class SecAggError(fm.CodecError):
    """Base class of the errors of this package; a refused call leaves client or server as it was.

    Attributes
    ----------
    client : int or None
        At the server, the client whose message was refused. Without it the round can go on.
    """

    code = "secagg"
    client: int | None = None

    def of_client(self, client: int) -> Self:
        """The same error, with the client whose message it is about."""
        out = type(self)(f"client {client}, {self.field}", self.expected, self.got, self.offset)
        out.client = client
        return out

    def __reduce__(self) -> tuple[object, ...]:
        kind, arguments, state = super().__reduce__()
        assert isinstance(state, dict)
        return kind, arguments, {**state, "client": self.client}


class TruncatedError(SecAggError):
    """A message is too short: [X-11], [X-20]."""


class MagicError(SecAggError):
    """The first four bytes are not those of a message: [X-12]."""


class VersionError(SecAggError):
    """Another version of the protocol: [X-13]."""


class MessageTypeError(SecAggError):
    """Not the message that is waited for: [X-14]."""


class ReservedError(SecAggError):
    """Reserved bytes are set: [X-15]."""


class SenderError(SecAggError):
    """The message is that of another client, or for another one: [X-16]."""


class DigestError(SecAggError):
    """A message of another session, request, round or roster, or to other survivors: [X-17]."""


class LimitError(SecAggError):
    """More clients than the reader's limit, or than sums have room for: [X-18]."""


class PaddingError(SecAggError):
    """A bit after the last client of a bitmap is set: [X-19]."""


class TrailingError(SecAggError):
    """A message is too long: [X-21]."""


class ChecksumError(SecAggError):
    """The checksum is not the CRC-32 of the bytes: [X-22]."""


class PublicKeyError(SecAggError):
    """A public key that occurs twice, or gives a product of zeros: [X-24], [X-28], [X-32]."""


class TooFewError(SecAggError):
    """Fewer clients than the threshold: [X-10], [X-25], [X-30], [X-31], [X-36]."""


class RosterError(SecAggError):
    """A graph or an order of ids that a roster cannot have: [X-26]."""


class OwnKeyError(SecAggError):
    """The roster does not have the keys that the client has sent: [X-27]."""


class SignatureError(SecAggError):
    """Keys that are not signed by their owner: [X-29]."""


class BoxError(SecAggError):
    """A box that does not open with its key: [X-33]."""


class SurvivorsError(SecAggError):
    """Survivors that contradict what the client knows: [X-34], [X-35]."""


class OrderError(SecAggError):
    """A call out of order, or a second one: [X-06]."""


class ValueRangeError(SecAggError):
    """An integer whose sum could wrap around: [X-04]."""


class ReconstructionError(SecAggError):
    """Shares that do not restore the secret of their owner: [X-10]."""


class SumError(SecAggError):
    """A sum that no vectors have: [X-10]."""
