"""One network, made ready for each runtime: what can be called, and what has to be shipped.

:func:`variants` returns all of them, float and int8, by name of the runtime and precision. Each
takes float images in ``[0, 1]`` and returns logits. OpenVINO and ExecuTorch are left out, with a
line on stderr, where they are not installed (``make runtimes`` installs them).
"""

from __future__ import annotations

import contextlib
import copy
import importlib.metadata
import importlib.util
import io
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn

from rac_helpers import metrics
from rac_helpers.quantize import onnx_runtime, pt2e

PACKAGES = {
    "torchao-dynamic": ("torch", "torchao"),
    "pt2e-eager": ("torch", "torchao"),
    "pt2e-compile": ("torch", "torchao"),
    "onnxruntime": ("onnxruntime",),
    "openvino": ("openvino", "nncf"),
    "executorch": ("executorch", "torchao"),
}  # all others: torch alone


@dataclass(frozen=True)
class Variant:
    """What can be called like the network; and the bytes of the file that it needs."""

    module: nn.Module
    size_bytes: int


@dataclass(frozen=True)
class Job:
    """What all runtimes are given."""

    model: nn.Module
    calibration: torch.Tensor  # (n, 3, H, W), floats
    example: torch.Tensor  # (batch_size, 3, H, W), floats
    threads: int
    folder: Path  # for files


class Calls(nn.Module):
    """A function as a module, so that the course's measures take it."""

    def __init__(self, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.forward = function


def variants(job: Job) -> dict[tuple[str, str], Variant]:
    """Return the network in all runtimes that are installed, eager float32 first."""
    makers = [in_torch, with_torchao, in_onnxruntime]
    for name, needed, maker in (
        ("OpenVINO", ("openvino", "nncf"), in_openvino),
        ("ExecuTorch", ("executorch",), in_executorch),
    ):
        missing = [package for package in needed if importlib.util.find_spec(package) is None]
        if missing:
            print(f"left out: {name} (not installed: {', '.join(missing)})", file=sys.stderr)
        else:
            makers.append(maker)
    found = {}
    with third_party_warnings():
        for maker in makers:
            found |= maker(job)
    return found


@contextlib.contextmanager
def third_party_warnings() -> Iterator[None]:
    """Pass over what the runtimes warn about themselves."""
    with warnings.catch_warnings():
        for package in ("executorch", "openvino", "nncf"):
            warnings.filterwarnings("ignore", module=rf"{package}\b")
        yield


def software(runtime: str) -> str:
    """Return the packages of a runtime and their versions."""
    names = PACKAGES.get(runtime, ("torch",))
    return ", ".join(f"{name} {importlib.metadata.version(name)}" for name in names)


def in_torch(job: Job) -> dict[tuple[str, str], Variant]:
    """Eager, channels last, in bfloat16, compiled: a file of weights, beside the Python code."""
    model, size_bytes = job.model, metrics.size_bytes(job.model)
    last = copy.deepcopy(model).to(memory_format=torch.channels_last)
    brief = copy.deepcopy(model).bfloat16()

    def channels_last(images: torch.Tensor) -> torch.Tensor:
        return last(images.contiguous(memory_format=torch.channels_last))

    def bfloat16(images: torch.Tensor) -> torch.Tensor:
        return brief(images.bfloat16()).float()

    compiled = pt2e.pt2e_compile(copy.deepcopy(model), job.example)
    return {
        ("eager", "float32"): Variant(model, size_bytes),
        ("channels-last", "float32"): Variant(Calls(channels_last), size_bytes),
        ("eager", "bfloat16"): Variant(Calls(bfloat16), metrics.size_bytes(brief)),
        ("compile", "float32"): Variant(compiled, size_bytes),
    }


def with_torchao(job: Job) -> dict[tuple[str, str], Variant]:
    """PT2E, not compiled and compiled (its exported program is the file); linear layers alone."""
    from torchao.quantization import Int8DynamicActivationInt8WeightConfig, quantize_

    converted = pt2e.pt2e_quantize(job.model, job.calibration)
    size_bytes = pt2e.save_program(converted, job.example, job.folder / "pt2e.pt2")
    compiled = pt2e.pt2e_compile(copy.deepcopy(converted), job.example)
    dynamic = copy.deepcopy(job.model)
    quantize_(dynamic, Int8DynamicActivationInt8WeightConfig())
    stream = io.BytesIO()
    torch.save(dynamic.state_dict(), stream)
    return {
        ("pt2e-eager", "int8"): Variant(converted, size_bytes),
        ("pt2e-compile", "int8"): Variant(compiled, size_bytes),
        ("torchao-dynamic", "int8"): Variant(dynamic, stream.tell()),
    }


def in_onnxruntime(job: Job) -> dict[tuple[str, str], Variant]:
    """ONNX Runtime, the course's own way."""
    paths = {name: job.folder / f"{name}.onnx" for name in ("float32", "int8")}
    sizes = {"float32": onnx_runtime.export_onnx(job.model, job.example, paths["float32"])}
    sizes["int8"] = onnx_runtime.quantize_onnx(*paths.values(), job.calibration)
    return {
        ("onnxruntime", name): Variant(
            onnx_runtime.OnnxModel(path, threads=job.threads), sizes[name]
        )
        for name, path in paths.items()
    }


def in_openvino(job: Job) -> dict[tuple[str, str], Variant]:
    """OpenVINO from the ONNX file; int8 by NNCF, also from it."""
    import nncf
    import openvino

    path = job.folder / "openvino.onnx"
    onnx_runtime.export_onnx(job.model, job.example, path)
    core = openvino.Core()
    images = nncf.Dataset([image[None].numpy() for image in job.calibration])
    quantized = nncf.quantize(
        core.read_model(path),
        images,
        subset_size=len(job.calibration),
        preset=nncf.QuantizationPreset.MIXED,  # unsigned codes after ReLU
    )
    graphs = {"float32": core.read_model(path), "int8": quantized}
    return {("openvino", name): openvino_variant(job, graph) for name, graph in graphs.items()}


def openvino_variant(job: Job, graph) -> Variant:
    """Compile a graph for the example's batch size, in float32 where it is not int8."""
    import openvino

    file = job.folder / "openvino.xml"
    openvino.save_model(graph, file, compress_to_fp16=False)
    size_bytes = file.stat().st_size + file.with_suffix(".bin").stat().st_size
    graph.reshape(list(job.example.shape))
    settings = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": job.threads,
        "INFERENCE_PRECISION_HINT": "f32",  # else bfloat16 where the processor has it
    }
    request = openvino.Core().compile_model(graph, "CPU", settings).create_infer_request()

    def call(images: torch.Tensor) -> torch.Tensor:
        request.infer([images.numpy()], share_inputs=True)
        return torch.from_numpy(request.get_output_tensor().data.copy())

    return Variant(Calls(call), size_bytes)


