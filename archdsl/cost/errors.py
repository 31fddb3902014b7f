"""Codes of costs: the sizes that they are asked for."""
from __future__ import annotations

from archdsl.diagnostics.codes import Code

CODES: dict[str, Code] = {
    "A0641": Code(
        "no run-time size has this name",
        "Sizes that vary at run time are the upper-case axes of the model's inputs: `(tokens: int[B, T])` has B and T. `--at` gives them numbers. "
        "Lower-case sizes are hyper arguments, fixed when the model is built: `--set` changes those.",
        bad="archdsl cost llama --at L=2048",
        good="archdsl cost llama --at T=2048",
    ),
    "A0642": Code(
        "not a size",
        "A size is a whole number from 1 up, given as NAME=NUMBER; several are separated by commas.",
        bad="archdsl cost llama --at T=0",
        good="archdsl cost llama --at T=2048,B=1",
    ),
    "A0643": Code(
        "sizes that the model does not take",
        "The spec states a condition on its run-time sizes (`require H % 32 == 0`, or `T <= 1024` where positions come from a table), and the sizes "
        "given break it. The built model would refuse such an input.",
        bad="archdsl cost gpt2 --at T=2048",
        good="archdsl cost gpt2 --at T=1024",
    ),
    "A0644": Code(
        "no such element type",
        "Costs are counted, and models built, for one of the float types f64, f32, bf16 and f16: the type of everything that the spec does not pin.",
        bad="archdsl cost llama --dtype f8",
        good="archdsl cost llama --dtype bf16",
    ),
    "A0645": Code(
        "a static size that is given twice",
        "`static H` fixes a size of an input when the model is built. `--at H=…` and `--set H=…` both say at which size, as do `at` and the knobs in "
        "Python; one of them is enough, and two may disagree.",
        bad='archdsl.load("fixed.arch").cost(at = {"H": 8}, H = 16)',
        good='archdsl.load("fixed.arch").cost(at = {"H": 8})',
    ),
    "A0646": Code(
        "a device that is not known",
        "`archdsl cost --device` tells the least time of a decoding step from how fast a device reads memory and multiplies. It knows the devices "
        "that are listed in `archdsl.cost.DEVICES`, with the sources of their figures; from Python, a `Device` of your own can be given.",
        bad="archdsl cost llama:tiny --device h100",
        good="archdsl cost llama:tiny --device h100-sxm",
    ),
    "A0647": Code(
        "a plot of another kind",
        "`archdsl cost --plot` draws an SVG picture, which browsers, editors and LaTeX take; the name of the file ends in .svg.",
        bad="archdsl cost llama:tiny --plot state.jpeg",
        good="archdsl cost llama:tiny --plot state.svg",
    ),
}
