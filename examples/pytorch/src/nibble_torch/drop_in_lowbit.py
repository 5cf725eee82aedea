# SPDX-License-Identifier: Apache-2.0
"""bitsandbytes' and torchao's names and signatures. The arithmetic is nibble's default, the safest
(a positive second moment never becomes 0); mode="bnb" or mode="torchao" gives those libraries' own
quantisers. Keywords beyond theirs are Optimizer's.

As in bitsandbytes, Adam8bit decays the weights (it is AdamW8bit with weight_decay=0), and LAMB's
states are those of Adam; unlike there, amsgrad, dampening, nesterov and momentum do what they say.
"""
from . import checks
from .library import Unsupported
from .optimizer import Optimizer


class _LowBit(Optimizer):
    """Translates min_8bit_size and bf16_stochastic_round, and refuses by name what is paged."""

    _own_keys = ("amsgrad", "initial_accumulator_value")
    _format = "int8"  # unless state_format says otherwise

    def __init__(self, params, rule, hypers, *, state_format=None, min_8bit_size=4096, args=None,
                 is_paged=False, bf16_stochastic_round=None, weight_format=None, **options):
        checks.refuse_true(is_paged=is_paged, args=args is not None)
        if bf16_stochastic_round is not None:
            named = "bf16_stochastic" if bf16_stochastic_round else "bf16_nearest"
            if weight_format not in (None, named):
                raise ValueError("bf16_stochastic_round=%r contradicts weight_format=%r"
                                 % (bf16_stochastic_round, weight_format))
            weight_format = named
        options.setdefault("min_quantized_elements", max(min_8bit_size, 1))
        super().__init__(params, rule, state_format=state_format or self._format,
                         weight_format=weight_format, **hypers, **options)


def _format_of(optim_bits):
    """ValueError for what bitsandbytes has not either."""
    if optim_bits not in (8, 32):
        raise ValueError("optim_bits=%r; 8 or 32 expected" % optim_bits)
    return "int8" if optim_bits == 8 else "fp32"


class _AdamLike(_LowBit):
    """The signature that bitsandbytes' and torchao's Adams share. optim_bits is ignored, as there:
    the class says it. block_size None is the format's own (256; 128 for 4 bits)."""

    _default_decay = 1e-2

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=None,
                 amsgrad=False, optim_bits=32, args=None, min_8bit_size=4096, is_paged=False,
                 **options):
        if weight_decay is None:
            weight_decay = self._default_decay
        super().__init__(params, "adamw", dict(lr=lr, betas=betas, eps=eps, amsgrad=amsgrad,
                                               weight_decay=weight_decay),
                         args=args, min_8bit_size=min_8bit_size, is_paged=is_paged, **options)

    def _rule_of(self, group):
        return "amsgrad" if group.get("amsgrad") else "adamw"


class AdamW8bit(_AdamLike):
    """AdamW with int8 states: bitsandbytes' and torchao's."""


class Adam8bit(_AdamLike):
    """bitsandbytes' Adam8bit: decoupled weight decay, 0 by default. (torchao's adds it to the
    gradient: Optimizer(params, "adam", state_format="int8").)"""

    _default_decay = 0.0


class AdamW32bit(_AdamLike):
    """bitsandbytes' AdamW32bit: fp32 states."""

    _format = "fp32"


class Adam32bit(AdamW32bit):
    """bitsandbytes' Adam32bit: fp32 states, and a decoupled weight decay, 0 by default."""

    _default_decay = 0.0


class AdamW4bit(_AdamLike):
    """torchao's AdamW4bit."""

    _format = "int4"


class AdamWFp8(_AdamLike):
    """torchao's AdamWFp8."""

    _format = "fp8"


class Lion8bit(_LowBit):
    """bitsandbytes' Lion8bit."""

    def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0, args=None,
                 min_8bit_size=4096, is_paged=False, **options):
        super().__init__(params, "lion", dict(lr=lr, betas=betas, weight_decay=weight_decay),
                         args=args, min_8bit_size=min_8bit_size, is_paged=is_paged, **options)


class Lion32bit(Lion8bit):
    """bitsandbytes' Lion32bit: fp32 states."""

    _format = "fp32"


class Lion(Lion8bit):
    """bitsandbytes' Lion: fp32 states, or int8 with optim_bits=8."""

    def __init__(self, params, lr=1e-4, betas=(0.9, 0.99), weight_decay=0, optim_bits=32, args=None,
                 min_8bit_size=4096, is_paged=False, *, state_format=None, **options):
        super().__init__(params, lr, betas, weight_decay, args, min_8bit_size, is_paged,
                         state_format=state_format or _format_of(optim_bits), **options)


class SGD8bit(_LowBit):
    """bitsandbytes' SGD8bit: with momentum, which is required."""

    def __init__(self, params, lr, momentum=0, dampening=0, weight_decay=0, nesterov=False,
                 args=None, min_8bit_size=4096, **options):
        super().__init__(params, "sgd", dict(lr=lr, momentum=momentum, dampening=dampening,
                                             weight_decay=weight_decay, nesterov=nesterov),
                         args=args, min_8bit_size=min_8bit_size, **options)

    def _check_group(self, group):
        if group["momentum"] == 0:
            raise Unsupported("%s without momentum has no state to keep; use SGD"
                              % type(self).__name__)


class SGD32bit(SGD8bit):
    """bitsandbytes' SGD32bit: fp32 states; momentum is required, as there."""

    _format = "fp32"


