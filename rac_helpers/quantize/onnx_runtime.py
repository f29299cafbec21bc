"""ONNX Runtime: a file that other programs can read, and int8 that runs fast on a CPU.

Three steps: :func:`export_onnx` writes the network as a graph of operations; :func:`quantize_onnx`
puts a pair of operations (to codes, and back) at each place where codes are to flow;
:class:`OnnxModel` runs a file. When it loads one, ONNX Runtime melts a convolution and the pairs
around it into a single operation on integers.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn

from rac_helpers._check import check_int, check_module
from rac_helpers.metrics.score import eval_mode
from rac_helpers.quantize.compare import check_batch
from rac_helpers.records import check_writable, write_atomically

if TYPE_CHECKING:
    import onnx


def export_onnx(model: nn.Module, example: torch.Tensor, path: str | os.PathLike) -> int:
    """Write a model as one ONNX file that takes batches of any size.

    A fixed batch size gains nothing: ResNet-56 took the same time with either. Batch norm is
    folded into the convolutions by the exporter. What only helps a debugger (where in the Python
    source an operation came from) is left out: it can be as large as the weights.

    Parameters
    ----------
    model : nn.Module
        Takes one tensor, returns one tensor. Not changed; exported as it is in eval mode.
    example : torch.Tensor
        Input of the model, with a batch dimension. The file takes this dtype and this size of
        image, and no other.
    path : path
        An old file is replaced.

    Returns
    -------
    int
        The size of the file in bytes.

    Raises
    ------
    TypeError
        If ``model`` is no module, or ``example`` no tensor.
    ValueError
        If ``example`` holds no image, if ``torch.export`` cannot follow the model, or if the file
        does not compute the same: it is run once, on a batch of another size.
    OSError
        If the file cannot be written.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     size_bytes = export_onnx(model, torch.rand(1, 3, 8, 8), f"{folder}/model.onnx")
    ...     OnnxModel(f"{folder}/model.onnx")(torch.rand(5, 3, 8, 8)).shape
    torch.Size([5, 2])
    """
    check_module("model", model)
    check_batch("example", example)
    path = check_writable("path", path)
    with eval_mode(model), torch.no_grad():
        program = _exported(model, example)
        content = _content(program.model_proto)
        _check_same(model, content, example)
    write_atomically(path, content)
    return len(content)


def quantize_onnx(
    source: str | os.PathLike,
    target: str | os.PathLike,
    images: torch.Tensor,
    *,
    batch_size: int = 64,
    reduce_range: bool = False,
) -> int:
    """Write the int8 version of an ONNX file: static quantization, calibrated on images.

    Weights become signed codes with a scale for each channel and zero point 0. What flows between
    layers becomes unsigned codes with a zero point, from the smallest to the largest value seen:
    unsigned times signed is what the int8 instructions of x86 processors multiply, and ReLU costs
    nothing, because the lowest code is 0.0. (Signed codes there took four times as long.)

    Parameters
    ----------
    source : path
        From :func:`export_onnx`.
    target : path
        An old file is replaced.
    images : torch.Tensor
        ``(n, 3, H, W)``, ``n >= 1``; a few hundred that were not chosen by their labels. uint8
        images are divided by 255 if the file takes floats.
    batch_size : int
        At least 1. Images at a time; the result does not depend on it.
    reduce_range : bool
        Leave one bit of the weights unused. For x86 processors without VNNI: they add two products
        in 16 bits, which can overflow. With VNNI it only costs precision.

    Returns
    -------
    int
        The size of the file in bytes.

    Raises
    ------
    FileNotFoundError, ValueError
        If there is no such file, it is damaged, or the images do not fit it.
    TypeError
        If ``images`` is no tensor.
    OSError
        If the file cannot be written.

    References
    ----------
    ONNX Runtime, "Quantize ONNX models". Jacob et al., 2018, arXiv:1712.05877.

    Examples
    --------
    >>> model = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2304, 9))
    >>> images = torch.rand(20, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> from rac_helpers.quantize import compare
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     before = export_onnx(model, images, f"{folder}/float.onnx")
    ...     after = quantize_onnx(f"{folder}/float.onnx", f"{folder}/int8.onnx", images)
    ...     found = compare.agreement(model, OnnxModel(f"{folder}/int8.onnx"), images)
    >>> before / after > 3, found["max_logit_difference"] < 0.05
    (True, True)
    """
    import onnx
    from onnxruntime import quantization
    from onnxruntime.quantization.shape_inference import quant_pre_process

    check_batch("images", images)
    check_int("batch_size", batch_size, low=1)
    target = check_writable("target", target)
    model = OnnxModel(source)
    model(images[:1])  # else a wrong size would be told in the runtime's words
    with tempfile.TemporaryDirectory() as folder:
        inferred, coded = Path(folder, "inferred.onnx"), Path(folder, "coded.onnx")
        quant_pre_process(source, inferred, skip_optimization=True, skip_symbolic_shape=True)
        quantization.quantize_static(
            inferred,
            coded,
            _reader(model, images, batch_size),
            quant_format=quantization.QuantFormat.QDQ,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            per_channel=True,
            reduce_range=reduce_range,
        )
        content = _content(onnx.load(coded))
    write_atomically(target, content)
    return len(content)


class OnnxModel(nn.Module):
    """An ONNX file that can be called like a network: ``metrics.accuracy`` takes it.

    Parameters
    ----------
    path : path
        A file with one input and one output.
    threads : int, optional
        At least 1; ``None`` means as many as PyTorch uses now. They are ONNX Runtime's own.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is no ONNX file, or has several inputs or outputs.

    Examples
    --------
    >>> OnnxModel("nothing.onnx")
    Traceback (most recent call last):
    FileNotFoundError: there is no file nothing.onnx; export_onnx writes it
    """

    def __init__(self, path: str | os.PathLike, *, threads: int | None = None) -> None:
        super().__init__()
        import onnxruntime

        self.path = Path(path)
        if not self.path.is_file():
            raise FileNotFoundError(f"there is no file {path}; export_onnx writes it")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = torch.get_num_threads()
        if threads is not None:
            options.intra_op_num_threads = check_int("threads", threads, low=1)
        options.log_severity_level = 3  # errors only: they are raised, too
        try:
            self.session = onnxruntime.InferenceSession(
                os.fspath(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # the runtime's exceptions have no common base
            raise ValueError(f"{path} is no ONNX file: {_first_line(error)}") from error
        inputs, outputs = self.session.get_inputs(), self.session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise ValueError(
                f"{path} must have one input and one output, got {len(inputs)} and {len(outputs)}"
            )
        self.input = inputs[0]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits of images, ``(n, num_classes)``.

        uint8 images are divided by 255 if the file takes floats, as the course's networks do.
        """
        array = self.prepared(images)
        return torch.from_numpy(self.session.run(None, {self.input.name: array})[0])

    def prepared(self, images: torch.Tensor):
        """Return images as the array that the file takes; raise if they do not fit."""
        if not isinstance(images, torch.Tensor):
            raise TypeError(f"images must be a tensor, got {type(images).__name__}")
        if images.dtype == torch.uint8 and self.input.type == "tensor(float)":
            images = images / 255
        expected, shape = self.input.shape, tuple(images.shape)
        fits = len(expected) == len(shape) and all(
            size == want for size, want in zip(shape, expected, strict=True) if type(want) is int
        )
        if not fits:
            raise ValueError(f"images must have the shape {_text(expected)}, got {shape}")
        kind = str(images.dtype).removeprefix("torch.").replace("float32", "float")
        if self.input.type != f"tensor({kind})":
            raise TypeError(f"images must be a {self.input.type}, got {images.dtype}")
        return images.detach().cpu().numpy()


def _reader(model: OnnxModel, images: torch.Tensor, batch_size: int):
    from onnxruntime.quantization import CalibrationDataReader

    class Batches(CalibrationDataReader):
        def __init__(self) -> None:
            self.batches: Iterator[torch.Tensor] = iter(images.split(batch_size))

        def get_next(self) -> dict | None:
            batch = next(self.batches, None)
            return None if batch is None else {model.input.name: model.prepared(batch)}

    return Batches()


def _exported(model: nn.Module, example: torch.Tensor) -> torch.onnx.ONNXProgram:
    two = example[:1].detach().repeat(2, *[1] * (example.ndim - 1))  # a batch of 1 stays 1
    try:
        return torch.onnx.export(
            model,
            (two,),
            dynamo=True,
            verbose=False,
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim.DYNAMIC},),
        )
    except torch.onnx.OnnxExporterError as error:
        reason = _first_line(error.__cause__ or error)
        raise ValueError(f"model cannot be exported: {reason}") from error


def _check_same(model: nn.Module, content: bytes, example: torch.Tensor) -> None:
    """Compare on three images, which are not as many as the exporter saw."""
    three = example[:1].detach().repeat(3, *[1] * (example.ndim - 1))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "model.onnx")
        path.write_bytes(content)
        found, expected = OnnxModel(path)(three), model(three).cpu()
    near = {"rtol": 1e-3, "atol": 1e-3 * float(expected.abs().max())}
    if found.shape != expected.shape or not torch.allclose(found, expected, **near):
        raise ValueError("the exported file must compute what model does; it differs for 3 images")


def _content(proto: onnx.ModelProto) -> bytes:
    """Return a graph without notes for debuggers and without sizes that a runtime finds itself."""
    del proto.metadata_props[:], proto.graph.metadata_props[:], proto.graph.value_info[:]
    for node in proto.graph.node:
        del node.metadata_props[:]
        node.doc_string = ""
    return proto.SerializeToString(deterministic=True)


def _text(shape: list) -> str:
    return "(" + ", ".join(str(size) if type(size) is int else "n" for size in shape) + ")"


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
