"""The properties that the methods' papers state, tested on vectors."""

import math

import numpy as np
import pytest
import torch

import fedmrn_codec as fm
from reference_fl import methods
from reference_fl.messages import Part
from reference_fl.methods import fedbat, fedpm, fedsparsify
from reference_fl.methods.rotation import chunk_lengths, hadamard, rotate, rotate_back
from reference_fl.methods.terngrad import clip
from reference_fl.methods.topk import largest
from reference_fl.settings import defaults


def built(name, mask=None, **options):
    return methods.build(defaults("digits", name, mask, options=options))


def task(number):
    return methods.Task(None, None, 1, 1, 1000 + number, 5000 + number, 0, client=3)


def decoded(method, vector, number):
    """A vector after encoding by a client and decoding by the server."""
    its = task(number)
    if hasattr(method, "pack"):
        return method.unpack(Part(memoryview(method.pack(vector, 2, its)), 0), len(vector), 2, its.seed)
    schema = fm.Schema([fm.Tensor("w", vector.shape, masked=True)])
    if hasattr(method, "message"):
        return fm.decode(method.message({"w": vector}, schema, its), schema)["w"]
    given = {"noise": method.noise, "mask": method.settings.mask, "private_seed": its.private_seed}
    return fm.decode(fm.encode({"w": vector}, schema, seed=its.seed, **given), schema)["w"]


def heavy_tailed(size, seed=0):
    """An update-like vector: not normal, not centred, and small."""
    rng = np.random.default_rng(seed)
    return (1e-3 * (rng.normal(size=size) ** 3 + 0.5)).astype(np.float32)


def normalised_error(x, y):
    x, y = x.astype(np.float64), y.astype(np.float64)
    return ((x - y) ** 2).sum() / (x**2).sum()


def assert_unbiased(samples, expected, tolerance=0.2):
    """The error of the mean of the samples is that of its own variance, and its length is correct.

    Both over all elements together: single ones may be sampled too rarely to tell.
    """
    samples = np.asarray(samples, np.float64)
    expected = np.broadcast_to(expected, samples.shape).astype(np.float64)
    off = (samples - expected).mean(axis=0)
    variance = (samples - expected).var(axis=0, ddof=1) / len(samples)
    assert (off**2).sum() / variance.sum() == pytest.approx(1, abs=tolerance)
    along = (samples * expected).sum(axis=1)
    error = (along - (expected**2).sum(axis=1)).std(ddof=1) / math.sqrt(len(samples))
    length = (expected**2).sum(axis=1).mean()
    assert abs(along.mean() - length) <= 4 * error + 1e-6 * length


def trials(method, vector, count=400):
    """The same vector, encoded and decoded with different seeds."""
    return np.stack([decoded(method, vector, number) for number in range(count)])


# --- rotation ----------------------------------------------------------------------------------------


def test_chunks_are_powers_of_two_and_need_no_padding():
    assert chunk_lengths(389_920) == [262144, 65536, 32768, 16384, 8192, 4096, 512, 256, 32]
    assert sum(chunk_lengths(389_920)) == 389_920
    assert chunk_lengths(1) == [1]


@pytest.mark.parametrize("bits", range(8))
def test_hadamard_is_the_sylvester_matrix(bits):
    matrix = np.ones((1, 1))
    for _ in range(bits):
        matrix = np.block([[matrix, matrix], [matrix, -matrix]])
    x = np.random.default_rng(bits).normal(size=1 << bits).astype(np.float32)
    np.testing.assert_allclose(hadamard(x), matrix @ x / math.sqrt(1 << bits), atol=1e-5)


def test_a_rotation_keeps_the_norm_and_turns_back():
    x = heavy_tailed(3001)
    turned = rotate(x, 7, 1)
    assert np.linalg.norm(turned) == pytest.approx(np.linalg.norm(x), rel=1e-5)
    np.testing.assert_allclose(rotate_back(turned, 7, 1), x, atol=1e-7)
    assert not np.allclose(rotate(x, 8, 1), turned)
    assert not np.allclose(rotate(x, 7, 2), turned)


# --- unbiased estimators, and their squared errors ---------------------------------------------------


@pytest.mark.parametrize("name", ["drive", "eden"])
def test_error_of_one_bit_is_half_pi_minus_one(name):
    """pi/2 - 1 = 0.571 for a long vector (EDEN, theorem 2.1 and table 1 at one bit); here within 0.005."""
    x = heavy_tailed(2**18 + 2**12 + 5)
    method = built(name)
    assert normalised_error(x, decoded(method, x, 0)) == pytest.approx(math.pi / 2 - 1, abs=0.005)


