"""Quantization: store and compute with few bits.

Open a module for what you want to know; in this order they build on each other.

From numbers to codes:

- ``ranges``, ``params``, ``codes``: scale and zero point; to codes and back;
- ``codebook``, ``few_bits``: codes without a grid (k-means; ``slices``: the best cut), binary and
  ternary weights;
- ``observers``: from where to where the codes reach.

A network that computes with rounded numbers, and one that is trained so:

- ``fake``: rounding that lets gradients through; ``layers``: put into a network;
- ``calibration``: which scale for which layer; ``mixed``: which bits for which layer;
- ``fold``: batch norm, folded into the layer before it (``operations``: what a network does);
- ``qat``: quantization-aware training.

A file that is small:

- ``bits``, ``huffman``: codes as bits; ``packed``, ``decoding``, ``stored``: a network of codes;
  ``files``: to disk and back.

Integers that compute:

- ``integer``, ``integer_layers``, ``integer_network``: with nothing but integers, spelled out
  (``rescale``: from one scale to another);
- ``onnx_runtime``, ``pt2e``: with a fast runtime; ``compare``: do two networks agree?
"""

from rac_helpers.quantize.bits import pack_bits, unpack_bits
from rac_helpers.quantize.calibration import (
    Observer,
    input_params,
    largest_weight,
    least_error,
    observe_inputs,
    weight_params,
)
from rac_helpers.quantize.codebook import Codebook, kmeans_codebook
from rac_helpers.quantize.codes import dequantize, fake_quantize, quantize, quantize_stochastic
from rac_helpers.quantize.compare import agreement
from rac_helpers.quantize.decoding import StoredConv2d, StoredLinear
from rac_helpers.quantize.fake import (
    DynamicQuantizer,
    FakeQuantizer,
    LearnedQuantizer,
    ObservedQuantizer,
    fake_quantize_ste,
    keep_scales_positive_,
    round_ste,
)
from rac_helpers.quantize.few_bits import BinaryQuantizer, binary_weights, ternary_weights
from rac_helpers.quantize.files import bytes_by_kind, load, save
from rac_helpers.quantize.fold import fold_batch_norm
from rac_helpers.quantize.huffman import (
    decode_huffman,
    encode_huffman,
    entropy_bits,
    huffman_lengths,
)
from rac_helpers.quantize.integer import IntegerAdd, IntegerMean, IntegerTable
from rac_helpers.quantize.integer_layers import IntegerConv2d, IntegerLinear
from rac_helpers.quantize.integer_network import integer_network
from rac_helpers.quantize.layers import (
    QuantConv2d,
    QuantLinear,
    insert_quantizers,
    quantizable,
    rounded_weight,
)
from rac_helpers.quantize.mixed import bit_losses, choose_bits, weight_bytes
from rac_helpers.quantize.observers import (
    Entropy,
    MeanSquaredError,
    MinMax,
    MovingAverage,
    Percentile,
)
from rac_helpers.quantize.onnx_runtime import OnnxModel, export_onnx, quantize_onnx
from rac_helpers.quantize.packed import AffineWeight, CodebookWeight, PackedWeight, SignWeight
from rac_helpers.quantize.params import (
    QParams,
    affine_params,
    fixed_point_params,
    symmetric_params,
)
from rac_helpers.quantize.pt2e import (
    CompiledModel,
    load_program,
    pt2e_compile,
    pt2e_convert,
    pt2e_prepare_qat,
    pt2e_quantize,
    save_program,
)
from rac_helpers.quantize.qat import QuantAware, fold_quantized, params_of, remove_quantizers
from rac_helpers.quantize.ranges import code_range, split_groups, value_range
from rac_helpers.quantize.stored import store, stored_layers, trained_params

__all__ = [
    "AffineWeight",
    "BinaryQuantizer",
    "Codebook",
    "CodebookWeight",
    "CompiledModel",
    "DynamicQuantizer",
    "Entropy",
    "FakeQuantizer",
    "IntegerAdd",
    "IntegerConv2d",
    "IntegerLinear",
    "IntegerMean",
    "IntegerTable",
    "LearnedQuantizer",
    "MeanSquaredError",
    "MinMax",
    "MovingAverage",
    "ObservedQuantizer",
    "Observer",
    "OnnxModel",
    "PackedWeight",
    "Percentile",
    "QParams",
    "QuantAware",
    "QuantConv2d",
    "QuantLinear",
    "SignWeight",
    "StoredConv2d",
    "StoredLinear",
    "affine_params",
    "agreement",
    "binary_weights",
    "bit_losses",
    "bytes_by_kind",
    "choose_bits",
    "code_range",
    "decode_huffman",
    "dequantize",
    "encode_huffman",
    "entropy_bits",
    "export_onnx",
    "fake_quantize",
    "fake_quantize_ste",
    "fixed_point_params",
    "fold_batch_norm",
    "fold_quantized",
    "huffman_lengths",
    "input_params",
    "insert_quantizers",
    "integer_network",
    "keep_scales_positive_",
    "kmeans_codebook",
    "largest_weight",
    "least_error",
    "load",
    "load_program",
    "observe_inputs",
    "pack_bits",
    "params_of",
    "pt2e_compile",
    "pt2e_convert",
    "pt2e_prepare_qat",
    "pt2e_quantize",
    "quantizable",
    "quantize",
    "quantize_onnx",
    "quantize_stochastic",
    "remove_quantizers",
    "round_ste",
    "rounded_weight",
    "save",
    "save_program",
    "split_groups",
    "store",
    "stored_layers",
    "symmetric_params",
    "ternary_weights",
    "trained_params",
    "unpack_bits",
    "value_range",
    "weight_bytes",
    "weight_params",
]
