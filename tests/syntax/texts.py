"""Small texts that show every construct, for the tests of this folder."""

LANGUAGE_MODEL = """use std.embed { TokenEmbedding, Rope as Rotary }
use std.norm

paper { title = "A \\"model\\"", arxiv = "2307.09288" }

/// A decoder.
/// Two lines.
model Decoder(
  vocab: int = 32_000,
  /// the width
  d: int = 4096 in 512..8192 step 128,
  depth: int = 32 in 4..<80,
  heads: int = 32 in {8, 16, 32},
  widths: list[int; 4] = [96, 192, 384, 768] in each w => multiples(32, w / 2, w * 2),
  depths: list[int; 2] = [3, 3] in each [2..4, 6..27 step 3],
  pool: "token" | "mean" = "token",
  span: int? = none,
  ...Config,
)(tokens: int[B = 1, T] in 0..vocab - 1, valid: bool[B, T]? = none) -> logits: [B, T, vocab] stream T {
  require heads % 8 == 0, "heads ({heads}) must be a multiple of 8"
  default Linear(bias = false); default RMSNorm(eps = 1e-5)
  share embed = TokenEmbedding(vocab, d) when vocab > 0
  reach = if span is some { causal & window(span) } else { causal }
  x = embed(tokens)
  layers: for i, (a, b) in enumerate(zip(widths, depths)) {
    choose mixer {
      attention(kernel: int = 7 in {3, 5, 7}) => Attention(heads, mask = reach)
      nothing => block(x) => x |> identity
    } = attention(kernel = 5)
    if i % 2 == 0 and not i in {1, 2} { x = Pre(RMSNorm(), mixer)(x, ...) as mix } else if i == 3 { } else { x = x + x }
    match pool { "token" | "mean" => { x = x } none => { emit features = x } }
    emit x
  }
  late, y = if pool == "token" { x[:, 0], x } else { x[..., 1:3:2], x }
  f32 { z = -x ** 2 * 3 - 4 // 2 % 5 @ y }
  p = phase { train => x; eval => y }
  m = match pool { "token" => x[:, none]; "mean" => mean(x, axis = 1) }
  q = [2 * i for i in range(3) if i > 1]
  return logits = (x + z) |> RMSNorm() as norm |> Linear(vocab) as head, aux = sum(collect(balance))
}

variant small of Decoder { d = 1024; transform fold_norm(all = true) on layers[1:3].*.q & op:linear using data; claim { params == 30M within 0.5% } }
claim small { params == 6_738_415_616 from "the paper"; causal(logits, tokens) when not tie }
space tiny of Decoder { params <= 30M; count(mixer == nothing) <= 2 or depth < 3 }
names hf of Decoder {
  "model.{i}.{q, k}.weight" <-> layers.{i}.{q, k}.weight concat transpose(1, 0)
  "rotary" <-> layers.{2 * i}.rotary rearrange([(n w two), d] -> [(n two w), d], two = 2) when not tie
  alias "lm_head.weight" <-> embed.weight
  drop "bias" = zeros()
  ignore "*.inv_freq" when tie
}
"""

BLOCKS = """/// Forwards what it does not know.
wrap block Pre(norm: block, _ f: block)(x: [..., d], ...) -> [..., d] { return x + f(norm(x), ...) }
extern block Native(size: int = 3)(x: [B, (heads width), floordiv(n, 2) + 1, *s, ragged T, some V <= 3 * n]) -> [B]
record Scaling { factor: float = 8, low: int }
fn allocate(n: int, share: float) -> list[(int, str)] { return [(0, "a")] + (if n > 0 { [(n, "b")] } else { [] }) }
op attend(q: [B, h, T, a], xs: list[[...]], mask: mask = full) -> (y: [B, h, T, a], p: f32[B])
block Weights(heads: int)(x: [B, T, d]) -> [B, T, d] {
  param weight: [(3 heads width), inner] = trunc_normal(std = 0.02)
  frozen param base as shift: [widths[0], spec.w * 2] = zeros() when heads > 1
  buffer mean: [d] = zeros()
  const table: int[4] = [1, 2, 3, 4]
  draw noise = normal()
  control tau: float = 1 in 0..2
  static H, W
  update mean = stop(mean)
  u = x |> under([B, c, H, W] -> [B, (H W), c], (f >> g) as inner) |> rearrange(grid, w = 2)
  v = einsum([B, h, a], [B, h, c] -> [B, h, a, c])(u, x) ?? x
  w = rearrange(x, [B, (t m)] -> [B, t, m], m = 2)
  edited = Base with { layers.*.attn.{q, v} = LowRank(inner, 3) }
  scan (q, k) over T carry s: f32[B] = zeros() by add identity zeros() {
    new = s + q
    next s = new
    yield new, s
  }
  return w
}
model Pair(d: int) {
  entry encode(x: [B, T]) -> y: [B] stream T { return x }
  entry decode(y: [B]) -> [B, d] { return y }
}
model LoRA(rank: int = 8) of llama.Llama with { layers.*.attn.{q, v} = LowRank(inner, rank) }
"""

TEXTS = [LANGUAGE_MODEL, BLOCKS]
