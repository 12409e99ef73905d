"""Presets follow the protocol, the command line overrides them, and errors name wrong keys."""

import pytest

from reference_fl import data, models, partition, presets, sweep_runs
from reference_fl.settings import DATASET_DEFAULTS, LEARNING_RATE, ORDINARY, defaults

# Li et al., ACM MM 2024: data set, model, rounds, alpha, labels per client.
PROTOCOL = {
    "fmnist": ("fashion-mnist", "cnn4", 100, "0.3", 3),
    "svhn": ("svhn", "cnn4", 100, "0.3", 3),
    "cifar10": ("cifar10", "cnn8", 200, "0.3", 3),
    "cifar100": ("cifar100", "cnn8", 200, "0.2", 20),
}
METHODS = {
    ("fedavg", None): (0.03, None),
    ("fedmrn", "binary"): (0.06, "adaptive"),
    ("fedmrn", "signed"): (0.03, "adaptive"),
}


@pytest.mark.parametrize("name", PROTOCOL)
@pytest.mark.parametrize("kind", ["iid", "dirichlet", "labels"])
def test_the_protocol(name, kind):
    dataset, model, rounds, alpha, labels = PROTOCOL[name]
    preset = presets.load(f"{name}-{kind}")
    for (method, mask), (learning_rate, noise) in METHODS.items():
        s = presets.settings(preset, method, mask)
        want = {"iid": "iid", "dirichlet": f"dirichlet:{alpha}", "labels": f"labels:{labels}"}[kind]
        assert (s.dataset, s.model, s.rounds, s.partition) == (dataset, model, rounds, want)
        assert (s.clients, s.clients_per_round, s.epochs, s.batch_size) == (100, 10, 10, 64)
        assert (s.method, s.mask, s.learning_rate, s.noise) == (method, mask, learning_rate, noise)


@pytest.mark.parametrize("name", presets.names())
def test_each_preset_can_be_used(name):
    preset = presets.load(name)
    assert preset.about
    assert preset.common["dataset"] in data.names()
    assert preset.common["model"] in models.names()
    kind = preset.common["partition"].partition(":")[0]
    assert kind == "natural" or hasattr(partition, {"labels": "labels_per_client"}.get(kind, kind))
    for method in LEARNING_RATE:
        assert presets.settings(preset, method, None).method == method


@pytest.mark.parametrize("name", presets.names())
def test_methods_that_compress_an_update_have_the_rate_of_fedavg(name):
    preset = presets.load(name)
    rate = presets.settings(preset, "fedavg", None).learning_rate
    for method in ORDINARY:
        assert presets.settings(preset, method, None).learning_rate == rate
    assert presets.settings(preset, "fedmrn", "binary").learning_rate == 2 * rate
    assert presets.settings(preset, "fedmrn", "signed").learning_rate == rate
    assert presets.settings(preset, "fedpm", None).learning_rate == LEARNING_RATE["fedpm"]


def test_presets_and_the_data_sets_defaults_agree():
    for name in presets.names():
        common = presets.load(name).common
        plain = defaults(common["dataset"], "fedavg", None)
        assert plain.batch_size == common["batch_size"]
        if name.startswith(("fmnist", "digits")):
            for mask in ("binary", "signed"):
                own = presets.settings(presets.load(name), "fedmrn", mask).learning_rate
                assert defaults(common["dataset"], "fedmrn", mask).learning_rate == own
        for key, value in DATASET_DEFAULTS[common["dataset"]].items():
            assert common[key] == value, (name, key)
    assert {presets.load(name).common["dataset"] for name in presets.names()} == set(data.names())


def test_given_settings_override_presets():
    preset = presets.load("fmnist-iid")
    s = presets.settings(preset, "fedmrn", None, rounds=3, learning_rate=0.2, noise="gaussian:0.5", seed=4)
    assert (s.rounds, s.learning_rate, s.noise, s.seed, s.mask) == (3, 0.2, "gaussian:0.5", 4, "binary")
    assert s.clients == 100
    s = presets.settings(preset, "topk", None, dataset="digits", rounds=None, options={"fraction": 0.5})
    assert (s.dataset, s.rounds, s.options) == ("digits", 100, {"fraction": 0.5})


def test_a_preset_from_another_file(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'dataset = "digits"\nlearning_rate = 1\n'
        "[methods.topk]\nrounds = 4\noptions = {fraction = 0.5, error_feedback = true}\n"
        '[methods.fedmrn-signed]\nnoise = "uniform:1"\n'
    )
    preset = presets.load(str(path))
    assert preset.name == "mine"
    s = presets.settings(preset, "topk", None, options={"fraction": 0.1})
    assert (s.rounds, s.learning_rate) == (4, 1)
    assert s.options == {"fraction": 0.1, "error_feedback": True}
    assert presets.settings(preset, "fedmrn", "signed").noise == "uniform:1"
    assert presets.settings(preset, "fedmrn", "binary").noise == "adaptive"


