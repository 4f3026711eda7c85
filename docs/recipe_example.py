"""A recipe for `twinscore audit --recipe docs/recipe_example.py:train` (docs/audit.md).

Any function of (images, seed) will do that trains on these images and returns a denoiser, a
function of (y, sigma).
"""

import torch
from torch import Tensor, nn

STEPS, BATCH, WIDTH = 1500, 64, 64


class Network(nn.Module):
    """A residual network that is told the noise level."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels + 1, WIDTH, 3, padding=1)
        self.inner = nn.ModuleList(nn.Conv2d(WIDTH, WIDTH, 3, padding=1) for _ in range(4))
        self.last = nn.Conv2d(WIDTH, channels, 3, padding=1)

    def forward(self, y: Tensor, sigma: Tensor) -> Tensor:
        """Clean estimate of y (B, C, H, W); sigma is (B,)."""
        level = sigma[:, None, None, None]
        scaled = y / (1 + level**2) ** 0.5
        plane = level.log().expand(-1, 1, *y.shape[2:])
        hidden = self.first(torch.cat([scaled, plane], 1))
        for layer in self.inner:
            hidden = hidden + layer(torch.relu(hidden))
        return self.last(torch.relu(hidden))


def train(images: Tensor, seed: int) -> nn.Module:
    """Fit the network to images (N, C, H, W) in [0, 1]."""
    torch.manual_seed(seed)
    network = Network(images.shape[1])
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
    for _ in range(STEPS):
        x = images[torch.randint(len(images), (BATCH,))]
        sigma = torch.rand(BATCH).square().clamp_min(1e-3) * 2
        y = x + sigma[:, None, None, None] * torch.randn_like(x)
        loss = (network(y, sigma) - x).square().sum() / BATCH
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return network.eval()
