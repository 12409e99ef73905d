"""The network of McMahan et al., AISTATS 2017, for next-character prediction: embedding and LSTM layers."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn
from torch.nn.utils import skip_init


class CharLSTM(nn.Module):
    """Scores the next token after a sequence of tokens. The weights are not initialised.

    Parameters
    ----------
    tokens : int
        The number of different tokens; also the number of classes.
    embedding, hidden, layers : int
        The size of a token's embedding, the size of a layer's state, and the number of layers.
    """

    def __init__(self, tokens: int, embedding: int, hidden: int, layers: int) -> None:
        super().__init__()
        self.embedding = skip_init(nn.Embedding, tokens, embedding)
        lstm = nn.LSTM(embedding, hidden, layers, batch_first=True, device="meta")
        self.lstm = lstm.to_empty(device="cpu")  # what skip_init does, which does not support LSTM
        self.linear = skip_init(nn.Linear, hidden, tokens)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Class scores.

        Parameters
        ----------
        x : torch.Tensor
            int64, shape (batch, length), values in 0..tokens-1.

        Returns
        -------
        torch.Tensor
            float32, shape (batch, tokens).
        """
        states, _ = self.lstm(self.embedding(x))
        scores: torch.Tensor = self.linear(states[:, -1])
        return scores

    @torch.no_grad()
    def initialise(self, rng: np.random.Generator) -> None:
        """Draw the weights as PyTorch does: the embedding from N(0, 1), all others within 1/sqrt(hidden)."""
        bound = 1 / math.sqrt(self.linear.in_features)
        for name, parameter in self.named_parameters():
            shape = tuple(parameter.shape)
            is_embedding = name == "embedding.weight"
            draw = rng.normal(size=shape) if is_embedding else rng.uniform(-bound, bound, shape)
            parameter.copy_(torch.from_numpy(draw.astype(np.float32)))
