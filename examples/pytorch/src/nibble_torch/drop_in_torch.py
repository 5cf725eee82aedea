# SPDX-License-Identifier: Apache-2.0
"""torch.optim's names and signatures; fp32 states unless state_format says otherwise. Keywords
beyond torch.optim's are Optimizer's: state_format, weight_format, block_size, seed, nonfinite, ...
"""
import math

import torch

from . import checks
from .library import Unsupported
from .optimizer import Optimizer


class _TorchLike(Optimizer):
    """Takes torch.optim's flags of implementation, and refuses what they ask for by name."""

    _own_keys = ("amsgrad", "decoupled_weight_decay", "initial_accumulator_value",
                 "ns_coefficients", "adjust_lr_fn", "beta2_decay", "d")

    def __init__(self, params, rule, hypers, *, foreach=None, fused=None, capturable=False,
                 differentiable=False, state_format="fp32", **options):
        checks.check_implementation(foreach, fused, capturable, differentiable)
        super().__init__(params, rule, state_format=state_format, **hypers, **options)


class AdamW(_TorchLike):
    """torch.optim.AdamW."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=1e-2,
                 amsgrad=False, **options):
        super().__init__(params, "adamw", dict(lr=lr, betas=betas, eps=eps, amsgrad=amsgrad,
                                               weight_decay=weight_decay), **options)

    def _rule_of(self, group):
        return "amsgrad" if group.get("amsgrad") else "adamw"


class Adam(_TorchLike):
    """torch.optim.Adam: weight decay is an L2 term in the gradient unless decoupled_weight_decay.
    amsgrad with the L2 term is refused: nibble's rule decays the weights."""

    def __init__(self, params, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, weight_decay=0,
                 amsgrad=False, *, decoupled_weight_decay=False, **options):
        super().__init__(params, "adam", dict(
            lr=lr, betas=betas, eps=eps, weight_decay=weight_decay, amsgrad=amsgrad,
            decoupled_weight_decay=decoupled_weight_decay), **options)

    def _rule_of(self, group):
        if group.get("amsgrad"):
            return "amsgrad"
        return "adamw" if group.get("decoupled_weight_decay") else "adam"

    def _hypers(self, group, step):
        if group.get("amsgrad") and group["weight_decay"] != 0 and not group.get(
                "decoupled_weight_decay"):
            raise Unsupported("Adam with amsgrad=True and an L2 weight_decay is not supported: "
                              "nibble's amsgrad decays the weights, as AdamW does")
        return super()._hypers(group, step)


