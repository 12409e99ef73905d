"""The differential harness: oracle, library, and the decoders in C and JavaScript on the same bytes."""

import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from fedmrn_codec.conformance import oracle
from fedmrn_codec.conformance.module import ModuleTarget
from fedmrn_codec.conformance.program import CommandTarget
from fedmrn_codec.conformance.reference import Reference
from fedmrn_codec.conformance.request import AddTallies, Aggregate, Decode, Merge, MergeTallies, Request
from fedmrn_codec.conformance.target import Broken, Outcome, Refused, Target, outcome
from fedmrn_codec.conformance.verdict import verdict

from . import seeds
from .codec import Messages, same_form
from .harness import joined
from .message import PARTIAL, TALLY

DECODERS = Path(__file__).resolve().parents[2] / "spec" / "decoders"
MOST = 3000
"""Elements of a tensor that the oracle is asked to decode; it takes some 10 microseconds each."""


class Programs(Messages):
    """Every implementation gives the oracle's verdict: the same code, or the same bytes.

    An accepted frame, partial sum or tally must also be what the oracle writes for its content.

    Parameters
    ----------
    targets : sequence of Target, optional
        Default: the library, and those of the programs in C and JavaScript that can be built and run here.
    """

    name = "programs"

    def __init__(self, targets: Sequence[Target] | None = None) -> None:
        self.reference = Reference()
        self.folder = tempfile.TemporaryDirectory(prefix="fedmrn-fuzz-")
        self.targets = list(targets or ())
        if targets is None:
            self.targets = [ModuleTarget("fedmrn_codec", "numpy"), *programs(Path(self.folder.name))]

        self.pool = ThreadPoolExecutor(len(self.targets))

    def seeds(self) -> Sequence[bytes]:
        return joined(seeds.frames(), seeds.partials(), seeds.tallies(), seeds.finds(self.name))

    def check(self, data: bytes) -> object:
        known = seeds.schema_of(data)
        schema = None if known is None else known.data
        if known is not None and known.elements > MOST:
            return "large"
        if data[:4] in (PARTIAL, TALLY) and schema is None:
            return "unknown schema"
        if data[:4] == PARTIAL:
            return self._ask(Merge(schema=schema, partials=(data,)))
        if data[:4] == TALLY:
            return self._ask_tally(data, schema)
        request = Decode(frame=data, schema=schema, max_elements=MOST)
        found = self._ask(request)
        if isinstance(found, tuple) or schema is None or data[-1] % 8:  # some are summed as well
            return found
        return self._ask(Aggregate(schema=schema, frames=(data, data), weights=(2**38 + 1, 2**37 - data[-1])))

    def _ask_tally(self, data: bytes, schema: bytes) -> object:
        """Ask for what the bytes are in one of the codings; then some are added."""
        coding = ("raw", "rans14")[data[-1] % 2]
        found = self._ask(MergeTallies(schema=schema, tallies=(data,), coding=coding))
        if isinstance(found, tuple) or data[-2] % 4:
            return found
        base_model, round = int.from_bytes(data[16:24], "little"), int.from_bytes(data[24:28], "little")
        return self._ask(AddTallies(schema=schema, tallies=(data, data), base_model=base_model, round=round))

    def _ask(self, request: Request) -> object:
        """Ask all of them; the code of the refusal and its number, or what was accepted."""
        answers = [self.pool.submit(_answer, target, request) for target in self.targets]
        expected = outcome(self.reference, request)
        for target, answer in zip(self.targets, answers, strict=True):
            wrong = verdict(request, expected, answer.result())
            if wrong is not None:
                raise AssertionError(f"{target.name}: {wrong}")
        if isinstance(expected, Refused):
            return expected.code, expected.number
        self._check_form(request)
        return f"{request.op} accepted {_codes(request)}"

    @staticmethod
    def _check_form(request: Request) -> None:
        """Check that accepted bytes are the only ones with their meaning."""
        if isinstance(request, MergeTallies):
            (data,), schema = request.tallies, oracle.parse_schema(request.schema)
            tally = oracle.tally_from_bytes(data, schema)
            same_form(data, oracle.tally_to_bytes(tally), oracle.tally_to_bytes(tally, oracle.RANS14))
            return
        if isinstance(request, Merge):
            (data,), schema = request.partials, oracle.parse_schema(request.schema)
            again = oracle.partial_to_bytes(oracle.partial_from_bytes(data, schema))
        elif isinstance(request, Decode):
            data = request.frame
            known = None if request.schema is None else oracle.parse_schema(request.schema)
            again = oracle.encode(oracle.parse(data, known), embed_schema=bool(data[6] & 1))
        else:
            return
        if again != data:
            raise AssertionError(f"accepted, but its content is written as {again.hex()}")

    def close(self) -> None:
        self.pool.shutdown()
        for target in self.targets:
            target.close()
        self.folder.cleanup()


def _answer(target: Target, request: Request) -> Outcome:
    try:
        return outcome(target, request)
    except Broken as error:
        raise AssertionError(f"{target.name}: {error}") from error


def _codes(request: Request) -> str:
    """The minor version and the length, roughly, of a request's bytes."""
    data = request.frame if isinstance(request, Decode) else b""
    return f"{data[5:7].hex()} {len(data).bit_length()}"


def programs(folder: Path) -> list[Target]:
    """The programs of the line protocol that can be built, in this folder, and run here."""
    found: list[Target] = []
    if shutil.which("cc") and shutil.which("make"):
        shutil.copytree(DECODERS / "c", folder / "c", ignore=shutil.ignore_patterns("conform*[!c]"))
        subprocess.run(["make", "-s", "-C", folder / "c", "conform-sanitized"], check=True)
        found.append(CommandTarget([str(folder / "c" / "conform-sanitized")], 60))
    if shutil.which("node"):
        found.append(CommandTarget(["node", str(DECODERS / "js" / "conform.mjs")], 60))
    return found
