# SPDX-License-Identifier: Apache-2.0
"""libnibble through its C API (include/nibble/nibble.h), for contiguous CPU tensors of PyTorch."""
import ctypes

import torch

DTYPES = {torch.float32: b"F32", torch.bfloat16: b"BF16"}
NON_FINITE = -70


class NibbleError(RuntimeError):
    """A status that is not NIBBLE_OK."""

    def __init__(self, status, message):
        super().__init__("%s (%d)" % (message, status))
        self.status = status


class _Struct(ctypes.Structure):
    """A descriptor: struct_size is filled in, strings are encoded."""

    def __init__(self, **fields):
        coded = {key: value.encode() if isinstance(value, str) else value
                 for key, value in fields.items()}
        super().__init__(struct_size=ctypes.sizeof(type(self)), **coded)


class Hyper(ctypes.Structure):
    """nibble_hyper"""
    _fields_ = [("name", ctypes.c_char_p), ("value", ctypes.c_double)]


class OptimizerDesc(_Struct):
    """nibble_optimizer_desc"""
    _fields_ = [("struct_size", ctypes.c_uint32), ("nonfinite", ctypes.c_uint32),
                ("rule", ctypes.c_char_p), ("state_format", ctypes.c_char_p),
                ("mode", ctypes.c_char_p), ("block_size", ctypes.c_int64),
                ("min_quantized_elements", ctypes.c_int64), ("learning_rate", ctypes.c_double),
                ("beta1", ctypes.c_double), ("beta2", ctypes.c_double), ("eps", ctypes.c_double),
                ("weight_decay", ctypes.c_double), ("hypers", ctypes.POINTER(Hyper)),
                ("n_hypers", ctypes.c_int64), ("weight_format", ctypes.c_char_p),
                ("decay", ctypes.c_char_p), ("seed", ctypes.c_uint64)]


class ParamDesc(_Struct):
    """nibble_param_desc"""
    _fields_ = [("struct_size", ctypes.c_uint32), ("n_dims", ctypes.c_uint32),
                ("name", ctypes.c_char_p), ("shape", ctypes.POINTER(ctypes.c_int64)),
                ("weight_format", ctypes.c_char_p), ("state_format", ctypes.c_char_p),
                ("grad_dtype", ctypes.c_char_p), ("group", ctypes.c_int64),
                ("tensor_id", ctypes.c_uint32), ("reserved", ctypes.c_uint32)]


class StepDesc(_Struct):
    """nibble_step_desc"""
    _fields_ = [("struct_size", ctypes.c_uint32), ("grads_are_finite", ctypes.c_uint32),
                ("grads", ctypes.POINTER(ctypes.c_void_p)), ("n_grads", ctypes.c_int64),
                ("grad_scale", ctypes.c_double), ("out_nonfinite", ctypes.POINTER(ctypes.c_int64)),
                ("max_grad_norm", ctypes.c_double),
                ("out_grad_norm", ctypes.POINTER(ctypes.c_double)),
                ("found_inf", ctypes.POINTER(ctypes.c_float)),
                ("collect_errors", ctypes.c_uint32), ("skip_missing", ctypes.c_uint32)]


class ParamInfo(_Struct):
    """nibble_param_info"""
    _fields_ = [("struct_size", ctypes.c_uint32), ("n_states", ctypes.c_uint32),
                ("name", ctypes.c_char_p), ("state_format", ctypes.c_char_p),
                ("reason", ctypes.c_char_p), ("count", ctypes.c_int64),
                ("block_size", ctypes.c_int64), ("state_bytes", ctypes.c_uint64),
                ("weight_format", ctypes.c_char_p), ("rule", ctypes.c_char_p),
                ("group", ctypes.c_int64), ("placement", ctypes.c_char_p)]


class QuantizeDesc(_Struct):
    """nibble_quantize_desc"""
    _fields_ = [("struct_size", ctypes.c_uint32), ("is_signed", ctypes.c_uint32),
                ("format", ctypes.c_char_p), ("mode", ctypes.c_char_p),
                ("block_size", ctypes.c_int64)]


