"""What somebody types by hand who comes from PyTorch: one message each, with the way out; the fix gives what was meant."""
from __future__ import annotations

import pytest

from archdsl.diagnostics.fixing import apply
from archdsl.diagnostics.model import ArchError
from archdsl.diagnostics.render import render
from archdsl.spec import check_text, loads

USE = "use std { Attention, LayerNorm, Linear, Pre, RMSNorm }\n\n"
HEADER = "model Net(d: int = 64, depth: int = 2, flag: bool = true)(x: [B, T, d]) -> y: [B, T, d] "


def body(statement: str) -> str:
    return f"{USE}{HEADER}{{\n  {statement}\n  return x\n}}\n"


STATEMENTS = {  # statement -> the statement meant, "" where only words can say it, None where that is not asked
    "x = Linear(d) >> x as a": "x = x |> Linear(d) as a",
    "x = Linear(d) |> x as a": "x = x |> Linear(d) as a",
    "x = (Linear(d) >> x) |> relu": "x = (x |> Linear(d)) |> relu",
    "x = Linear(d) as a >> x as b": "x = x |> Linear(d) as a",
    "x = Linear(d) >> relu >> x as a": "x = x |> Linear(d) as a |> relu",
    "x = Linear(d) >> Linear(d) >> x as a": "",
    "self.fc = Linear(d)": "fc = Linear(d)",
    "x = x * self.scale": None,
    "x = nn.Linear(d)(x) as a": "x = Linear(d)(x) as a",
    "x = torch.nn.functional.relu(x)": "x = relu(x)",
    "x = Dropout(0.1)(x)": "x = dropout(x, 0.1)",
    "x = nn.Dropout(p=0.1)(x)": "x = dropout(x, 0.1)",
    "x = x |> nn.Dropout(0.1)": "x = x |> dropout(0.1)",
    "f = nn.Dropout(0.1)": "",
    "x = F.relu(x)": "x = relu(x)",
    "y = torch.cat([x, x])": "y = concat([x, x])",
    "x = F.scaled_dot_product_attention(x, x, x)": "x = attention(x, x, x)",
    "x = x.view(B, T * d)": None,
    "n = x.shape[-1]": None,
    "x = x.relu()": "x = relu(x)",
    "x = x.float()": None,
    "x = x.to(torch.float16)": None,
    "x = x @ x.T": None,
    "x = x.detach()": None,
    "f = lambda y: y + 1": "f = block(y) => y + 1",
    "f = lambda y, z=2: y + z": "",
    "f = lambda *ys: ys": "",
    "f = lambda y: {y}": "",
    "y = x ^ 2": "y = x ** 2",
    "if flag: x = relu(x)": "if flag { x = relu(x) }",
    "if flag:\n    x = relu(x)\n  elif d == 64:\n    x = gelu(x)\n  else:\n    x = silu(x)":
        "if flag {\n    x = relu(x)\n  } else if d == 64 {\n    x = gelu(x)\n  } else {\n    x = silu(x)\n  }",
    "for i in range(depth):\n    x = relu(x)  # twice": "for i in range(depth) {\n    x = relu(x)\n  }  # twice",
    "for i in range(depth): for j in range(2): x = relu(x)": "for i in range(depth) { for j in range(2) { x = relu(x) } }",
    "for i in range(depth):\n    if flag: x = relu(x)\n    else: x = gelu(x)":
        "for i in range(depth) {\n    if flag { x = relu(x) } else { x = gelu(x) }\n  }",
    "for i in range(depth):\n    x = relu(x)\n  }": "for i in range(depth) {\n    x = relu(x)\n  }",
    "if flag:\n    x = relu(x)\n  } else {\n    x = gelu(x)\n  }": "if flag {\n    x = relu(x)\n  } else {\n    x = gelu(x)\n  }",
    "layers: for i in range(depth):\n    x = x * x[:, 0:1]": "layers: for i in range(depth) {\n    x = x * x[:, 0:1]\n  }",
    "y = if flag { x } else: { relu(x) }": "y = if flag { x } else { relu(x) }",
    "match d:\n    4: x = relu(x)": "",
    "match d:\n    case 4: x = relu(x)": "",
    "for i in range(depth) { x = Linear(d)(x) }": "layers: for i in range(depth) { x = Linear(d)(x) }",
    "for i in range(depth) { x = Linear(d)(x) }\n  layers: for i in range(depth) { x = Linear(d)(x) }":
        "layers_2: for i in range(depth) { x = Linear(d)(x) }\n  layers: for i in range(depth) { x = Linear(d)(x) }",
    "layers: for i in range(depth) { x = Linear(d)(x) }\n  for i in range(depth) { x = Linear(d)(x) }":
        "layers: for i in range(depth) { x = Linear(d)(x) }\n  layers_2: for i in range(depth) { x = Linear(d)(x) }",
    "param layers: [d] = zeros()\n  for i in range(depth) { x = Linear(d)(x) + layers }":
        "param layers: [d] = zeros()\n  layers_2: for i in range(depth) { x = Linear(d)(x) + layers }",
    "layers = Linear(d)\n  for i in range(depth) { x = Linear(d)(x) }\n  x = layers(x)":
        "layers = Linear(d)\n  layers_2: for i in range(depth) { x = Linear(d)(x) }\n  x = layers(x)",
    "layers = Linear(d)\n  for i in range(depth) { x = Linear(d)(x) }\n  x = x |> layers":
        "layers = Linear(d)\n  layers_2: for i in range(depth) { x = Linear(d)(x) }\n  x = x |> layers",
    "if x { x = relu(x) }": None,
    "if x > 0 { x = relu(x) }": None,
    'name = f"layer{d}"': 'name = "layer{d}"',
    "x = x if flag else relu(x)": "x = if flag { x } else { relu(x) }",
    "x = relu(x if flag else -x)": "x = relu(if flag { x } else { -x })",
    "x = x if (flag\n    and d > 3) else relu(x)": "x = if (flag\n    and d > 3) { x } else { relu(x) }",
    "x = relu(x if flag\n    else -x)": "x = relu(if flag { x } else { -x })",
    "ns = [i if flag else d for i in range(2)]": "ns = [if flag { i } else { d } for i in range(2)]",
    "ns = d if flag else {d}": "",
    "x = flag ? x : relu(x)": "x = if flag { x } else { relu(x) }",
    "x += relu(x)": "x = x + relu(x)",
    "x += x |> relu": "",
    "x += x if flag else 1": "",
    "layers = ModuleList([Linear(d) for i in range(depth)])": None,
    "ys = [Linear(d)(x) for i in range(2)]": None,
    "ok = flag && d == 64": "ok = flag and d == 64",
    "ok = flag || d == 64": "ok = flag or d == 64",
    "print(x)": None,
    "assert d == 64": "require d == 64",
    'raise ValueError("d")': None,
    "pass": None,
    "try { x = relu(x) }": None,
    "while flag { x = relu(x) }": None,
    "with torch.no_grad() { x = relu(x) }": None,
    "def forward(self, x):\n    return x": None,
    "x = super().forward(x)": None,
    "x = Linear(d, d)(x) as a": "x = Linear(d)(x) as a",
    "x = Linear(64, 64)(x) as a": "x = Linear(64)(x) as a",
    "x = Linear(in_features = d, out = d)(x) as a": "x = Linear(out = d)(x) as a",
    "x = RMSNorm(d, eps = 1e-6)(x) as a": "x = RMSNorm(eps = 1e-6)(x) as a",
    "x, _ = Attention(8)(x) as a": "x = Attention(8)(x) as a",
    "a = Linear(d)\n  x = a(x)\n  x = a(x)": "a = Linear(d)\n  x = a(x)\n  x = a(x) as linear_2",
    "x = Pre(RMSNorm, Linear(d))(x) as a": "x = Pre(RMSNorm(), Linear(d))(x) as a",
    "w = Parameter(x)": None,
    "param w = zeros()": None,
    "param w: [d]": None,
    "x = rearrange(x, \"b t (h w) -> b t (w h)\", h = 8)": "x = rearrange(x, [b, t, (h w)] -> [b, t, (w h)], h = 8)",
    "y = einsum(\"btd,bsd->bts\", x, x)": "y = einsum([b, t, d], [b, s, d] -> [b, t, s])(x, x)",
    "y = tril(x)": None,
    "y = randn(2, 3)": None,
    "if isinstance(x, int) { x = relu(x) }": None,
    "// a comment": "# a comment",
    "x = relu(x)\n  // now the norm": "x = relu(x)\n  # now the norm",
    "x = relu(x)\n  // don't": "x = relu(x)\n  # don't",
    "n = d\n    // dept": "n = d\n    // depth",
    "x = relu(x)\n  // end": "x = relu(x)\n  # end",
    "x = relu(x)\n  /* two\n   words */": "x = relu(x)\n  # two\n  # words",
    "/**\n   * Two\n   * lines.\n   */\n  x = relu(x)": "# Two\n  # lines.\n  x = relu(x)",
    "x = relu(x) /* two\n   words */": "x = relu(x) # two\n  # words",
    "/* one */ x = relu(x)": "# one\n  x = relu(x)",
    "/* x = relu(x)\n  x = gelu(x) */\n  x = silu(x)": "# x = relu(x)\n  # x = gelu(x)\n  x = silu(x)",
    "/* never closed": "# never closed",
    "x = relu(x)  // x = gelu(x)": "x = relu(x)  # x = gelu(x)",
    "x = Linear(d)(x) as a // y = Linear(2 * d)(x) as b": "x = Linear(d)(x) as a # y = Linear(2 * d)(x) as b",
    "x = relu(x)  // return x": "x = relu(x)  # return x",
    "x = relu(x)  // layers: for i in range(2) { x = relu(x) }": "x = relu(x)  # layers: for i in range(2) { x = relu(x) }",
    "// x = gelu(x)\n  x = relu(x)": "# x = gelu(x)\n  x = relu(x)",
    "x = relu(x)  -- the hidden layer": "x = relu(x)  # the hidden layer",
    "x = relu(x)\n  -- x = gelu(x)": "x = relu(x)\n  # x = gelu(x)",
    "x = relu(x) // the hidden one": "x = relu(x) # the hidden one",
    "x = Linear(d)(x) as a // hidden layer": "x = Linear(d)(x) as a # hidden layer",
    "x = relu(x) // don't": "x = relu(x) # don't",
    "x = relu(x) // (B, d)": "x = relu(x) # (B, d)",
    "x = relu(x) // shape: [B, d]": "x = relu(x) # shape: [B, d]",
    "n = d * 2 // 3 times": "n = d * 2 # 3 times",
    "x = relu(x) // number of heads": "x = relu(x) # number of heads",
    "x = relu(x) // only for tests": "x = relu(x) # only for tests",
    "n = d // see paper, section 3": "n = d # see paper, section 3",
    "n = max(d // depth, // the least\n    3)": "n = max(d // depth, # the least\n    3)",
    "n = [d // depth d]": "n = [d // depth, d]",
    "n = d // depth // in each layer, half the width": "n = d // depth # in each layer, half the width",
    "n = d // depth // the hidden size": "n = d // depth # the hidden size",
    "x = relu(x) // TODO": "x = relu(x) # TODO",
    "x = relu(x) // x[0] = 3": "x = relu(x) # x[0] = 3",
    "x = relu(x) // before: gelu(x)": "x = relu(x) # before: gelu(x)",
    "x = relu(x) // -> [B, d]": "x = relu(x) # -> [B, d]",
    "x = relu(x) // not used": "x = relu(x) # not used",
    "x = relu(x); // activation": "x = relu(x); # activation",
    "n = [1, // one\n    2]": "n = [1, # one\n    2]",
    "if flag { // eight\n    x = relu(x)\n  }": "if flag { # eight\n    x = relu(x)\n  }",
    "if flag { x = relu(x) } // end": "if flag { x = relu(x) } # end",
    'require d > 3, "small" // why': 'require d > 3, "small" # why',
    "x = relu(x) /* text */": "x = relu(x) # text",
    "n = d / /* two */ 2": None,
    "n = d // paths": None,
    'require d > 3, f"bad {d}"': 'require d > 3, "bad {d}"',
    '"""a comment"""': "# a comment",
    '"""a comment""" x = relu(x)': "",
    "x: Tensor = relu(x)": None,
    "x = GELU()(x)": "x = gelu(x)",
    "x = relu(x) as act": "x = relu(x)",
    "x := relu(x)": "x = relu(x)",
    "x <- relu(x)": "x = relu(x)",
    "layers: for i in range(depth) { x := relu(x) }": "layers: for i in range(depth) { x = relu(x) }",
    'require d > 3, “too small”': 'require d > 3, "too small"',
    'require d > 3, "too small': 'require d > 3, "too small"',
    "x = Linear(out: d)(x) as a": "x = Linear(out = d)(x) as a",
    "x = Linear(out: d, bias: false)(x) as a": "x = Linear(out = d, bias = false)(x) as a",
    "x = Linear(d; bias = false)(x) as a": "x = Linear(d, bias = false)(x) as a",
    "ns = [d; depth; 3]": "ns = [d, depth, 3]",
    "y: [B; T; d] = x": "y: [B, T, d] = x",
    "a = Linear(d; x = relu(x)\n  x = a(x) as b": "a = Linear(d); x = relu(x)\n  x = a(x) as b",
    "(a, b) = split(x, 2)": "a, b = split(x, 2)",
    "[a, b,] = split(x, 2)": "a, b = split(x, 2)",
    "a = b = relu(x)\n  x = a + b": "b = relu(x); a = b\n  x = a + b",
    "a = b = relu(x)\n    |> gelu  # both\n  x = a + b": "b = relu(x)\n    |> gelu; a = b  # both\n  x = a + b",
    "a = b = c = relu(x)\n  x = a + b + c": "c = relu(x); b = c; a = b\n  x = a + b + c",
    "if flag { a = b = x }": "if flag { b = x; a = b }",
    "if flag { (x, a) = (x, d) }": "if flag { x, a = (x, d) }",
    "(,) = x": "",
    "(a,, b) = split(x, 2)": "",
    "(a b) = split(x, 2)": "",
    "xs = []\n  for i in range(depth) { xs.append(x) }\n  x = xs[0]": "xs = []\n  for i in range(depth) { xs = xs + [x] }\n  x = xs[0]",
    "xs = [x]; xs.append(x)\n  x = xs[0]": "xs = [x]; xs = xs + [x]\n  x = xs[0]",
    "xs = [x]\n  xs.append(x) |> relu": "",
    "xs = []\n  xs.append(relu(x))\n  x = xs[0]": "xs = []\n  xs = xs + [relu(x)]\n  x = xs[0]",
    "xs = [x]\n  xs.extend([x, x])\n  x = xs[0]": "xs = [x]\n  xs = xs + ([x, x])\n  x = xs[0]",
    "q, k = x.chunk(2, axis=-1)": "q, k = split(x, 2, axis=-1)",
    "n = 4d": "n = 4 * d",
    "n = 12abc": "",
    "n = 2if": "",
    "n = d // 2d": "n = d // (2 * d)",
    "n = 2 ** 2depth": "n = 2 ** (2 * depth)",
    "x = x.masked_fill(x > 0, 1.0)": "",
    "x = x.repeat(2)": "",
    "x = x |> LayerNorm(x)": "",
    "x = relu(x, inplace = true)": "x = relu(x)",
    'x = Linear(d, device = "cuda")(x) as a': "x = Linear(d)(x) as a",
    "x = LayerNorm(x)": "x = LayerNorm()(x)",
    "x = LayerNorm(d)(x)": "x = LayerNorm()(x)",
    "param w: (d, d) = zeros()": "param w: [d, d] = zeros()",
    "layers: for i in depth { x = Linear(d)(x) }": "layers: for i in range(depth) { x = Linear(d)(x) }",
    "x = jax.nn.gelu(x)": "x = gelu(x)",
    "x = vmap(relu)(x)": "",
    "y = x @ x": "",
    "y = x |> flatten": "",
    'cfg = {"width": d}': "",
    "cfg = dict(width = d)": "",
    "n = sum([d, depth], axis = 0)": None,
    "n = floor(d, 2)": None,
    "x = sum([x, x], axis = 0)": None,
}
HEAD = "(d: int = 4)(x: [B, d]) -> y: [B, d] {"
NET = "model Net" + HEAD + " return Linear(d)(x) as a }"
NET_T = "model Net(d: int = 4)(x: [B, T, d]) -> y: [B, T, d] { return "
NET_SIGN = "model Net(d: int = 4)(x: [B, d]) -> y: [B, d] {{ return {} }}"
FILES = {  # behind (or, of imports, instead of) the `use` of the library
    "use torch.nn { Linear }\n\n" + NET: "use std { Linear }\n\n" + NET,
    "use Linear\n\n" + NET: "use std { Linear }\n\n" + NET,
    "use std.Linear\n\n" + NET: "use std { Linear }\n\n" + NET,
    "use std { * }\n\n" + NET: None,
    "use std.std { Linear }\n\n" + NET: "use std.linear { Linear }\n\n" + NET,
    "use std.layers { Linear, Attention }\n\n" + NET: "use std { Linear, Attention }\n\n" + NET,
    "model Net" + HEAD + " return nn.Linear(d)(x) as a }": "use std.linear { Linear }\n\n" + NET,
    "import torch.nn as nn\n" + USE + NET: None,
    "from torch import nn\n" + USE + NET: None,
    "class Net(nn.Module):\n  def __init__(self, d):\n    self.fc = nn.Linear(d, d)\n\n  def forward(self, x):\n    return self.fc(x)": None,
    '"""A net of one map.""" ' + USE + NET: "",
    '"""A net\nof one map."""\n' + USE + NET: "/// A net\n/// of one map.\n" + USE + NET,
    "// A net\n" + USE + NET: "# A net\n" + USE + NET,
    USE.strip() + " // imports\n" + NET: USE.strip() + " # imports\n" + NET,
    USE + "model Net(d: int = 4, // width\n)(x: [B, d]) -> y: [B, d] { return relu(x) }":
        USE + "model Net(d: int = 4, # width\n)(x: [B, d]) -> y: [B, d] { return relu(x) }",
    f"{USE}{HEADER}{{\n\tif flag:\n\t\tx = relu(x)\n\telse:\n\t\tx = gelu(x)\n\tx = x * 2\n\treturn x\n}}":
        f"{USE}{HEADER}{{\n\tif flag {{\n\t\tx = relu(x)\n\t}} else {{\n\t\tx = gelu(x)\n\t}}\n\tx = x * 2\n\treturn x\n}}",
    USE + "model Net" + HEAD[:-2] + ":\n  return Linear(d)(x) as a": USE + "model Net" + HEAD + "\n  return Linear(d)(x) as a\n}",
    USE + "model Net(x: [B, 4]) -> y: [B, 4] { return relu(x) }": USE + "model Net()(x: [B, 4]) -> y: [B, 4] { return relu(x) }",
    USE + "model Net(d: int = 4, x: [B, d]) -> y: [B, d] { return relu(x) }":
        USE + "model Net(d: int = 4)(x: [B, d]) -> y: [B, d] { return relu(x) }",
    USE + "model Net(d: int = 4) { return relu(x) }": None,
    USE + "model Net(d: int = 4)(x: Tensor) -> y: [B, d] { return relu(x) }": None,
    USE + "model Net(d = 4)(x: [B, d]) -> y: [B, d] { return relu(x) }": USE + "model Net(d: int = 4)(x: [B, d]) -> y: [B, d] { return relu(x) }",
    USE + "model Net(d: Optional[int] = 4)(x: [B, 4]) -> y: [B, 4] { return Linear(d ?? 4)(x) as a }":
        USE + "model Net(d: int? = 4)(x: [B, 4]) -> y: [B, 4] { return Linear(d ?? 4)(x) as a }",
    USE + "model Net(p: float = .1)(x: [B, 4]) -> y: [B, 4] { return dropout(x, p) }":
        USE + "model Net(p: float = 0.1)(x: [B, 4]) -> y: [B, 4] { return dropout(x, p) }",
    USE + "model Net(on: bool = True)(x: [B, 4]) -> y: [B, 4] { return if on { x } else { -x } }":
        USE + "model Net(on: bool = true)(x: [B, 4]) -> y: [B, 4] { return if on { x } else { -x } }",
    USE + "block F()(x: [..., d]) -> [..., d] { return Linear(d)(x) }\n\nmodel Net(d: int = 4)(x: [B, d]) -> y: [B, d] { return F(x) as f }":
        USE + "block F()(x: [..., d]) -> [..., d] { return Linear(d)(x) }\n\nmodel Net(d: int = 4)(x: [B, d]) -> y: [B, d] { return F()(x) as f }",
    USE + "model Net(d: int = 4)(x: [B, d]) -> y: [B, d] { y = relu(x) }": None,
    USE + NET + "\nvariant wide { d = d * 2 }": USE + NET + "\nvariant wide { d = 4 * 2 }",
    USE + NET + "\nvariant a { d = 6 }\nvariant b of a {}\nvariant wide of b { d = d * 2 }":
        USE + NET + "\nvariant a { d = 6 }\nvariant b of a {}\nvariant wide of b { d = 6 * 2 }",
    "use std { Conv }\n\nmodel Net(d: int = 4)(x: [B, d, H, W]) -> y: [B, d, _, _] { return Conv(d, kernel = 0)(x) as a }": "",
    USE + "model Net(ns: list[int] = [8, 8])(x: [B, 8]) -> y: [B, 8] {\n  l: for n, i in enumerate(ns) { x = Linear(ns[i])(x) }\n  return x\n}":
        USE + "model Net(ns: list[int] = [8, 8])(x: [B, 8]) -> y: [B, 8] {\n  l: for i, n in enumerate(ns) { x = Linear(ns[i])(x) }\n  return x\n}",
    USE + "fn twice(n: int) -> int = 2 * n  # both\n\n" + NET: USE + "fn twice(n: int) -> int { return 2 * n }  # both\n\n" + NET,
    "use std { Attention, Rope }\n\n" + NET_T + "Attention(2, rope = Rope())(x) as a }":
        "use std { Attention, Rope }\n\n" + NET_T + "Attention(2, positions = Rope())(x) as a }",
    "use std { Pre, RMSNorm, Linear }\n\n" + NET_T + "Pre(RMSNorm(), around = Linear(d))(x) as a }":
        "use std { Pre, RMSNorm, Linear }\n\n" + NET_T + "Pre(RMSNorm(), f = Linear(d))(x) as a }",
    USE + NET + "\nspace s of Net { latncy <= 4ms }": USE + NET + "\nspace s of Net { latency <= 4ms }",
    USE + "/// Two layers.\nmodel Net" + HEAD + "\n  for i in range(2) { x = Linear(d)(x) as a }\n  return x\n}":
        USE + "/// Two layers.\nmodel Net" + HEAD + "\n  layers: for i in range(2) { x = Linear(d)(x) as a }\n  return x\n}",
    USE + "model Net(d: int = 4)(x: [B, d]) -> (y: [B, d], z: [B, d]) {\n  z = 2 * x\n  return x z\n}":
        USE + "model Net(d: int = 4)(x: [B, d]) -> (y: [B, d], z: [B, d]) {\n  z = 2 * x\n  return x, z\n}",
    USE + "record R { n: int = 2 }\n\nmodel Net(d: int = 4, r: R = R()(\n  x: [B, d],\n) -> y: [B, d] { return x }":
        USE + "record R { n: int = 2 }\n\nmodel Net(d: int = 4, r: R = R())(\n  x: [B, d],\n) -> y: [B, d] { return x }",
    USE + "model Net" + HEAD + "\n  if d > 3 {\n    x = relu(x)\n    else {\n    x = gelu(x)\n  }\n  return x\n}": None,
    USE + "model Net(m: \"none\" | \"some\" = none)(x: [B, 4]) -> y: [B, 4] { return x }":
        USE + "model Net(m: \"none\" | \"some\" = \"none\")(x: [B, 4]) -> y: [B, 4] { return x }",
    USE + 'model Net(d: int = 4, mode: str = "fast)(x: [B, d]) -> y: [B, d] { return relu(x) }':
        USE + 'model Net(d: int = 4, mode: str = "fast")(x: [B, d]) -> y: [B, d] { return relu(x) }',
    USE + 'model Net(mode: str = "fast, d: int = 4)(x: [B, d]) -> y: [B, d] { return relu(x) }':
        USE + 'model Net(mode: str = "fast", d: int = 4)(x: [B, d]) -> y: [B, d] { return relu(x) }',
    'paper { title = "A net }\n\n' + USE + NET: 'paper { title = "A net" }\n\n' + USE + NET,
    'paper { title = "A net” }\n\n' + USE + NET: 'paper { title = "A net" }\n\n' + USE + NET,
    USE + NET_SIGN.format("x − 1"): USE + NET_SIGN.format("x - 1"),
    USE + NET_SIGN.format("x × d"): USE + NET_SIGN.format("x * d"),
    USE + NET_SIGN.format("x²"): USE + NET_SIGN.format("x**2"),
    USE + NET_SIGN.format("if d∈{4} { x } else { -x }"): USE + NET_SIGN.format("if d in {4} { x } else { -x }"),
    USE + NET_SIGN.format("if d ≤ 4 { x } else { -x }"): USE + NET_SIGN.format("if d <= 4 { x } else { -x }"),
    USE + NET_SIGN.format("if ¬(d == 4) { x } else { -x }"): USE + NET_SIGN.format("if not (d == 4) { x } else { -x }"),
    USE + NET_SIGN.format("x").replace("->", "→"): USE + NET_SIGN.format("x"),
    USE + NET_SIGN.format("max(x， 1)"): USE + NET_SIGN.format("max(x, 1)"),
    USE + NET_SIGN.format("\u0445"): USE + NET_SIGN.format("x"),
    USE + NET_SIGN.format("x\u200b"): USE + NET_SIGN.format("x"),
    USE + NET_SIGN.format("größe"): "",
    "paper { title = ‘A net’ }\n\n" + USE + NET: 'paper { title = "A net" }\n\n' + USE + NET,
    "from std.linear import Linear\n\n" + NET: "use std.linear { Linear }\n\n" + NET,
    "from std.linear import (\n  Linear as Linear,\n)\n\n" + NET: "use std.linear { Linear as Linear }\n\n" + NET,
    "import { Linear } from std.linear;\n\n" + NET: "use std.linear { Linear }\n\n" + NET,
    "use std.linear import Linear\n\n" + NET: "use std.linear { Linear }\n\n" + NET,
    "use Linear from std.linear\n\n" + NET: "use std.linear { Linear }\n\n" + NET,
    "use std.linear (Linear)\n\n" + NET: "use std.linear { Linear }\n\n" + NET,
    "use std::linear::{Linear}\n\n" + NET: "use std.linear { Linear }\n\n" + NET,
    "use std::linear\n\n" + NET.replace("Linear", "linear.Linear"): "use std.linear\n\n" + NET.replace("Linear", "linear.Linear"),
    "use std { Linear; RMSNorm }\n\n" + NET: "use std { Linear, RMSNorm }\n\n" + NET,
    "from .parts import Gate  # mine\n" + USE + NET: "use parts { Gate }  # mine\n" + USE + NET,
    "import torch\n" + USE + NET: USE + NET,
    "from torch.nn import (\n  functional as F,\n)\n" + USE + NET: USE + NET,
    USE + NET.replace("int = 4", "int = 4; n: int = 2;"): USE + NET.replace("int = 4", "int = 4, n: int = 2,"),
    "record R { a: int; b: int = 2 }\n" + USE + NET: "record R { a: int, b: int = 2 }\n" + USE + NET,
    USE + NET + "\nvariant wide {\n  d: 8\n}": USE + NET + "\nvariant wide {\n  d = 8\n}",
    'paper { title: "A net", domain: "vision" }\n\n' + USE + NET: 'paper { title = "A net", domain = "vision" }\n\n' + USE + NET,
    NET_SIGN.format("x, x").replace("y: [B, d]", "y: [B, d], z: [B, d]"): NET_SIGN.format("x, x").replace("y: [B, d]", "(y: [B, d], z: [B, d])"),
    NET_SIGN.format('{"y": x, "z": x}').replace("y: [B, d]", "(y: [B, d], z: [B, d])"):
        NET_SIGN.format("y = x, z = x").replace("y: [B, d]", "(y: [B, d], z: [B, d])"),
    NET_SIGN.format('{"y": x, "z": x,}').replace("y: [B, d]", "(y: [B, d], z: [B, d])"):
        NET_SIGN.format("y = x, z = x").replace("y: [B, d]", "(y: [B, d], z: [B, d])"),
    NET_SIGN.format('{"y": {"z": x}}'): "",
    NET_SIGN.format('{"größe": x}'): "",
    NET_SIGN.format('{"if": x}'): "",
    NET_SIGN.format("x").replace("y: [B, d]", "(y: [B, d], z: [B, d])"): None,
    NET_SIGN.format("(x,)"): None,
    USE + NET + "\nvariant wide: Net { d = 8 }": USE + NET + "\nvariant wide of Net { d = 8 }",
    USE + NET + "\nvariant wide extends Net { d = 8 }": USE + NET + "\nvariant wide of Net { d = 8 }",
    USE + NET + "\nvariant wide(Net) { d = 8 }": USE + NET + "\nvariant wide of Net { d = 8 }",
    "use std { TokenEmbedding }\n\nmodel Net(d: int = 4)(x: [B]) -> y: [B, d] { return TokenEmbedding(9, d)(x) as a }":
        "use std { TokenEmbedding }\n\nmodel Net(d: int = 4)(x: int[B]) -> y: [B, d] { return TokenEmbedding(9, d)(x) as a }",
    "use std { Conv }\n\nmodel Net(d: int = 4)(x: [B, 3, H, W]) -> y: [B, d, _, _] { return Conv(3, d, 3, stride = 2)(x) as a }":
        "use std { Conv }\n\nmodel Net(d: int = 4)(x: [B, 3, H, W]) -> y: [B, d, _, _] { return Conv(d, 3, stride = 2)(x) as a }",
    "fn f(n: int) -> tuple[int, int] { return (n, n) }\n" + USE + NET: "fn f(n: int) -> (int, int) { return (n, n) }\n" + USE + NET,
    **{f"fn f(n: {a}) -> int {{ return 1 }}\n" + USE + NET: b and f"fn f(n: {b}) -> int {{ return 1 }}\n" + USE + NET
       for a, b in {"Union[int, str]": "int | str", "Union[int, None]": "int?", "Union[int,]": "int", "Literal['a', 'b']": '"a" | "b"',
                    "Literal[1, 2]": "", "Optional[Tensor]": "", "tuple[int,]": "", "tuple[int, bool,]": "(int, bool)"}.items()},
    'fn f(n: Literal["a", "b"]) -> int { return 1 }\n' + USE + NET: 'fn f(n: "a" | "b") -> int { return 1 }\n' + USE + NET,
    USE + "block Twice()(x: [..., d]) -> [..., d] {\n  emit twice = 2 * x\n  return x\n}\n\nmodel Net" + HEAD
    + "\n  x = Twice()(x) as a\n  return sum(collect(twise))\n}":
        USE + "block Twice()(x: [..., d]) -> [..., d] {\n  emit twice = 2 * x\n  return x\n}\n\nmodel Net" + HEAD
        + "\n  x = Twice()(x) as a\n  return sum(collect(twice))\n}",
    USE + "block Twice()(x: [..., d]) -> [..., d] {\n  emit twice = 2 * x\n  return x\n}\n\nmodel Net" + HEAD
    + '\n  x = Twice()(x) as a\n  return sum(collect("twice"))\n}':
        USE + "block Twice()(x: [..., d]) -> [..., d] {\n  emit twice = 2 * x\n  return x\n}\n\nmodel Net" + HEAD
        + "\n  x = Twice()(x) as a\n  return sum(collect(twice))\n}",
    USE + "model Net(d: int = 4, **kwargs)(x: [B, d]) -> y: [B, d] { return relu(x) }": None,
    USE + "model Net(*args, d: int = 4)(x: [B, d]) -> y: [B, d] { return relu(x) }": None,
    **{f"model Net(k = {v})(x: [B, 4]) -> y: [B, 4] {{ return x }}": f"model Net(k: {t} = {v})(x: [B, 4]) -> y: [B, 4] {{ return x }}"
       for t, v in {"int": "4", "float": "0.5", "str": '"a"', "bool": "true"}.items()},
}
TRIED = [*((body(a), b and body(b)) for a, b in STATEMENTS.items()), *((a + "\n", b and b + "\n") for a, b in FILES.items())]


