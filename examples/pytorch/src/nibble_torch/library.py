# SPDX-License-Identifier: Apache-2.0
"""libnibble through ctypes: where it is, the structs of nibble.h, and its errors as exceptions.

The library is the file that the environment variable NIBBLE_LIBRARY names, or else libnibble.so
beside this file, where `pip install` puts it.
"""
import ctypes
import functools
import os
from ctypes import (POINTER, c_char_p, c_double, c_float, c_int32, c_int64, c_uint32, c_uint64,
                    c_void_p)

API_VERSION = "0.1."  # of nibble.h that the structs below follow


class NibbleError(RuntimeError):
    """A failing call of libnibble; `status` is its nibble_status. The text is the library's."""

    status = 0


class InvalidArgument(NibbleError, ValueError):
    """What can never work."""


class Unsupported(NibbleError, NotImplementedError):
    """A valid request that this build, or nibble, cannot serve."""


class OutOfMemory(NibbleError, MemoryError):
    """An allocation failed; nothing has changed."""


class NonFinite(NibbleError, FloatingPointError):
    """Gradients with NaN or infinity; the step was not taken."""


NON_FINITE = -70
_EXCEPTIONS = {-10: InvalidArgument, -30: Unsupported, -40: OutOfMemory, NON_FINITE: NonFinite}


class _Sized(ctypes.Structure):
    """A struct whose first field is its size."""

    def __init__(self, **fields):
        super().__init__(struct_size=ctypes.sizeof(type(self)), **fields)


class Hyper(ctypes.Structure):
    _fields_ = [("name", c_char_p), ("value", c_double)]


class OptimizerDesc(_Sized):
    _fields_ = [("struct_size", c_uint32), ("nonfinite", c_uint32), ("rule", c_char_p),
                ("state_format", c_char_p), ("mode", c_char_p), ("block_size", c_int64),
                ("min_quantized_elements", c_int64), ("learning_rate", c_double),
                ("beta1", c_double), ("beta2", c_double), ("eps", c_double),
                ("weight_decay", c_double), ("hypers", POINTER(Hyper)), ("n_hypers", c_int64),
                ("weight_format", c_char_p), ("decay", c_char_p), ("seed", c_uint64),
                ("device", c_char_p)]


class ParamDesc(_Sized):
    _fields_ = [("struct_size", c_uint32), ("n_dims", c_uint32), ("name", c_char_p),
                ("shape", POINTER(c_int64)), ("weight_format", c_char_p),
                ("state_format", c_char_p), ("grad_dtype", c_char_p), ("group", c_int64),
                ("tensor_id", c_uint32), ("reserved", c_uint32)]


class StepDesc(_Sized):
    _fields_ = [("struct_size", c_uint32), ("grads_are_finite", c_uint32),
                ("grads", POINTER(c_void_p)), ("n_grads", c_int64), ("grad_scale", c_double),
                ("out_nonfinite", POINTER(c_int64)), ("max_grad_norm", c_double),
                ("out_grad_norm", POINTER(c_double)), ("found_inf", POINTER(c_float)),
                ("collect_errors", c_uint32), ("skip_missing", c_uint32), ("stream", c_void_p)]


class ParamInfo(_Sized):
    _fields_ = [("struct_size", c_uint32), ("n_states", c_uint32), ("name", c_char_p),
                ("state_format", c_char_p), ("reason", c_char_p), ("count", c_int64),
                ("block_size", c_int64), ("state_bytes", c_uint64), ("weight_format", c_char_p),
                ("rule", c_char_p), ("group", c_int64), ("placement", c_char_p)]


class StateInfo(_Sized):
    _fields_ = [("struct_size", c_uint32), ("is_unset", c_uint32), ("name", c_char_p),
                ("dtype", c_char_p), ("count", c_int64), ("bytes", c_uint64), ("data", c_void_p)]


