"""Semi-blind hyperspectral unmixing as a diffusers pipeline: read `SemiBlindUnmixingPipeline.__call__` from the top.

Coarse estimate, then one DDIM loop over two chains (abundance maps, endmember spectra) with the mixing physics solved
in closed form at every step (DDIM: Song et al., ICLR 2021; plug-and-play data consistency: Zhu et al., CVPRW 2023).
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from diffusers import DiffusionPipeline
from diffusers.callbacks import MultiPipelineCallbacks, PipelineCallback
from diffusers.schedulers import DDIMScheduler
from diffusers.utils.torch_utils import randn_tensor

from ..hub import HubPipeline
from ..models import HybridSTU, ResUNet1D, ResUNet2D
from ..physics import MIXING_MODELS, brightness_of_linear_part, linear_part
from .chain import Chain, scene_chains
from .ensemble import summarise
from .output import SemiBlindUnmixingOutput
from .processor import HyperspectralProcessor, stack
from .quality import unexplained
from .scene import SceneModel
from .starts import start_endmembers
from .stein import noisier, weigh
from .steps import Step, plan_steps

logger = logging.getLogger(__name__)
Generators = torch.Generator | list[torch.Generator] | None


class SemiBlindUnmixingPipeline(HubPipeline, DiffusionPipeline):
    r"""Abundance maps and endmember spectra of hyperspectral cubes, for any sensor and any number of endmembers.

    Mixing model: `y_n = s_n E^T a_n + noise`, with abundances on the simplex and a free or fixed brightness `s_n`.

    Args:
        encoder: `HybridSTU`, coarse abundances.
        unet: `ResUNet2D`, denoises abundance maps.
        endmember_unet: `ResUNet1D`, denoises endmember spectra.
        scheduler: `DDIMScheduler` of the abundance chain, `prediction_type="sample"`.
        endmember_scheduler: `DDIMScheduler` of the endmember chain; an object of its own.
        default_denoising_steps: `num_inference_steps` where the call gives none.
        default_strength: `strength` where the call gives none.
        default_guidance_scale: `guidance_scale` where the call gives none.
        endmember_trust: factor on the error that `endmember_unet` expects of itself, in the E-step; 0 takes its
            prediction (which has already seen one closed-form step onto the data) as it is.

    Example:
        >>> import torch
        >>> import hsunmix
        >>> from hsunmix.simulation import SceneSimulator, preset_sensor

        >>> scene = SceneSimulator(height=32, width=32)(
        ...     torch.Generator().manual_seed(0), num_endmembers=4, sensor=preset_sensor("enmap")
        ... )
        >>> pipe = hsunmix.SemiBlindUnmixingPipeline.from_pretrained(hsunmix.bundled_checkpoint("base"))
        >>> pipe.set_progress_bar_config(disable=True)
        >>> out = pipe(scene.cube, wavelengths=preset_sensor("enmap").wavelengths, num_endmembers=4)
        >>> out.abundances[0].shape, out.endmembers[0].shape
        ((32, 32, 4), (4, 218))
    """

    encoder: HybridSTU
    unet: ResUNet2D
    endmember_unet: ResUNet1D
    scheduler: Any
    endmember_scheduler: Any
    config: Any

    model_cpu_offload_seq = "encoder->endmember_unet->unet"
    _callback_tensor_inputs = ["latents", "endmember_latents"]

    def __init__(
        self,
        encoder: HybridSTU,
        unet: ResUNet2D,
        endmember_unet: ResUNet1D,
        scheduler: DDIMScheduler,
        endmember_scheduler: DDIMScheduler,
        default_denoising_steps: int = 2,
        default_strength: float = 1.0,
        default_guidance_scale: float = 0.5,
        endmember_trust: float = 0.0,
    ) -> None:
        super().__init__()
        self.register_modules(
            encoder=encoder,
            unet=unet,
            endmember_unet=endmember_unet,
            scheduler=scheduler,
            endmember_scheduler=endmember_scheduler,
        )
        self.register_to_config(
            default_denoising_steps=default_denoising_steps,
            default_strength=default_strength,
            default_guidance_scale=default_guidance_scale,
            endmember_trust=endmember_trust,
        )
        self.processor = HyperspectralProcessor()
        self._interrupt = False

    @property
    def guidance_scale(self) -> float:
        """Weight of the data against the learned prior; at 1 both count as far as their errors say."""
        return self._guidance_scale

    @property
    def num_timesteps(self) -> int:
        """Denoising steps of the last call, after `strength`."""
        return self._num_timesteps

    @property
    def interrupt(self) -> bool:
        """Set `_interrupt` in a callback to stop after the step."""
        return self._interrupt

    @torch.no_grad()
    def __call__(
        self,
        cube: Any,
        wavelengths: Any = None,
        num_endmembers: int | None = None,
        endmembers: Any = None,
        fixed_endmembers: Any = None,
        library: Any = None,
        num_inference_steps: int | None = None,
        strength: float | None = None,
        guidance_scale: float | None = None,
        brightness: str = "auto",
        mixing_model: str = "auto",
        correct_endmembers: bool = True,
        facets: bool = True,
        ensemble_size: int = 1,
        output_uncertainty: bool = False,
        batch_size: int | None = None,
        reflectance_scale: float | None = None,
        latents: torch.Tensor | list[torch.Tensor] | None = None,
        scene: SceneModel | None = None,
        generator: Generators = None,
        output_type: str = "np",
        return_dict: bool = True,
        callback_on_step_end: Callable | PipelineCallback | MultiPipelineCallbacks | None = None,
        callback_on_step_end_tensor_inputs: list[str] | None = None,
    ) -> SemiBlindUnmixingOutput | tuple:
        """Unmix one or more cubes.

        Args:
            cube: (H, W, B) or (N, H, W, B) reflectance, a list of cubes, `hsunmix.data.Cube`, a file name, or what
                `spectral.open_image` returns.
            wavelengths: (B,) band centres in nm (micrometres are converted); those of the cube when `None`.
            num_endmembers: R; when neither it nor spectra are given, the most probable one, see
                `output.num_endmembers_probabilities`.
            endmembers: (R, B) approximate spectra: the start of the endmember chain, once corrected by what can be
                extracted from the cube.
            fixed_endmembers: (R, B) exact spectra: up to scale they come out as they went in.
            library: (L, B) spectra or a `SpectralLibrary` to choose the endmembers from. Where these are not those of
                the scene (other samples, another instrument) there is a warning: endmembers are extracted, and spectra
                of the library that are like one of them count as approximate ones.
            num_inference_steps: DDIM steps; 0 returns the coarse estimate. Where a step tells the networks nothing new
                (`hsunmix.pipelines.steps`), their last prediction is kept: 50 steps ask them seven times.
            strength: share of the noise schedule that is run, in (0, 1]; below 1 the chains stay nearer the start.
            guidance_scale: weight of the data against the learned prior, positive.
            brightness: "free" (illumination varies; endmembers of equal maximum), "fixed" (abundances times endmembers
                give the pixel), or "auto", which decides from the scene.
            mixing_model: "linear"; "bilinear", the generalised bilinear model of Halimi et al. (2011), for light that
                two materials of a pixel have scattered; "postnonlinear", the polynomial post-nonlinear model of
                Altmann et al. (2012); "variable", for endmembers whose scale and shape change over the scene; or
                "auto": variable where that explains a brightness that varies, bilinear where that explains what a
                linear mixture leaves, else linear, and linear wherever `brightness` is not "auto". What each pixel has
                beyond a linear mixture is estimated and taken out.
            correct_endmembers: `False` starts from `endmembers` as they are: for spectra that have been found in this
                very scene, by `hsunmix adapt`, say; or from the best of `library`, though these don't explain it.
            facets: move extracted and corrected endmembers to where pixels without a material pile up, the facets of
                their simplex, unless archetypes rank first.
            ensemble_size: number of chains, with noise and extracted endmembers of their own, that are averaged.
            output_uncertainty: return standard deviations.
            batch_size: chains per network call; bounds the memory.
            reflectance_scale: number that stands for reflectance 1; guessed, with a warning, when `None`.
            latents: (N * ensemble_size, R, H, W) start of the abundance chain, from `output_type="latent"`.
            scene: `output.scene[0]` of another part of the same scene: its bands, scale, noise, brightness and
                endmembers are taken over, so that all parts are unmixed alike.
            generator: source of all randomness; a list gives each cube its own.
            output_type: "np" | "pt" | "latent" (the raw abundance latents first, else as "pt").
            return_dict: `SemiBlindUnmixingOutput` instead of a tuple of its fields in order, `None` ones included.
            callback_on_step_end: called as `callback(pipe, step, timestep, tensors)` after each step. What it changes
                counts from the next step on that asks the networks, and where none does, after the last step only.
            callback_on_step_end_tensor_inputs: names of `tensors`: "latents", "endmember_latents".

        Returns:
            `SemiBlindUnmixingOutput`.

        Raises:
            ValueError: for inputs that can't be unmixed; the message names the argument.
        """
        # 0. Arguments and defaults
        if isinstance(callback_on_step_end, (PipelineCallback, MultiPipelineCallbacks)):
            callback_on_step_end_tensor_inputs = callback_on_step_end.tensor_inputs
        config = self.config
        steps = config.default_denoising_steps if num_inference_steps is None else num_inference_steps
        strength = config.default_strength if strength is None else strength
        self._guidance_scale = config.default_guidance_scale if guidance_scale is None else guidance_scale
        self._interrupt = False
        wanted = ["latents"] if callback_on_step_end_tensor_inputs is None else callback_on_step_end_tensor_inputs
        self.check_inputs(
            steps, strength, self._guidance_scale, num_endmembers, endmembers, fixed_endmembers, library,
            ensemble_size, batch_size, output_type, callback_on_step_end, wanted, mixing_model, correct_endmembers,
        )  # fmt: skip
        call = {"num_inference_steps": steps, "strength": strength}
        if scene is not None:
            scene.check(
                call, mixing_model, ensemble_size, num_endmembers=num_endmembers, endmembers=endmembers,
                library=library, fixed_endmembers=fixed_endmembers, wavelengths=wavelengths,
                reflectance_scale=reflectance_scale,
            )  # fmt: skip
        if mixing_model == "auto" and brightness != "auto":
            mixing_model = "linear"
        device = self._execution_device

        # 1. Check, scale and mask the cubes; 2. estimate their noise
        prepared = self.processor.preprocess(cube, wavelengths, reflectance_scale, scene)
        cubes = [one.to(device) for one in prepared]
        generators = self._spread(generator, len(cubes))

        # 3. Endmembers E0 of every chain: given, from the library, or extracted
        chains: list[Chain] = []
        numbers: list[dict[int, float] | None] = []
        for one, source in zip(cubes, generators, strict=True):
            if scene is not None:
                chains += scene_chains(one, scene)
                numbers.append(scene.number_probabilities)
                continue
            starts = start_endmembers(
                self.processor, one, num_endmembers, endmembers, fixed_endmembers, library, ensemble_size, source,
                mixing_model, correct_endmembers, brightness,
            )  # fmt: skip
            numbers.append(starts.number_probabilities)
            exact = not bool(starts.movable.any())
            spectra = starts.endmembers[0]  # [R, K]
            linear = linear_part(one.pixels, spectra, one.noise_std, starts.mixing_model, one.valid)
            model = brightness_of_linear_part(linear, spectra, one.noise_std, brightness, exact)
            logger.info("brightness: %s, its relative variation is %.2f", model.mode, model.variation)
            facts = (starts.movable, model, starts.origin, starts.error, starts.mixing_model)
            chains += [
                Chain(one, start, *facts, alternatives=alternatives if facets else None, polished=polished)
                for start, alternatives, polished in zip(
                    starts.endmembers, starts.alternatives, starts.polished, strict=True
                )  # [R, K]
            ]
        batches = self._group(chains, batch_size)

        # 4. Coarse abundances
        for batch in batches:
            self._encode(batch, chains)

        # 5. Posterior sampling: both chains start from the coarse estimate, noised to the level that `strength` says
        plan = self._plan(steps, strength, device)
        self._num_timesteps = len(plan)
        if scene is None:
            asking = sum(step.asks for step in plan)
            logger.info("denoising steps: %d, %d with networks, chains: %d", len(plan), asking, len(chains))
        noise_scale = 0.0 if ensemble_size == 1 else 1.0
        latents, endmember_latents = self._start_latents(chains, generators, plan, noise_scale, latents)
        with self.progress_bar(total=len(plan)) as progress_bar:
            for i, step in enumerate(plan):
                if self.interrupt:
                    continue
                latents, endmember_latents = self._denoise(step, chains, batches, latents, endmember_latents)
                if callback_on_step_end is not None:
                    tensors = {"latents": _pack(latents), "endmember_latents": _pack(endmember_latents)}
                    tensors = callback_on_step_end(self, i, step.t, {name: tensors[name] for name in wanted}) or {}
                    latents = _unpack(tensors.get("latents"), latents)
                    endmember_latents = _unpack(tensors.get("endmember_latents"), endmember_latents)
                progress_bar.update()

        # 6. Towards the predicted maps, as far as the whole scene says that the data hold nothing more, and endmembers
        # to where these maps have them
        if plan and not self.interrupt:
            if scene is None:
                self._weigh_predictions(chains, batches, generators, self._plan(steps, strength, device))
            latents = [
                latent + chain.predicted_share * (2 * chain.predicted_maps() - 1 - latent)
                for latent, chain in zip(latents, chains, strict=True)
            ]
            for chain in chains:
                chain.follow_prediction()
                chain.conclude_endmembers()

        # 7. Mean and spread over the chains of each cube; 8. on the user's grid, bands and order
        results = []
        for first in range(0, len(chains), ensemble_size):
            members = slice(first, first + ensemble_size)
            sampled = latents[members] if plan else None
            results.append(summarise(chains[members], sampled, ensemble_size > 1 or output_uncertainty))
        self.maybe_free_model_hooks()
        if scene is None:
            _warn_where_unexplained(results)

        kind = "np" if output_type == "np" else "pt"
        fields = {name: [result[name] for result in results] for name in results[0]}
        arrays = {name: stack(values, kind, self.unet.dtype) for name, values in fields.items()}
        if output_type == "latent":
            arrays["abundances"] = _pack(latents)
        scenes = [
            SceneModel.of_chains(chains[i * ensemble_size : (i + 1) * ensemble_size], call, probabilities)
            for i, probabilities in enumerate(numbers)
        ]
        modes = [one.brightness_model.mode for one in scenes]
        output = SemiBlindUnmixingOutput(**arrays, brightness_mode=modes, scene=scenes)
        return output if return_dict else tuple(getattr(output, name) for name in output.__dataclass_fields__)

    def check_inputs(
        self,
        num_inference_steps: int,
        strength: float,
        guidance_scale: float,
        num_endmembers: int | None,
        endmembers: Any,
        fixed_endmembers: Any,
        library: Any,
        ensemble_size: int,
        batch_size: int | None,
        output_type: str,
        callback: Any,
        callback_tensors: list[str],
        mixing_model: str = "auto",
        correct_endmembers: bool = True,
    ) -> None:
        """Refuse what can't be run, before any work is done.

        Args:
            num_inference_steps: 0 or more.
            strength: in (0, 1].
            guidance_scale: positive.
            num_endmembers: 2 or more, or `None`.
            endmembers: (R, B), or `None`; `None` where there is a library.
            fixed_endmembers: (R, B), or `None`; `None` where there is a library.
            library: (L, B), or `None`.
            ensemble_size: 1 or more.
            batch_size: 1 or more, or `None`.
            output_type: "np", "pt" or "latent".
            callback: `callback_on_step_end`.
            callback_tensors: `callback_on_step_end_tensor_inputs`.
            mixing_model: "auto" or of `hsunmix.physics.MIXING_MODELS`.
            correct_endmembers: `False` needs `endmembers` or a `library`.

        Raises:
            ValueError: names the argument and says what is allowed.
        """
        if not _is_integer(num_inference_steps) or num_inference_steps < 0:
            raise ValueError(f"`num_inference_steps` must be an integer of 0 or more, but is {num_inference_steps!r}.")
        if not _is_number(strength) or not 0 < strength <= 1:
            raise ValueError(f"`strength` must be in (0, 1], but is {strength!r}.")
        if not _is_number(guidance_scale) or not guidance_scale > 0:
            raise ValueError(f"`guidance_scale` must be positive, but is {guidance_scale!r}.")
        for name, value in (("ensemble_size", ensemble_size), ("batch_size", batch_size)):
            if value is not None and (not _is_integer(value) or value < 1):
                raise ValueError(f"`{name}` must be a positive integer, but is {value!r}.")
        if num_endmembers is not None and (not _is_integer(num_endmembers) or num_endmembers < 2):
            raise ValueError(f"`num_endmembers` must be an integer of 2 or more, but is {num_endmembers!r}.")
        if library is not None and (endmembers is not None or fixed_endmembers is not None):
            raise ValueError("`library` is all that is known: pass it without `endmembers` and `fixed_endmembers`.")
        if not correct_endmembers and endmembers is None and library is None:
            raise ValueError(
                "`correct_endmembers`: only `endmembers` or a `library` can stay as they are; none is given."
            )
        models = ("auto", *MIXING_MODELS)
        if mixing_model not in models:
            raise ValueError(f"`mixing_model` must be one of {', '.join(models)}, but is {mixing_model!r}.")
        if output_type not in ("np", "pt", "latent"):
            raise ValueError(f'`output_type` must be "np", "pt" or "latent", but is {output_type!r}.')
        if callback is not None and not callable(callback):
            raise ValueError(f"`callback_on_step_end` must be callable, but is {callback!r}.")
        unknown = [name for name in callback_tensors if name not in self._callback_tensor_inputs]
        if unknown:
            raise ValueError(
                f"`callback_on_step_end_tensor_inputs` has {unknown}, but only {self._callback_tensor_inputs} exist."
            )

    @staticmethod
    def _spread(generator: Generators, count: int) -> list[torch.Generator | None]:
        """One generator per cube: a list as given, a single one (or none) shared and used in order."""
        if isinstance(generator, (list, tuple)):
            if len(generator) != count:
                raise ValueError(f"`generator` is a list of {len(generator)}, but there are {count} cubes.")
            spread: list[torch.Generator | None] = list(generator)
        else:
            spread = [generator] * count
        if not all(one is None or isinstance(one, torch.Generator) for one in spread):
            raise ValueError("`generator` must be a `torch.Generator`, a list of them, or `None`.")
        return spread

    def _plan(self, steps: int, strength: float, device: torch.device) -> list[Step]:
        """The part of both schedules that `strength` leaves."""
        if steps == 0:
            return []
        for scheduler in (self.scheduler, self.endmember_scheduler):
            scheduler.set_timesteps(steps, device=device)
        counts = [len(one.timesteps) for one in (self.scheduler, self.endmember_scheduler)]
        if counts[0] != counts[1]:
            raise ValueError(
                f"`scheduler` and `endmember_scheduler` take {counts[0]} and {counts[1]} steps, but the two chains "
                "run in step: replace both."
            )
        kept = max(1, min(int(steps * strength), steps))
        first = (counts[0] // steps) * (steps - kept)
        for scheduler in (self.scheduler, self.endmember_scheduler):
            if hasattr(scheduler, "set_begin_index"):
                scheduler.set_begin_index(first)
        timesteps, endmember_timesteps = self.scheduler.timesteps[first:], self.endmember_scheduler.timesteps[first:]
        return plan_steps(timesteps, endmember_timesteps, self.unet.config.num_train_timesteps)

    def _start_latents(
        self,
        chains: list[Chain],
        generators: list[torch.Generator | None],
        plan: list[Step],
        noise_scale: float,
        latents: torch.Tensor | list[torch.Tensor] | None,
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Noised coarse estimates of both chains.

        The deterministic (DDIM) trajectory from zero noise ends, for a Gaussian posterior, at its mean; chains of an
        ensemble start from noise of unit variance and sample the posterior.
        """
        members = len(chains) // len(generators)
        maps, spectra = [], []
        for index, chain in enumerate(chains):
            source = generators[index // members]
            centred = 2 * chain.coarse_maps - 1  # [R, H, W]
            lines = 2 * chain.coarse_endmembers / chain.scale - 1  # [R, K]
            noise = [randn_tensor(x.shape, generator=source, device=x.device, dtype=x.dtype) for x in (centred, lines)]
            if plan:
                t, endmember_t = (torch.as_tensor(one).reshape(1) for one in (plan[0].t, plan[0].endmember_t))
                centred = self.scheduler.add_noise(centred, noise_scale * noise[0], t)
                lines = self.endmember_scheduler.add_noise(lines, noise_scale * noise[1], endmember_t)
            maps.append(centred)
            spectra.append(lines)
        if latents is not None:
            given = list(latents)
            if not all(isinstance(x, torch.Tensor) for x in given):
                raise ValueError('`latents` must be a tensor, or a list of tensors, from `output_type="latent"`.')
            if [tuple(x.shape) for x in given] != [tuple(x.shape) for x in maps]:
                raise ValueError(
                    f"`latents` must hold one (R, H, W) tensor for each of {len(maps)} chains, {tuple(maps[0].shape)} "
                    f"here, but have shape {[tuple(x.shape) for x in given]}."
                )
            maps = [x.to(like.device, like.dtype) for x, like in zip(given, maps, strict=True)]
        return maps, spectra

    @staticmethod
    def _group(chains: list[Chain], batch_size: int | None) -> list[list[int]]:
        """Indices of chains that fit in one network call: neighbours of equal shape, at most `batch_size`."""
        batches: list[list[int]] = []
        shape = None
        for index, chain in enumerate(chains):
            own = (chain.cube.valid.shape, chain.coarse_endmembers.shape, chain.cube.wavelengths is None)
            if own != shape or len(batches[-1]) >= (batch_size or 4):
                batches.append([])
            batches[-1].append(index)
            shape = own
        return batches

    def _denoise(
        self,
        step: Step,
        chains: list[Chain],
        batches: list[list[int]],
        latents: list[torch.Tensor],
        endmember_latents: list[torch.Tensor],
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """One step of all chains."""
        if step.asks:
            for chain in chains:
                chain.follow()
            for batch in batches:
                # a. + b. the networks predict clean spectra and maps, c. data consistency pulls them onto the cube
                self._update_endmembers(batch, chains, endmember_latents, step.endmember_t)
                self._update_abundances(batch, chains, latents, step.t)
        # d. each scheduler steps to the next, lower noise level
        clean = [2 * chain.abundance_maps() - 1 for chain in chains]  # [R, H, W] each
        latents = self._step(self.scheduler, clean, step.t, latents)
        clean = [2 * chain.endmembers / chain.scale - 1 for chain in chains]  # [R, K] each
        return latents, self._step(self.endmember_scheduler, clean, step.endmember_t, endmember_latents)

    def _weigh_predictions(
        self,
        chains: list[Chain],
        batches: list[list[int]],
        generators: list[torch.Generator | None],
        plan: list[Step],
    ) -> None:
        """Unmix all cubes once more, with a little noise added, and weigh predictions and posteriors by it."""
        members = len(chains) // len(generators)
        twins = [noisier(chain, generators[index // members]) for index, chain in enumerate(chains)]
        for batch in batches:
            self._encode(batch, twins)
        latents, endmember_latents = self._start_latents(twins, generators, plan, 0.0, None)
        for step in plan:
            latents, endmember_latents = self._denoise(step, twins, batches, latents, endmember_latents)
        for chain, twin in zip(chains, twins, strict=True):
            chain.predicted_share, chain.posterior_share = weigh(chain, twin)
            chain.count_alternatives()

    def _encode(self, batch: list[int], chains: list[Chain]) -> None:
        """Coarse abundances of a batch of chains by the encoder."""
        dtype = self.encoder.dtype
        some = [chains[i] for i in batch]
        output = self.encoder(
            torch.stack([chain.cube.image() for chain in some]).to(dtype),  # [n, K, H, W]
            # [n, R, K], as bright as the cube
            torch.stack([chain.brightness_model.level * chain.coarse_endmembers for chain in some]).to(dtype),
            torch.stack([chain.evidence_maps() for chain in some]).to(dtype),  # [n, R, 5, H, W]
            _wavelengths(some),
        )
        for chain, maps, log_std in zip(some, output.abundances.float(), output.log_std.float(), strict=True):
            coarse = maps.permute(1, 2, 0)[chain.cube.valid]  # [N, R]
            chain.coarse_abundances = coarse / coarse.sum(1, keepdim=True)
            chain.coarse_log_std = log_std

    def _update_endmembers(self, batch: list[int], chains: list[Chain], latents: list[torch.Tensor], t: Any) -> None:
        """Predict clean spectra for a batch of chains and pull them onto the data."""
        some = [chains[i] for i in batch if chains[i].movable.any()]
        if not some:
            return
        dtype = self.endmember_unet.dtype
        output = self.endmember_unet(
            torch.stack([latents[i] for i in batch if chains[i].movable.any()]).to(dtype),  # [n, R, K]
            t,
            torch.stack([chain.coarse_endmembers / chain.scale for chain in some]).to(dtype),
            torch.stack([chain.moved_endmembers / chain.scale for chain in some]).to(dtype),
            torch.stack([chain.moved_std / chain.scale for chain in some]).to(dtype),
            torch.stack([chain.statistics for chain in some]).to(dtype),
            _wavelengths(some),
        )
        trust = self.config.endmember_trust
        for chain, clean, log_std in zip(some, output.sample.float(), output.log_std.float(), strict=True):
            chain.move_endmembers((clean + 1) / 2 * chain.scale, log_std.exp() / 2 * chain.scale, trust)

    def _update_abundances(self, batch: list[int], chains: list[Chain], latents: list[torch.Tensor], t: Any) -> None:
        """Predict clean maps for a batch of chains, upright and turned, and pull their mean onto the data."""
        dtype = self.unet.dtype
        some = [chains[i] for i in batch]
        inputs = [
            torch.stack([latents[i] for i in batch]).to(dtype),  # [n, R, H, W]
            torch.stack([chain.coarse_maps for chain in some]).to(dtype),
            torch.stack([chain.coarse_log_std for chain in some]).to(dtype),
            torch.stack([chain.evidence_maps() for chain in some]).to(dtype),  # [n, R, 5, H, W]
        ]
        outputs = []
        for turn in ((), (-2, -1)):  # a scene and the same turned by half a circle should give the same maps
            latent, *conditions = (x.flip(turn) for x in inputs)
            output = self.unet(latent, t, *conditions, return_dict=False)
            outputs.append([x.float().flip(turn) for x in output])
        maps, log_stds = (torch.stack(both).mean(0) for both in zip(*outputs, strict=True))
        for chain, clean, log_std in zip(some, maps, log_stds, strict=True):
            chain.pull_abundances((clean + 1) / 2, log_std.exp() / 2, self.guidance_scale)

    @staticmethod
    def _step(scheduler: Any, clean: list[torch.Tensor], t: Any, latents: list[torch.Tensor]) -> list[torch.Tensor]:
        """One scheduler step of all chains at once; the scheduler works element by element, so shapes may differ."""
        flat = torch.cat([x.reshape(-1) for x in latents])
        predicted = torch.cat([x.reshape(-1) for x in clean])
        flat = scheduler.step(predicted, t, flat, return_dict=False)[0]
        parts = flat.split([x.numel() for x in latents])
        return [part.reshape(x.shape).to(x.dtype) for part, x in zip(parts, latents, strict=True)]


def _warn_where_unexplained(results: list[dict[str, Any]]) -> None:
    for index, result in enumerate(results):
        residual, noise = (result[name].float().cpu().numpy() for name in ("residual", "noise"))
        reason = unexplained(residual, noise)
        if reason is not None:
            logger.warning("%s%s", f"cube {index + 1}: " if len(results) > 1 else "", reason)


def _is_integer(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool)


def _wavelengths(chains: list[Chain]) -> torch.Tensor | None:
    found = [chain.cube.wavelengths for chain in chains]
    return None if found[0] is None else torch.stack([x for x in found if x is not None])  # [n, K]


def _pack(tensors: list[torch.Tensor]) -> torch.Tensor | list[torch.Tensor]:
    """One tensor with a batch axis where the shapes agree, else the list."""
    return torch.stack(tensors) if len({tuple(x.shape) for x in tensors}) == 1 else tensors


def _unpack(packed: torch.Tensor | list[torch.Tensor] | None, default: list[torch.Tensor]) -> list[torch.Tensor]:
    return default if packed is None else list(packed)
