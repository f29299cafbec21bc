"""PT2E: int8 by PyTorch alone, with ``torch.export``, torchao and ``torch.compile``.

``torch.export`` turns the network into a graph; torchao puts observers into it, sees images, and
replaces the observers by pairs of operations: to codes, and back. Such a converted graph computes
*slower* than floats, because each pair is really computed. Only :func:`pt2e_compile` melts the
pairs and the convolution between them into one operation on integers.
torchao 0.18 converts for x86 processors here (``X86InductorQuantizer``).
"""

from __future__ import annotations

import contextlib
import copy
import os
import tempfile
import warnings
from collections.abc import Iterator

import torch
from torch import fx, nn

from rac_helpers._check import check_int, check_module
from rac_helpers.quantize.compare import check_batch
from rac_helpers.records import check_writable, write_atomically


def pt2e_quantize(
    model: nn.Module, images: torch.Tensor, *, batch_size: int = 64
) -> fx.GraphModule:
    """Return an int8 copy of a model: static quantization, calibrated on images.

    Parameters
    ----------
    model : nn.Module
        Not changed; converted as it is in eval mode, batch norm folded. May not use one module
        object twice (such as one ``nn.ReLU`` for two places).
    images : torch.Tensor
        ``(n, ...)``, ``n >= 1``, of the dtype and size that the result is to take.
    batch_size : int
        At least 1. Images at a time.

    Returns
    -------
    torch.fx.GraphModule
        Takes batches of any size. Its ``state_dict`` holds the int8 codes and what remains float;
        the float weights, which ``convert_pt2e`` leaves behind, are dropped.

    Raises
    ------
    TypeError
        If ``model`` is no module, or ``images`` no tensor.
    ValueError
        If there are no images, if ``torch.export`` cannot follow the model, or if a module is
        used twice.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2304, 9))
    >>> converted = pt2e_quantize(model, torch.rand(20, 3, 8, 8))
    >>> sorted({str(value.dtype) for value in converted.state_dict().values()})
    ['torch.float32', 'torch.int64', 'torch.int8']
    """
    from torchao.quantization.pt2e import quantize_pt2e

    check_int("batch_size", batch_size, low=1)
    check_batch("images", images)
    prepared = _prepared(model, images, quantize_pt2e.prepare_pt2e, is_qat=False)
    with torch.no_grad():
        for batch in images.split(batch_size):
            prepared(batch)
    return pt2e_convert(prepared)


def pt2e_prepare_qat(model: nn.Module, example: torch.Tensor) -> fx.GraphModule:
    """Return a copy of a model that rounds while it is trained.

    ``train()`` and ``eval()`` of the result switch batch norm and dropout; a switch takes seconds,
    because it rewrites the graph. After training, :func:`pt2e_convert` makes it int8.

    Parameters
    ----------
    model : nn.Module
        Not changed. See :func:`pt2e_quantize`.
    example : torch.Tensor
        Input of the model, with a batch dimension.

    Raises
    ------
    TypeError, ValueError
        As :func:`pt2e_quantize`.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())
    >>> prepared = pt2e_prepare_qat(model, torch.rand(4, 3, 8, 8))
    >>> prepared(torch.rand(4, 3, 8, 8)).mean().backward()
    >>> pt2e_convert(prepared)(torch.rand(5, 3, 8, 8)).shape
    torch.Size([5, 144])
    """
    from torchao.quantization.pt2e import allow_exported_model_train_eval, quantize_pt2e

    prepared = _prepared(model, example, quantize_pt2e.prepare_qat_pt2e, is_qat=True)
    allow_exported_model_train_eval(prepared)
    prepared.train()  # returns nothing, unlike a module's
    return prepared


