"""The federation at the server: the model, the rule of the noise, and one exchange after the other."""

from __future__ import annotations

import asyncio
import io
import json
import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import shared  # noqa: F401 - for the next imports
from agreed import Agreed
from bounds import Refused
from exchange import STEPS, Exchange
from store import ModelStore

import fedmrn_codec as fm

log = logging.getLogger("secure_http")

Arrays = dict[str, Any]


@dataclass(frozen=True)
class Plan:
    """How long the federation and its steps last.

    Parameters
    ----------
    rounds : int
        Lost ones included.
    wanted : int, optional
        Clients whose keys are enough for a round to go on before the deadline. Default: all.
    seconds, training : float
        From the start of a step to its deadline, as in `Exchange.play`.
    """

    rounds: int
    wanted: int | None = None
    seconds: float = 30.0
    training: float = 120.0


class Federation:
    """The rounds, and what is on the disk: `rounds.db` for the server itself, `rounds.jsonl` for its owner.

    A server that is killed loses the round that is under way, and begins the one after it when it is started
    again: a round is never repeated, since that would mask two updates with one seed.

    Parameters
    ----------
    folder : Path
        With start.npz, the model of the first round.
    agreed : Agreed
    plan : Plan

    Attributes
    ----------
    exchange : Exchange
        Of the present round.
    over : bool
        Whether the last round has ended.
    """

    def __init__(self, folder: Path, agreed: Agreed, plan: Plan) -> None:
        self._folder, self._agreed, self._plan = folder, agreed, plan
        self._lock = asyncio.Lock()  # of the downlink
        with np.load(folder / "start.npz", allow_pickle=False) as file:
            self._model: Arrays = {name: file[name] for name in file.files}
        self._schema = fm.schema_of(self._model)
        self._rule = fm.AdaptiveNoise(self._schema, self._model)
        self._down = fm.Downlink(self._schema, self._model)
        self._store, number = ModelStore(folder / "rounds.db"), 1
        if (last := self._store.last()) is not None:
            interrupted, _, state, downlink = last
            self._model, self._rule = _unpacked(state)
            self._down = fm.Downlink.from_bytes(downlink, self._schema)
            number = interrupted + (interrupted <= plan.rounds)
        if last is None or number != interrupted:
            self._save(number)
        self._begin(number)

    @property
    def number(self) -> int:
        """The number of the present round; after the last one, one more than that."""
        return self.exchange.request.round

    @property
    def over(self) -> bool:
        """Whether the last round has ended."""
        return self.number > self._plan.rounds

    def exchange_of(self, number: int) -> Exchange:
        """The exchange of a round; Refused if it is not the present one."""
        if number != self.number or self.over:
            raise Refused(409, "round", f"round: expected {self.number}, the present one, got {number}")
        return self.exchange

    async def frame(self, have: int) -> bytes:
        """The frame that leads from the model `have` to that of the present round."""
        async with self._lock:
            return await asyncio.to_thread(self._down.frame, have)

    async def run(self) -> None:
        """Play one round after the other, until the last one has ended."""
        while not self.over:
            begin = asyncio.get_running_loop().time()
            await self.exchange.play(self._plan.seconds, self._plan.training)
            async with self._lock:
                await asyncio.to_thread(self._apply)
                survivors = 0 if self.exchange.lost else len(self.exchange.survivors)
                await asyncio.to_thread(self._save, self.number + 1, survivors)
            self._note(asyncio.get_running_loop().time() - begin)
            self._begin(self.number + 1)
        log.info("the federation has ended after %d rounds", self._plan.rounds)

    def _begin(self, number: int) -> None:
        seed = fm.choose_seed(None, number, 0)  # unpredictable, the same one for all clients
        base_model = self._down.model_id
        request = fm.Request(seed, self._rule.noise, self._rule.mask, number, base_model, self._schema)
        self.exchange = Exchange(request, self._agreed, self._plan.wanted)

    def _apply(self) -> None:
        """Add the mean to the model; in a lost round, everything stays as it is."""
        total = self.exchange.aggregator
        if total is None:
            return
        try:
            following = fm.apply(self._model, total.mean())
            self._down.advance(following)
        except fm.CodecError as error:  # the model has no place on a grid
            self.exchange.lost = f"model: {error}"
            return
        self._rule.observe(total)
        self._model = following

    def _save(self, number: int, survivors: int = 0) -> None:
        """Store what the round of this number begins with; the one before is closed with so many clients."""
        state = _packed(self._model, self._rule)
        self._store.advance(number, 0.0, state, self._down.to_bytes(), survivors, survivors)

    def _note(self, seconds: float) -> None:
        """Say what has become of the round, in the log and in `rounds.jsonl`."""
        done = self.exchange
        about = {
            "round": self.number,
            "survivors": [] if done.lost else sorted(done.survivors),
            "lost": done.lost,
            "dropouts": done.left,
            "refused": done.refused,
            "protocol_up_bytes": {step: done.up[step] for step in STEPS},
            "protocol_down_bytes": {step: done.down[step] for step in STEPS[:-1]},
            "model": str(self._down.model_id),
            "seconds": round(seconds, 3),
        }
        with (self._folder / "rounds.jsonl").open("a+b") as file:
            file.seek(max(file.seek(0, 2) - 1, 0))
            whole = file.read() in (b"", b"\n")  # else a server has stopped in the middle of a line
            file.write(b"" if whole else b"\n")
            file.write(json.dumps(about).encode() + b"\n")
        if done.lost:
            log.warning("round %d is lost, and the model stays as it is: %s", self.number, done.lost)
        else:
            found = f"{len(done.survivors)} of {len(self._agreed.clients)} clients"
            log.info("round %d: the sum of %s; dropouts: %s", self.number, found, done.left or "none")


def _packed(model: Arrays, rule: fm.AdaptiveNoise) -> bytes:
    """Model and rule as the bytes of an archive of NumPy."""
    out = io.BytesIO()
    arrays = {f"model/{name}": array for name, array in model.items()}
    np.savez(out, rule=np.array(json.dumps(rule.to_json())), **arrays)
    return out.getvalue()


def _unpacked(data: bytes) -> tuple[Arrays, fm.AdaptiveNoise]:
    with np.load(io.BytesIO(data), allow_pickle=False) as file:
        rule = fm.AdaptiveNoise.from_json(json.loads(str(file["rule"])))
        names = [name for name in file.files if name != "rule"]
        return {name.removeprefix("model/"): file[name] for name in names}, rule