class ImportDesc(_Sized):
    _fields_ = [("struct_size", c_uint32), ("low_nibble_first", c_uint32), ("state", c_char_p),
                ("format", c_char_p), ("codes", c_void_p), ("scales", c_void_p),
                ("n_scales", c_int64), ("map", c_void_p), ("block_size", c_int64)]


_STATUS_FUNCTIONS = {
    "nibble_set_thread_count": [c_int32],
    "nibble_optimizer_create": [POINTER(c_void_p), POINTER(OptimizerDesc)],
    "nibble_optimizer_set_format": [c_void_p, c_char_p, c_char_p],
    "nibble_optimizer_set_hyper": [c_void_p, c_char_p, c_double],
    "nibble_optimizer_add_param": [c_void_p, POINTER(ParamDesc), POINTER(c_int64),
                                   POINTER(c_uint64)],
    "nibble_optimizer_bind": [c_void_p, c_int64, c_void_p],
    "nibble_optimizer_step": [c_void_p, POINTER(StepDesc)],
    "nibble_optimizer_set_step_count": [c_void_p, c_int64],
    "nibble_optimizer_param_info": [c_void_p, c_int64, POINTER(ParamInfo)],
    "nibble_optimizer_state_count": [c_void_p, c_int64, POINTER(c_int64)],
    "nibble_optimizer_state_info": [c_void_p, c_int64, c_int64, POINTER(StateInfo)],
    "nibble_optimizer_load_state": [c_void_p, c_int64, c_int64, c_void_p, c_uint64],
    "nibble_optimizer_import_state": [c_void_p, c_int64, POINTER(ImportDesc)],
    "nibble_optimizer_export_state": [c_void_p, c_int64, c_char_p, c_void_p],
    "nibble_global_norm": [POINTER(c_void_p), POINTER(c_int64), POINTER(c_char_p), c_int64,
                           POINTER(c_double), POINTER(c_int64)],
}


def _check(status, function, arguments):
    if status == 0:
        return status
    error = _EXCEPTIONS.get(status, NibbleError)(_library.nibble_last_error().decode())
    error.status = status
    raise error


def _open():
    path = os.environ.get("NIBBLE_LIBRARY") or os.path.join(os.path.dirname(__file__),
                                                            "libnibble.so")
    try:
        library = ctypes.CDLL(path)
    except OSError as error:
        raise ImportError("nibble_torch: cannot load libnibble: %s. Install the package with pip, "
                          "or name the library in NIBBLE_LIBRARY" % error) from None
    for name, arguments in _STATUS_FUNCTIONS.items():
        function = getattr(library, name)
        function.argtypes, function.restype, function.errcheck = arguments, c_int32, _check
    for name, arguments in {"nibble_last_error": [], "nibble_version_string": [],
                            "nibble_weight_format_name": [c_int32],
                            "nibble_rule_hyper": [c_char_p, c_int32, POINTER(c_double)]}.items():
        function = getattr(library, name)
        function.argtypes, function.restype = arguments, c_char_p
    library.nibble_optimizer_destroy.argtypes = [c_void_p]
    library.nibble_optimizer_destroy.restype = None
    found = library.nibble_version_string().decode()
    if not found.startswith(API_VERSION):
        raise ImportError("nibble_torch is for libnibble %sx; %s is %s"
                          % (API_VERSION, path, found))
    return library


_library = _open()
call = _library


@functools.lru_cache(maxsize=None)
def rule_hypers(rule):
    """{name: default} of a rule's hyper-parameters; empty for an unknown rule."""
    out, value = {}, c_double()
    while name := call.nibble_rule_hyper(rule.encode(), len(out), value):
        out[name.decode()] = value.value
    return out


@functools.lru_cache(maxsize=None)
def weight_formats():
    """Names of the ways to keep weights."""
    out = []
    while name := call.nibble_weight_format_name(len(out)):
        out.append(name.decode())
    return out


def set_thread_count(threads):
    """Threads for all of nibble's work in this process; 0 restores the default. ValueError if
    negative. Not while a step runs."""
    call.nibble_set_thread_count(threads)
