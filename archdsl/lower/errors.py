"""The pages of the codes A051x: lowering."""
from __future__ import annotations

from archdsl.diagnostics.codes import Code

CODES = {
    "A0501": Code(
        "A form that this model cannot be built in",
        "The form `parallel` computes all positions at once. `extend` and `step` go on from a state that earlier calls left. They exist for a model\n"
        "with a streaming axis (`stream T`) in which no position needs all later ones, or all there are: causal masks, norms over features,\n"
        "recurrences. Where ops look some positions ahead (a padded convolution, `window(4)`), results come so many positions late: `model.delay`.\n"
        "`packed` takes documents behind each other, and a header with `ragged T` promises it: nothing may look across their borders.",
        bad="archdsl cost vit.arch --form step",
        good="archdsl cost llama.arch --form step",
    ),
    "A0511": Code(
        "No emitted value has such an address",
        "`emit` asks for values that the spec emits, by address: `layers.3.moe.balance`, `layers.*.moe.balance` (one segment), `**.balance` (any\n"
        "number). A pattern that matches nothing is a mistake: the model would silently return less than was asked for.",
        bad="archdsl.load(\"moe.arch\").build(emit = [\"layers.*.balnce\"])",
        good="archdsl.load(\"moe.arch\").build(emit = [\"layers.*.balance\"])",
    ),
    "A0512": Code(
        "A run-time size that no input tells",
        "Sizes are read from the shapes of the model's inputs when it is called. A size that stands in no input's shape cannot be read.",
    ),
    "A0513": Code(
        "An extern block without a class",
        "`extern block F(…)` stands for a module of yours. The class is given when the model is built.",
        bad="archdsl.load(\"mine.arch\").build()",
        good="archdsl.load(\"mine.arch\").build(bind = {\"F\": MyModule})",
    ),
    "A0518": Code(
        "not a device of this machine",
        "A model is built on a device that torch has here: `\"cpu\"`, a card such as `\"cuda:0\"`, or `\"meta\"`, which holds no numbers.",
        bad="archdsl.load(\"vit.arch\").build(device = \"gpu\")",
        good="archdsl.load(\"vit.arch\").build(device = \"meta\")",
    ),
    "A0515": Code(
        "A model that does not fit into memory",
        "The weights take more bytes than this machine, or the card, has. `archdsl cost` counts them without allocating any; `device = \"meta\"`\n"
        "builds a model without storage, for its names and shapes.",
        bad="archdsl.load(\"llama.arch\").build(\"llama2_70b\", d = 2 ** 20)",
        good="archdsl.load(\"llama.arch\").build(\"llama2_70b\", d = 2 ** 20, device = \"meta\")",
    ),
    "A0516": Code(
        "A table that cannot be computed",
        "What depends on nothing but numbers in the text is computed when the model is built, and torch refuses this: an index beyond a table, a\n"
        "division of whole numbers by zero.",
        bad="model Net(d: int = 8)(x: [B, d]) -> [B, d] {\n  return take(x, iota(d) + 1 - iota(d) // iota(d), axis = 1)\n}",
        good="model Net(d: int = 8)(x: [B, d]) -> [B, d] {\n  return take(x, (iota(d) + 1) % d, axis = 1)\n}",
    ),
    "A0517": Code(
        "No draw has such an address",
        "`feed` asks for draws that the caller gives instead of torch's generator, by address: `layers.3.noise`, `layers.*.noise` (one segment),\n"
        "`**.noise` (any number). A draw has the name that it is bound to; what dropout and stochastic depth draw has none and cannot be fed.",
        bad="archdsl.load(\"noisy.arch\").build(feed = [\"layers.*.nose\"])",
        good="archdsl.load(\"noisy.arch\").build(feed = [\"layers.*.noise\"])",
    ),
    "A0519": Code(
        "A kernel that cannot be used",
        "Which kernel computes an op is chosen for the device, the element type and the sizes. `kernels` fixes it by name, and then what cannot run\n"
        "is an error when the model is built, with the reason. `reference` is the op in plain torch and always can. `archdsl report kernels SPEC`\n"
        "tells what each op of a model gets, and why not another.",
        bad="archdsl.load(\"vit.arch\").build(kernels = {\"atention\": \"reference\"})",
        good="archdsl.load(\"vit.arch\").build(kernels = \"reference\")",
    ),
    "A0526": Code(
        "A model that cannot end in this loss",
        "`build(loss = \"cross_entropy\")` puts the mean loss in the place of the model's first result, and takes targets behind its inputs: whole\n"
        "numbers, one for each row of scores. The first result has to be scores, [..., classes] of floats, the form `parallel` or `packed`, and no\n"
        "input may be called `targets` already.",
        bad="archdsl.load(\"llama.arch\").build(\"tiny\", loss = \"cross_entrpy\")",
        good="archdsl.load(\"llama.arch\").build(\"tiny\", loss = \"cross_entropy\")",
    ),
    "A0527": Code(
        "A training that runs out of memory",
        "Between the forward and the backward pass a model keeps what gradients are made of. The message says in which block the device had no more\n"
        "room, how much was asked for, and which layers keep most. Blocks that are computed again keep less, and so does a smaller batch; a model\n"
        "that ends in its loss keeps no scores. `archdsl cost SPEC --by layer` counts it before anything is built.",
    ),
    "A0514": Code(
        "A part without a form in plain torch",
        "`model.py` imports torch alone. Extern blocks are classes of yours, and a few ops have a body that is no plain torch expression: a model\n"
        "with such a part is compiled without `model.py`'s text, or written by hand.",
    ),
}
