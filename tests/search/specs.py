"""Small specs of different kinds with knobs."""
from __future__ import annotations

HEAD = """use std.channel { MLP, SwiGLU }
use std.linear { Linear }
use std.mixer { Attention }
use std.norm { LayerNorm, RMSNorm }
use std.residual { Pre }

"""
CHOICES = HEAD + """model Net(d: int = 16, n: int = 3)(x: [B = 1, T = 4, d]) -> y: [B, T, d] {
  layers: for i in range(n) {
    choose mixer {
      attention(heads: int = 4 in {2, 4, 8}, kv: int = 2 in {1, 2, 4}) => Attention(heads, kv_heads = kv)
      mlp(hidden: int = 2 * d in {d, 2 * d, 3 * d}) => MLP(hidden)
      nothing => identity
    } = attention
    x = Pre(RMSNorm(), mixer)(x) as block
  }
  return x
}
"""
LISTS = HEAD + """model Net(d: int = 8, widths: list[int; 3] = [16, 16, 24] in each {8, 16, 24})(x: [B = 1, T = 4, d]) -> y: [B, T, d] {
  require widths[1] >= widths[0]
  layers: for w in widths { x = Pre(LayerNorm(), MLP(w))(x) as mlp }
  return x
}
"""
DEPENDENT = HEAD + """model Net(
  d: int = 16 in {16, 32, 48},
  hidden: int = 2 * d in {d, 2 * d, 4 * d},
  heads: int = 4 in divisors(d),
)(x: [B = 1, T = 4, d]) -> y: [B, T, d] {
  x = Pre(LayerNorm(), Attention(heads))(x) as mixer
  return Pre(LayerNorm(), MLP(hidden))(x) as mlp
}
"""
DEPTH = HEAD + """block Layer(hidden: int = 16 in {8, 16}, norm: bool = true in {true, false})(x: [..., d]) -> [..., d] {
  return if norm { Pre(LayerNorm(), MLP(hidden))(x) as mlp } else { MLP(hidden)(x) as mlp }
}

model Net(d: int = 8, depth: int = 2 in 0..3)(x: [B = 1, d]) -> y: [B, d] {
  x = Linear(d)(x) as stem
  layers: for i in range(depth) { x = Layer()(x) as layer }
  return x
}
"""
ACROSS = HEAD + """model Net(d: int = 12 in 4..24 step 4, heads: int = 4 in 1..6, kv: int = 2 in 1..6)(x: [B = 1, T = 4, d]) -> y: [B, T, d] {
  require heads % kv == 0, "{heads} heads cannot share {kv}"
  return Pre(LayerNorm(), Attention(heads, kv_heads = kv))(x) as mixer
}
"""
EQUAL_ARMS = HEAD + """model Net(d: int = 8)(x: [B = 1, d]) -> y: [B, d] {
  layers: for i in range(2) {
    choose map { one => Linear(d)  other => Linear(d)  wide(h: int = 16 in {16, 32}) => MLP(h) } = one
    x = map(x) as f
  }
  return x
}
"""
SKIPS = HEAD + """model Net(d: int = 8)(x: [B = 1, d]) -> y: [B, d] {
  layers: for i in range(3) {
    choose map { skip => identity  linear => Linear(d)  mlp => MLP(2 * d) } = linear
    x = map(x)
  }
  return Linear(d)(x) as head
}
"""
FLOWS = HEAD + """model Net(d: int = 8)(x: [B = 1, d]) -> y: [B, _] {
  layers: for i in range(3) {
    choose width { keep => Linear(8)  widen => Linear(16) } = keep
    x = width(x) as f
  }
  return x
}
"""
NESTED = HEAD + """block Stage(n: int)(x: [..., d]) -> [..., d] {
  blocks: for i in range(n) {
    choose f { mlp(h: int = 8 in {8, 16}) => MLP(h)  linear => Linear(d) } = mlp
    x = Pre(LayerNorm(), f)(x) as branch
  }
  return x
}

model Net(d: int = 8, sizes: list[int; 2] = [1, 2] in each 1..2)(x: [B = 1, d]) -> y: [B, d] {
  stages: for n in sizes { x = Stage(n)(x) as stage }
  return x
}
"""
SPACED = CHOICES + """
space few of Net { count(mixer == attention) <= 1; params <= 3_000 }
"""
TOLD = HEAD + """model Net(d: int = 8, n: int = 2)(x: [B = 1, T = 4, d]) -> y: [B, T, d] {
  share mixer = Attention(2) as shared
  layers: for i in range(n) {
    choose f { same => mixer  own(heads: int = 4 in {2, 4}) => Attention(heads) } = same
    x = Pre(LayerNorm(), f)(x) as branch
  }
  return x
}
"""
CHOSEN = """use std.channel { SwiGLU }
use std.embed { Rope, TokenEmbedding }
use std.linear { Linear }
use std.memories { Aaren }
use std.mixer { Attention }
use std.norm { RMSNorm }
use std.recurrent { GatedLinearAttention, Retention }
use std.residual { Pre }
use std.ssm { Mamba }

model LM(d: int = 16, vocab: int = 23, depth: int = 2)(tokens: int[B = 2, T = 13] in 0..<vocab) -> logits: [B, T, vocab] stream T {
  x = TokenEmbedding(vocab, d)(tokens) as embed
  layers: for i in range(depth) {
    choose mixer {
      attention(heads: int = 2 in {2, 4}) => Attention(heads, mask = causal, positions = Rope())
      gla(kv_heads: int = 2 in {1, 2}) => GatedLinearAttention(2, kv_heads, rank = 3)
      retention => Retention(2)
      mamba(state: int = 4 in {1, 4}) => Mamba(state)
      aaren => Aaren(2)
    } = mamba
    x = Pre(RMSNorm(), mixer)(x) as mix
    choose channels { nothing => identity  swiglu(hidden: int = 24 in {24, 32}) => SwiGLU(hidden) } = swiglu
    x = Pre(RMSNorm(), channels)(x) as mlp
  }
  return x |> RMSNorm() as norm |> Linear(vocab) as head
}
"""
ALL = {"choices": CHOICES, "lists": LISTS, "dependent": DEPENDENT, "depth": DEPTH, "across": ACROSS, "equal_arms": EQUAL_ARMS, "skips": SKIPS,
       "flows": FLOWS, "nested": NESTED, "told": TOLD}
