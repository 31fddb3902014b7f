"""The pages of the codes A056x and A057x: passes."""
from __future__ import annotations

from archdsl.diagnostics.codes import Code

_HEAD = "use std.linear { Linear }\nuse std.norm { LayerNorm, RMSNorm }\nuse std.residual { Post, Pre }\n\n"
_MODEL = "model Net(d: int = 8)(x: [B = 1, T = 4, d]) -> y: [B, T, d] {\n  x = Linear(d)(x) as start\n"
_PRE = _MODEL + "  x = Pre(LayerNorm(), Linear(d) as f)(x) as layer\n  return x |> LayerNorm() as norm |> Linear(d) as head\n}\n\n"
_POST = _MODEL + "  x = Post(LayerNorm(), Linear(d) as f)(x) as layer\n  return x |> Linear(d) as head\n}\n\n"

CODES = {
    "A0561": Code(
        "There is no such pass",
        "A step names a pass of archdsl or of an installed package. `archdsl passes` lists them, `archdsl explain PASS` shows one.",
        bad=_HEAD + _PRE + "variant quick { transform center() }",
        good=_HEAD + _PRE + "variant quick { transform centre() }",
    ),
    "A0562": Code(
        "An option that the pass does not take",
        "The options of a pass, their types and defaults stand in its signature: `archdsl explain PASS`.",
        bad=_HEAD + _PRE + "variant quick { transform centre(compres = true) }",
        good=_HEAD + _PRE + "variant quick { transform centre(compress = true) }",
    ),
    "A0563": Code(
        "A selector that chooses nothing",
        "`on SELECTOR` limits a step to a part of the model: addresses (`layers[2:6].*.q`), ops (`op:linear`), blocks (`block:Attention`), branches "
        "(`branch:mlp`), joined by `&`, `|` or `-`. One that chooses nothing is a mistake: the step would silently do nothing.",
        bad=_HEAD + _PRE + "variant quick { transform fold_norm_scales() on layers[2:4] }",
        good=_HEAD + _PRE + "variant quick { transform fold_norm_scales() on layer }",
    ),
    "A0564": Code(
        "The pass does not fit this model",
        "A pass changes a model only where it can keep its promise. The message names what stands in the way, with its place in the spec. The model "
        "is left as it was.",
        bad=_HEAD + _POST + "variant quick { transform centre() }",
        good=_HEAD + _PRE + "variant quick { transform centre() }",
    ),
    "A0565": Code(
        "Steps in an order that does not work",
        "A pass may need what an earlier one provides, and may destroy what a later one needs. The manager does not reorder steps: it says which one "
        "has to come first.",
    ),
    "A0566": Code(
        "A contract does not hold",
        "`--check` compares the model before and after each step with numbers: random weights where the contract is for all weights, in float64. "
        "The step computes something else than it promises. That is a fault of the pass, or of a model that it should have refused.",
        bad="archdsl.passes.Model.of(archdsl.load(\"net.arch\")).apply(\"halve()\", check = True)",
        good="archdsl.passes.Model.of(archdsl.load(\"net.arch\")).apply(\"centre()\", check = True)",
    ),
    "A0567": Code(
        "A step needs decisions",
        "Some passes look at weights or data before they rewrite the graph; their decisions are JSON, `{\"ADDRESS@step.option\": value}`. "
        "`archdsl compile … --decisions FILE` gives them, `manifest.json` records them. Without them the step cannot be costed or checked.",
        bad="archdsl.passes.rewrite(archdsl.load(\"net.arch\").elaborate(), steps.prune())",
        good="archdsl.passes.rewrite(archdsl.load(\"net.arch\").elaborate(), steps.prune(), {\"layers.0@prune\": True})",
    ),
    "A0568": Code(
        "A file of decisions that cannot be used",
        "Decisions are one JSON object, `{\"ADDRESS@step.option\": value}`, and every one belongs to a step of the recipe. "
        "The `recipe` in a manifest.json holds those of an earlier run.",
        bad="archdsl compile llama.arch:tiny --pass 'bake()' --decisions notes.txt -o out",
        good="archdsl compile llama.arch:tiny --pass 'bake()' -o out",
    ),
    "A0569": Code(
        "A name behind `using` stands for nothing",
        "Some passes use data, another model or a table, under a name of the step's own: `using calib`. A spec only names it; what it stands for is "
        "given on the command line, `--data calib=FILE`, `--model calib=DIR` or `--table calib=FILE`, or to `apply` in Python.",
        bad="archdsl.passes.Model.of(archdsl.load(\"conv.arch\")).apply(\"recalibrate_batch_norm() using calib\")",
        good="archdsl.passes.Model.of(archdsl.load(\"conv.arch\")).apply(\"recalibrate_batch_norm() using calib\", data = {\"calib\": images})",
    ),
    "A0571": Code(
        "Data that do not fit the model",
        "Data for a step are one tensor for each input of the model, under its name, with all samples along the first axis: a .safetensors file, one "
        "that torch.save wrote, or a dictionary in Python. Shapes, element types and ranges are those of the inputs.",
        bad="archdsl.passes.Model.of(archdsl.load(\"conv.arch\")).apply(\"recalibrate_batch_norm() using calib\", "
            "data = {\"calib\": {\"image\": torch.randn(8, 1, 9, 9)}})",
        good="archdsl.passes.Model.of(archdsl.load(\"conv.arch\")).apply(\"recalibrate_batch_norm() using calib\", "
             "data = {\"calib\": {\"image\": torch.randn(8, 3, 9, 9)}})",
    ),
    "A0570": Code(
        "A package's entry point cannot be loaded",
        "Installed packages add passes, ops, tasks and reports through entry points (`archdsl.passes`, `archdsl.ops`, `archdsl.tasks`, "
        "`archdsl.reports`). Importing the one that is named raised an error.",
    ),
}
