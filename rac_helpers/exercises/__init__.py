"""Checks of the exercises: each takes the reader's answer and raises with a hint if it is wrong.

A check tries the answer on cases where typical mistakes show, and says which mistake it looks
like. It never shows the solution; that is folded away below the exercise.
"""

from rac_helpers.exercises.augmentation import (
    check_choose_setting,
    check_corrupted_accuracy,
    check_difference_error,
    check_flip_batch,
)
from rac_helpers.exercises.distillation import check_soft_gradient, check_soften
from rac_helpers.exercises.distilled_loss import check_kd_loss
from rac_helpers.exercises.distilled_networks import check_attention_map, check_teacher_answers
from rac_helpers.exercises.hint import CORRECT, Hint, expect, run
from rac_helpers.exercises.lowrank import check_break_even_rank, check_truncation
from rac_helpers.exercises.lowrank_factors import check_split_kernel, check_split_matrix
from rac_helpers.exercises.measuring import (
    check_compression_ratio,
    check_conv_macs,
    check_standard_error,
    check_typical_latency,
)
from rac_helpers.exercises.pruning import (
    check_after_step,
    check_cubic,
    check_remaining,
    check_threshold_mask,
)
from rac_helpers.exercises.quantization import check_affine_params, check_quantize
from rac_helpers.exercises.quantized_layers import check_layer_bytes, check_quantize_channels
from rac_helpers.exercises.quantized_values import check_dequantize, check_fake_quantize
from rac_helpers.exercises.randaugment import (
    check_augment_batch,
    check_draw_names,
    check_enhance_factor,
    check_repeat_probability,
    check_to_torchvision,
)
from rac_helpers.exercises.search import check_aging_step, check_mutate, check_pareto_front
from rac_helpers.exercises.search_values import check_expected_improvement, check_reinforce_loss
from rac_helpers.exercises.tuning import check_choose_lr, check_clip, check_log_uniform
from rac_helpers.exercises.tuning_rules import check_halve, check_stop_epoch

__all__ = [
    "CORRECT",
    "Hint",
    "check_affine_params",
    "check_after_step",
    "check_aging_step",
    "check_attention_map",
    "check_augment_batch",
    "check_break_even_rank",
    "check_choose_lr",
    "check_choose_setting",
    "check_clip",
    "check_compression_ratio",
    "check_conv_macs",
    "check_corrupted_accuracy",
    "check_cubic",
    "check_dequantize",
    "check_difference_error",
    "check_draw_names",
    "check_enhance_factor",
    "check_expected_improvement",
    "check_fake_quantize",
    "check_flip_batch",
    "check_halve",
    "check_kd_loss",
    "check_layer_bytes",
    "check_log_uniform",
    "check_mutate",
    "check_pareto_front",
    "check_quantize",
    "check_quantize_channels",
    "check_reinforce_loss",
    "check_remaining",
    "check_repeat_probability",
    "check_soft_gradient",
    "check_soften",
    "check_split_kernel",
    "check_split_matrix",
    "check_standard_error",
    "check_stop_epoch",
    "check_teacher_answers",
    "check_threshold_mask",
    "check_to_torchvision",
    "check_truncation",
    "check_typical_latency",
    "expect",
    "run",
]
