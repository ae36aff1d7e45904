"""The variational autoencoder of examples/vae.py in PyTorch."""

from typing import Any

import torch
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits


class VAE(nn.Module):  # type: ignore[misc]  # of a library without types
    """784-400-latent and back; see Kingma and Welling (2013), appendix C."""

    def __init__(self, pixels: int, width: int, latent: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(nn.Linear(pixels, width), nn.ReLU())
        self.mean = nn.Linear(width, latent)
        self.log_var = nn.Linear(width, latent)
        self.decoder = nn.Sequential(nn.Linear(latent, width), nn.ReLU(), nn.Linear(width, pixels))

    def bound(self, x: Any) -> Any:
        """The evidence lower bound of each row, in nats, by one sample."""
        h = self.encoder(x)
        mean, log_var = self.mean(h), self.log_var(h)
        z = mean + torch.randn_like(mean) * torch.exp(0.5 * log_var)
        logits = self.decoder(z)
        likelihood = -binary_cross_entropy_with_logits(logits, x, reduction="none").sum(dim=1)
        divergence = -0.5 * (1 + log_var - mean**2 - torch.exp(log_var)).sum(dim=1)
        return likelihood - divergence


def program(
    weights: dict[str, Any], sizes: tuple[int, int, int], rate: float, seed: int
) -> tuple[Any, Any]:
    """(step, bound): a train step that gives the loss, and the mean bound of rows of 0 and 1."""
    torch.manual_seed(seed)
    model = VAE(*sizes)
    model.load_state_dict({name: torch.tensor(value) for name, value in weights.items()})
    optimizer = torch.optim.Adam(model.parameters(), lr=rate)

    def step(x: Any) -> float:
        optimizer.zero_grad()
        loss = -model.bound(torch.bernoulli(torch.tensor(x))).mean()
        loss.backward()
        optimizer.step()
        return float(loss.item())

    def bound(x: Any) -> float:
        with torch.no_grad():
            return float(model.bound(torch.tensor(x)).mean().item())

    return step, bound
