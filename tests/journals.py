"""A small server whose rounds go into a journal, for the tests of journals."""

import numpy as np

import fedmrn_codec as fm

SCHEMA = fm.Schema(
    [fm.Tensor("w", (3, 5), masked=True), fm.Tensor("b", (3,)), fm.Tensor("count", (), dtype="int64")]
)
NOISE = fm.Uniform(0.01)


def start(schema=SCHEMA, **more):
    """A model of the schema; `more` are arrays in addition."""
    rng = np.random.default_rng(7)
    arrays = {}
    for tensor in schema:
        values = rng.normal(0, 0.1, tensor.shape)
        arrays[tensor.name] = np.asarray(values if tensor.type.is_float else 40 * values, tensor.type.numpy)
    return arrays | more


class Server:
    """A server, its journal, and what it has done; clients send random updates.

    Parameters
    ----------
    grid : bool
        Whether clients receive the model by a `Downlink`.
    adaptive : bool
        Whether the noise is that of an `AdaptiveNoise`.
    optimizer : function of (model, mean), optional
        The server's step, in place of adding the mean.
    """

    def __init__(self, folder, model=None, *, schema=SCHEMA, grid=True, adaptive=False, optimizer=fm.apply):
        self.schema, self.optimizer = schema, optimizer
        self.model = start(schema) if model is None else model
        self.down = fm.Downlink(schema, self.model) if grid else None
        self.rule = fm.AdaptiveNoise(schema, self.model) if adaptive else None
        self.ids = {0: self.held_id}
        self.journal = fm.Journal(folder, schema, self.model, self.down)

    @property
    def held_id(self):
        return fm.model_id(self.model, self.schema) if self.down is None else self.down.model_id

    def ask(self, number, clients=2):
        """The arguments of `Journal.append` for a round, whose new model is the server's from now on."""
        base, accepted, total = self.held_id, {}, None
        noise = NOISE if self.rule is None else self.rule.noise
        for client in range(clients):
            rng = np.random.default_rng(1000 * number + client)
            request = fm.Request(
                2**63 + rng.integers(2**40).item(),
                noise,
                "binary",
                number,
                base,
                self.schema,
                coding="rans12",
            )
            update = {}
            for tensor in self.schema:
                values = rng.normal(0, 0.01, tensor.shape)
                update[tensor.name] = np.asarray(
                    values if tensor.type.is_float else 300 * values, tensor.type.numpy
                )
            frame = request.encode(update, private_seed=int(rng.integers(2**60)), backend="numpy")
            total = total or fm.Aggregator(
                self.schema, noise=noise, round=number, base_model=base, backend="numpy"
            )
            total.add(request.check(frame), 100 + client)
            accepted[f"client{client}"] = request, frame, 100 + client
        if self.rule is not None:
            self.rule.observe(total)
        self.model = self.optimizer(self.model, total.mean())
        if self.down is not None:
            self.down.advance(self.model)
        self.ids[number] = self.held_id
        return accepted, total, self.model

    def run(self, *numbers):
        """Play rounds and append them; the server itself."""
        for number in numbers:
            self.journal.append(*self.ask(number))
        return self


def written(folder, *, rounds=3, **options):
    """A journal of some rounds, closed; the ids of the clients' models by round."""
    server = Server(folder, **options).run(*range(1, rounds + 1))
    server.journal.close()
    return server