@pytest.mark.parametrize(("text", "meant"), TRIED, ids=[*STATEMENTS, *FILES])
def test_one_message_with_the_way_out(text: str, meant: str | None):
    found = [d for d in check_text(text, "net.arch") if d.severity == "error"]
    assert len(found) == 1, [d.message for d in found]
    assert found[0].help or found[0].fixes
    if meant == "":
        assert found[0].help and not found[0].fixes
    elif meant is not None:
        fixed = [apply(text, [(span.start, span.end, new) for span, new in fix.edits]) for fix in found[0].fixes]
        assert meant in fixed, fixed


@pytest.mark.parametrize("statement", ["n = d\n    // 2", "n = (d\n    // depth)", "n = d\n  // depth", "ok = d\n  // depth == 32 and flag",
                                       "n = d\n  // depth  # the two halves", "n = d // depth", "n = (d // depth,\n    d)[0]",
                                       "n = d // (depth + 1)",
                                       "n = d -- depth", "n = d - -depth", "n = max(d // depth, 3)", "n = d // depth\n  depth_ = 3",
                                       "n = d // depth; m = 3", "n = max(d // depth,\n    3)", "u = Linear(d // depth, bias =\n    false)(x) as a",
                                       "n = [d // depth for i in range(2)]", "n = d // 2 x = relu(x)", 'require d // depth == 32, "that\'s it"'])
