"""Rules: sums, means, extrema, norms, order."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from archdsl.capture import layouts
from archdsl.capture.rules import RULES, Rule, aten, last_or_front
from archdsl.dims import Size
from archdsl.graph import Value
from archdsl.ops.registry import OpError

if TYPE_CHECKING:
    from archdsl.capture.translate import Translation


# ---------------------------------------------------------------- reductions
def _axes(x: Value, dim: Any) -> Any:
    if dim is None or isinstance(dim, (list, tuple)) and not dim:
        return None
    axes = [last_or_front(len(x.shape), d) for d in (dim if isinstance(dim, (list, tuple)) else [dim])]
    return axes[0] if len(axes) == 1 else tuple(axes)


def _reduction(op: str, floats: bool = False) -> Rule:
    def rule(t: Translation, self: Value, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
        x = t.cast(self, dtype)
        return t.flat.op(op, t.floated(x) if floats and not x.type.is_float else x, axis=_axes(self, dim), keep=keepdim)
    return rule


for _name in ("mean.dim", "mean.default"):
    RULES[_name] = _reduction("mean", floats=True)
for _name in ("sum.dim_IntList", "sum.default"):
    RULES[_name] = _reduction("sum")
for _name in ("amax.default", "max.default"):
    RULES[_name] = _reduction("max")
for _name in ("amin.default", "min.default"):
    RULES[_name] = _reduction("min")
for _name in ("any.dim", "any.default", "any.dims"):
    RULES[_name] = _reduction("any")
for _name in ("all.dim", "all.default", "all.dims"):
    RULES[_name] = _reduction("all")
for _name in ("logsumexp.default",):
    RULES[_name] = _reduction("logsumexp")


@aten("var.correction", "var.dim")
def _var(t: Translation, self: Value, dim: Any = None, correction: Any = 1, keepdim: bool = False, unbiased: bool = True) -> Any:
    if correction != 0 and unbiased:
        n: Size = 1
        for a in range(len(self.shape)) if not dim else [d % len(self.shape) for d in dim]:
            n = n * self.shape[a]
        centred = t.flat.op("sub", self, t.flat.op("mean", self, axis=_axes(self, dim), keep=True))
        total = t.flat.op("sum", t.flat.op("square", centred), axis=_axes(self, dim), keep=keepdim)
        return t.flat.op("div", total, n - (1 if correction is None else int(correction)))
    return t.flat.op("var", self, axis=_axes(self, dim), keep=keepdim)


@aten("linalg_vector_norm.default", "norm.ScalarOpt_dim", "frobenius_norm.dim")
def _norm(t: Translation, self: Value, ord: Any = 2, dim: Any = None, keepdim: bool = False, p: Any = 2) -> Any:
    if ord != 2 or p != 2:
        raise OpError("a norm other than the Euclidean one has no op")
    return t.flat.op("sqrt", t.flat.op("sum", t.flat.op("square", self), axis=_axes(self, dim), keep=keepdim))


@aten("cumsum.default")
def _cumsum(t: Translation, self: Value, dim: int, dtype: Any = None) -> Any:
    return t.flat.op("cumsum", t.cast(self, dtype), axis=last_or_front(len(self.shape), dim))


@aten("argmax.default")
def _argmax(t: Translation, self: Value, dim: Any = None, keepdim: bool = False) -> Any:
    if dim is None:
        self, dim = layouts.reshape(t.flat, self, [-1]), 0
    return t.flat.op("argmax", self, axis=last_or_front(len(self.shape), dim), keep=keepdim)


@aten("max.dim", "min.dim")
def _max_dim(t: Translation, self: Value, dim: int, keepdim: bool = False, how: str = "max") -> Any:
    x = self if how == "max" else t.flat.op("neg", self)
    axis = last_or_front(len(self.shape), dim)
    return t.flat.op(how, self, axis=axis, keep=keepdim), t.flat.op("argmax", x, axis=axis, keep=keepdim)


RULES["min.dim"] = lambda t, self, dim, keepdim=False: _max_dim(t, self, dim, keepdim, "min")


@aten("topk.default")
def _topk(t: Translation, self: Value, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    return t.flat.op("topk", self, k=k, axis=last_or_front(len(self.shape), dim), largest=largest)


@aten("sort.default", "sort.stable")
def _sort(t: Translation, self: Value, dim: int = -1, descending: bool = False, stable: Any = False) -> Any:
    return t.flat.op("sort", self, axis=last_or_front(len(self.shape), dim), descending=descending, stable=bool(stable))


# ---------------------------------------------------------------- norms
@aten("layer_norm.default")
def _layer_norm(t: Translation, input: Value, normalized_shape: list[int], weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    if len(normalized_shape) != 1:
        raise OpError(f"a norm over {len(normalized_shape)} axes has no op", help="only the last axis can be normalised")
    x, w, b = t.one_float(input, weight, bias)
    if w is None and b is not None:
        return t.flat.op("add", t.flat.op("layer_norm", x, eps=eps), b)
    return t.flat.op("layer_norm", x, w, b, eps=eps)


@aten("rms_norm.default")
def _rms_norm(t: Translation, input: Value, normalized_shape: list[int], weight: Any = None, eps: Any = None) -> Any:
    if len(normalized_shape) != 1 or eps is None:
        raise OpError("an RMS norm over several axes, or with an eps that depends on the element type, has no op")
    x, w = t.one_float(input, weight)
    return t.flat.op("rms_norm", x, w, eps=eps)


@aten("group_norm.default")
def _group_norm(t: Translation, input: Value, num_groups: int, weight: Any = None, bias: Any = None, eps: float = 1e-5) -> Any:
    x, w, b = t.one_float(input, weight, bias)
    return t.flat.op("group_norm", x, w, b, groups=num_groups, eps=eps)


@aten("batch_norm.default")
def _batch_norm(t: Translation, input: Value, weight: Any, bias: Any, running_mean: Any, running_var: Any, training: bool, momentum: float,
                eps: float) -> Any:
    if training and running_mean is not None:
        raise OpError("statistics of the batch in evaluation have no op when there are running ones too")
    return _running(t, input, weight, bias, running_mean, running_var, momentum, eps)[0]


@aten("_native_batch_norm_legit_no_training.default")
def _running(t: Translation, input: Value, weight: Any, bias: Any, running_mean: Any, running_var: Any, momentum: float, eps: float) -> Any:
    y = t.flat.op("batch_norm", *t.one_float(input, weight, bias, running_mean, running_var), momentum=momentum, eps=eps)
    return y, None, None
