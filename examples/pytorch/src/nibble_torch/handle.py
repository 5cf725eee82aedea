# SPDX-License-Identifier: Apache-2.0
"""One nibble_optimizer: the C calls that the adapter makes, in terms of torch tensors."""
import ctypes
from ctypes import byref, c_char_p, c_int64, c_void_p

import torch

from . import library
from .library import call

NONFINITE = {"skip_step": 0, "skip_element": 1, "propagate": 2}
_TENSOR_DTYPES = {"F32": torch.float32, "BF16": torch.bfloat16, "U8": torch.uint8,
                  "I8": torch.int8, "I16": torch.int16, "F8_E4M3": torch.float8_e4m3fn}


class _DeviceMemory:
    """Memory of a GPU as torch.as_tensor takes it. Keeps its owner alive."""

    def __init__(self, address, size, owner):
        self.owner = owner
        self.__cuda_array_interface__ = {"shape": (size,), "typestr": "|u1", "version": 3,
                                         "data": (address, False)}


def _bytes(text):
    return text.encode() if text is not None else None


class Handle:
    """A nibble_optimizer and its parameters. Not thread-safe. Tensors that states() returns are
    views of its memory and keep it alive."""

    def __init__(self, *, rule, hypers, state_format, weight_format, mode, block_size,
                 min_quantized_elements, seed, nonfinite, decay, formats, device="cpu"):
        """hypers: {nibble's name: number}. formats: {name pattern: state format}. device: where
        the parameters are, a torch.device or its name. For the others see nibble_optimizer_desc;
        None is the default. Library errors."""
        self.device = torch.device(device)
        array = (library.Hyper * len(hypers))(
            *[library.Hyper(_bytes(k), float(v)) for k, v in hypers.items()])
        desc = library.OptimizerDesc(
            rule=_bytes(rule), state_format=_bytes(state_format), mode=_bytes(mode),
            block_size=block_size or 0, min_quantized_elements=min_quantized_elements,
            hypers=array, n_hypers=len(hypers), weight_format=_bytes(weight_format),
            decay=_bytes(decay), seed=seed, nonfinite=NONFINITE[nonfinite],
            device=None if self.device.type == "cpu" else _bytes(str(self.device)))
        self._raw = c_void_p()
        call.nibble_optimizer_create(byref(self._raw), byref(desc))
        self.hypers = {k: float(v) for k, v in hypers.items()}
        self.grad_dtypes = []
        for pattern, state_format in (formats or {}).items():
            call.nibble_optimizer_set_format(self._raw, _bytes(pattern), _bytes(state_format))

    def __del__(self):
        if getattr(self, "_raw", None):
            call.nibble_optimizer_destroy(self._raw)
            self._raw = None

    def add_param(self, name, shape, weight_format, grad_dtype):
        """Allocates states at zero for a parameter of that shape; returns its index."""
        extents = (c_int64 * max(len(shape), 1))(*shape)
        desc = library.ParamDesc(n_dims=len(shape), name=_bytes(name), shape=extents,
                                 weight_format=_bytes(weight_format), grad_dtype=_bytes(grad_dtype))
        index = c_int64()
        call.nibble_optimizer_add_param(self._raw, byref(desc), byref(index), None)
        self.grad_dtypes.append(grad_dtype)
        return index.value

    def bind(self, index, pointer):
        """pointer: the address of the parameter's weights, which must stay valid during steps."""
        call.nibble_optimizer_bind(self._raw, index, pointer or None)

    def set_hypers(self, hypers):
        """{nibble's name: number}; only what differs from the last call reaches the library."""
        for name, value in hypers.items():
            value = float(value)
            if self.hypers.get(name) != value:
                call.nibble_optimizer_set_hyper(self._raw, _bytes(name), value)
                self.hypers[name] = value

    def step(self, pointers, count, grad_scale=1.0, known_finite=False):
        """One step, as the one after `count` steps, of the parameters whose entry in `pointers`
        (addresses of gradients, by index) is not None. Returns the number of non-finite gradients
        found. NonFinite if the step was not taken for them."""
        n = len(pointers)
        found = c_int64()
        desc = library.StepDesc(grads=(c_void_p * n)(*pointers), n_grads=n, skip_missing=1,
                                grad_scale=grad_scale, grads_are_finite=int(known_finite),
                                out_nonfinite=ctypes.pointer(found))
        if self.device.type == "cuda":
            desc.stream = torch.cuda.current_stream(self.device).cuda_stream
        call.nibble_optimizer_set_step_count(self._raw, count)
        try:
            call.nibble_optimizer_step(self._raw, byref(desc))
        except library.NonFinite as error:
            error.count = found.value
            raise
        return found.value

    def info(self, index):
        """What the parameter really got: a dict of rule, format, block, weight_format, bytes,
        reason, placement, name, count."""
        info = library.ParamInfo()
        call.nibble_optimizer_param_info(self._raw, index, byref(info))
        return {"name": info.name.decode(), "rule": info.rule.decode(), "count": info.count,
                "format": info.state_format.decode(), "block": info.block_size,
                "weight_format": info.weight_format.decode(), "bytes": info.state_bytes,
                "placement": info.placement.decode(), "reason": info.reason.decode()}

    def _state_infos(self, index):
        count = c_int64()
        call.nibble_optimizer_state_count(self._raw, index, byref(count))
        for i in range(count.value):
            info = library.StateInfo()
            call.nibble_optimizer_state_info(self._raw, index, i, byref(info))
            yield info

    def states(self, index, shape):
        """{name: tensor}, each a live view of the library's own memory: to be read, not written.
        Arrays with as many items as `shape` get that shape, others (scales, packed codes) are
        flat."""
        out = {}
        for info in self._state_infos(index):
            dtype = _TENSOR_DTYPES[info.dtype.decode()]
            if info.bytes == 0:
                tensor = torch.empty(0, dtype=dtype)
            else:
                tensor = self._view(info.data, info.bytes).view(dtype)
            whole = tensor.numel() == shape.numel()
            out[info.name.decode()] = tensor.view(shape) if whole else tensor
        return out

    def _view(self, address, size):
        """The bytes there as a tensor, which keeps the memory alive."""
        if self.device.type == "cuda":
            return torch.as_tensor(_DeviceMemory(address, size, self), device=self.device)
        view = (ctypes.c_char * size).from_address(address)
        view.owner = self
        return torch.frombuffer(view, dtype=torch.uint8)

    def load_states(self, index, arrays):
        """Copies {name: tensor} over the states of those names. The caller has compared sizes."""
        for i, info in enumerate(self._state_infos(index)):
            source = arrays.get(info.name.decode())
            if source is None or source.data_ptr() == info.data or info.bytes == 0:
                continue
            source = source.detach().contiguous().cpu()
            call.nibble_optimizer_load_state(self._raw, index, i, source.data_ptr(),
                                             source.numel() * source.element_size())

    def import_state(self, index, name, foreign):
        """foreign: an interop.Foreign. Decoded as it says, encoded in the parameter's format."""
        if foreign.codes.numel() == 0:
            return
        codes = foreign.codes.detach().contiguous().cpu()
        scales = foreign.scales.float().contiguous().cpu() if foreign.scales is not None else None
        table = foreign.map.float().contiguous().cpu() if foreign.map is not None else None
        desc = library.ImportDesc(
            state=_bytes(name), format=_bytes(foreign.format), codes=codes.data_ptr(),
            scales=scales.data_ptr() if scales is not None else None,
            n_scales=scales.numel() if scales is not None else 0,
            map=table.data_ptr() if table is not None else None, block_size=foreign.block)
        call.nibble_optimizer_import_state(self._raw, index, byref(desc))

    def export_state(self, index, name, shape):
        """A state as a new float32 tensor of that shape."""
        out = torch.empty(shape, dtype=torch.float32)
        if out.numel() > 0:
            call.nibble_optimizer_export_state(self._raw, index, _bytes(name), out.data_ptr())
        return out.to(self.device)


def count_nonfinite(tensors):
    """How many elements of these float32 and bfloat16 tensors are NaN or infinite."""
    on_host = [t for t in tensors if t.device.type == "cpu"]
    by_device = {}  # counts stay on the device: one wait for each
    for t in tensors:
        if t.device.type != "cpu":
            by_device.setdefault(t.device, []).append((~torch.isfinite(t)).sum())
    elsewhere = sum(int(torch.stack(counts).sum()) for counts in by_device.values())
    tensors, n = on_host, len(on_host)
    found, norm = c_int64(), ctypes.c_double()
    call.nibble_global_norm(
        (c_void_p * n)(*[t.data_ptr() for t in tensors]),
        (c_int64 * n)(*[t.numel() for t in tensors]),
        (c_char_p * n)(*[b"BF16" if t.dtype is torch.bfloat16 else b"F32" for t in tensors]), n,
        byref(norm), byref(found))
    return found.value + elsewhere