def test_error_of_drive_s_least_squares_scale():
    """1 - 2/pi = 0.363 (DRIVE), within 0.005, and biased: the decoded vector is too short."""
    x = heavy_tailed(2**18)
    y = decoded(built("drive", scale="least-squares"), x, 0)
    assert normalised_error(x, y) == pytest.approx(1 - 2 / math.pi, abs=0.005)
    assert float(x @ y) / float(x @ x) == pytest.approx(2 / math.pi, abs=0.01)


def test_the_check_of_bias_can_fail():
    x = heavy_tailed(1024 + 256)
    with pytest.raises(AssertionError):
        assert_unbiased(trials(built("drive", scale="least-squares"), x), x)
    with pytest.raises(AssertionError):
        assert_unbiased(0.97 * trials(built("eden"), x), x)


@pytest.mark.parametrize("name", ["drive", "eden"])
def test_drive_and_eden_are_unbiased(name):
    """Also, the projection of each decoded vector on the true one has the true length."""
    x = heavy_tailed(4096 + 1024)
    samples = trials(built(name), x, 250)
    assert_unbiased(samples, x)
    np.testing.assert_allclose(samples @ x / (x @ x), 1, rtol=1e-5)


def test_the_error_of_a_mean_falls_with_the_clients():
    """As the estimators are unbiased, ten clients have a tenth of the error, within 10 %."""
    x = heavy_tailed(2**14)
    method = built("eden")
    mean = np.mean([decoded(method, x, i) for i in range(10)], axis=0)
    assert normalised_error(x, mean) == pytest.approx((math.pi / 2 - 1) / 10, rel=0.1)


def test_zero_and_single_elements():
    for name in ("drive", "eden"):
        assert not decoded(built(name), np.zeros(37, np.float32), 0).any()
        assert decoded(built(name), np.float32([-0.25]), 0) == pytest.approx([-0.25])


def test_terngrad_is_unbiased_and_of_three_values():
    x = heavy_tailed(600)
    method = built("terngrad", clip=0.0)
    samples = trials(method, x)
    assert_unbiased(samples, x)
    s = np.abs(x).max()
    assert set(np.unique(samples)) == {-s, np.float32(0), s}


def test_terngrad_clips_at_the_paper_s_bound():
    x = heavy_tailed(600)
    bound = np.float32(2.5 * x.std(dtype=np.float64))
    assert np.abs(clip(x, 2.5)).max() == bound < np.abs(x).max()
    assert_unbiased(trials(built("terngrad"), x), np.clip(x, -bound, bound))
    assert not decoded(built("terngrad"), np.zeros(7, np.float32), 0).any()


@pytest.mark.parametrize(("mask", "low"), [("binary", 0.0), ("signed", -1.0)])
def test_post_training_masks_are_unbiased_for_the_clipped_update(mask, low):
    """Each client has its own noise: the expectation of one sample is n * clip(x / n, low, 1)."""
    method = built("postmask", mask)
    x = heavy_tailed(512) * np.float32(3)
    noise = np.stack([fm.noise(method.noise, seed=task(i).seed, count=len(x)) for i in range(400)])
    assert (np.abs(x / noise) > 1).any()
    assert_unbiased(trials(method, x), noise * np.clip(x / noise, low, 1))


def test_signsgd_sends_signs_times_the_mean_magnitude():
    x = heavy_tailed(700)
    y = decoded(built("signsgd"), x, 0)
    np.testing.assert_array_equal(y > 0, x >= 0)
    np.testing.assert_allclose(np.abs(y), np.abs(x.astype(np.float64)).mean(), rtol=1e-6)
    least = [normalised_error(x, y * np.float32(f)) for f in (0.9, 1.0, 1.1)]
    assert least[1] == min(least)


def test_uniform_noise_makes_signs_unbiased():
    """This holds exactly where no element is outside the range of the noise."""
    x = heavy_tailed(500)
    reach = 1.01 * np.abs(x).max() / math.sqrt((x.astype(np.float64) ** 2).mean())
    assert_unbiased(trials(built("signsgd", noise="uniform", sigma=float(reach)), x), x)


def test_gaussian_noise_makes_signs_unbiased_to_first_order():
    """E sign(x + s z) = erf(x / (s sqrt 2)): the bias of eta * s times that falls as 1 / sigma^2."""
    x = heavy_tailed(500)
    assert_unbiased(trials(built("signsgd", noise="gaussian", sigma=30.0), x), x)
    s = 30.0 * math.sqrt((x.astype(np.float64) ** 2).mean())
    mean = math.sqrt(math.pi / 2) * s * np.array([math.erf(v / (s * math.sqrt(2))) for v in x])
    assert np.abs(mean - x).max() < 0.1 * np.abs(x).max()


# --- top-k -------------------------------------------------------------------------------------------


