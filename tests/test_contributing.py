"""The files for contributors: workflows, forms, hooks, container and citation name what exists here."""

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

yaml = pytest.importorskip("yaml", reason="PyYAML is not installed")

ROOT = Path(__file__).resolve().parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PYTHONS = [c.rpartition(" ")[2] for c in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d", c)]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted(p for p in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if p.stem != "config")
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z][a-z-]*):.*## ", MAKEFILE, re.M))


def read(path):
    return yaml.safe_load((ROOT / path).read_text(encoding="utf-8"))


def triggers(workflow):
    return workflow[True]  # YAML 1.1 reads the key `on` as a truth value


def steps(workflow):
    return [step for job in workflow["jobs"].values() for step in job["steps"]]


def made(text):
    """The targets that a text asks make for."""
    calls = re.findall(r"\bmake((?: [a-z][a-z-]*)+)", text)
    return [target for call in calls for target in call.split()]


def test_the_files_are_there():
    assert [path.stem for path in WORKFLOWS] == ["ci", "release"]
    assert [path.stem for path in FORMS] == ["bug", "feature", "format"]
    assert PYTHONS == ["3.11", "3.12", "3.13"]
    assert PROJECT["requires-python"] == f">={PYTHONS[0]}"


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_have_their_structure(path):
    workflow = read(path)
    assert set(workflow) <= {"name", True, "permissions", "concurrency", "jobs"}
    assert workflow["permissions"] == {"contents": "read"}
    for name, job in workflow["jobs"].items():
        assert {"runs-on", "timeout-minutes", "steps"} <= set(job), name
        assert set(job.get("needs", ())) <= set(workflow["jobs"])
        assert all(("run" in step) != ("uses" in step) for step in job["steps"]), name
    uses = [step["uses"] for step in steps(workflow) if "uses" in step]
    assert uses
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@[\w./-]+", each) for each in uses)


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_run_what_exists(path):
    runs = [step["run"] for step in steps(read(path)) if "run" in step]
    words = [word for run in runs for word in run.split()]
    named = [word for word in words if re.match(r"(\.ci|tests|spec)/", word)]
    assert named
    assert [word for word in named if not (ROOT / word).exists()] == []
    assert set(made("\n".join(runs))) <= TARGETS
    assert (ROOT / ".ci" / "run").stat().st_mode & 0o100
    groups = [group for run in runs for group in re.findall(r"'\.\[(.*?)\]'", run)]
    extras = {extra for group in groups for extra in group.split(",")}
    assert extras <= set(PROJECT["optional-dependencies"])


def test_the_matrix_has_every_python_and_three_systems():
    jobs = read(".github/workflows/ci.yml")["jobs"]
    for name in ("linux", "systems"):
        assert jobs[name]["strategy"]["matrix"]["python"] == PYTHONS
        assert jobs[name]["strategy"]["fail-fast"] is False
    assert jobs["linux"]["runs-on"] == "ubuntu-latest"
    assert [step["run"] for step in jobs["linux"]["steps"] if "run" in step] == [".ci/run"]
    assert jobs["systems"]["strategy"]["matrix"]["system"] == ["macos-latest", "windows-latest"]


def test_a_release_is_tested_built_and_published_for_a_tag_alone():
    workflow = read(".github/workflows/release.yml")
    assert triggers(workflow) == {"push": {"tags": ["v*"]}}
    jobs = workflow["jobs"]
    assert jobs["publish"]["needs"] == ["test", "build"]
    assert jobs["publish"]["permissions"] == {"id-token": "write"}
    assert [name for name, job in jobs.items() if "id-token" in job.get("permissions", ())] == ["publish"]
    assert any("make dist" in step.get("run", "") for step in jobs["build"]["steps"])
    assert "secrets." not in (ROOT / ".github/workflows/release.yml").read_text()


@pytest.mark.parametrize(
    ("tag", "code"),
    [(f"v{PROJECT['version']}", 0), (PROJECT["version"], 1), (f"v{PROJECT['version']}.1", 1), (None, 1)],
)
def test_the_tag_is_the_version(tag, code):
    command = [sys.executable, str(ROOT / ".ci" / "check_tag.py"), *([tag] if tag else [])]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == code
    assert ("expected v" in done.stderr) == bool(code)


