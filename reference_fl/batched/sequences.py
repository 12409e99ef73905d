"""Networks for text: an LSTM and a small transformer that predict the next token at every place."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from .layout import Shapes
from .nets import Buffers, draw, linear


def embed(tokens: Tensor, table: Tensor) -> Tensor:
    """Rows of each client's table: tokens (clients, batch, length), table (clients, tokens, width)."""
    clients, vocabulary, width = table.shape
    offset = torch.arange(clients).view(-1, 1, 1) * vocabulary
    return F.embedding(tokens + offset, table.reshape(-1, width))


class LSTM:
    """An embedding, one LSTM layer and a linear layer, PyTorch's initial values.

    Parameters
    ----------
    tokens, width, hidden : int
        How many tokens; values of an embedding; values of the state.
    """

    def __init__(self, tokens: int, width: int, hidden: int) -> None:
        self.hidden = hidden
        self.shapes: Shapes = {
            "embedding.weight": (tokens, width),
            "lstm.weight_ih": (4 * hidden, width),
            "lstm.weight_hh": (4 * hidden, hidden),
            "lstm.bias": (4 * hidden,),
            "linear.weight": (tokens, hidden),
            "linear.bias": (tokens,),
        }

    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        """See `Net`: the embedding N(0, 1), all else uniform within 1/sqrt(hidden)."""
        bound = 1 / math.sqrt(self.hidden)
        found = {n: (2 * torch.rand(s, generator=generator) - 1) * bound for n, s in self.shapes.items()}
        found["embedding.weight"] = draw(self.shapes["embedding.weight"], "1", generator)
        return found

    def buffers(self) -> Buffers:
        """See `Net`."""
        return {}

    def forward(self, p: dict[str, Tensor], x: Tensor, buffers: Buffers, training: bool) -> Tensor:
        """See `Net`."""
        inputs = embed(x, p["embedding.weight"])
        clients, batch, length, _ = inputs.shape
        gates = linear(inputs.flatten(1, 2), p["lstm.weight_ih"], p["lstm.bias"])
        steps = gates.view(clients, batch, length, -1).unbind(2)
        recurrent = p["lstm.weight_hh"].transpose(1, 2)
        h = c = torch.zeros(clients, batch, self.hidden)
        states = []
        for step in steps:
            i, f, g, o = torch.baddbmm(step, h, recurrent).chunk(4, dim=2)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
            states.append(h)
        scores = linear(torch.stack(states, 2).flatten(1, 2), p["linear.weight"], p["linear.bias"])
        return scores.view(clients, batch, length, -1)


class Transformer:
    """A causal transformer: pre-norm blocks of attention and a two-layer perceptron.

    Parameters
    ----------
    tokens, length, width, heads, blocks : int
    """

    def __init__(self, tokens: int, length: int, width: int, heads: int, blocks: int) -> None:
        self.heads, self.blocks = heads, blocks
        shapes: dict[str, tuple[int, ...]] = {"embedding": (tokens, width), "position": (length, width)}
        for i in range(blocks):
            shapes |= {
                f"norm{i}a.weight": (width,),
                f"norm{i}a.bias": (width,),
                f"attention{i}.qkv": (3 * width, width),
                f"attention{i}.out": (width, width),
                f"norm{i}b.weight": (width,),
                f"norm{i}b.bias": (width,),
                f"mlp{i}.up": (4 * width, width),
                f"mlp{i}.up_bias": (4 * width,),
                f"mlp{i}.down": (width, 4 * width),
                f"mlp{i}.down_bias": (width,),
            }
        shapes |= {"norm.weight": (width,), "norm.bias": (width,), "head": (tokens, width)}
        self.shapes: Shapes = shapes

    def init(self, generator: torch.Generator) -> dict[str, Tensor]:
        """See `Net`: embeddings N(0, 0.1^2), matrices normal of variance 1/fan-in, as transformers start."""
        found: dict[str, Tensor] = {}
        for name, shape in self.shapes.items():
            if len(shape) == 1:
                found[name] = torch.ones(shape) if name.endswith(".weight") else torch.zeros(shape)
            else:
                std = 0.1 if name in ("embedding", "position") else 1 / math.sqrt(shape[1])
                found[name] = draw(shape, str(std), generator)
        return found

    def buffers(self) -> Buffers:
        """See `Net`."""
        return {}

    def forward(self, p: dict[str, Tensor], x: Tensor, buffers: Buffers, training: bool) -> Tensor:
        """See `Net`."""
        h = embed(x, p["embedding"]) + p["position"].unsqueeze(1)
        for i in range(self.blocks):
            h = h + self._attend(p, f"attention{i}", layer_norm(h, p, f"norm{i}a"))
            y = layer_norm(h, p, f"norm{i}b").flatten(1, 2)
            y = F.gelu(linear(y, p[f"mlp{i}.up"], p[f"mlp{i}.up_bias"]))
            h = h + linear(y, p[f"mlp{i}.down"], p[f"mlp{i}.down_bias"]).view(h.shape)
        y = layer_norm(h, p, "norm").flatten(1, 2)
        return linear(y, p["head"]).view(*x.shape, -1)

    def _attend(self, p: dict[str, Tensor], name: str, x: Tensor) -> Tensor:
        clients, batch, length, width = x.shape
        qkv = linear(x.flatten(1, 2), p[f"{name}.qkv"])
        qkv = qkv.view(clients * batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        y = y.transpose(1, 2).reshape(clients, batch * length, width)
        return linear(y, p[f"{name}.out"]).view(x.shape)


def layer_norm(x: Tensor, p: dict[str, Tensor], name: str) -> Tensor:
    """LayerNorm over the last dimension with each client's scale and shift."""
    wide = (len(x),) + (1,) * (x.ndim - 2) + (x.shape[-1],)
    normal = F.layer_norm(x, x.shape[-1:])
    return normal * p[f"{name}.weight"].view(wide) + p[f"{name}.bias"].view(wide)
