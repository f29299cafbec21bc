"""Files and graphs for fast int8: they say what the network says, and refuse what does not fit."""

from __future__ import annotations

import copy
import os
import subprocess
import sys

import pytest
import torch
from torch import nn

from rac_helpers import metrics, models
from rac_helpers.quantize import onnx_runtime, pt2e
from rac_helpers.quantize.compare import agreement
from rac_helpers.rng import make_generator

IMAGES = torch.rand(24, 3, 16, 16, generator=make_generator(0))
AS_BYTES = (255 * IMAGES).round().to(torch.uint8)


@pytest.fixture(scope="module")
def model() -> nn.Module:
    """A network with both kinds of shortcuts, whose batch norm has seen images."""
    network = models.ResNet(8, width=4, seed=0)
    with torch.no_grad():
        for _ in range(20):
            network(IMAGES)
    return network.eval()


@pytest.fixture(scope="module")
def files(model, tmp_path_factory):
    """The float file, the int8 file, and their sizes as they were returned."""
    folder = tmp_path_factory.mktemp("onnx")
    paths = folder / "float.onnx", folder / "int8.onnx"
    sizes = [onnx_runtime.export_onnx(model, IMAGES[:1], paths[0])]
    sizes.append(onnx_runtime.quantize_onnx(*paths, IMAGES, batch_size=10))
    return *paths, sizes


@pytest.fixture(scope="module")
def converted(model):
    return pt2e.pt2e_quantize(model, IMAGES)


# -- ONNX Runtime ---------------------------------------------------------------------------------


def test_the_float_file_says_the_same(model, files):
    found = agreement(model, onnx_runtime.OnnxModel(files[0]), IMAGES)
    assert found["equal_predictions"] == 1
    assert found["max_logit_difference"] < 1e-4


def test_the_int8_file_says_nearly_the_same(model, files):
    found = agreement(model, onnx_runtime.OnnxModel(files[1]), IMAGES)
    with torch.no_grad():
        spread = float(model(IMAGES).std())
    assert 0 < found["max_logit_difference"] < 0.5 * spread
    assert found["equal_predictions"] > 0.8


def test_sizes_are_those_of_the_files(model, files):
    *paths, sizes = files
    assert [os.path.getsize(path) for path in paths] == sizes
    names = [path.name for path in paths[0].parent.iterdir()]
    assert sorted(names) == ["float.onnx", "int8.onnx"]  # no second file of weights


def test_codes_have_the_fast_types(files):
    """uint8 between layers, int8 with a scale a channel in them: the others are slow."""
    import onnx

    graph = onnx.load(files[1]).graph
    values = {one.name: onnx.numpy_helper.to_array(one) for one in graph.initializer}
    quantizers = [node for node in graph.node if node.op_type == "QuantizeLinear"]
    assert quantizers
    assert {values[node.input[2]].dtype.name for node in quantizers} == {"uint8"}
    convs = [node for node in graph.node if node.op_type == "Conv"]
    made_by = {node.output[0]: node for node in graph.node}
    for conv in convs:
        codes, scale, zero = (values[name] for name in made_by[conv.input[1]].input)
        assert codes.dtype == zero.dtype == "int8"
        assert scale.shape == (codes.shape[0],)
        assert not zero.any()
    assert len(convs) == 7
    assert not [node for node in graph.node if node.op_type == "BatchNormalization"]


def test_calibration_does_not_depend_on_the_batch_size(files, tmp_path):
    onnx_runtime.quantize_onnx(files[0], tmp_path / "other.onnx", IMAGES, batch_size=24)
    assert (tmp_path / "other.onnx").read_bytes() == files[1].read_bytes()


def test_metrics_take_the_file(model, files):
    loaded = onnx_runtime.OnnxModel(files[0], threads=1)
    labels = model(IMAGES).argmax(1)
    assert metrics.accuracy(loaded, (AS_BYTES, labels)) == 1
    assert metrics.latency_ms(loaded, IMAGES[:1], runs=2).runs == 2
    assert loaded.session.get_session_options().intra_op_num_threads == 1


def test_a_file_of_bytes(model, tmp_path):
    onnx_runtime.export_onnx(model, AS_BYTES[:2], tmp_path / "a.onnx")
    onnx_runtime.quantize_onnx(tmp_path / "a.onnx", tmp_path / "b.onnx", AS_BYTES)
    assert (
        agreement(model, onnx_runtime.OnnxModel(tmp_path / "b.onnx"), AS_BYTES)["equal_predictions"]
        > 0.8
    )
    with pytest.raises(TypeError, match=r"must be a tensor\(uint8\), got torch.float32"):
        onnx_runtime.OnnxModel(tmp_path / "a.onnx")(IMAGES)


