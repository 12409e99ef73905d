import importlib.util
from pathlib import Path

import pytest

from fedmrn_codec.conformance.check import Check
from fedmrn_codec.conformance.suite import checks


@pytest.fixture(scope="session")
def vectors() -> list[Check]:
    """Every check but the generated and the large ones, for which the oracle is too slow."""
    return [check for check in checks() if not check.id.startswith(("large/", "many/"))]


@pytest.fixture(scope="session")
def spec_program():
    """Loads a program of the folder `spec` as a module, by its name."""

    def load(name):
        path = Path(__file__).resolve().parents[2] / "spec" / f"{name}.py"
        found = importlib.util.spec_from_file_location(name, path)
        module = importlib.util.module_from_spec(found)
        found.loader.exec_module(module)
        return module

    return load
