"""Tests of engine/kernels/: every kernel compiles for GPUs from Turing to Blackwell, without one, and spills nothing.

As a script it prints what the compiler made of each, for all of these GPUs or for those whose compute capability is
given: `python tests/unit/engine/test_kernels_compile.py 75 90`.
"""

import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pytest

#: What the pointers of the kernels point to; those not named here, at activations.
POINTERS = {
    "*fp32": (
        "bias gamma beta scale mean_out rstd_out mean rstd dgamma dbeta dbias share affine displacements norms rates "
        "vector_grads masters firsts seconds averages mean_std"
    ),
    "*i64": "labels partner_labels indices centres partners position",
    "*fp64": "sums",
    "*u8": "images",
}
TYPES = {name: kind for kind, names in POINTERS.items() for name in names.split()}

# Blocks and warps as the wrappers choose them for 256 features, 4,096 features and 256 hidden values or more.
NORM = {"BLOCK_R": 8, "BLOCK_D": 256, "num_warps": 4}
WIDE_NORM = {"BLOCK_R": 1, "BLOCK_D": 4096, "num_warps": 8}
NORM_BACKWARD = {"BLOCK_R": 8, "BLOCK_D": 256, "num_warps": 8, "STAGES": 2}
WIDE_NORM_BACKWARD = {"BLOCK_R": 1, "BLOCK_D": 4096, "num_warps": 16, "STAGES": 2}
ACTIVATION = {"BLOCK_R": 8, "BLOCK_C": 256, "num_warps": 4}
ACTIVATION_BACKWARD = {"BLOCK_R": 8, "BLOCK_C": 256, "num_warps": 8, "STAGES": 2}
LOSS = {"CLASSES": 10, "BLOCK_B": 128, "BLOCK_L": 16}
PATCHES = {"BLOCK": 512}
STEP = {"BLOCK": 1024, "BLOCK_G": 256}

NO_NORM = "gamma beta n_out mean_out rstd_out"
NO_NORM_BACKWARD = "mean rstd gamma dgamma dbeta"
NO_DROP_PATH = "scale dy_out"
NO_MIXUP = "partner_labels share"

#: Compute capabilities: Turing (T4), Ampere (A100, A40), Ada (L40), Hopper (H100, H200), Blackwell (B200, RTX 50).
CAPABILITIES = (75, 80, 86, 89, 90, 100, 120)
#: In the suite: one without bfloat16, one with the fewest registers for a block, and the newest.
TESTED = (75, 90, 120)

#: Module, kernel -> for each variant, the pointers that are None and the constants.
VARIANTS: dict[tuple[str, str], list[tuple[str, dict[str, Any]]]] = {
    ("norm", "_residual_norm_kernel"): [
        ("", {**NORM, "TOKEN_BIAS": True}),
        ("residual scale", {**NORM, "TOKEN_BIAS": False}),
        (NO_NORM, {**NORM, "TOKEN_BIAS": False}),
        ("", {**WIDE_NORM, "TOKEN_BIAS": False}),
    ],
    ("norm", "_residual_norm_backward_kernel"): [
        ("", {**NORM_BACKWARD, "TOKEN_BIAS": False, "DN_PER_IMAGE": True}),
        ("", {**NORM_BACKWARD, "TOKEN_BIAS": True, "DN_PER_IMAGE": False}),
        (NO_DROP_PATH, {**NORM_BACKWARD, "TOKEN_BIAS": False, "DN_PER_IMAGE": False}),
        (NO_NORM_BACKWARD, {**NORM_BACKWARD, "TOKEN_BIAS": False, "DN_PER_IMAGE": False}),
        ("", {**WIDE_NORM_BACKWARD, "TOKEN_BIAS": False, "DN_PER_IMAGE": False}),
    ],
    ("activation", "_bias_act_kernel"): [
        ("mask", {**ACTIVATION, "BIAS_PER_ROW": True, "ACTIVATION": "gelu"}),
        ("", {**ACTIVATION, "BIAS_PER_ROW": False, "ACTIVATION": "relu"}),
    ],
    ("activation", "_bias_act_backward_kernel"): [
        ("mask", {**ACTIVATION_BACKWARD, "BIAS_PER_ROW": True, "ACTIVATION": "gelu"}),
        ("mask", {**ACTIVATION_BACKWARD, "BIAS_PER_ROW": False, "ACTIVATION": "gelu"}),
        ("", {**ACTIVATION_BACKWARD, "BIAS_PER_ROW": False, "ACTIVATION": "gelu"}),
        ("mask", {**ACTIVATION_BACKWARD, "BIAS_PER_ROW": False, "ACTIVATION": "relu"}),
    ],
    ("loss", "_loss_kernel"): [("", LOSS), (NO_MIXUP, LOSS), (f"{NO_MIXUP} dlogits dbias", LOSS)],
    ("patches", "_make_patches_kernel"): [
        ("", PATCHES),
        ("displacements centres partners share", PATCHES),
        ("affine displacements centres partners share", PATCHES),
    ],
    ("optimizer", "_norms_kernel"): [("", {"BLOCK": 2048, "STAGES": 2})],
    ("optimizer", "_step_kernel"): [
        ("", {**STEP, "OPTIMIZER": "adamw"}),
        ("averages", {**STEP, "OPTIMIZER": "adam"}),
        ("norms averages seconds", {**STEP, "OPTIMIZER": "sgd"}),
    ],
}