def test_export_leaves_the_model_alone(model, tmp_path):
    training = copy.deepcopy(model).train()
    before = copy.deepcopy(training.state_dict())
    onnx_runtime.export_onnx(training, IMAGES[:1], tmp_path / "model.onnx")
    assert all(module.training for module in training.modules())
    assert all(torch.equal(value, before[key]) for key, value in training.state_dict().items())


class Branching(nn.Module):
    def forward(self, images):
        return images.flatten(1) if images.sum() > 0 else images.flatten(1) + 1


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"model": 3}, TypeError, "model must be a torch.nn.Module, got int"),
        ({"example": [1]}, TypeError, "example must be a tensor, got list"),
        ({"example": IMAGES[:0]}, ValueError, "example must have shape"),
        ({"model": Branching()}, ValueError, "model cannot be exported: Could not guard"),
    ],
)
def test_what_cannot_be_exported(change, error, message, model, tmp_path):
    given = {"model": model, "example": IMAGES, "path": tmp_path / "model.onnx"} | change
    with pytest.raises(error, match=message):
        onnx_runtime.export_onnx(**given)
    assert not list(tmp_path.iterdir())


def test_a_file_that_computes_something_else_is_refused(model):
    other = models.ResNet(8, width=4, seed=1).eval()
    content = onnx_runtime._content(onnx_runtime._exported(other, IMAGES).model_proto)
    with pytest.raises(ValueError, match="it differs for 3 images"), torch.no_grad():
        onnx_runtime._check_same(model, content, IMAGES)


@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (IMAGES[..., 1:], ValueError, r"must have the shape \(n, 3, 16, 16\), got \(24, 3, 16, 15"),
        (IMAGES[0], ValueError, r"must have the shape \(n, 3, 16, 16\), got \(3, 16, 16\)"),
        (IMAGES.double(), TypeError, r"must be a tensor\(float\), got torch.float64"),
        ("images", TypeError, "images must be a tensor, got str"),
    ],
)
def test_images_that_do_not_fit(images, error, message, files, tmp_path):
    with pytest.raises(error, match=message):
        onnx_runtime.OnnxModel(files[0])(images)
    with pytest.raises(error, match="images must"):
        onnx_runtime.quantize_onnx(files[0], tmp_path / "target.onnx", images)


def test_files_that_do_not_fit(files, tmp_path):
    cut = tmp_path / "cut.onnx"
    for content in (files[0].read_bytes()[:9000], b"", b"something else"):
        cut.write_bytes(content)
        with pytest.raises(ValueError, match=r"cut\.onnx is no ONNX file"):
            onnx_runtime.OnnxModel(cut)
    with pytest.raises(FileNotFoundError, match=r"there is no file .*; export_onnx writes it"):
        onnx_runtime.quantize_onnx(tmp_path / "none.onnx", tmp_path / "t.onnx", IMAGES)
    with pytest.raises(ValueError, match="threads must be an integer >= 1, got 0"):
        onnx_runtime.OnnxModel(files[0], threads=0)
    with pytest.raises(ValueError, match="batch_size must be an integer >= 1, got 0"):
        onnx_runtime.quantize_onnx(files[0], tmp_path / "t.onnx", IMAGES, batch_size=0)


def test_agreement_finds_differences():
    class Logits(nn.Module):
        def __init__(self, rows):
            super().__init__()
            self.rows = torch.tensor(rows)

        def forward(self, images):
            return self.rows[images[:, 0].long()]

    images = torch.arange(2.0)[:, None]
    ours, theirs = Logits([[1.0, 2.0], [3.0, 0.0]]), Logits([[1.5, 2.0], [3.0, 4.0]])
    found = agreement(ours, theirs, images, batch_size=1)
    assert found == {"max_logit_difference": 4, "equal_predictions": 0.5}
    with pytest.raises(ValueError, match=r"same shape, got \(2, 2\) and \(2, 3\)"):
        agreement(ours, Logits([[1.0, 2.0, 3.0]] * 2), images)
    with pytest.raises(ValueError, match="images must have shape"):
        agreement(ours, theirs, images[:0])


def test_nothing_heavy_is_imported_before_it_is_needed():
    code = "import sys, rac_helpers.quantize.onnx_runtime, rac_helpers.quantize.pt2e\n"
    code += "print([n for n in ('onnx', 'onnxruntime', 'torchao') if n in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"


# -- PT2E -----------------------------------------------------------------------------------------


def test_the_converted_graph_says_nearly_the_same(model, converted):
    found = agreement(model, converted, IMAGES)
    with torch.no_grad():
        spread = float(model(IMAGES).std())
    assert 0 < found["max_logit_difference"] < 0.5 * spread


