"""The page on differential privacy has what its program computes, and frames have the error that it says."""

from pathlib import Path

import numpy as np
import pytest

import fedmrn_codec as fm

pytest.importorskip("cryptography")
pytest.importorskip("dp_accounting", reason="the extra `privacy` is not installed")

from benchmarks import privacy

PAGE = Path(__file__).resolve().parents[1] / "docs" / "guides" / "differential_privacy.md"


def test_the_page_has_what_the_program_computes(monkeypatch, tmp_path):
    copy = tmp_path / "page.md"
    copy.write_text(PAGE.read_text(encoding="utf-8"), encoding="utf-8")
    monkeypatch.setattr("sys.argv", ["privacy", "--document", str(copy)])
    privacy.main()
    assert copy.read_text(encoding="utf-8") == PAGE.read_text(encoding="utf-8")


@pytest.mark.parametrize(("damping", "norm"), [(0.5, None), (0.1, None), (0.5, 4.0)])
def test_the_error_is_that_of_frames(damping, norm):
    size, clients, scale = 10_000, 20, 0.01
    request = fm.Request(7, fm.Bernoulli(scale), "signed", 1, 0, privacy.schema_of(size))
    share = damping if norm is None else norm / size**0.5
    update = {"w": np.full(size, damping * scale, np.float32)}
    aggregator = request.aggregator()
    for i in range(clients):
        aggregator.add(request.encode(update, damping=damping, norm=norm, private_seed=2**40 + i), 1)
    sent = share * scale
    got = np.square(aggregator.mean()["w"].astype(np.float64) - sent).mean() / sent**2
    assert got == pytest.approx(privacy.error(clients, share**2), rel=0.06)


@pytest.mark.parametrize("wanted", privacy.EPSILONS)
def test_the_norm_is_the_largest_that_is_allowed(wanted):
    norm = privacy.norm_for(wanted, 100, 1000, 3)
    assert privacy.epsilon(100, 1000, 3, privacy.NORM_DAMPING, norm) <= wanted
    assert privacy.epsilon(100, 1000, 3, privacy.NORM_DAMPING, norm + 0.01) > wanted
    most = privacy.NORM_DAMPING * 1000**0.5
    assert privacy.norm_for(1e9, 100, 1000, 3) == most