@pytest.mark.parametrize("path", FORMS, ids=lambda path: path.stem)
def test_issue_forms_have_their_structure(path):
    form = read(path)
    assert set(form) == {"name", "description", "labels", "body"}
    kinds = {"markdown": {"value"}, "textarea": {"label"}, "input": {"label"}}
    for part in form["body"]:
        assert kinds[part["type"]] <= set(part["attributes"])
        assert set(part) <= {"type", "id", "attributes", "validations"}
    ids = [part["id"] for part in form["body"] if part["type"] != "markdown"]
    assert len(ids) == len(set(ids)) > 1
    assert any(part.get("validations", {}).get("required") for part in form["body"])


def test_the_hooks_are_the_checks_of_make_test():
    (local,) = read(".pre-commit-config.yaml")["repos"]
    assert local["repo"] == "local"
    entries = {hook["id"]: hook["entry"] for hook in local["hooks"]}
    assert all(hook["language"] == "system" and hook["name"] for hook in local["hooks"])
    recipe = re.search(r"^test:.*\n((?:\t.*\n)+)", MAKEFILE, re.M)[1]
    checks = re.findall(r"\$\(BIN\)/((?:ruff|lint-imports|mypy)\b.*)", recipe)
    assert len(checks) == 4
    got = [entry.removeprefix(".venv/bin/").replace(" --force-exclude", "") for entry in entries.values()]
    assert got[:4] == checks
    assert got[4].split()[0] == "python"
    assert (ROOT / got[4].split()[1]).is_file()
    (pattern,) = (re.compile(hook["files"]) for hook in local["hooks"] if "files" in hook)
    assert pattern.search("spec/vectors/frames.json")
    assert pattern.search("fedmrn_codec/conformance/oracle/frame.py")
    assert not pattern.search("README.md")


def test_texts_for_contributors_name_what_exists():
    texts = [ROOT / "CONTRIBUTING.md", ROOT / ".github" / "pull_request_template.md", *FORMS]
    text = "\n".join(path.read_text(encoding="utf-8") for path in texts)
    commands = "\n".join(re.findall(r"`make [^`]+`|^make [^#\n]+", text, re.M))
    assert set(made(commands)) <= TARGETS
    assert {"demo", "test", "setup", "tools", "conformance", "fuzz", "docs", "dist"} <= set(made(commands))
    paths = set(re.findall(r"(?<![\w/])((?:spec|docs|tests|fedmrn_codec|\.devcontainer)/[\w./-]*)", text))
    paths |= set(re.findall(r"(?<![\w/])[A-Z]+\.md\b", text))
    assert len(paths) > 10
    assert sorted(path for path in paths if not (ROOT / path.rstrip(".")).exists()) == []
    assert "CONTRIBUTING.md" in (ROOT / "README.md").read_text()


def test_the_container_makes_the_environment():
    container = json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())
    assert container["image"].partition(":")[2].startswith(f"1-{PYTHONS[0]}-")
    assert made(container["postCreateCommand"]) == ["setup", "tools"]
    assert {"setup", "tools"} <= TARGETS
    settings = container["customizations"]["vscode"]["settings"]
    assert settings["python.defaultInterpreterPath"].endswith("/.venv/bin/python")


def test_the_citation_has_the_keys_of_the_citation_file_format():
    """The required keys of version 1.2.0, the project's version and licence, and the paper."""
    citation = read("CITATION.cff")
    assert {"cff-version", "message", "title", "authors"} <= set(citation)
    assert citation["cff-version"] == "1.2.0"
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])
    assert citation["title"] == PROJECT["name"]
    assert citation["type"] == "software"
    (paper,) = citation["references"]
    assert {"type", "title", "authors"} <= set(paper)
    assert paper["type"] == "conference-paper"
    assert [a["family-names"] for a in paper["authors"]][:2] == ["Li", "Cheng"]
    assert all(set(author) == {"family-names", "given-names"} for author in paper["authors"])
    assert "2408.03220" in paper["url"]
    assert paper["year"] == 2024


def test_files_are_checked_out_as_they_are():
    lines = (ROOT / ".gitattributes").read_text().splitlines()
    assert [line for line in lines if not line.startswith("#")] == ["* -text"]