@pytest.mark.parametrize(
    ("contents", "message"),
    [
        ("", "key dataset: expected a name, got none"),
        ("dataset = ", "wrong.toml: expected TOML, got Invalid value"),
        (
            'dataset = "digits"\nround = 3',
            "key: expected one of about, dataset, model, .*rounds, .*, got round$",
        ),
        ('dataset = "digits"\nseed = 3', "key: expected one of about, .*, got seed$"),
        ('dataset = "digits"\nrounds = "3"', "key rounds: expected int, got '3'"),
        ('dataset = "digits"\nrounds = 3.0', "key rounds: expected int, got 3.0"),
        ('dataset = "digits"\nepochs = true', "key epochs: expected int, got True"),
        ('dataset = "digits"\nmethods = 1', "key methods: expected dict, got 1"),
        ('dataset = "digits"\n[methods]\nfedavg = 1', "methods.fedavg: expected a table, got 1"),
        (
            'dataset = "digits"\n[methods.fedavg]\nmodel = "x"',
            "methods.fedavg: key: expected one of .*options, got model",
        ),
        (
            'dataset = "digits"\n[methods.telepathy]',
            "methods.telepathy: method: expected one of drive, .*, got 'telepathy'",
        ),
        (
            'dataset = "digits"\n[methods.fedavg-signed]',
            "methods.fedavg-signed: mask: expected none for the method fedavg, got 'signed'",
        ),
    ],
)
def test_wrong_files_are_refused(tmp_path, contents, message):
    path = tmp_path / "wrong.toml"
    path.write_text(contents)
    with pytest.raises(ValueError, match=message) as caught:
        presets.load(str(path))
    assert str(path) in str(caught.value)


def test_unknown_presets():
    with pytest.raises(
        ValueError,
        match=r"preset: expected one of cifar10-dirichlet, .*svhn-labels or a file \*.toml, got 'mnist'",
    ):
        presets.load("mnist")
    with pytest.raises(FileNotFoundError):
        presets.load("nowhere.toml")


# The runs of a sweep.


@pytest.mark.parametrize(
    ("text", "value"),
    [("true", True), ("false", False), ("3", 3), ("-1", -1), ("0.5", 0.5), ("1e-3", 1e-3), ("True", "True")],
)
def test_options_are_typed(text, value):
    found = sweep_runs.pairs([f"name={text}", "other=a=b"])
    assert found == {"name": value, "other": "a=b"}
    assert type(found["name"]) is type(value)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["name"], "option: expected NAME=VALUE, got 'name'"),
        (["=3"], "option: expected NAME=VALUE, got '=3'"),
        (["a=1", "a=2"], "option a: expected one value, got two"),
    ],
)
def test_texts_that_are_not_options(texts, message):
    with pytest.raises(ValueError, match=message):
        sweep_runs.pairs(texts)


def names(*entries, presets=("digits",), seeds=1, **given):
    return [run.name for run in sweep_runs.runs(presets, entries, range(seeds), given)]


def test_runs_and_their_names():
    assert names("fedavg", "fedmrn-signed", presets=("digits", "fmnist-labels"), seeds=2) == [
        "digits-fedavg-seed0",
        "digits-fedmrn-signed-seed0",
        "fmnist-labels-fedavg-seed0",
        "fmnist-labels-fedmrn-signed-seed0",
        "digits-fedavg-seed1",
        "digits-fedmrn-signed-seed1",
        "fmnist-labels-fedavg-seed1",
        "fmnist-labels-fedmrn-signed-seed1",
    ]
    assert names("fedmrn") == names("fedmrn-binary")


def test_a_method_s_own_settings_and_options_show_in_its_name():
    plain, half, tenth, swapped, again = names(
        "topk",
        "topk+fraction=0.5+error_feedback=true",
        "topk+fraction=0.1",
        "topk+learning_rate=0.1",
        "topk+fraction=0.2",
    )
    assert len({plain, half, tenth, swapped, again}) == 5
    assert names("topk+error_feedback=true+fraction=0.5") == [half]
    assert names("topk", options={"fraction": 0.1}) == [tenth]
    (run,) = sweep_runs.runs(
        ["digits"], ["topk+fraction=0.5+learning_rate=0.2"], [7], {"rounds": 3, "epochs": None}
    )
    assert run.settings.options == {"fraction": 0.5}
    assert (run.settings.learning_rate, run.settings.rounds, run.settings.seed) == (0.2, 3, 7)


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        (["telepathy"], "method: expected one of drive, .*, got 'telepathy'"),
        (["fedavg-signed"], "mask: expected none for the method fedavg, got 'signed'"),
        (
            ["fedavg", "fedavg"],
            "names of runs: expected different ones, got digits-fedavg-seed0 more than once",
        ),
        (["topk+colour=1"], "options of topk: expected only .*fraction.*, got colour"),
        (["topk+fraction=true"], "option fraction of topk: expected float, got True"),
        (["topk+fraction"], "option: expected NAME=VALUE, got 'fraction'"),
    ],
)
def test_impossible_runs_are_refused(entries, message):
    with pytest.raises(ValueError, match=message):
        names(*entries)