def test_a_division_may_lead_its_line(statement: str):
    assert check_text(body(statement), "net.arch") == []


@pytest.mark.parametrize("name", ["size", "shape", "dims", "now"])
def test_what_divides_may_be_a_call(name: str):
    """Behind `//` such a word begins a list of sizes, as in `// shape: (B, d)`, where it is not called."""
    text = f"fn {name}(a: int, b: int) -> int {{ return a + b }}\n"
    assert check_text(text + body(f"n = d // {name}(2, depth)"), "net.arch") == []
    assert [d.code for d in check_text(text + body(f"x = relu(x) // {name} (B, d)"), "net.arch")] == ["A0107"]


@pytest.mark.parametrize("name", ["use", "share", "default", "update"])
@pytest.mark.parametrize("sign", ["//", "--"])
def test_what_divides_may_have_the_name_of_a_statement(sign: str, name: str):
    text = f"fn least(d: int, {name}: int) -> int {{ return if d {sign} {name} in [1, 2] {{ 1 }} else {{ d {sign} {name} }} }}\n"
    assert check_text(text, "net.arch") == []


@pytest.mark.parametrize(("value", "told"), [
    ("Linear(x)(x)", "x"), ("Linear(d, bias = x)(x)", "x"), ("Linear(kind)(x)", "kind"), ("Linear(d, bias = d)(x)", "d"), ("Linear(d)(x)", ""),
    ("(block(x) => Linear(d)(x))(x)", ""), ("([Linear(x) for x in [1, 2]][0])(y)", ""),
])
@pytest.mark.parametrize("around", ["{}", "if kind == \"deep\" {{ {} }}", "layers: for i in range(2) {{ if kind == \"deep\" {{ {} }} }}",
                                    "if kind == \"deep\" {{ layers: for i in range(2) {{ {} }} }}"])
