"""Make the frame inspector, a page without any other file, from spec/inspector/ and the JavaScript decoder.

python spec/make_inspector.py              # check that the page is what this would write
python spec/make_inspector.py --write      # write it
"""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from pathlib import Path
from string import Template

SPEC = Path(__file__).resolve().parent
SOURCE = SPEC / "inspector"
DECODER = SPEC / "decoders" / "js" / "fedmrn.mjs"
PAGE = SPEC.parent / "fedmrn_codec" / "cli" / "inspector.html"

EXPORT = re.compile(r"^export (?=(?:class|const|function\*?) (\w+))", re.M)
IMPORT = re.compile(r"^import \{([^}]*)\} from '[./\w-]*?(\w+)\.mjs';\n", re.M)
CHECK = re.compile(r"\| \[([A-Z]-\d\d)\] \| (.*?) \| `(\w+)` \| (\w+) \|")
GROUP = re.compile(r"\| +\| \*(.*)\* \| +\| +\|")
FURTHER = re.compile(r"^- \[(A-07)\] (.*(?:\n  .*)*)", re.M)


def checks() -> dict[str, object]:
    """The checks of FORMAT.md: groups of frames, sums, tallies and schemas, and further requirements."""
    lines = (SPEC / "FORMAT.md").read_text(encoding="utf-8")
    groups: list[dict[str, object]] = []
    sums: list[dict[str, str]] = []
    tallies: list[dict[str, str]] = []
    for line in lines.splitlines():
        if match := GROUP.fullmatch(line):
            groups.append({"name": match[1], "checks": []})
        elif match := CHECK.fullmatch(line):
            check = {"number": match[1], "text": match[2].replace("`", "")}
            of_their_own = {"P": sums, "T": tallies}
            of_their_own.get(match[1][0], groups[-1]["checks"]).append(check)  # type: ignore[attr-defined]
    of_frame = [c for g in groups for c in g["checks"]]  # type: ignore[attr-defined]
    of_schema = [c for c in of_frame if "S-01" <= c["number"] <= "S-06"]
    of_coding_5 = [c for c in of_frame if "C-10" <= c["number"] <= "C-14"]
    at = [c["number"] for c in tallies].index("T-19")
    counts = [tallies[at], *of_coding_5, *tallies[at + 1 :]]  # in the order of 8.6
    other = {number: " ".join(text.replace("`", "").split()) for number, text in FURTHER.findall(lines)}
    return {
        "frame": groups,
        "sum": [{"name": "partial sum", "checks": sums}],
        "tally": [{"name": "tally", "checks": tallies[:at]}, {"name": "counts and limbs", "checks": counts}],
        "schema": [{"name": "schema", "checks": of_schema}],
        "other": other,
    }


def wrapped(name: str, text: str) -> str:
    """A module as a function that is called at once; what it imports are the results of those before it."""
    names = EXPORT.findall(text)
    body = IMPORT.sub(lambda m: f"const {{{m[1]}}} = {m[2]}_module;\n", EXPORT.sub("", text))
    if re.search(r"^(?:import|export)\b", body, re.M):
        raise ValueError(f"{name}.mjs: expected imports and exports by name alone, got others")
    return f"const {name}_module = (() => {{\n{body}\nreturn {{ {', '.join(names)} }};\n}})();\n"


def modules() -> dict[str, str]:
    """The text of each module by its name, each after those that it imports."""
    texts = {"fedmrn": DECODER.read_text(encoding="utf-8")}
    texts["checks"] = f"export const CHECKS = {json.dumps(checks(), ensure_ascii=False, indent=1)};\n"
    left = {path.stem: path.read_text(encoding="utf-8") for path in sorted(SOURCE.glob("*.mjs"))}
    while left:
        ready = [n for n, text in left.items() if {m[2] for m in IMPORT.finditer(text)} <= set(texts)]
        if not ready:
            raise ValueError(f"modules: expected no circle of imports, got one among {sorted(left)}")
        texts |= {name: left.pop(name) for name in ready}
    return texts


def hashed(text: str) -> str:
    """The source expression of a content security policy that allows this text alone."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def page() -> str:
    """The text of the page."""
    program = "'use strict';\n" + "".join(wrapped(name, text) for name, text in modules().items())
    style = (SOURCE / "page.css").read_text(encoding="utf-8")
    if "</" in style or re.search(r"<!--|</?script", program, re.I):
        raise ValueError("style and program: expected no markup that HTML would read, got some")
    policy = (
        f"default-src 'none'; script-src {hashed(program)}; style-src {hashed(style)}; worker-src blob:; "
        "img-src data:; base-uri 'none'; form-action 'none'"
    )
    template = Template((SOURCE / "page.html").read_text(encoding="utf-8"))
    return template.substitute(POLICY=policy, STYLE=style, PROGRAM=program)


def main() -> None:
    """Write the page with --write; in any case check it."""
    if "--write" in sys.argv:
        PAGE.write_text(page(), encoding="utf-8")
    if not PAGE.is_file() or PAGE.read_text(encoding="utf-8") != page():
        sys.exit("fedmrn_codec/cli/inspector.html is not what spec/make_inspector.py writes")


if __name__ == "__main__":
    main()
