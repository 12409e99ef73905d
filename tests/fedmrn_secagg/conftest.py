"""Without the packages of the extra there is nothing to test."""

import pytest

pytest.importorskip("cryptography")
pytest.importorskip("Crypto")
