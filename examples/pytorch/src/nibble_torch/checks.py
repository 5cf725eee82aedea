# SPDX-License-Identifier: Apache-2.0
"""What the adapter refuses, each by name."""
import torch

from .library import InvalidArgument, Unsupported, weight_formats

_SHARDED = {"DTensor", "ShardedTensor", "FlatParameter", "FSDPParam"}
_DTYPES = {torch.float32: "F32", torch.bfloat16: "BF16"}


def _kind(tensor):
    """Names of the tensor's classes, without looking them up where torch has no such module."""
    return {cls.__name__ for cls in type(tensor).__mro__}


def dtype_name(tensor, what):
    """"F32" or "BF16"; Unsupported for any other dtype."""
    if tensor.dtype not in _DTYPES:
        hint = {torch.float16: "fp16 weights lose small updates; keep them in bfloat16 or float32",
                torch.float64: "nibble computes in float32"}.get(tensor.dtype, "")
        if tensor.dtype.is_complex:
            hint = "complex parameters have no update rule here"
        raise Unsupported("%s has dtype %s; float32 or bfloat16 expected%s"
                          % (what, tensor.dtype, "; " + hint if hint else ""))
    return _DTYPES[tensor.dtype]


def check_plain(tensor, what):
    """A dense strided tensor of the CPU or a CUDA device that is whole in this process; otherwise
    Unsupported."""
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        sharded = _kind(tensor) & _SHARDED
        if sharded:
            raise Unsupported("%s is sharded (%s, as of FSDP or tensor parallelism); nibble_torch "
                              "updates whole tensors only" % (what, sharded.pop()))
        if "UninitializedTensorMixin" in _kind(tensor):
            raise Unsupported("%s is not initialised (a lazy module); run a forward pass first"
                              % what)
    if tensor.layout is not torch.strided:
        raise Unsupported("%s is sparse (%s); a dense tensor expected" % (what, tensor.layout))
    if tensor.device.type not in ("cpu", "cuda"):
        raise Unsupported("%s is on device %s; libnibble works on CPU and CUDA tensors"
                          % (what, tensor.device))
    if type(tensor) not in (torch.Tensor, torch.nn.Parameter):
        raise Unsupported("%s is a %s, a tensor subclass, which may mean something else by its "
                          "bytes; a plain tensor or Parameter expected"
                          % (what, type(tensor).__name__))


def check_param(param, what):
    """Returns "F32" or "BF16". Unsupported for what cannot be updated in place through a plain
    pointer: see check_plain; other dtypes; tensors that are not contiguous in row-major order."""
    check_plain(param, what)
    name = dtype_name(param, what)
    if not param.is_contiguous():
        raise Unsupported("%s is not contiguous (shape %s, strides %s); make it so with "
                          ".contiguous() before the optimizer is created"
                          % (what, tuple(param.shape), param.stride()))
    if param.is_neg():
        raise Unsupported("%s is a negated view of other memory; use .resolve_neg()" % what)
    return name


def check_weight_format(name):
    """InvalidArgument unless it is None or a way to keep bfloat16 parameters."""
    known = [known for known in weight_formats() if known.startswith("bf16_")]
    if name is not None and name not in known:
        raise InvalidArgument("weight_format=%r; there are %s" % (name, ", ".join(known)))


def check_name(name):
    """InvalidArgument for a name that the library would cut off."""
    if "\0" in name:
        raise InvalidArgument("parameter name %r holds a NUL character" % name)


def grad_dtype_name(param, name):
    """"F32" or "BF16": of the parameter's gradients, which PyTorch lets be other than its own."""
    wanted = getattr(param, "grad_dtype", None) or param.dtype
    if wanted not in _DTYPES:
        raise Unsupported("gradients of parameter %r have dtype %s; float32 or bfloat16 expected"
                          % (name, wanted))
    return _DTYPES[wanted]


def usable_grad(grad, wanted, name):
    """A gradient of parameter `name` as the library takes it: of dtype `wanted`, "F32" or "BF16"."""
    what = "the gradient of parameter %r" % name
    check_plain(grad, what)
    if dtype_name(grad, what) == wanted:
        return grad
    if wanted == "F32":
        return grad.float()
    raise Unsupported("%s is float32, bfloat16 expected; set the parameter's grad_dtype before the "
                      "optimizer is created" % what)


def refuse_true(**flags):
    """Unsupported for the first flag that is true."""
    for name, value in flags.items():
        if value:
            raise Unsupported("%s=%r is not supported by nibble_torch" % (name, value))


def check_implementation(foreach, fused, capturable=False, differentiable=False):
    """torch.optim's choices of implementation. A step of nibble is one fused call for all tensors,
    so foreach and fused may be anything that PyTorch takes."""
    if foreach and fused:
        raise ValueError("foreach and fused cannot both be True")
    refuse_true(capturable=capturable, differentiable=differentiable)
