"""The process of a harness with atheris: `python -m fuzz.guided_process NAME FOLDER SECONDS SEED`.

It imports the library inside `main`, where atheris instruments what is imported.
"""

import json
import os
import random
import sys
import time
import traceback
from pathlib import Path

WITHOUT = ("numba", "torch", "onnx", "onnxruntime")
"""Packages that are hidden: Numba cannot compile functions that count their branches."""

PACKAGES = ("fedmrn_codec.face", "fedmrn_codec.format", "fedmrn_codec.sums", "fedmrn_codec.primitives")
EVERY = 64
"""Executions between two looks at the clock."""


def main() -> None:
    """Run one harness until its time is up; write executions, findings and new inputs into the folder."""
    name, folder, seconds, seed = sys.argv[1], Path(sys.argv[2]), float(sys.argv[3]), int(sys.argv[4])
    for hidden in WITHOUT:
        sys.modules[hidden] = None  # type: ignore[assignment]  # as if it were not installed
    import atheris

    with atheris.instrument_imports(include=list(PACKAGES), enable_loader_override=False):
        from .harness import place_of
        from .run import HARNESSES

    harness, begin = HARNESSES[name](), time.monotonic()
    executions, places = 0, dict[str, tuple[str, str]]()
    pool = list(harness.seeds())

    def write() -> None:
        about = {"executions": executions, "findings": list(places.values())}
        (folder / "state.json").write_text(json.dumps(about))

    def test(data: bytes) -> None:
        nonlocal executions
        executions += 1
        try:
            harness.check(data)
        except Exception as error:
            text = "".join(traceback.format_exception(error))
            places.setdefault(place_of(error), (data.hex(), text))
        if executions % EVERY == 0 and time.monotonic() - begin > seconds:
            write()
            harness.close()
            os._exit(0)  # libFuzzer has no other end

    def change(data: bytes, most: int, number: int) -> bytes:
        rng = random.Random(number)
        return harness.change(rng, [data, data, rng.choice(pool)])[:most]

    grown, first = folder / "grown", folder / "seeds"
    for path in (grown, first):
        path.mkdir(exist_ok=True)
    for number, data in enumerate(pool):
        (first / f"{number:05}").write_bytes(data)
    write()
    options = ["-max_len=8192", f"-seed={seed + 1}", "-timeout=60", "-rss_limit_mb=4096"]
    atheris.Setup(["fuzz", *options, str(grown), str(first)], test, custom_mutator=change)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
