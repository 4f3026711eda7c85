"""BF-CNN: the bias-free chain of convolutions, the main study's second architecture."""

from torch import Tensor, nn

from twinscore.denoisers.layers import BiasFreeNorm, Convolution, generator_of


class BFCNN(nn.Module):
    """Bias-free CNN that predicts the noise and returns the clean estimate.

    ``layers`` convolutions 3x3 of ``width`` channels; all but the first and the last are followed
    by ``BiasFreeNorm`` and ReLU; the first is linear. With its defaults 702,784 parameters
    and a receptive field of 43x43. Blind: ``sigma`` is accepted and ignored. Mohan, Kadkhodaie,
    Simoncelli & Fernandez-Granda, ICLR 2020; [GAHB] appendix.

    Parameters
    ----------
    channels : int
        Image channels C.
    width : int
        Channels of the inner layers.
    layers : int
        Number of convolutions, at least 2.
    seed : int
        Seed of the initial weights (He normal); the global random state is left alone.

    Raises
    ------
    ValueError
        If a size is below its minimum.
    """

    def __init__(self, channels: int = 1, width: int = 64, layers: int = 21, seed: int = 0) -> None:
        if min(channels, width) < 1 or layers < 2:
            raise ValueError(
                "BFCNN needs channels >= 1, width >= 1, layers >= 2; got "
                f"{channels}, {width}, {layers}"
            )
        super().__init__()
        generator = generator_of(seed)
        self.first = Convolution(channels, width, generator)
        inner: list[nn.Module] = []
        for _ in range(layers - 2):
            inner += [Convolution(width, width, generator), BiasFreeNorm(width)]
        self.inner = nn.Sequential(*inner)
        self.last = Convolution(width, channels, generator)

    def forward(self, y: Tensor, sigma: float | Tensor | None = None) -> Tensor:
        """Clean estimate of ``y``, (B, C, H, W), any H and W."""
        return y - self.last(self.inner(self.first(y)))
