"""Synthetic metrics files for the tests of the report."""

import json

SETTINGS = {
    "dataset": "digits",
    "model": "cnn2",
    "method": "fedavg",
    "mask": None,
    "noise": None,
    "partition": "iid",
    "clients": 10,
    "clients_per_round": 5,
    "epochs": 5,
    "batch_size": 16,
    "learning_rate": 0.03,
    "rounds": 4,
    "seed": 0,
    "threads": 1,
    "options": {},
}
BINARY = {"method": "fedmrn", "mask": "binary", "noise": "uniform:0.01", "learning_rate": 0.1}
MACHINE = {"processor": "P", "cores": 2, "python": "3.11", "torch": "2", "fedmrn_codec": "0"}
ACCURACIES = (0.5, 0.7, 0.9, 0.8)


def header(machine=MACHINE, **given):
    return {"settings": {**SETTINGS, **given}, "commit": "c" * 40, "machine": machine}


def line(settings, number, accuracy, seconds=10.0):
    masked = settings["mask"] is not None
    return {
        **{key: settings[key] for key in ("dataset", "partition", "method", "mask", "seed")},
        "round": number,
        "accuracy": accuracy,
        "loss": 1 - accuracy,
        "clients": 5,
        "uplink_mask_bytes": 12_500 if masked else 0,
        "uplink_dense_bytes": 2_000 if masked else 400_000,
        "uplink_header_bytes": 500,
        "downlink_bytes": 410_000,
        "seconds": seconds,
    }


def counts(number, **ones):
    tensors = {name: {"elements": 100, "ones": some, "frames": 5} for name, some in ones.items()}
    return {"round": number, "tensors": tensors}


def as_lines(*objects):
    return "".join(json.dumps(each) + "\n" for each in objects)


def traffic(number, up, down):
    return {"round": number, "clients": list(range(len(up))), "up": up, "down": down}


def write(folder, accuracies=ACCURACIES, seconds=10.0, machine=MACHINE, down=None, **given):
    """Write one run, with mask counts if it has masks, into a folder, which is returned.

    `down`: the bytes to each of the five clients of each round, which are then in `traffic.jsonl`.
    """
    first = header(machine, **given)
    settings = first["settings"]
    rounds = [line(settings, i, accuracy, seconds) for i, accuracy in enumerate(accuracies, 1)]
    if down:
        rounds = [{**each, "downlink_bytes": sum(down)} for each in rounds]
    folder.mkdir(parents=True)
    (folder / "metrics.jsonl").write_text(as_lines(first, *rounds))
    if settings["mask"]:
        masks = [
            counts(i, **{"conv.weight": 250 - i, "linear.weight": 100 + i}) for i in range(1, len(rounds) + 1)
        ]
        (folder / "layers.jsonl").write_text(as_lines(*masks))
    if down:
        ups = [sum(rounds[0][f"uplink_{kind}_bytes"] for kind in ("mask", "dense", "header")) // 5] * 5
        lines = [traffic(i, ups, down) for i in range(1, len(rounds) + 1)]
        (folder / "traffic.jsonl").write_text(as_lines(*lines))
    return folder


def write_many(folder):
    """Write two tasks: FedAvg and FedMRN binary with two seeds, and FedAvg alone. Returns the folder."""
    for seed in (0, 1):
        shifted = [a + 0.02 * seed for a in ACCURACIES]
        write(folder / f"fedavg-{seed}", shifted, seed=seed)
        write(folder / f"binary-{seed}", [a - 0.05 for a in shifted], 12.0, seed=seed, **BINARY)
    write(folder / "skewed", partition="labels:3")
    return folder
