import pytest

from fedmrn_codec.conformance.check import Check
from fedmrn_codec.conformance.suite import checks


@pytest.fixture(scope="session")
def vectors() -> list[Check]:
    """Every check but the generated and the large ones, for which the oracle is too slow."""
    return [check for check in checks() if not check.id.startswith(("large/", "many/"))]