@dataclass(frozen=True)
class Compiled:
    """What a kernel came to. `stack` bytes are spilled registers."""

    capability: int
    kernel: str
    absent: str
    cubin: int
    registers: int
    stack: int
    shared: int


def compiled_kernels(capability: int) -> Iterator[Compiled]:
    """Compile every variant for a compute capability."""
    from importlib import import_module

    for (module, name), variants in VARIANTS.items():
        kernel = getattr(import_module(f"kmnist_search.engine.kernels.{module}"), name)
        for absent, constants in variants:
            yield compile_kernel(kernel, absent, constants, capability)


def compile_kernel(kernel: Any, absent: str, constants: Mapping[str, Any], capability: int) -> Compiled:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    activations = "*bf16" if capability >= 80 else "*fp32"  # as `has_bfloat16` says of such a GPU
    signature: dict[str, str] = {}
    constexprs: dict[str, Any] = {}
    attributes: dict[tuple[int], list[list[Any]]] = {}
    for number, parameter in enumerate(kernel.params):
        name = parameter.name
        if parameter.is_constexpr or name in absent.split():
            signature[name], constexprs[name] = "constexpr", constants.get(name)
        else:
            signature[name] = parameter.annotation_type or TYPES.get(name, activations)
            if not parameter.do_not_specialize and not signature[name].startswith("fp"):
                attributes[number,] = [["tt.divisibility", 16]]
    result = triton.compile(
        ASTSource(kernel, signature, constexprs, attributes),
        target=GPUTarget("cuda", capability, 32),
        options={"num_warps": constants.get("num_warps", 4), "enable_fp_fusion": True},
    )
    cubin: bytes = result.asm["cubin"]
    return Compiled(capability, kernel.__name__, absent, len(cubin), *resources(cubin), result.metadata.shared)


def resources(cubin: bytes) -> tuple[int, int]:
    """Return registers a thread and bytes of stack."""
    import triton

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage = subprocess.run([tool, "--dump-resource-usage", file.name], capture_output=True, text=True, check=True)
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage.stdout)
    assert found, usage.stdout
    return int(found[1]), int(found[2])


@pytest.mark.slow
@pytest.mark.parametrize("capability", TESTED)
def test_every_kernel_compiles_and_spills_no_registers(tmp_path: Path, capability: int) -> None:
    pytest.importorskip("triton")
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment["TRITON_CACHE_DIR"] = str(tmp_path)
    made = subprocess.run(
        [sys.executable, __file__, str(capability)], capture_output=True, text=True, env=environment, timeout=800
    )
    assert made.returncode == 0, made.stderr
    kernels = [json.loads(line) for line in made.stdout.splitlines()]
    assert len(kernels) == sum(map(len, VARIANTS.values()))
    for kernel in kernels:
        assert kernel["cubin"] > 0
        assert kernel["stack"] == 0, kernel


if __name__ == "__main__":
    for chosen in map(int, sys.argv[1:] or CAPABILITIES):
        for compiled in compiled_kernels(chosen):
            print(json.dumps(asdict(compiled)), flush=True)  # noqa: T201