def test_a_value_of_another_type_where_no_variant_comes(around: str, value: str, told: str):
    """A tensor, or an argument of the header, given for a number or a truth value is told whether its branch is taken or not, and once."""
    text = "use std { Linear }\n\n" \
        'model Net(d: int = 4, kind: str = "flat")(x: [B, d]) -> y: [B, d] {\n  y = x\n  z = x\n  ' \
        + around.format(f"z = {value} as m") + "\n  return y\n}\n"
    found = [d for d in check_text(text, "net.arch") if d.severity == "error"]
    assert [(d.code, d.span.text) for d in found] == ([("A0204", told)] if told else [])


@pytest.mark.parametrize("bound", ["x = 4", "x = if deep { 4 } else { x }", "x = match deep { true => 4; _ => x }", "x, z = (4, x)",
                                   "x = 4 * len([x])", "x = [4 for t in [x]][0]", "x = (x, 4)[1]", "x = four(x)", "x = x |> four",
                                   "for x in [4, 4] { y = y + x }\n    x = 4", "fs = [Linear(x) for x in [4, 4]]\n    x = 4"])
def test_a_name_that_may_hold_a_number_by_then_is_no_tensor(bound: str):
    text = "use std { Linear }\n\nfn four(x: float) -> int { return 4 }\n\n" \
        "model Net(d: int = 4, deep: bool = false)(x: [B, d]) -> y: [B, d] {\n  y = x\n  if deep {\n    " \
        + bound + "\n    y = Linear(x)(y) as out\n  }\n  return y\n}\n"
    assert not [d for d in check_text(text, "net.arch") if d.severity == "error"]
    if "four" not in bound:  # no function takes a tensor in truth
        assert not [d for d in check_text(text.replace("= false", "= true"), "net.arch") if d.severity == "error"]