def test_topk_keeps_the_largest_exactly():
    x = heavy_tailed(1000)
    y = decoded(built("topk", fraction=0.05), x, 0)
    kept = np.argsort(-np.abs(x))[:50]
    assert (y != 0).sum() == 50
    assert y[kept].tobytes() == x[kept].tobytes()
    assert largest(x[:3], 0.001).sum() == 1


def test_topk_s_default_costs_about_one_bit():
    x = heavy_tailed(389_920)
    bits = 8 * len(built("topk").pack(x, 0, task(0))) / len(x)
    assert 0.95 < bits < 1.0


def test_error_feedback_loses_nothing():
    """In every round, the sent values plus the leftovers are the input, bit by bit."""
    method = built("topk", error_feedback=True, fraction=0.1)
    total, sent, left = np.zeros(200), np.zeros(200), {}
    for number in range(5):
        x = heavy_tailed(200, number)
        corrected, left = method.feed_back({"w": x, "bn": x[:2]}, left, ["w"])
        out = decoded(method, corrected["w"], number)
        assert (out + left["w"]).tobytes() == corrected["w"].tobytes()
        assert not ((out != 0) & (left["w"] != 0)).any()
        assert corrected["bn"].tobytes() == x[:2].tobytes()
        total += x
        sent += out
    np.testing.assert_allclose(sent + left["w"], total, atol=1e-8)
    assert method.feed_back({"w": x}, {}, ["w"])[0]["w"].tobytes() == x.tobytes()


# --- FedSparsify -------------------------------------------------------------------------------------


def test_sparsity_rises_to_its_end_and_stays():
    method = built("fedsparsify")
    levels = [method.sparsity(t) for t in (0, 1, 50, 100, 150)]
    assert levels[0] == 0
    assert levels[2] == pytest.approx(0.9 * (1 - 0.5**3))
    assert levels[3] == levels[4] == 0.9
    assert levels == sorted(levels)


def test_one_threshold_prunes_all_tensors():
    weights = {"a": heavy_tailed(300), "b": 10 * heavy_tailed(200, 1).reshape(10, 20)}
    left = fedsparsify.pruned(weights, 0.9)
    assert sum((w != 0).sum() for w in left.values()) == 50
    magnitudes = np.abs(np.concatenate([w.reshape(-1) for w in weights.values()]))
    threshold = np.sort(magnitudes)[-50]
    for name, weight in weights.items():
        np.testing.assert_array_equal(left[name], np.where(np.abs(weight) >= threshold, weight, 0))


def test_half_of_the_clients_decide_what_stays():
    schema = fm.Schema([fm.Tensor("w", (3,), masked=True)])
    models = [np.float32(w) for w in ([1, 0, 3], [3, 2, 0], [2, 0, 0], [2, 0, 5])]
    for vote, want in ((True, [2, 0, 2]), (False, [2, 0.5, 2])):
        method = built("fedsparsify", vote=vote)
        server = method.server(schema, 1, 1)
        for number, weights in enumerate(models):
            server.add(method.message({"w": weights}, schema, task(number)), 1)
        assert server.mean()["w"].tolist() == want


# --- FedBAT ------------------------------------------------------------------------------------------


def test_fedbat_s_sample_is_unbiased_within_the_scale():
    u, scale = torch.linspace(-1.5, 1.5, 31), torch.tensor(1.0)
    draws = torch.rand((20_000, 31), generator=torch.Generator().manual_seed(0))
    samples = fedbat.Binarised.apply(u.expand(20_000, -1), scale, draws)
    assert set(samples.unique().tolist()) == {-1.0, 1.0}
    np.testing.assert_allclose(samples.mean(0), u.clamp(-1, 1), atol=5 / math.sqrt(20_000))


def test_fedbat_s_gradients_are_the_paper_s():
    u = torch.tensor([-2.0, -0.5, 0.5, 3.0], requires_grad=True)
    scale = torch.tensor(1.0, requires_grad=True)
    draws = torch.tensor([0.5, 0.9, 0.1, 0.5])  # gives the signs -, -, +, +
    out = fedbat.Binarised.apply(u, scale, draws)
    assert out.tolist() == [-1, -1, 1, 1]
    weight = torch.tensor([1.0, 10.0, 100.0, 1000.0])
    (out * weight).sum().backward()
    assert u.grad.tolist() == [0, 10, 100, 0]
    assert scale.grad.item() == pytest.approx(-1 + 10 * (-1 + 0.5) + 100 * (1 - 0.5) + 1000)


def test_fedbat_s_scale_starts_at_the_mean_magnitude():
    layer = fedbat.Layer(torch.zeros(4), fedbat.FedBAT.OPTIONS, torch.Generator().manual_seed(0))
    with torch.no_grad():
        layer.u.copy_(torch.tensor([0.01, -0.02, 0.03, 0.0]))
    assert layer.weight().tolist() == layer.u.tolist()
    layer.binarise()
    assert layer.scale().item() == pytest.approx(0.015)
    assert set(layer.weight().abs().tolist()) == {layer.scale().item()}
    with torch.no_grad():
        layer.alpha.fill_(10.0)
    assert layer.scale().item() == pytest.approx(0.05)


