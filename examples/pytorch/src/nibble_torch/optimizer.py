# SPDX-License-Identifier: Apache-2.0
"""The optimizer that all others are made from: a torch.optim.Optimizer whose states and arithmetic
are libnibble's. Every parameter group is one nibble_optimizer (Handle)."""
import copy
import warnings

import torch

from . import checks, groups, interop, library, state_dicts
from .handle import NONFINITE, Handle, count_nonfinite

_DEFAULT_BF16 = "bf16_stochastic"


class Optimizer(torch.optim.Optimizer):
    """Any rule with any state format: Optimizer(params, "ademamix", state_format="int4", lr=1e-3).

    params: as torch.optim takes them: tensors, (name, tensor) pairs, or groups. With names, norms
        and embeddings keep fp32 states unless `formats` says otherwise. Parameters are float32 or
        bfloat16, dense, contiguous, on the CPU or, with a libnibble that has CUDA, on a GPU, each
        group on one; what is not is refused by name.
    rule, and hyper-parameters by nibble's names (nibble_rule_hyper), save that learning_rate is lr
        and beta1, beta2, ... may be given as betas.
    state_format: "fp32", "bf16", "fp8", "int8", "int8_log", "int8_linear", "int4", "int4_rank1"; or
        by state: "exp_avg=int8,exp_avg_sq=fp32".
    formats: {name pattern: state format}, whatever the size.
    weight_format: how bfloat16 parameters are kept: "bf16_stochastic" (default), "bf16_master"
        (a float32 copy: 4 more bytes an element), "bf16_correction16" (2 bytes, exact),
        "bf16_correction8" (1 byte), "bf16_nearest". float32 parameters are what they are.
    block_size: elements that share a scale, a power of two; None: the format's.
    min_quantized_elements: smaller parameters keep fp32 states.
    mode: whose quantiser: "default", "torchao", "bnb", "bnb-cuda" ("torch" for fp32 states).
    decay: decoupled weight decay "before" or "after" the update.
    seed: of stochastic rounding.
    nonfinite: gradients with NaN or infinity: "skip_step" (nothing changes, a warning), "raise"
        (NonFinite, nothing changes), "skip_element", or "propagate" as torch.optim does.
    maximize: ascend.

    All of these but `rule` may differ by group, and none but maximize may change later: step() and
    load_state_dict() raise ValueError then. lr, betas and the like may change between steps, as
    schedulers do. Errors: ValueError or NotImplementedError (library.InvalidArgument, Unsupported)
    with the reason; then the optimizer is as it was.
    """

    def __init__(self, params, rule="adamw", *, state_format="int8", formats=None,
                 weight_format=None, block_size=None, min_quantized_elements=4096, mode="default",
                 decay=None, seed=0, nonfinite="skip_step", maximize=False, **hypers):
        self._rule = rule
        known = library.rule_hypers(rule)
        if known and not hypers.keys() & {"lr"}:
            hypers["lr"] = known["learning_rate"]
        unknown = hypers.keys() - known.keys() - {"lr", "betas"} - set(self._own_keys)
        if unknown and known:
            raise TypeError("rule %r has no hyper-parameter %s; it has %s" % (
                rule, ", ".join(sorted(unknown)), ", ".join(known)))
        self._options = {
            "state_format": state_format, "formats": formats, "weight_format": weight_format,
            "block_size": block_size, "min_quantized_elements": min_quantized_elements,
            "mode": mode, "decay": decay, "seed": seed, "nonfinite": nonfinite}
        self._handles = []
        self._fixed = []  # by group: what must stay as it was when its handle was made
        self._slots = []  # by group: [parameter, what was bound: address, dtype and shape]
        self.nonfinite_count = self.skipped_steps = 0  # of the last step; of all
        super().__init__(params, {**hypers, "maximize": maximize})

    # ---- What subclasses say ------------------------------------------------------------------

    _own_keys = ()  # of param_groups that are not hyper-parameters

    def _rule_of(self, group):
        """nibble's rule for a group."""
        return self._rule

    def _hypers(self, group, step):
        """{nibble's name: number} for the group's step number `step`, from 1."""
        out = {}
        for name in library.rule_hypers(self._rule_of(group)):
            key = "lr" if name == "learning_rate" else name
            if key in group:
                out[name] = group[key]
            elif name.startswith("beta") and "betas" in group:
                out[name] = group["betas"][int(name[4:]) - 1]
        return {name: float(value) for name, value in out.items() if value is not None}

    def _check_group(self, group):
        """Raises for what a group asks and cannot have."""

    def _initial_states(self, group):
        """{state: number} that states begin with, where that is not 0."""
        return {}

    # ---- Groups -------------------------------------------------------------------------------

    @torch.no_grad()
    def add_param_group(self, param_group):
        """As torch.optim's. The states are allocated at once, at zero. If anything is refused, the
        optimizer stays as it was."""
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        try:
            handle = self._make_handle(group)
        except BaseException:
            self.param_groups.pop()
            raise
        self._handles.append(handle)
        self._fixed.append(copy.deepcopy(groups.fixed_options(self, group)))
        self._slots.append([[p, None] for p in group["params"]])
        for index, p in enumerate(group["params"]):
            info = handle.info(index)
            self.state[p] = {"step": 0, **{key: info[key] for key in state_dicts.DESCRIPTION},
                             "seed": group.get("seed", self._options["seed"]),
                             **handle.states(index, p.shape)}

    def _names(self, group):
        """Unique names for a group's parameters: the caller's, or their number in the optimizer."""
        if "param_names" in group:
            return group["param_names"]
        first = sum(len(g["params"]) for g in self.param_groups[:-1])
        return ["param.%d" % (first + i) for i in range(len(group["params"]))]

    def _make_handle(self, group):
        options = {key: group.get(key, value) for key, value in self._options.items()}
        nonfinite = options["nonfinite"]
        if nonfinite not in NONFINITE and nonfinite != "raise":
            raise ValueError("nonfinite=%r; there are %s" % (nonfinite, [*NONFINITE, "raise"]))
        options["nonfinite"] = "skip_step" if nonfinite == "raise" else nonfinite
        wanted = options.pop("weight_format")
        self._check_group(group)
        names = self._names(group)
        for name in names:
            checks.check_name(name)
        dtypes = [(checks.check_param(p, "parameter %r" % name), checks.grad_dtype_name(p, name))
                  for p, name in zip(group["params"], names)]
        checks.check_weight_format(wanted)
        devices = {p.device for p in group["params"]} or {torch.device("cpu")}
        if len(devices) > 1:
            raise library.Unsupported("parameters of one group are on several devices (%s); make "
                                      "a group for each" % ", ".join(sorted(map(str, devices))))
        handle = Handle(rule=self._rule_of(group), hypers=self._hypers(group, 1),
                        weight_format="fp32", device=devices.pop(), **options)
        for p, name, (dtype, grad_dtype) in zip(group["params"], names, dtypes):
            weights = (wanted or _DEFAULT_BF16) if dtype == "BF16" else "fp32"
            index = handle.add_param(name, p.shape, weights, grad_dtype)
            for state, value in self._initial_states(group).items():
                if value != 0:
                    handle.import_state(index, state,
                                        interop.plain(torch.full(p.shape, float(value))))
        return handle

    # ---- Steps --------------------------------------------------------------------------------

    @torch.no_grad()
    def step(self, closure=None):
        """One step of every parameter that has a gradient (float32 or bfloat16, dense, of the
        parameter's shape). Each parameter counts its own steps. Returns what `closure` returns,
        or None. Errors, besides those of the class: Unsupported for sparse or sharded gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        groups.check_fixed(self, self.param_groups)
        work = []
        for group, handle, slots in zip(self.param_groups, self._handles, self._slots):
            work += self._plan(group, handle, slots)
        if not work:
            return loss
        for group, handle, _, count in work:  # a wrong hyper-parameter fails before any change
            handle.set_hypers(self._hypers(group, count + 1))
        try:
            self._run(work)
        except library.NonFinite as error:
            self.nonfinite_count = error.count
            self.skipped_steps += 1
            if any(self._nonfinite(group) == "raise" for group, *_ in work):
                raise
            warnings.warn("nibble_torch: %d gradients are not finite; the step was skipped"
                          % error.count, RuntimeWarning, stacklevel=2)
        return loss

    def _nonfinite(self, group):
        """What happens in the group; bitsandbytes' CUDA kernel skips elements unless told else."""
        policy = group.get("nonfinite", self._options["nonfinite"])
        bnb_cuda = group.get("mode", self._options["mode"]) == "bnb-cuda"
        return "skip_element" if policy == "skip_step" and bnb_cuda else policy

    def _plan(self, group, handle, slots):
        """[(group, handle, {index: gradient}, steps taken so far)], one for each number of steps:
        parameters that sat out some steps have their own bias corrections."""
        by_count = {}
        for index, slot in enumerate(slots):
            p, bound = slot
            if (p.data_ptr(), p.dtype, p.shape) != bound or not p.is_contiguous():
                self._bind(handle, index, slot)
            grad = p.grad
            if grad is None:
                continue
            name = handle.grad_dtypes[index]
            if (type(grad) is not torch.Tensor or grad.layout is not torch.strided
                    or checks.dtype_name(grad, "a gradient") != name or grad.device != p.device):
                grad = checks.usable_grad(grad, name, handle.info(index)["name"])
            by_count.setdefault(self.state[p]["step"], {})[index] = grad.resolve_neg().contiguous()
        return [(group, handle, grads, count) for count, grads in by_count.items()]

    def _bind(self, handle, index, slot):
        """At the first step, and when p.data was replaced since. What stands beside bfloat16
        weights is theirs until the first step is done."""
        p = slot[0]
        info = handle.info(index)
        what = "parameter %r" % info["name"]
        dtype = checks.check_param(p, what)
        made_for = "F32" if info["weight_format"] == "fp32" else "BF16"
        if p.numel() != info["count"] or dtype != made_for:
            raise library.InvalidArgument(
                "%s is now %s of %s; the optimizer was made for %d elements of %s"
                % (what, tuple(p.shape), dtype, info["count"], made_for))
        if p.device != handle.device:
            raise library.InvalidArgument(
                "%s is now on %s; its optimizer was made on %s: move a model before its optimizer "
                "is made" % (what, p.device, handle.device))
        handle.bind(index, p.data_ptr())
        if self.state[p]["step"] == 0:
            self._refresh(handle, index, p)
        slot[1] = (p.data_ptr(), p.dtype, p.shape)

    def _refresh(self, handle, index, p):
        state = self.state[p]
        if "master" in state:
            handle.load_states(index, {"master": p.detach().float()})
        if "correction" in state:
            handle.load_states(index, {"correction": torch.zeros_like(state["correction"])})

    def _run(self, work):
        """All of it or, where a gradient is not finite and steps are skipped for that, none."""
        finite = False
        if len(work) > 1:
            guarded = [g for group, _, grads, _ in work for g in grads.values()
                       if self._nonfinite(group) in ("skip_step", "raise")]
            count = count_nonfinite(guarded)
            if count > 0:
                error = library.NonFinite("%d gradients are not finite: the step was not taken"
                                          % count)
                error.status, error.count = library.NON_FINITE, count
                raise error
            finite = True
        self.nonfinite_count = 0
        for group, handle, grads, count in work:
            pointers = [None] * len(group["params"])
            for index, grad in grads.items():
                pointers[index] = grad.data_ptr() or None
            handle.set_hypers(self._hypers(group, count + 1))
            self.nonfinite_count += handle.step(
                pointers, count, grad_scale=-1.0 if group.get("maximize") else 1.0,
                known_finite=finite and self._nonfinite(group) in ("skip_step", "raise"))
            stepped = [group["params"][index] for index in grads]
            for p in stepped:
                self.state[p]["step"] = count + 1
            torch.autograd.graph.increment_version(stepped)

    # ---- What is kept -------------------------------------------------------------------------

    def report(self):
        """A list of dicts, one a parameter: name, shape, group, rule, format, block, bytes (of
        states, and of what stands beside bfloat16 weights), weight_format, placement, reason."""
        return [{"group": g, "shape": tuple(p.shape), **handle.info(index)}
                for g, (group, handle) in enumerate(zip(self.param_groups, self._handles))
                for index, p in enumerate(group["params"])]

    def export_state(self, param, name):
        """A state of `param` ("exp_avg"), dequantised: a new float32 tensor of its shape.
        ValueError if the parameter has no such state."""
        for group, handle in zip(self.param_groups, self._handles):
            for index, p in enumerate(group["params"]):
                if p is param:
                    return handle.export_state(index, name, p.shape)
        raise ValueError("the parameter is not this optimizer's")

    def refresh_masters(self):
        """Takes what stands beside bfloat16 weights (a master copy, correction bits) anew from the
        weights. To be called when they were changed from outside after the first step."""
        for group, handle in zip(self.param_groups, self._handles):
            for index, p in enumerate(group["params"]):
                self._refresh(handle, index, p)

    def load_state_dict(self, state_dict):
        """Takes over a state_dict() of this package: to the bit where format and block are the
        same, converted where they differ. Of a parameter that has made no step, what stands beside
        bfloat16 weights is taken from these at the next step. ValueError, and no change, for one
        that does not fit; for those of other libraries see import_state_dict()."""
        state_dict = state_dict.copy()
        for hook in self._optimizer_load_state_dict_pre_hooks.values():
            state_dict = hook(self, state_dict) or state_dict
        state_dicts.load(self, state_dict)
        for hook in self._optimizer_load_state_dict_post_hooks.values():
            hook(self)

    def import_state_dict(self, state_dict, hyper_parameters=True):
        """Takes over the state_dict() of an optimizer of bitsandbytes, torchao or torch.optim with
        the same rule and the same parameters in the same order. Its states are decoded and encoded
        in this optimizer's formats (taken as they are where format, map and block agree).
        hyper_parameters: also lr, betas, eps and weight_decay. ValueError, and no change, for one
        that does not fit."""
        interop.import_state_dict(self, state_dict, hyper_parameters)

    def __getstate__(self):
        raise TypeError("a nibble_torch optimizer cannot be pickled or deep-copied, since its "
                        "states are libnibble's; use its state_dict()")

    def __setstate__(self, state):
        raise TypeError("use load_state_dict()")