@pytest.mark.parametrize("bound", ["x = x + 1", "x = relu(x)", "x = -x * 2", "x = x |> Linear(d) as a |> relu", "x = f(x)", "x = Linear(d)(x) as a",
                                   "x = x |> rearrange([B, d] -> [B, d])", "x = x[:, 0:2]", "x = sqrt(x)"])
def test_a_name_that_holds_a_tensor_by_then(bound: str):
    text = "use std { Linear }\n\nmodel Net(d: int = 4, deep: bool = false)(x: [B, d]) -> y: [B, d] {\n  y = x\n  f = Linear(d)\n  if deep {\n    " \
        + bound + "\n    y = Linear(x)(y) as out\n  }\n  return y\n}\n"
    assert [(d.code, d.span.text) for d in check_text(text, "net.arch") if d.severity == "error"] == [("A0204", "x")]


EMITS = "block Gate()(x: [..., d]) -> [..., d] {\n  emit loss = x * x\n  return x\n}\n\n"
COLLECTS = "model Net(d: int = 4)(x: [B, d]) -> y: [B, d] {\n  x = Gate()(x) as gate\n  return x + sum(collect(loss))\n}\n"


@pytest.mark.parametrize("text", [
    EMITS + COLLECTS,
    "block Wrap(f: block)(x: [..., d]) -> [..., d] {\n  y = f(x) as inner\n  return y + sum(collect(loss))\n}\n",
    "record R { f: block }\n\nblock Wrap(r: R)(x: [..., d]) -> [..., d] {\n  f = r.f\n  y = f(x) as inner\n  return y + sum(collect(loss))\n}\n",
    "block Wrap(fs: list[block])(x: [..., d]) -> [..., d] {\n  for f in fs { x = f(x) }\n  return x + sum(collect(loss))\n}\n",
    "fn collect(n: int) -> int { return n }\n\nmodel Net(d: int = 4)(x: [B, d]) -> y: [B, d] { return x * collect(d) }\n",
])
def test_what_is_collected_may_come_from_elsewhere(text: str):
    assert [d.message for d in check_text(text, "net.arch") if d.severity == "error"] == []