def test_float_weights_are_dropped(model, converted):
    state = converted.state_dict()
    codes = [value for value in state.values() if value.dtype == torch.int8]
    weights = [value for name, value in model.state_dict().items() if value.ndim > 1]
    assert sorted(value.numel() for value in codes) == sorted(value.numel() for value in weights)
    assert max(value.ndim for value in state.values() if value.dtype == torch.float32) <= 1
    assert not model.training
    assert converted(IMAGES[:5]).shape == (5, 10)


def test_training_with_rounding():
    """By hand: each switch of the mode searches the graph for batch norm, which takes long."""
    layers = nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten()
    network = nn.Sequential(*layers, nn.Linear(4 * 36, 2))
    images, before = IMAGES[..., :8, :8], copy.deepcopy(network.state_dict())
    prepared = pt2e.pt2e_prepare_qat(network, images)
    optimizer = torch.optim.SGD(prepared.parameters(), lr=0.01)
    weights = {name: value.clone() for name, value in prepared.named_parameters()}
    for _ in range(3):
        optimizer.zero_grad()
        prepared(images).square().mean().backward()
        optimizer.step()
    changed = [n for n, value in prepared.named_parameters() if not torch.equal(value, weights[n])]
    assert len(changed) == len(list(network.parameters()))
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    converted = pt2e.pt2e_convert(prepared)
    assert [v.dtype for v in converted.state_dict().values()].count(torch.int8) == 2
    prepared.eval()
    found = agreement(prepared, converted, images)
    assert found["max_logit_difference"] < 0.05


def test_a_saved_program_is_loaded_without_the_model(converted, tmp_path):
    path = tmp_path / "model.pt2"
    size_bytes = pt2e.save_program(converted, IMAGES[:1], path)
    assert size_bytes == os.path.getsize(path)
    assert agreement(converted, pt2e.load_program(path), IMAGES)["max_logit_difference"] == 0
    large = torch.rand(5000, 3, 16, 16)  # an example that is a slice of much
    assert abs(pt2e.save_program(converted, large[:1], path) - size_bytes) < 1000
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(ValueError, match="is damaged, or not from save_program"):
        pt2e.load_program(path)
    with pytest.raises(FileNotFoundError, match="save_program writes it"):
        pt2e.load_program(tmp_path / "none.pt2")


def test_freezing_is_on_in_each_call_and_off_after_it(monkeypatch):
    """Code may be made anew at any call. The real compiler takes long: another stands in for it."""
    import torch._inductor.config as inductor_config

    seen = []

    def compile_(function, *, dynamic):
        assert dynamic is False

        def code(images):
            modes = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
            seen.append((bool(inductor_config.freezing), len(images), *modes))
            return function(images)

        return code

    monkeypatch.setattr(torch, "compile", compile_)
    compiled = pt2e.pt2e_compile(nn.Flatten(), IMAGES[:1])
    with torch.inference_mode():
        compiled(IMAGES[:1])
    compiled(IMAGES[:2])
    compiled(IMAGES[:2])
    off = (False, False)
    assert seen == [(True, 1, *off), (True, 1, *off), (True, 2, *off), (True, 2, *off)]
    assert not inductor_config.freezing


def test_a_module_used_twice_is_named():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second, self.relu = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.ReLU()

        def forward(self, images):
            return self.relu(self.second(self.relu(self.first(images))))

    with pytest.raises(ValueError, match="must not use one module object twice"):
        pt2e.pt2e_quantize(Twice(), IMAGES)


def test_pt2e_refuses_what_does_not_fit(model):
    with pytest.raises(TypeError, match=r"model must be a torch.nn.Module, got int"):
        pt2e.pt2e_quantize(3, IMAGES)
    with pytest.raises(ValueError, match="images must have shape"):
        pt2e.pt2e_quantize(model, IMAGES[:0])
    with pytest.raises(ValueError, match="batch_size must be an integer >= 1, got 0"):
        pt2e.pt2e_quantize(model, IMAGES, batch_size=0)
    with pytest.raises(ValueError, match="example must have shape"):
        pt2e.pt2e_prepare_qat(model, IMAGES[:0])
    with pytest.raises(
        TypeError, match="prepared must be a graph from pt2e_prepare_qat, got ResNet"
    ):
        pt2e.pt2e_convert(model)
    with pytest.raises(TypeError, match=r"converted must be a torch.nn.Module, got int"):
        pt2e.pt2e_compile(3, IMAGES)
    with pytest.raises(ValueError, match="example must have shape"):
        pt2e.pt2e_compile(model, IMAGES[:0])
    with pytest.raises(TypeError, match=r"converted must be a torch.nn.Module, got int"):
        pt2e.save_program(3, IMAGES, "none.pt2")
