"""The noise of the rounds of a server: fixed, or that of a rule for each schema, kept in a file."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import errors
from ..face.adaptive import AdaptiveNoise
from ..face.aggregation import Aggregator
from ..face.models import Arrays
from ..face.request import check_settings
from ..format.checked import CheckedFrame
from ..format.schema import Schema
from ..primitives import atomic
from ..primitives.noise import Noise
from .fit import RoundFit

log = logging.getLogger("fedmrn_codec")

NoiseSetting = Noise | Mapping[str, Noise] | AdaptiveNoise | None
"""What a server may be given as its noise; None is an `AdaptiveNoise` that starts with the first model."""

StatePath = str | os.PathLike[str] | None

FIRST_ROUNDS = 10
"""The rounds of a rule whose fit is not judged, since it may start far from its target."""


class ServerNoise:
    """The noise that a server puts into its requests.

    Parameters
    ----------
    noise : Noise, mapping of str to Noise, AdaptiveNoise, or None
        Fixed for all rounds; or a rule; or None for a rule of its own, which starts from the weights of the
        first model that it sees.
    mask : str
        Of the masked tensors. A given rule must have the same.
    bits : float, optional
        Of a rule of its own, as in `AdaptiveNoise`.
    state : path, optional
        A file in which the rule is saved after each round, and from which a new server continues, also one
        that is given a rule.

    Raises
    ------
    ArgumentError
        A value is of another type or out of range, or `bits` or `state` is given for a fixed noise.
    """

    def __init__(
        self, noise: NoiseSetting, mask: str, *, bits: float | None = None, state: StatePath = None
    ) -> None:
        self.fixed: Noise | Mapping[str, Noise] | None = None
        self.mask, self.bits = mask, bits
        self.state = None if state is None else Path(state)
        self._rules: dict[str, AdaptiveNoise] = {}
        self._given: AdaptiveNoise | None = None
        self._unread: dict[str, Any] | None = None  # rules of the file that no model has asked for yet
        self._fit = RoundFit()
        self._warned = False
        if isinstance(noise, AdaptiveNoise):
            if noise.mask != mask:
                raise errors.ArgumentError("mask", f"{noise.mask!r}, that of the rule", repr(mask))
            self._given = noise
        elif noise is not None:
            check_settings(noise, mask, "raw", "raw")
            self.fixed = noise
        else:
            AdaptiveNoise(Schema([]), {}, mask=mask, bits=bits)  # checks the two
        if bits is not None and noise is not None:
            raise errors.ArgumentError("bits", "none beside a noise", bits)
        if state is not None and self.fixed is not None:
            raise errors.ArgumentError("state", "none beside a fixed noise", str(state))

    @property
    def adaptive(self) -> bool:
        """Whether a rule sets the noise, so that `observe` needs the aggregator of each round."""
        return self.fixed is None

    def coding(self, asked: str | None) -> str:
        """The coding of masks to request: what was asked for, or else the one that suits the noise.

        The masks of a rule are sparse, and "rans12" makes them shorter; those of a fixed noise stay "raw".
        """
        return asked or ("rans12" if self.adaptive else "raw")

    def of(self, schema: Schema, model: Arrays) -> Noise | Mapping[str, Noise]:
        """The noise of the coming round.

        Raises
        ------
        CodecError
            The model does not fit the schema, its weights are not finite, or the file holds no state; or the
            rule that was given has another schema.
        """
        if self.fixed is not None:
            return self.fixed
        digest = schema.digest.hex()
        if digest not in self._rules:
            if self._given is not None and self._given.schema != schema:
                raise errors.SchemaError("schema of the rule", f"that of the model, {schema}", "another")
            new = self._given or AdaptiveNoise(schema, model, mask=self.mask, bits=self.bits)
            self._rules[digest] = self._saved(digest, new) or new
        return self._rules[digest].noise

    def observe(self, aggregator: Aggregator) -> dict[str, float]:
        """Let the rule see the frames of a round; a fixed noise, or a round without frames, changes nothing.

        Returns
        -------
        dict of str to float
            "scale.NAME" of each masked tensor in this round.

        Raises
        ------
        CodecError
            As in `AdaptiveNoise.observe`.
        """
        rule = self._rules.get(aggregator.schema.digest.hex())
        if rule is None or not aggregator.frames:
            return {}
        metrics = {f"scale.{name}": noise.scale for name, noise in rule.noise.items()}
        rule.observe(aggregator)
        if self.state is not None:
            self._save(self.state)
        return metrics

    def _save(self, path: Path) -> None:
        """Write the rules, those of other schemas included. The round goes on where that is not possible."""
        rules = {digest: each.to_json() for digest, each in self._rules.items()}
        try:
            atomic.write(path, json.dumps({**(self._unread or {}), **rules}).encode())
        except OSError as error:
            log.error(
                "the noise rule is not saved in %s, so that no new server continues it: %s", path, error
            )

    def see(self, frame: CheckedFrame, clipped: float | None = None) -> None:
        """Count the mask bits of an accepted frame of this round.

        Parameters
        ----------
        frame : CheckedFrame
        clipped : float, optional
            `Fit.clipped`, as the client reports it.
        """
        self._fit.add(frame, clipped)

    def end_round(self) -> tuple[dict[str, float], str | None]:
        """What the frames that were seen since the last call show of the fit of the noise.

        Returns
        -------
        metrics : dict of str to float
            "density.NAME", the share of set bits, of each tensor with binary masks; and "clipped", the share
            of elements beyond the scale, if clients have reported it.
        warning : str or None
            That the scale is too small or too large, with the number and the remedy; given once. A rule is
            not judged in its first ten rounds, nor if `bits` chose its density.
        """
        fit, self._fit = self._fit, RoundFit()
        rules = self._rules.values()
        judged = all(rule.rounds > FIRST_ROUNDS and rule.bits is None for rule in rules)
        misfit = fit.misfit() if judged and not self._warned else None
        if misfit is None:
            return fit.metrics(), None
        self._warned = True
        remedy = f"{misfit.remedy}, or give no noise, so that a rule sets it"
        if self.adaptive:
            remedy = (
                f"the rule has not come near its target in {FIRST_ROUNDS} rounds; check the learning rate"
            )
        return fit.metrics(), f"{misfit.found}; {remedy}"

    def _saved(self, digest: str, new: AdaptiveNoise) -> AdaptiveNoise | None:
        """The rule of a schema in the file, if there is one; it must have the settings of a new one."""
        if self.state is None:
            return None
        if self._unread is None:
            self._unread = _entries(self.state) if self.state.exists() else {}
        if digest not in self._unread:
            return None
        rule = AdaptiveNoise.from_json(self._unread[digest])
        expected, got = _settings(new), _settings(rule)
        if expected != got:
            raise errors.ArgumentError(f"state in {self.state}", expected, got)
        return rule


def _entries(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_bytes()).items())
    except (ValueError, AttributeError) as error:
        raise errors.ArgumentError(f"state in {path}", "JSON of ServerNoise", repr(error)) from None


def _settings(rule: AdaptiveNoise) -> str:
    return f"{rule.mask} masks over {rule.distribution} noise, bits {rule.bits}"