class RMSprop8bit(_LowBit):
    """bitsandbytes' RMSprop8bit, and momentum."""

    def __init__(self, params, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0, momentum=0,
                 centered=False, args=None, min_8bit_size=4096, **options):
        checks.refuse_true(centered=centered)
        super().__init__(params, "rmsprop", dict(lr=lr, alpha=alpha, eps=eps, momentum=momentum,
                                                 weight_decay=weight_decay),
                         args=args, min_8bit_size=min_8bit_size, **options)


class RMSprop32bit(RMSprop8bit):
    """bitsandbytes' RMSprop32bit: fp32 states."""

    _format = "fp32"


class Adagrad8bit(_LowBit):
    """bitsandbytes' Adagrad8bit."""

    def __init__(self, params, lr=1e-2, lr_decay=0, weight_decay=0, initial_accumulator_value=0,
                 eps=1e-10, optim_bits=8, args=None, min_8bit_size=4096, **options):
        super().__init__(params, "adagrad", dict(
            lr=lr, lr_decay=lr_decay, weight_decay=weight_decay, eps=eps,
            initial_accumulator_value=initial_accumulator_value),
            args=args, min_8bit_size=min_8bit_size, **options)

    def _initial_states(self, group):
        return {"sum": group["initial_accumulator_value"]}


class Adagrad32bit(Adagrad8bit):
    """bitsandbytes' Adagrad32bit: fp32 states."""

    _format = "fp32"


class AdEMAMix8bit(_LowBit):
    """bitsandbytes' AdEMAMix8bit. t_alpha, t_beta3: steps of warm-up; None or 0 for none."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999, 0.9999), alpha=5.0, t_alpha=None,
                 t_beta3=None, eps=1e-8, weight_decay=1e-2, min_8bit_size=4096, is_paged=False,
                 **options):
        super().__init__(params, "ademamix", dict(
            lr=lr, betas=betas, alpha=alpha, t_alpha=t_alpha or 0, t_beta3=t_beta3 or 0, eps=eps,
            weight_decay=weight_decay), min_8bit_size=min_8bit_size, is_paged=is_paged, **options)


class AdEMAMix32bit(AdEMAMix8bit):
    """bitsandbytes' AdEMAMix32bit: fp32 states."""

    _format = "fp32"


class AdEMAMix(AdEMAMix8bit):
    """bitsandbytes' AdEMAMix: fp32 states, or int8 with optim_bits=8."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999, 0.9999), alpha=5.0, t_alpha=None,
                 t_beta3=None, eps=1e-8, weight_decay=1e-2, optim_bits=32, min_8bit_size=4096,
                 is_paged=False, *, state_format=None, **options):
        super().__init__(params, lr, betas, alpha, t_alpha, t_beta3, eps, weight_decay,
                         min_8bit_size, is_paged,
                         state_format=state_format or _format_of(optim_bits), **options)


class LAMB8bit(_LowBit):
    """bitsandbytes' LAMB8bit, with the trust ratio of the paper (bitsandbytes bounds it by 1)."""

    def __init__(self, params, lr=1e-3, bias_correction=True, betas=(0.9, 0.999), eps=1e-8,
                 weight_decay=0, amsgrad=False, adam_w_mode=True, args=None, min_8bit_size=4096,
                 max_unorm=1.0, **options):
        checks.refuse_true(amsgrad=amsgrad)
        if not bias_correction or not adam_w_mode or max_unorm != 1.0:
            raise Unsupported("LAMB8bit: bias_correction=%r, adam_w_mode=%r, max_unorm=%r; only "
                              "True, True and 1.0 are supported"
                              % (bias_correction, adam_w_mode, max_unorm))
        super().__init__(params, "lamb", dict(lr=lr, betas=betas, eps=eps,
                                              weight_decay=weight_decay),
                         args=args, min_8bit_size=min_8bit_size, **options)


class LAMB32bit(LAMB8bit):
    """bitsandbytes' LAMB32bit: fp32 states."""

    _format = "fp32"


class LAMB(LAMB8bit):
    """bitsandbytes' LAMB: fp32 states, or int8 with optim_bits=8."""

    def __init__(self, params, lr=1e-3, bias_correction=True, betas=(0.9, 0.999), eps=1e-8,
                 weight_decay=0, amsgrad=False, adam_w_mode=True, optim_bits=32, args=None,
                 min_8bit_size=4096, max_unorm=1.0, *, state_format=None, **options):
        super().__init__(params, lr, bias_correction, betas, eps, weight_decay, amsgrad,
                         adam_w_mode, args, min_8bit_size, max_unorm,
                         state_format=state_format or _format_of(optim_bits), **options)


def _refused(name, reason):
    """A class of that name that cannot be made, so that importing it says nothing and using it
    says why."""
    def __init__(self, *args, **options):
        raise Unsupported("%s: %s" % (name, reason))

    return type(name, (), {"__doc__": "Not supported: %s." % reason, "__init__": __init__,
                           "__module__": __name__})


REFUSED = {name: _refused(name, reason) for name, reason in [
    *(("Paged" + name, "states are not paged to the host, they are in its memory; use %s" % name)
      for name in ("Adam", "Adam8bit", "Adam32bit", "AdamW", "AdamW8bit", "AdamW32bit", "Lion",
                   "Lion8bit", "Lion32bit", "AdEMAMix", "AdEMAMix8bit", "AdEMAMix32bit")),
    *((name, "nibble has no such rule; LAMB also scales each tensor's step by a trust ratio")
      for name in ("LARS", "LARS8bit", "LARS32bit", "PytorchLARS"))]}