# --- FedPM -------------------------------------------------------------------------------------------

MASKS = fm.Schema([fm.Tensor("w", (4, 2), masked=True), fm.Tensor("bn", (2,))])


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.w = torch.nn.Parameter(torch.zeros(4, 2))
        self.bn = torch.nn.Parameter(torch.zeros(2))


def mask_frame(method, bits, **changed):
    given = {"seed": method.seed, "noise": fedpm.noises(MASKS), "mask": "binary", "round": 1, "base_model": 1}
    dense = {"bn": np.float32([1, 2])}
    masks = {"w": np.array(bits, bool).reshape(4, 2)}
    return fm.encode_bits(masks, MASKS, dense=dense, **{**given, **changed})


def test_fedpm_s_message_decodes_to_the_sparse_network():
    method = built("fedpm")
    bits = np.arange(8) % 3 == 0
    arrays = fm.decode(mask_frame(method, bits), MASKS)
    frozen = method.frozen(MASKS)["w"].numpy()
    assert set(np.abs(frozen).reshape(-1)) == {np.float32(math.sqrt(2 / 2))}
    np.testing.assert_array_equal(arrays["w"], frozen * bits.reshape(4, 2))


@pytest.mark.parametrize(("aggregate", "share"), [("bayes", 0.5), ("mean", 0.75)])
def test_fedpm_s_probabilities_are_shares_of_masks(aggregate, share):
    """Clients have equal weights, or weights by samples; a mask element counts as 0.01 or 0.99."""
    method, model = built("fedpm", aggregate=aggregate), Net()
    server = method.server(MASKS, 1, 1)
    server.add(mask_frame(method, [1] * 8), 3, seed=123)
    server.add(mask_frame(method, [0] * 4 + [1] * 4), 1, seed=456)
    method.apply_(model, server.mean(), 1)
    theta = torch.sigmoid(model.w.detach()).reshape(-1)
    np.testing.assert_allclose(theta[:4], 0.01 + 0.98 * share, rtol=1e-5)
    np.testing.assert_allclose(theta[4:], 0.99, rtol=1e-5)
    assert model.bn.tolist() == [1, 2]


def test_fedpm_keeps_counts_until_they_are_reset():
    method, model = built("fedpm", reset_every=2), Net()
    shares = []
    for number, ones in enumerate([8, 0, 8], 1):
        server = method.server(MASKS, 1, 1)
        server.add(mask_frame(method, [1] * ones + [0] * (8 - ones)), 1)
        method.apply_(model, server.mean(), number)
        shares.append(torch.sigmoid(model.w[0, 0]).item())
    assert shares == pytest.approx([0.99, 0.5, 0.99])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"seed": 1}, "seed, byte [0-9]+: expected [0-9]+, got 1"),
        ({"mask": "signed"}, r"mask of 'w': expected binary, Bernoulli\(.*\), got signed, Bernoulli"),
        (
            {"noise": fm.Bernoulli(0.5)},
            r"mask of 'w': expected binary, .*, got binary, Bernoulli\(scale=0.5\)",
        ),
        ({"noise": fm.Uniform(1.0)}, r"mask of 'w': expected binary, Bernoulli.*, got binary, Uniform"),
    ],
)
def test_fedpm_refuses_other_weights_than_its_own(changed, words):
    method = built("fedpm")
    server = method.server(MASKS, 1, 1)
    with pytest.raises(fm.FrameError, match=words):
        server.add(mask_frame(method, [1] * 8, **changed), 1)


def test_fedpm_evaluates_a_network_of_frozen_weights():
    method, model = built("fedpm"), Net()
    with torch.no_grad():
        model.w.copy_(torch.tensor([[-20.0, 20.0]] * 4))
    network = method.evaluated(model, 1)
    frozen = method.frozen(method.schema(model))["w"]
    assert torch.equal(network.w[:, 1], frozen[:, 1])
    assert not network.w[:, 0].any()
    assert model.w[0, 0] == -20
    scores = torch.zeros(20_000)
    assert fedpm.sample(scores, torch.Generator().manual_seed(0)).mean() == pytest.approx(0.5, abs=0.02)


def test_fedpm_s_gradient_goes_through_the_sample():
    scores = torch.tensor([0.0, 2.0], requires_grad=True)
    fedpm.sample(scores, torch.Generator().manual_seed(0)).sum().backward()
    theta = torch.sigmoid(scores.detach())
    np.testing.assert_allclose(scores.grad, theta * (1 - theta), rtol=1e-6)
