"""Which Keras dtype policy pays on a machine, and what `train.precision: auto` stands for."""

import dataclasses
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Literal

from pipeline.params import Params
from pipeline.quiet import load_tensorflow

Policy = Literal["float32", "mixed_bfloat16", "mixed_float16"]
_BFLOAT16_FLAGS = {"avx512_bf16", "amx_bf16"}
_BFLOAT16_FROM = 96  # pixels a side


def best_precision(size: int, flags: Collection[str], capabilities: Sequence[tuple[int, int]]) -> tuple[Policy, str]:
    """Return the dtype policy that trains fastest, and why.

    Parameters
    ----------
    size : int
        Pixels a side of the network's input.
    flags : collection of str
        The processor's, as in /proc/cpuinfo.
    capabilities : sequence of (major, minor)
        CUDA compute capability of each GPU; empty without one.

    Notes
    -----
    Tensor cores multiply float16 from compute capability 7.0 and bfloat16 from 8.0 on (NVIDIA, CUDA C++ Programming
    Guide, "Compute Capabilities"). AVX512_BF16 and AMX-BF16 are the x86 instructions for bfloat16 (Intel
    Architecture Instruction Set Extensions Programming Reference); measured with AVX512_BF16, a ResNet50 trains 1.3
    times as fast from 96 pixels a side on and hardly faster at 64. bfloat16 is preferred to float16 where both are
    there: it has float32's range and needs no loss scaling.
    """
    if capabilities:
        lowest = min(capabilities)
        policy: Policy = "mixed_bfloat16" if lowest >= (8, 0) else "mixed_float16" if lowest >= (7, 0) else "float32"
        return policy, f"the GPU has compute capability {lowest[0]}.{lowest[1]}"
    if found := sorted(_BFLOAT16_FLAGS & set(flags)):
        reason = f"the processor has {' and '.join(found)}, which help from {_BFLOAT16_FROM} pixels a side on"
        return ("mixed_bfloat16" if size >= _BFLOAT16_FROM else "float32"), reason
    return "float32", "the processor has no bfloat16 instructions (AVX512_BF16 or AMX)"


def resolve_precision(params: Params) -> Params:
    """Put the policy that pays on this machine in the place of `train.precision: auto`.

    The result is what is recorded: whoever repeats the run elsewhere gets the same policy, not the same search.
    """
    if params.train.precision != "auto":
        return params
    load_tensorflow()
    policy, _ = best_precision(params.preprocess.size, cpu_flags(), gpu_capabilities())
    return dataclasses.replace(params, train=dataclasses.replace(params.train, precision=policy))


def cpu_flags() -> set[str]:
    """Return the processor's feature flags; empty where the system does not list them (not Linux)."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.exists() else []
    return next((set(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), set())


def gpu_capabilities() -> list[tuple[int, int]]:
    """Return the CUDA compute capability of each GPU that TensorFlow sees."""
    import tensorflow as tf

    details = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    return [tuple(item["compute_capability"]) for item in details if "compute_capability" in item]