@pytest.mark.parametrize(("text", "code"), [
    (EMITS.replace("= x * x", "= = x * x") + COLLECTS, "A0101"), ("use lub { Gate }\n\n" + COLLECTS, "A0207"),
])
def test_what_emits_may_be_what_could_not_be_read(text: str, code: str):
    assert [d.code for d in check_text(text, "net.arch")] == [code]


def test_names_in_a_comment_are_told_once():
    """`f(y)` could divide, but for its names."""
    (fault,) = check_text(body("x = relu(x)  // fused(query, key)"), "net.arch")
    assert fault.code == "A0201" and fault.span.text == "fused" and fault.help == ("`//` divides; `#` starts a comment",)
    assert [d.span.text for d in check_text(body("n = d // (dept + flagg)"), "net.arch")] == ["dept", "flagg"]


def test_comments_in_other_alphabets():
    (fault,) = check_text(body("x = relu(x)  // größe über alles"), "net.arch")
    assert fault.code == "A0107" and fault.span.text == "//" and [f.title for f in fault.fixes] == ["write `#`"]


def test_lines_of_a_comment_end_as_those_of_its_file():
    text = body("/* two\n  words */\n  x = relu(x)")
    for written in (text, text.replace("\n", "\r\n")):
        (fault,) = check_text(written, "net.arch")
        fixed = apply(written, [(span.start, span.end, new) for span, new in fault.fixes[0].edits])
        assert fixed == written.replace("/* two", "# two").replace("words */", "# words") and check_text(fixed, "net.arch") == []


def test_a_count_below_zero(golden):
    """Of `range`, and of a list that is repeated; told where the number stands, in a setting as well."""
    text = USE + "model Net(d: int = 4, depth: int = 0, n: int = 1)(x: [B, d]) -> y: [B, d] {\n" \
        "  layers: for i in range(depth) { x = Linear(d)(x) }\n  return Linear(sum([d] * n))(x) as out\n}\n"
    assert check_text(text, "net.arch") == []
    wrong = (text.replace("depth: int = 0", "depth: int = -1"), text.replace("n: int = 1", "n: int = -1"), text + "variant few { depth = -3 }\n")
    told = [d for case in wrong for d in check_text(case, "net.arch")]
    with pytest.raises(ArchError) as fault:
        loads(text, "net.arch").elaborate(knobs={"depth": -2})
    assert "\n".join(map(render, [*told, *fault.value.diagnostics])) == golden


def test_what_is_said(golden):
    told = []
    for text, _ in TRIED:
        told += [f"{text}\n{render(d)}\n" for d in check_text(text, "net.arch") if d.severity == "error"]
    assert "\n".join(told) == golden