class Library:
    """The shared library. Calls by name without the prefix; a bad status raises NibbleError."""

    def __init__(self, path):
        self._dll = ctypes.CDLL(str(path))
        for name in ("last_error", "version_string", "isa_name"):
            getattr(self._dll, "nibble_" + name).restype = ctypes.c_char_p

    def call(self, name, *arguments):
        """nibble_NAME(...); raises if it fails."""
        status = getattr(self._dll, "nibble_" + name)(*arguments)
        if status != 0:
            raise NibbleError(status, self.text("last_error"))

    def text(self, name):
        """A function without arguments that returns a string."""
        value = getattr(self._dll, "nibble_" + name)()
        return value.decode() if value else None

    def set_isa(self, name):
        """"scalar", "avx2", "avx512" or "auto"; returns what is used now."""
        self.call("set_isa", name.encode())
        return self.text("isa_name")

    def set_threads(self, count):
        """Threads for all work of the library."""
        self.call("set_thread_count", ctypes.c_int32(count))

    def destroy(self, handle):
        """nibble_optimizer_destroy"""
        self._dll.nibble_optimizer_destroy(handle)


class Optimizer:
    """nibble_optimizer over tensors that the caller keeps; descriptor fields are keywords."""

    def __init__(self, library, **desc):
        self._library = library
        self._handle = ctypes.c_void_p()
        self._count = 0
        self._bound = []  # borrowed by the library
        library.call("optimizer_create", ctypes.byref(self._handle),
                     ctypes.byref(OptimizerDesc(**desc)))

    def add(self, name, weights, grad_dtype=torch.float32, **desc):
        """A parameter and where its weights are."""
        shape = (ctypes.c_int64 * weights.dim())(*weights.shape)
        fields = ParamDesc(name=name, n_dims=weights.dim(), shape=shape,
                           grad_dtype=DTYPES[grad_dtype], **desc)
        index = ctypes.c_int64()
        self._library.call("optimizer_add_param", self._handle, ctypes.byref(fields),
                           ctypes.byref(index), None)
        assert weights.is_contiguous()
        self._library.call("optimizer_bind", self._handle, index,
                           ctypes.c_void_p(weights.data_ptr()))
        self._bound.append(weights)
        self._count += 1

    def step_desc(self, grads, **fields):
        """What step() takes; may be used again while the gradients stay where they are."""
        assert all(grad.is_contiguous() for grad in grads)
        pointers = (ctypes.c_void_p * len(grads))(*[grad.data_ptr() for grad in grads])
        desc = StepDesc(grads=ctypes.cast(pointers, ctypes.POINTER(ctypes.c_void_p)),
                        n_grads=len(grads), **fields)
        desc.owned = pointers, grads
        return desc

    def step(self, desc):
        """One step of all parameters."""
        self._library.call("optimizer_step", self._handle, ctypes.byref(desc))

    def set_hyper(self, name, value):
        """A hyper-parameter of group 0, between steps."""
        self._library.call("optimizer_set_hyper", self._handle, name.encode(),
                           ctypes.c_double(value))

    def infos(self):
        """What each parameter really got: (name, state format, weight format, state bytes)."""
        for index in range(self._count):
            info = ParamInfo()
            self._library.call("optimizer_param_info", self._handle, ctypes.c_int64(index),
                               ctypes.byref(info))
            yield (info.name.decode(), info.state_format.decode(), info.weight_format.decode(),
                   info.state_bytes)

    def close(self):
        """Frees the states."""
        if self._handle:
            self._library.destroy(self._handle)
        self._handle, self._bound = None, []


def quantizer(library, source, **desc):
    """(codes, scales, quantise, dequantise) for a float tensor, both over buffers made once."""
    fields = QuantizeDesc(**desc)
    count = ctypes.c_int64(source.numel())
    code_bytes, scale_count = ctypes.c_uint64(), ctypes.c_int64()
    library.call("quantized_size", ctypes.byref(fields), count, ctypes.byref(code_bytes),
                 ctypes.byref(scale_count))
    codes = torch.zeros(code_bytes.value, dtype=torch.uint8)
    scales = torch.zeros(scale_count.value)

    def pointer(tensor):
        return ctypes.c_void_p(tensor.data_ptr())

    def quantize():
        library.call("quantize", ctypes.byref(fields), pointer(source), count, pointer(codes),
                     pointer(scales))

    def dequantize(out):
        library.call("dequantize", ctypes.byref(fields), pointer(codes), pointer(scales), count,
                     pointer(out))

    return codes, scales, quantize, dequantize
