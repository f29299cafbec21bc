"""One network that holds all networks of a space: weights are trained once and shared.

Each step trains one network, drawn at random, with its part of the shared weights. Blocks of the
same name have the same weights; where a network is narrower, it uses the first channels.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import torch
from torch import nn
from torch.func import functional_call

from rac_helpers._check import check_int
from rac_helpers.nas.networks import DIGITS_LARGEST, DIGITS_SPACE, build
from rac_helpers.nas.space import Genome, Space, check_space
from rac_helpers.rng import derive_seed, make_generator


class Supernet(nn.Module):
    """Shared weights of all networks of a space; in use it is the one of ``genome``.

    Give it to ``train.fit`` like any network, with ``after_step=supernet.draw_``: each step trains
    another genome, all equally often. The validation that ``fit`` prints on the way says little,
    since running means of batch norm fit no network; :meth:`subnet` counts them anew.

    Parameters
    ----------
    space : Space
        The networks that share weights.
    make : callable
        ``make(genome, seed=, classes=)`` returns a network. Layers that should share weights have
        the same name in all networks.
    largest : sequence of Genome
        Networks that have, together, every layer of the space as large as it gets.
    seed : int
        Of the starting weights and of the genomes that are drawn.
    classes : int
        Number of logits, at least 2.

    Raises
    ------
    TypeError, ValueError
        If an argument is not as described. A layer that is not in ``largest`` is found out when
        its network is used.

    References
    ----------
    Guo, Zhang, Mu, Heng, Liu, Wei and Sun, 2020. Single path one-shot neural architecture search
    with uniform sampling, section 3.

    Examples
    --------
    >>> supernet = Supernet(seed=0)
    >>> supernet(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape
    torch.Size([2, 10])
    >>> sum(p.numel() for p in supernet.parameters())  # 384 networks together
    123178
    """

    def __init__(
        self,
        space: Space = DIGITS_SPACE,
        make: Callable[..., nn.Module] = build,
        largest: Sequence[Genome] = DIGITS_LARGEST,
        *,
        seed: int = 0,
        classes: int = 10,
    ) -> None:
        super().__init__()
        self.space, self.seed = check_space(space), check_int("seed", seed, low=0)
        self._make = functools.partial(make, classes=classes)
        self._skeletons: dict[Genome, nn.Module] = {}
        self._share_([self._make(space.check(genome), seed=seed) for genome in largest])
        self.register_buffer("path", torch.tensor(self._draw(0)))

    @property
    def genome(self) -> Genome:
        """The network that a call computes; it can be set. Checkpoints of ``fit`` hold it, too."""
        return tuple(self.path.tolist())

    @genome.setter
    def genome(self, genome: Genome) -> None:
        self.path.copy_(torch.tensor(self.space.check(genome)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits of the network of ``genome``, ``(n, classes)``."""
        skeleton = self._skeleton(self.genome).train(self.training)
        return functional_call(skeleton, self._slices(self.genome), (images,))

    def draw_(self, model: nn.Module | None = None, step: int = 0) -> None:
        """Choose the genome of the next step; as ``after_step`` of ``train.fit``.

        It depends on the seed and the number of the step alone, so a training can be resumed.
        """
        self.genome = self._draw(step)

    def subnet(self, genome: Genome, images: torch.Tensor, *, batch_size: int = 500) -> nn.Module:
        """Return the network of a genome with a copy of its weights, ready to be measured.

        Parameters
        ----------
        genome : Genome
            One of the space.
        images : torch.Tensor
            Training images, uint8 ``(n, 3, H, W)``: means and variances of batch norm are counted
            over them anew, batch by batch.
        batch_size : int
            At least 2. Batches are nearly equal in size and hold at most so many images.

        Returns
        -------
        nn.Module
            In eval mode. It can be trained on, without effect on the supernet.

        Raises
        ------
        TypeError, ValueError
            If the genome is not of the space or there are no images.
        """
        check_int("batch_size", batch_size, low=2)
        if not len(images):
            raise ValueError("images must hold at least one image, got none")
        model = self._make(self.space.check(genome), seed=self.seed)
        model.load_state_dict({k: v.detach().clone() for k, v in self._slices(genome).items()})
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        momenta = [norm.momentum for norm in norms]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the plain mean over all batches
        model.train()
        with torch.no_grad():
            for part in images.tensor_split(math.ceil(len(images) / batch_size)):
                model(part)
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
        return model.eval()

    def _share_(self, models: Sequence[nn.Module]) -> None:
        """Make one tensor for each name, as large as the largest network needs it."""
        for model in models:
            parameters = dict(model.named_parameters())
            for name, value in model.state_dict().items():
                known = getattr(self, _plain(name), None)
                if known is not None and known.numel() >= value.numel():
                    continue
                value = value.clone()
                if name in parameters:
                    self.register_parameter(_plain(name), nn.Parameter(value))
                else:
                    self.register_buffer(_plain(name), value)

    def _slices(self, genome: Genome) -> dict[str, torch.Tensor]:
        """The part of each shared tensor that a network uses: its first channels. Views."""
        parts = {}
        for name, value in self._skeleton(genome).state_dict().items():
            shared = getattr(self, _plain(name), None)
            if shared is None or any(a < b for a, b in zip(shared.shape, value.shape, strict=True)):
                raise ValueError(f"largest must have every layer, {name} of {genome} is not there")
            parts[name] = shared[tuple(slice(size) for size in value.shape)]
        return parts

    def _skeleton(self, genome: Genome) -> nn.Module:
        """The network of a genome; only its structure is used, its weights come from outside."""
        if genome not in self._skeletons:
            self._skeletons[genome] = self._make(genome, seed=self.seed)
        return self._skeletons[genome]

    def _draw(self, step: int) -> Genome:
        return self.space.sample(generator=make_generator(derive_seed(self.seed, "path", step)))


def _plain(name: str) -> str:
    """A name that a tensor of a module may have."""
    return name.replace(".", "/")