def in_executorch(job: Job) -> dict[tuple[str, str], Variant]:
    """ExecuTorch with XNNPACK, the runtime of phones."""
    from executorch.backends.xnnpack.quantizer import xnnpack_quantizer as xnnpack
    from executorch.extension.pybindings import portable_lib
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    threads = portable_lib._threadpool_get_thread_count()
    if threads != job.threads:  # _unsafe_reset_threadpool would change it, and may then hang
        print(f"left out: ExecuTorch (it uses {threads} threads here)", file=sys.stderr)
        return {}
    quantizer = xnnpack.XNNPACKQuantizer()
    quantizer.set_global(xnnpack.get_symmetric_quantization_config(is_per_channel=True))
    example = job.calibration[: len(job.example)]
    graph = torch.export.export(copy.deepcopy(job.model), (job.example.clone(),)).module()
    prepared = prepare_pt2e(graph, quantizer)
    with torch.no_grad():
        for batch in job.calibration.split(len(example)):
            if len(batch) == len(job.example):  # the graph is made for one batch size
                prepared(batch)
    models = {"float32": job.model, "int8": convert_pt2e(prepared)}
    return {("executorch", name): executorch_variant(job, model) for name, model in models.items()}


def executorch_variant(job: Job, model: nn.Module) -> Variant:
    """Lower a model for the example's batch size and load it."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower
    from executorch.runtime import Runtime

    program = torch.export.export(model, (job.example.clone(),))
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    content = bytes(lowered.to_executorch().buffer)
    loaded = Runtime.get().load_program(content)
    method = loaded.load_method("forward")

    def call(images: torch.Tensor) -> torch.Tensor:
        return method.execute([images])[0].clone()

    variant = Variant(Calls(call), len(content))
    variant.module.kept = (content, loaded)  # the method reads from them
    return variant
