"""Replies to an evaluation: a bad one neither ends the run nor changes the mean of the others."""

import pytest
from flower_cases import Grid, record
from flwr.app import ConfigRecord, Error, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import FedAvg

from fedmrn_flower import FedMRN

NODES = [1, 2, 3, 4]
GOOD = {"num-examples": 10, "accuracy": 0.5}


def evaluated(replies, strategy=None):
    """The metrics after an evaluation; replies are mappings, lists of mappings, or None for an error."""
    strategy = strategy or FedMRN(FedAvg(fraction_evaluate=1.0, min_evaluate_nodes=len(replies)))
    nodes = NODES[: len(replies)]
    sent = list(strategy.configure_evaluate(1, record(), ConfigRecord(), Grid(nodes)))
    sent.sort(key=lambda message: nodes.index(message.metadata.dst_node_id))
    answers = []
    for message, reply in zip(sent, replies, strict=True):
        if reply is None:
            answers.append(Message(Error(1, "gone"), reply_to=message))
            continue
        records = reply if isinstance(reply, list) else [reply]
        names = ("metrics", "others", "third")
        content = {name: MetricRecord(each) for name, each in zip(names, records, strict=False)}
        answers.append(Message(RecordDict(content), reply_to=message))
    metrics = strategy.aggregate_evaluate(1, answers)
    return {name: value for name, value in metrics.items() if not name.startswith("fedmrn.")}


BAD = {
    "no record": [],
    "two records": [GOOD, GOOD],
    "no weight": {"accuracy": 0.5},
    "weight 0": {**GOOD, "num-examples": 0},
    "negative weight": {**GOOD, "num-examples": -5},
    "too much weight": {**GOOD, "num-examples": 2**40},
    "list as weight": {**GOOD, "num-examples": [1, 2]},
    "NaN": {**GOOD, "accuracy": float("nan")},
    "infinity": {**GOOD, "accuracy": float("inf")},
    "huge": {**GOOD, "accuracy": 2**1100},
    "other metric": {"num-examples": 10, "loss": 0.5},
    "one more": {**GOOD, "loss": 0.5},
    "list": {**GOOD, "accuracy": [0.5, 0.5]},
    "an error": None,
}


@pytest.mark.parametrize("place", [0, 2])
@pytest.mark.parametrize("bad", BAD)
def test_a_bad_reply_is_left_out(bad, place, caplog):
    replies = [{**GOOD, "accuracy": 0.25}, GOOD]
    replies.insert(place, BAD[bad])
    assert evaluated(replies) == {"accuracy": 0.375}
    if bad != "an error":
        assert f"refused the evaluation of node {NODES[place]}" in caplog.text


def test_without_a_majority_the_common_metrics_are_averaged():
    one, other = {**GOOD, "loss": 1.0}, {**GOOD, "accuracy": 1.0, "error": 2.0}
    assert evaluated([one, other]) == {"accuracy": 0.75}


def test_names_of_records_do_not_matter():
    strategy = FedMRN(FedAvg(fraction_evaluate=1.0, min_evaluate_nodes=2))
    sent = list(strategy.configure_evaluate(1, record(), ConfigRecord(), Grid([1, 2])))
    replies = [
        Message(RecordDict({name: MetricRecord(GOOD)}), reply_to=message)
        for name, message in zip(("metrics", "other"), sent, strict=True)
    ]
    assert strategy.aggregate_evaluate(1, replies)["accuracy"] == 0.5


def test_weights_may_be_fractions():
    replies = [{**GOOD, "num-examples": 0.5}, {"num-examples": 1.5, "accuracy": 1.0}]
    assert evaluated(replies) == {"accuracy": 0.875}


def test_a_strategy_with_its_own_mean_gets_all_replies():
    class Own(FedAvg):
        def aggregate_evaluate(self, server_round, replies):
            return MetricRecord({"replies": len(list(replies))})

    own = FedMRN(Own(fraction_evaluate=1.0, min_evaluate_nodes=2))
    assert evaluated([BAD["no record"], GOOD], own) == {"replies": 2}


def test_if_all_are_bad_there_is_no_metric():
    assert evaluated([BAD["NaN"], BAD["no weight"]]) == {}
