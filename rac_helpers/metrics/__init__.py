"""What a model is worth and what it costs: the numbers in which every method of the course ends.

Import from here: ``from rac_helpers.metrics import count_macs, ledger``.
"""

from rac_helpers.metrics.cost import (
    Latency,
    compression_ratio,
    latency_ms,
    peak_memory_bytes,
    ratio_from_fraction,
    ratio_from_zero_share,
    size_bytes,
)
from rac_helpers.metrics.count import (
    conv_params,
    count_flops,
    count_macs,
    count_nonzeros,
    count_params,
    macs_by_layer,
    sparsity,
)
from rac_helpers.metrics.score import (
    Interval,
    accuracy,
    mean_interval,
    paired_difference,
)
from rac_helpers.metrics.table import LedgerRow, ledger, ledger_numbers, ledger_row

__all__ = [
    "Interval",
    "Latency",
    "LedgerRow",
    "accuracy",
    "compression_ratio",
    "conv_params",
    "count_flops",
    "count_macs",
    "count_nonzeros",
    "count_params",
    "latency_ms",
    "ledger",
    "ledger_numbers",
    "ledger_row",
    "macs_by_layer",
    "mean_interval",
    "paired_difference",
    "peak_memory_bytes",
    "ratio_from_fraction",
    "ratio_from_zero_share",
    "size_bytes",
    "sparsity",
]
