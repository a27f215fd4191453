"""What a kernel must know of tensors before it may touch their memory."""

import os
from collections.abc import Sequence
from functools import cache
from math import prod

import torch

# Sums are taken in fp32 at least, and rounded once to the dtype of the output.
STATE_DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
PLAIN, STRIDED = (torch.Tensor, torch.nn.Parameter), torch.strided  # looked up at every step
TRITON = (3, 4)  # the oldest release that takes tuples of tensors and of constants as the kernels need them


def accumulation_dtype(outputs: Sequence[torch.dtype]) -> torch.dtype:
    """fp64 if an output is fp64, else fp32."""
    return torch.float64 if torch.float64 in outputs else torch.float32


def cpu_refuses(tensors: Sequence[torch.Tensor], *, contiguous: bool = False) -> str | None:
    """Why compiled CPU code cannot serve these tensors, or None if it can. ``contiguous``: they must not only be
    dense and alike, but have their elements in order."""
    return _refuses(tensors, "cpu", contiguous) or processor_refuses()


def triton_refuses(tensors: Sequence[torch.Tensor], *, contiguous: bool = False) -> str | None:
    """Why Triton kernels cannot serve these tensors, or None if they can: on a GPU, or, with TRITON_INTERPRET=1,
    on the CPU by Triton's interpreter."""
    device = tensors[0].device.type
    if device not in ("cpu", "cuda"):
        return f"the tensors are on {device}"
    if device == "cpu" and os.environ.get("TRITON_INTERPRET") != "1":
        return "the tensors are on the CPU, and Triton's interpreter (TRITON_INTERPRET=1) is not on"
    if device == "cuda" and tensors[0].get_device() != torch.cuda.current_device():  # where Triton launches
        return f"the tensors are on {tensors[0].device}, but the current device is {torch.cuda.current_device()}"
    return _refuses(tensors, device, contiguous) or triton_missing()


def _refuses(tensors: Sequence[torch.Tensor], device: str, contiguous: bool) -> str | None:
    """Why no kernel may work on the memory of these tensors, or None if one may."""
    first = tensors[0]
    in_order = first.is_contiguous()
    if transformed():
        return "torch.compile and torch.func transforms need torch operations"
    for x in tensors:
        if not plain(x, device):
            return f"{type(x).__name__} on {x.device} is not a plain {device.upper()} tensor"
        if x.requires_grad and torch.is_grad_enabled():
            return "gradients are recorded"
        if not (in_order and x.is_contiguous()) and (x.stride() != first.stride() or not dense(x)):
            return "the tensors are not laid out densely and alike"
    if contiguous and not in_order:
        return "noise and coefficients by element need contiguous tensors"
    return None


@cache
def processor_refuses() -> str | None:
    """Why there is no compiled code for the CPU, or None if there is."""
    try:
        from .compiled import unfit  # loads the compiler, so only when a CPU tensor asks
    except ImportError as error:
        return f"numba is not there: {error}"
    return unfit()


@cache
def triton_missing() -> str | None:
    """Why there is no Triton that compiles the kernels, or None if there is."""
    try:
        import triton  # only when a tensor asks for it
    except ImportError as error:
        return f"Triton is not there: {error}"
    if tuple(map(int, triton.__version__.split(".")[:2])) < TRITON:
        return f"Triton {triton.__version__} is older than {'.'.join(map(str, TRITON))}"
    return None


def overlap(inputs: Sequence[torch.Tensor], out: Sequence[torch.Tensor]) -> str | None:
    """An output may be an input, but not a shifted view of one: blocks would read what others have written."""
    for k, target in enumerate(out):
        begin = target.data_ptr()
        end = begin + target.nbytes
        for j, x in enumerate((*inputs, *out[:k])):
            start = x.data_ptr()
            same = j < len(inputs) and start == begin and x.dtype == target.dtype
            if start < end and begin < start + x.nbytes and not same:
                return "an output overlaps another tensor"
    return None


def plain(x: torch.Tensor, device: str = "cpu") -> bool:
    """Whether the tensor is what lies at its address: on the device, no subclass, no pending negation."""
    there = x.is_cpu if device == "cpu" else x.is_cuda
    return type(x) in PLAIN and there and x.layout is STRIDED and not x.is_neg()


def transformed() -> bool:
    """Whether torch.compile, a torch.func transform or forward-mode AD is active: tensors are then more than
    their data, and nothing but torch operations may touch them."""
    return torch.compiler.is_compiling() or functional()


def functional() -> bool:
    """Whether a torch.func transform or forward-mode AD is active."""
    return torch._C._functorch.peek_interpreter_stack() is not None or torch.autograd.forward_ad._current_level >= 0


def vmapped() -> bool:
    """Whether torch.func.vmap is active: then no value of a tensor can be looked at."""
    functorch = torch._C._functorch
    return any(level.key() == functorch.TransformType.Vmap for level in functorch.get_interpreter_stack() or ())


def dense(x: torch.Tensor) -> bool:
    """Whether the elements fill one block of memory, in whatever order (contiguous, channels-last, ...)."""
    if x.is_contiguous():
        return True
    expected = 1
    for stride, size in sorted(zip(x.stride(), x.shape, strict=True)):
        if size > 1:
            if stride != expected:
                return False
            expected *= size
    return True


def elements(x: torch.Tensor) -> int:
    """In one sample of a batch (B, ...)."""
    return prod(x.shape[1:])