class SGD(_TorchLike):
    """torch.optim.SGD. Without momentum there is no state; it cannot be raised from 0 later."""

    def __init__(self, params, lr=1e-3, momentum=0, dampening=0, weight_decay=0, nesterov=False,
                 **options):
        super().__init__(params, "sgd", dict(lr=lr, momentum=momentum, dampening=dampening,
                                             weight_decay=weight_decay, nesterov=nesterov),
                         **options)

    def _check_group(self, group):
        if group["nesterov"] and (group["momentum"] <= 0 or group["dampening"] != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")


class Adagrad(_TorchLike):
    """torch.optim.Adagrad."""

    def __init__(self, params, lr=1e-2, lr_decay=0, weight_decay=0, initial_accumulator_value=0,
                 eps=1e-10, foreach=None, **options):
        super().__init__(params, "adagrad", dict(
            lr=lr, lr_decay=lr_decay, weight_decay=weight_decay, eps=eps,
            initial_accumulator_value=initial_accumulator_value), foreach=foreach, **options)

    def _check_group(self, group):
        if not group["initial_accumulator_value"] >= 0:
            raise ValueError("initial_accumulator_value is %r: 0 or more expected"
                             % group["initial_accumulator_value"])

    def _initial_states(self, group):
        return {"sum": group["initial_accumulator_value"]}


class RMSprop(_TorchLike):
    """torch.optim.RMSprop, without centring."""

    def __init__(self, params, lr=1e-2, alpha=0.99, eps=1e-8, weight_decay=0, momentum=0,
                 centered=False, capturable=False, foreach=None, **options):
        checks.refuse_true(centered=centered)
        super().__init__(params, "rmsprop", dict(lr=lr, alpha=alpha, eps=eps, momentum=momentum,
                                                 weight_decay=weight_decay),
                         capturable=capturable, foreach=foreach, **options)


class Adafactor(_TorchLike):
    """torch.optim.Adafactor, for parameters of at most two dimensions. The floor on the second
    moment, eps[0] squared (default: the dtype's eps), is added to squared gradients, where PyTorch
    clamps the estimate by it; PyTorch's floor on the mean of row moments (1.2e-7) is left out. So
    the two agree where gradients are well above 1e-3 and 3e-4. weight_decay is refused: nibble
    decays by the scaled step, PyTorch by lr."""

    def __init__(self, params, lr=1e-2, beta2_decay=-0.8, eps=(None, 1e-3), d=1.0,
                 weight_decay=0.0, **options):
        super().__init__(params, "adafactor", dict(lr=lr, beta2_decay=beta2_decay, eps=eps, d=d,
                                                   weight_decay=weight_decay), **options)

    def _check_group(self, group):
        for p in group["params"]:
            if p.dim() > 2:
                raise Unsupported("Adafactor: a parameter of shape %s; PyTorch factors the last "
                                  "two dimensions one by one, nibble only matrices"
                                  % (tuple(p.shape),))

    def _hypers(self, group, step):
        if group["weight_decay"] != 0:
            raise Unsupported("Adafactor: weight_decay=%r; PyTorch decays by lr, nibble by the "
                              "scaled step" % group["weight_decay"])
        floor = group["eps"][0]
        if floor is None:
            floor = max((torch.finfo(p.dtype).eps for p in group["params"]), default=0.0)
        return {"learning_rate": min(float(group["lr"]), 1 / math.sqrt(step)),
                "weight_decay": 0.0, "beta1": 0.0, "eps": floor * floor, "eps2": group["eps"][1],
                "clip_threshold": group["d"], "decay_rate": group["beta2_decay"],
                "scale_parameter": 1.0, "relative_step": 0.0, "warmup_init": 0.0}


class Muon(_TorchLike):
    """torch.optim.Muon, for matrices. Its iteration runs in float32 (PyTorch's in bfloat16), with
    the published coefficients."""

    def __init__(self, params, lr=1e-3, weight_decay=0.1, momentum=0.95, nesterov=True,
                 ns_coefficients=(3.4445, -4.775, 2.0315), eps=1e-7, ns_steps=5, adjust_lr_fn=None,
                 **options):
        super().__init__(params, "muon", dict(
            lr=lr, weight_decay=weight_decay, momentum=momentum, nesterov=nesterov, eps=eps,
            ns_coefficients=ns_coefficients, ns_steps=ns_steps, adjust_lr_fn=adjust_lr_fn),
            **options)

    def _check_group(self, group):
        if tuple(group["ns_coefficients"]) != (3.4445, -4.775, 2.0315):
            raise Unsupported("Muon: ns_coefficients=%r; nibble has (3.4445, -4.775, 2.0315)"
                              % (group["ns_coefficients"],))
        if group["adjust_lr_fn"] not in (None, "original", "match_rms_adamw"):
            raise Unsupported("Muon: adjust_lr_fn=%r; there are \"original\" and "
                              "\"match_rms_adamw\"" % group["adjust_lr_fn"])
        for p in group["params"]:
            if p.dim() != 2:
                raise Unsupported("Muon: a parameter of shape %s; matrices only"
                                  % (tuple(p.shape),))

    def _hypers(self, group, step):
        out = super()._hypers(group, step)
        out["match_rms"] = float(group["adjust_lr_fn"] == "match_rms_adamw")
        return out
