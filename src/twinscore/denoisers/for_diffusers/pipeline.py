"""Draw samples from an exported denoiser; this file is copied into a folder that diffusers reads.

``DiffusionPipeline.from_pretrained(folder, custom_pipeline=folder, trust_remote_code=True)``.
"""

from typing import Any

import torch
from diffusers import DiffusionPipeline, ImagePipelineOutput
from diffusers.image_processor import VaeImageProcessor


class ExportedDenoiserPipeline(DiffusionPipeline):
    """A denoiser ``D(y, sigma)`` of images in [0, 1], driven by ``EDMEulerScheduler``.

    The scheduler works in [-1, 1], where noise levels are twice as large, and is given
    ``F = (D - c_skip y) / c_out`` (Karras et al. 2022, table 1), so that what it takes for the
    clean image is D.
    """

    def __init__(self, denoiser: Any, scheduler: Any) -> None:
        super().__init__()
        self.register_modules(denoiser=denoiser, scheduler=scheduler)

    @torch.no_grad()
    def __call__(
        self,
        batch_size: int = 1,
        num_inference_steps: int = 50,
        generator: torch.Generator | None = None,
        height: int | None = None,
        width: int | None = None,
        output_type: str = "pil",
        return_dict: bool = True,
    ) -> ImagePipelineOutput | tuple[Any]:
        """Images from noise around the mean; ``height`` and ``width`` where they are not known."""
        channels, rows, columns = self.denoiser.config.shape
        rows, columns = height or rows, width or columns
        if rows is None or columns is None:
            raise ValueError(
                "the denoiser does not say how large its images are; give height, width"
            )
        scheduler, device = self.scheduler, self.denoiser.device
        scheduler.set_timesteps(num_inference_steps, device=device)
        mean = 2 * torch.tensor(self.denoiser.config.mean, device=device).view(1, -1, 1, 1) - 1
        noise = torch.randn(
            (batch_size, channels, rows, columns),
            generator=generator,
            device=device if generator is None else generator.device,
        ).to(device)
        y = mean + scheduler.init_noise_sigma * noise
        spread = scheduler.config.sigma_data
        for index, t in enumerate(self.progress_bar(scheduler.timesteps)):
            scheduler.scale_model_input(y, t)  # it wants to be asked
            sigma = scheduler.sigmas[index].to(y)
            level = (sigma / 2).expand(len(y)).contiguous()
            x_hat = 2 * self.denoiser((y + 1) / 2, level) - 1
            total = sigma**2 + spread**2
            output = (x_hat - spread**2 / total * y) * total.sqrt() / (sigma * spread)
            y = scheduler.step(output, t, y, generator=generator).prev_sample
        images = VaeImageProcessor.pt_to_numpy((y / 2 + 0.5).clamp(0, 1))
        if output_type == "pil":
            images = self.numpy_to_pil(images)
        return ImagePipelineOutput(images=images) if return_dict else (images,)