def pt2e_convert(prepared: fx.GraphModule) -> fx.GraphModule:
    """Return the int8 version of a graph with observers, without the float weights.

    Parameters
    ----------
    prepared : torch.fx.GraphModule
        From :func:`pt2e_prepare_qat`, trained. Not changed.

    Raises
    ------
    TypeError
        If ``prepared`` is no graph.
    """
    from torchao.quantization.pt2e import (
        allow_exported_model_train_eval,
        move_exported_model_to_eval,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e

    if not isinstance(prepared, fx.GraphModule):
        raise TypeError(
            f"prepared must be a graph from pt2e_prepare_qat, got {type(prepared).__name__}"
        )
    prepared = copy.deepcopy(prepared)
    converted = convert_pt2e(move_exported_model_to_eval(prepared))
    _drop_unused_(converted)
    allow_exported_model_train_eval(converted)
    converted.requires_grad_(False).eval()  # returns nothing, unlike a module's
    return converted


def pt2e_compile(converted: nn.Module, example: torch.Tensor) -> CompiledModel:
    """Compile a converted graph: now the codes are really multiplied as integers.

    Parameters
    ----------
    converted : nn.Module
        From :func:`pt2e_quantize` or :func:`pt2e_convert`; or any network, in floats.
    example : torch.Tensor
        Input; code is made for its shape now, and for each other shape when it comes.

    Raises
    ------
    TypeError, ValueError
        If ``converted`` is no module or ``example`` no batch.
    """
    check_module("converted", converted)
    compiled = CompiledModel(converted)
    compiled(check_batch("example", example))
    return compiled


class CompiledModel(nn.Module):
    """A compiled network for inference, from :func:`pt2e_compile`: weights are constants in it.

    Code is made with ``torch._inductor.config.freezing`` on during a call alone: it is what
    lets the compiler pack the weights for integer instructions.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.code = torch.compile(lambda images: model(images), dynamic=False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits of images, without gradients."""
        # Code belongs to one of these modes; metrics.latency_ms uses inference mode, others not.
        # Freezing at each call: torch.export throws code away, and then it is made anew.
        with torch.inference_mode(False), torch.no_grad(), _freezing():
            return self.code(images)


def save_program(converted: nn.Module, example: torch.Tensor, path: str | os.PathLike) -> int:
    """Write a converted graph into a file that :func:`load_program` reads without the model.

    Parameters
    ----------
    converted : nn.Module
        From :func:`pt2e_quantize` or :func:`pt2e_convert`.
    example : torch.Tensor
        Input, with a batch dimension; the file takes batches of any size.
    path : path
        An old file is replaced.

    Returns
    -------
    int
        The size of the file in bytes.

    Raises
    ------
    TypeError, ValueError
        If ``converted`` is no module or ``example`` no batch.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> converted = pt2e_quantize(nn.Sequential(nn.Linear(30, 40)), torch.rand(8, 30))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     size_bytes = save_program(converted, torch.rand(1, 30), f"{folder}/model.pt2")
    ...     load_program(f"{folder}/model.pt2")(torch.rand(3, 30)).shape
    torch.Size([3, 40])
    """
    check_module("converted", converted)
    path = check_writable("path", path)
    program = _exported(converted, example)
    with tempfile.TemporaryDirectory() as folder:
        file = os.path.join(folder, "model.pt2")
        torch.export.save(program, file)
        with open(file, "rb") as stream:
            content = stream.read()
    write_atomically(path, content)
    return len(content)


def load_program(path: str | os.PathLike) -> nn.Module:
    """Return the graph in a file from :func:`save_program`.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged, or no such file.
    """
    from torchao.quantization.pt2e import allow_exported_model_train_eval

    if not os.path.isfile(path):
        raise FileNotFoundError(f"there is no file {path}; save_program writes it")
    try:
        graph = torch.export.load(path).module()
    except Exception as error:  # each layer of the format has exceptions of its own
        raise ValueError(f"{path} is damaged, or not from save_program: {error}") from error
    allow_exported_model_train_eval(graph)
    graph.eval()  # returns nothing, unlike a module's
    return graph


def _prepared(model: nn.Module, images: torch.Tensor, prepare, *, is_qat: bool) -> fx.GraphModule:
    from torchao.quantization.pt2e.quantizer import x86_inductor_quantizer as x86

    check_module("model", model)
    quantizer = x86.X86InductorQuantizer()
    quantizer.set_global(x86.get_default_x86_inductor_quantization_config(is_qat=is_qat))
    copied = copy.deepcopy(model).train(is_qat)
    graph = _exported(copied, images).module()
    try:
        return prepare(graph, quantizer)
    except ValueError as error:
        if "more than one output node" not in str(error):
            raise
        raise ValueError(
            "model must not use one module object twice (such as one nn.ReLU for two places); "
            "use separate modules, or F.relu"
        ) from error


def _exported(model: nn.Module, example: torch.Tensor) -> torch.export.ExportedProgram:
    check_batch("example", example)
    # Cloned: a file holds the whole memory that the example is a slice of. Two: 1 would stay 1.
    two = example[:1].detach().repeat(2, *[1] * (example.ndim - 1))
    return torch.export.export(model, (two,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},))


def _drop_unused_(graph: fx.GraphModule) -> None:
    """Take out the tensors that no operation reads: the weights before they became codes."""
    used = {node.target for node in graph.graph.nodes if node.op == "get_attr"}
    for name in set(graph.state_dict()) - used:
        owner, _, last = name.rpartition(".")
        delattr(graph.get_submodule(owner), last)


@contextlib.contextmanager
def _freezing() -> Iterator[None]:
    import torch._inductor.config as inductor_config

    with inductor_config.patch(freezing=True), warnings.catch_warnings():
        # torch's own lowering copies scales in a way that torch warns about
        warnings.filterwarnings("ignore", "To copy construct from a tensor", UserWarning)
        yield
