"""The whole command line on one page. The bodies are in `commands/`, one file a verb, each imported when it is asked for."""
from __future__ import annotations

from typing import Annotated, Any, Literal

import typer
from typer.core import TyperGroup

from archdsl.cli.main import guarded
from archdsl.cli.source import complete_source
from archdsl.version import VERSION


class Commands(TyperGroup):
    """Ends with the exit code that a command returns."""

    def invoke(self, ctx: Any) -> Any:
        invoke = super().invoke
        raise typer.Exit(guarded(lambda: invoke(ctx) or 0))


app = typer.Typer(
    cls=Commands, name="archdsl", no_args_is_help=True, rich_markup_mode=None, pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Paths = Annotated[list[str], typer.Argument(metavar="PATH", help="Specs, or folders to search for them.", show_default=False)]
Json = Annotated[bool, typer.Option("--json", help="Print data instead of text.")]

Source = Annotated[str, typer.Argument(metavar="SOURCE", help="SPEC[:model][.variant], or a folder written by compile.", show_default=False,
                                       autocompletion=complete_source)]
Kernels = Annotated[str | None, typer.Option(metavar="OP=KERNEL,…", show_default=False,
                                             help="What computes ops: `reference` for plain torch, or kernels by op; else it is chosen.")]
Settings = Annotated[list[str] | None, typer.Option("--set", metavar="ADDRESS=VALUE", help="Set a knob; may be repeated.", show_default=False)]
At = Annotated[list[str] | None, typer.Option("--at", metavar="T=2048,B=1", help="Run-time sizes; else the examples.", show_default=False)]

Searched = Annotated[str, typer.Argument(metavar="SPEC", help="SPEC[:model][.variant] with knobs.", show_default=False,
                                         autocompletion=complete_source)]
Limits = Annotated[list[str] | None, typer.Option("--limit", metavar="CONDITION", show_default=False,
                                                  help="What every candidate has to satisfy: 'params <= 30M'; may be repeated.")]
Fixed = Annotated[bool, typer.Option("--fixed", help="What the variant sets stays as it is: the other knobs are searched.")]


def _show_version(asked: bool) -> None:
    if asked:
        print(f"archdsl {VERSION}")
        raise typer.Exit()


@app.callback()
def archdsl(version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Print the version.")] = False) -> None:
    """Neural architectures as text: check, cost, compile and verify .arch specs."""


@app.command()
def check(
    paths: Paths,
    json: Json = False,
    explicit: Annotated[bool, typer.Option("--explicit", help="Print every argument of every block and where it comes from.")] = False,
    fix: Annotated[bool, typer.Option("--fix", help="Apply the fixes that are offered, in the files; print what is left.")] = False,
    no_lints: Annotated[bool, typer.Option("--no-lints", help="No warnings: print errors alone.")] = False,
) -> int:
    """Check specs: syntax, names, shapes, constraints. Loads no torch, builds nothing."""
    from archdsl.cli.commands.check import check

    return check(paths, json, explicit, fix, no_lints)


@app.command()
def fmt(paths: Paths, check: Annotated[bool, typer.Option("--check", help="Change nothing; list what is not formatted and exit 1.")] = False) -> int:
    """Lay out specs in the one standard way. Comments stay, the meaning never changes."""
    from archdsl.cli.commands.fmt import fmt

    return fmt(paths, check)


@app.command()
def explain(topic: Annotated[str, typer.Argument(metavar="CODE|OP|BLOCK|PASS|REPORT|TASK|WORD", show_default=False,
                                                 help="For example A0303, linear, Attention, std.norm, bake, causal.")],
            json: Json = False) -> int:
    """Explain a diagnostic's code, an op, a block or module of the library, a pass, a report, a task or a word of the language."""
    from archdsl.cli.commands.explain import explain

    return explain(topic, json)


@app.command()
def cost(
    source: Source,
    at: At = None,
    settings: Settings = None,
    by: Annotated[Literal["layer"] | None, typer.Option(help="One row a layer.")] = None,
    form: Annotated[Literal["parallel", "extend", "step", "packed"] | None,
                    typer.Option(help="Which form to count; else packed where an axis is ragged, parallel otherwise.", show_default=False)] = None,
    dtype: Annotated[str, typer.Option(help="f32, f64, bf16 or f16: the type of what the spec does not pin.")] = "f32",
    device: Annotated[str | None, typer.Option(metavar="NAME", help="Least time of a decoding step there: h100-sxm, a100-sxm-80gb, epyc-9654, …",
                                               show_default=False)] = None,
    plot: Annotated[str | None, typer.Option(metavar="FILE.svg", help="Draw the state against the context's length.", show_default=False)] = None,
    json: Json = False,
) -> int:
    """Count parameters, multiply-accumulates and bytes, as numbers and as formulas. Loads no torch."""
    from archdsl.cli.commands.cost import cost

    return cost(source, at or [], settings or [], by, form, dtype, json, device, plot)


@app.command()
def graph(
    source: Source,
    out: Annotated[str, typer.Option("-o", "--out", metavar="FILE", help="FILE.html, .svg, .png or .dot.", show_default=False)],
    at: At = None,
    settings: Settings = None,
    nodes: Annotated[int, typer.Option(min=1, help="Blocks are open while there are at most so many nodes to see.")] = 12,
) -> int:
    """Draw a model: a page to open in a browser (.html), or a picture laid out by Graphviz. Equal neighbours are folded."""
    from archdsl.cli.commands.graph import graph

    return graph(source, out, at or [], settings or [], nodes)


@app.command()
def diff(
    a: Annotated[str, typer.Argument(metavar="A", help="SOURCE: a spec, a variant, or a folder written by compile.", show_default=False,
                                     autocompletion=complete_source)],
    b: Annotated[str, typer.Argument(metavar="B", help="What it is compared with.", show_default=False, autocompletion=complete_source)],
    at: At = None,
    settings: Settings = None,
    before: Annotated[list[str] | None, typer.Option("--set-a", metavar="ADDRESS=VALUE", help="A knob of A alone.", show_default=False)] = None,
    after: Annotated[list[str] | None, typer.Option("--set-b", metavar="ADDRESS=VALUE", help="A knob of B alone.", show_default=False)] = None,
    out: Annotated[str | None, typer.Option("-o", "--out", metavar="FILE.html", help="Write both side by side.", show_default=False)] = None,
    json: Json = False,
) -> int:
    """Compare two models: blocks (renamed and moved ones are recognised), weights, costs, knobs, claims."""
    from archdsl.cli.commands.diff import diff

    return diff(a, b, at or [], settings or [], before or [], after or [], out, json)


@app.command()
def compile(
    source: Source,
    settings: Settings = None,
    seed: Annotated[int, typer.Option(help="For the initial weights.")] = 0,
    weights: Annotated[str | None, typer.Option(metavar="FILE[@NAMES]", help="Start from these; @timm, @hf: in the names of that `names`.")] = None,
    export: Annotated[bool, typer.Option("--export", help="Also write model.pt2, a torch.export program.")] = False,
    onnx: Annotated[bool, typer.Option("--onnx", help="Also write model.onnx.")] = False,
    flat: Annotated[bool, typer.Option("--flat", help="One class, all blocks written out in it.")] = False,
    form: Annotated[str | None, typer.Option(help="How the model runs along its streaming axis: parallel, extend, step or packed.",
                                             show_default=False)] = None,
    steps: Annotated[list[str] | None, typer.Option("--pass", metavar="STEP", help="Rewrite the model: `name(options) on SELECTOR`; may be repeated.",
                                                    show_default=False)] = None,
    decisions: Annotated[str | None, typer.Option(metavar="FILE", help="JSON: what passes need not decide themselves.", show_default=False)] = None,
    data: Annotated[list[str] | None, typer.Option("--data", metavar="NAME=FILE", help="Tensors by input that passes may use by name.",
                                                   show_default=False)] = None,
    models: Annotated[list[str] | None, typer.Option("--model", metavar="NAME=DIR", help="A compiled model that passes may use by name.",
                                                     show_default=False)] = None,
    tables: Annotated[list[str] | None, typer.Option("--table", metavar="NAME=FILE", help="JSON that selectors and passes may use by name.",
                                                     show_default=False)] = None,
    check: Annotated[bool, typer.Option("--check", help="Compare the model before and after each pass with numbers.")] = False,
    dump_after: Annotated[list[str] | None, typer.Option(metavar="PASS", help="Print the graph behind this pass; may be repeated.",
                                                         show_default=False)] = None,
    kernels: Kernels = None,
    out: Annotated[str | None, typer.Option("-o", "--out", metavar="DIR", help="The folder to write; else the model is printed as PyTorch.")] = None,
) -> int:
    """Compile a spec: the printed graph, a model.py that needs torch alone, weights, a manifest."""
    from archdsl.cli.commands.compile import compile
    from archdsl.cli.passing import Asked

    asked = Asked(steps or [], decisions, tables or [], check, dump_after or [], data or [], models or [])
    return compile(source, settings or [], seed, weights, export, onnx, out, asked, flat, form, kernels)


@app.command("import")
def import_(
    target: Annotated[str, typer.Argument(metavar="MODULE:FUNCTION", help="Returns (module, example) or (module, example, dynamic).",
                                          show_default=False)],
    out: Annotated[str, typer.Option("-o", "--out", metavar="DIR", help="The folder to write.", show_default=False)],
    name: Annotated[str | None, typer.Option(help="Of the model in the text; else the module's class.", show_default=False)] = None,
) -> int:
    """Capture a PyTorch module as a graph, with its weights. Runs your own code."""
    from archdsl.cli.commands.import_ import import_module

    return import_module(target, out, name)


@app.command()
def verify(
    paths: Annotated[list[str], typer.Argument(metavar="PATH", help="Specs, SPEC:NAME for the claims about one model or variant, or folders.",
                                               show_default=False)],
    json: Json = False,
) -> int:
    """Check the claims of specs: the paper's figures, causality, equality of variants."""
    from archdsl.cli.commands.verify import verify

    return verify(paths, json)


@app.command("list")
def list_(
    word: Annotated[str | None, typer.Argument(metavar="[WORD]", help="Only those in whose facts or variants it occurs.", show_default=False)] = None,
    json: Json = False,
    domain: Annotated[str | None, typer.Option(help="Only those of a domain, for example vision.")] = None,
    task: Annotated[str | None, typer.Option(help="Only those of a task, for example classification.")] = None,
    family: Annotated[str | None, typer.Option(help="Only those of a family, for example transformer.")] = None,
) -> int:
    """List the shipped specs and their variants, by domain, task and family."""
    from archdsl.cli.commands.list import list_specs

    return list_specs(json, word, domain, task, family)


@app.command()
def ops(
    word: Annotated[str | None, typer.Argument(metavar="[WORD]", help="Only those in whose signature or documentation it occurs.",
                                               show_default=False)] = None,
    json: Json = False,
) -> int:
    """List the ops: functions of tensors that own no weights."""
    from archdsl.cli.commands.ops import ops

    return ops(json, word)


@app.command()
def lsp(
    stdio: Annotated[bool, typer.Option("--stdio", help="What many editors ask for, and what it does anyway.")] = False,
) -> int:
    """Serve an editor: diagnostics, hover, completion, over the Language Server Protocol on standard input and output."""
    from archdsl.cli.commands.lsp import lsp

    return lsp()


@app.command()
def passes(json: Json = False) -> int:
    """List the passes: steps that rewrite a model and say what they keep."""
    from archdsl.cli.commands.passes import passes

    return passes(json)


@app.command()
def report(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A report, with options if wanted: 'timeline(devices = 4)'.", show_default=False)],
    sources: Annotated[list[str], typer.Argument(metavar="SOURCE", help="What it is about; the first one is the baseline.", show_default=False,
                                                 autocompletion=complete_source)],
    at: At = None,
    settings: Settings = None,
    json: Json = False,
) -> int:
    """Print a report about models: `timeline` tells computation and communication on several devices, `kernels` what computes each op."""
    from archdsl.cli.commands.report import report

    return report(name, sources, at or [], settings or [], json)


@app.command()
def train(
    source: Source,
    task: Annotated[str, typer.Option(metavar="TASK", help="Data and objective, with options if wanted: 'mqar(pairs = 8)'.", show_default=False)],
    steps: Annotated[int, typer.Option(min=1, metavar="N", help="How many batches.", show_default=False)],
    out: Annotated[str, typer.Option("-o", "--out", metavar="DIR", help="The folder to write: model, checkpoints, log.jsonl.", show_default=False)],
    resume: Annotated[bool, typer.Option("--resume", help="Go on from the last checkpoint in DIR.")] = False,
    settings: Settings = None,
    batch: Annotated[int, typer.Option(min=1, metavar="SIZE", help="Examples in a batch.")] = 32,
    lr: Annotated[float, typer.Option(help="Learning rate of AdamW.")] = 1e-3,
    weight_decay: Annotated[float, typer.Option(help="Of AdamW.")] = 0.0,
    schedule: Annotated[Literal["constant", "linear", "cosine"], typer.Option(help="Of the learning rate, behind the warm-up.")] = "constant",
    warmup: Annotated[int, typer.Option(min=0, metavar="STEPS", help="Steps in which the learning rate rises.")] = 0,
    clip: Annotated[float | None, typer.Option(metavar="NORM", help="The largest norm of the gradients.", show_default=False)] = None,
    groups: Annotated[list[str] | None, typer.Option("--group", metavar="'(lr = 1e-4) on SELECTOR'", show_default=False,
                                                     help="Settings of some parameters: lr, weight_decay, frozen; may be repeated.")] = None,
    every: Annotated[int, typer.Option(min=1, metavar="STEPS", help="Steps between checkpoints.")] = 100,
    seed: Annotated[int, typer.Option(help="For initial weights, data and draws.")] = 0,
    device: Annotated[str, typer.Option(help="cpu, cuda, cuda:1, …")] = "cpu",
    kernels: Kernels = None,
    json: Json = False,
) -> int:
    """Train a model on a task. The folder is one that SOURCE may name; an interrupted training is resumed exactly."""
    from archdsl.cli.commands.train import Asked, train

    asked = Asked(steps, batch, seed, lr, weight_decay, schedule, warmup, clip, groups or [], every, device, kernels)
    return train(source, task, settings or [], out, resume, asked, json)


@app.command()
def space(
    source: Searched,
    name: Annotated[str | None, typer.Option("--space", metavar="NAME", help="A `space` of the spec, for its limits.", show_default=False)] = None,
    limits: Limits = None,
    figures: Annotated[list[str] | None, typer.Option("--figure", metavar="NAME", show_default=False,
                                                      help="What to count: 'state_bytes(T=2048)'; else params and macs.")] = None,
    fixed: Fixed = False,
    draw: Annotated[int, typer.Option(min=0, metavar="N", help="So many candidates are drawn and counted.")] = 100,
    json: Json = False,
) -> int:
    """What a search would decide: how many candidates a spec's knobs span, and what they cost. Loads no torch."""
    from archdsl.cli.commands.space import FIGURES, run_space

    return run_space(source, name, limits or (), fixed, figures or FIGURES, draw, json)


@app.command()
def search(
    source: Searched,
    out: Annotated[str, typer.Option("-o", "--out", metavar="STUDY", help="The folder of the study.", show_default=False)],
    objectives: Annotated[list[str] | None, typer.Option("--objective", metavar="NAME:min|max", show_default=False,
                                                         help="A figure to make small or large: 'macs(T=2048):min'; may be repeated.")] = None,
    limits: Limits = None,
    evaluator: Annotated[str | None, typer.Option(metavar="EVALUATOR", show_default=False,
                                                  help="cost (default), latency, proxy:NAME, train:TASK, supernet:DIR or module:function.")] = None,
    strategy: Annotated[str | None, typer.Option(metavar="NAME", show_default=False, help="With options if wanted: 'evolution(population = 20)'; "
                                                 "else nsga2 for several objectives and evolution for one.")] = None,
    budget: Annotated[int | None, typer.Option(metavar="N", help="How many trials in all; 100 unless said.", show_default=False)] = None,
    workers: Annotated[int | None, typer.Option(min=0, metavar="N", show_default=False, help="Processes; 0: this one. Unless said, 0 for costs, "
                                                "else 1.")] = None,
    engine: Annotated[Literal["local", "ray"], typer.Option(help="Where the workers are.")] = "local",
    seed: Annotated[int | None, typer.Option(metavar="N", help="Of all random numbers; 0 unless said.", show_default=False)] = None,
    space: Annotated[str | None, typer.Option(metavar="NAME", help="A `space` of the spec, for its limits.", show_default=False)] = None,
    fixed: Fixed = False,
    time_limit: Annotated[float | None, typer.Option(metavar="SECONDS", help="Of each trial.", show_default=False)] = None,
    memory_limit: Annotated[str | None, typer.Option(metavar="4GiB", help="Of each trial: what its worker holds.", show_default=False)] = None,
    asynchronous: Annotated[bool, typer.Option("--asynchronous", help="No worker waits for others; runs are not repeatable.")] = False,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with the study; what is not said is as it was.")] = False,
    json: Json = False,
) -> int:
    """Search the space of a spec's knobs. STUDY/front.arch holds what is found, as variants; an interrupted search is resumed exactly."""
    from archdsl.cli.commands.search import run_search
    from archdsl.study.engine import limits_of
    from archdsl.study.session import Asked, Hands

    asked = Asked(objectives, limits, evaluator, strategy, budget, seed, space, asynchronous or None, fixed or None)
    return run_search(source, out, asked, Hands(workers, engine, limits_of(time_limit, memory_limit)), resume, json)


study = typer.Typer(no_args_is_help=True, rich_markup_mode=None, context_settings={"help_option_names": ["-h", "--help"]})
app.add_typer(study, name="study", help="Show, draw, export and compare what searches have found.")
Folder = Annotated[str, typer.Argument(metavar="STUDY", help="A folder written by search.", show_default=False)]
Written = Annotated[str, typer.Option("-o", "--out", metavar="FILE", show_default=False, help="The end of its name says which kind.")]


@study.command("show")
def study_show(folder: Folder, json: Json = False) -> int:
    """What a study is about, how far it is, and its Pareto front."""
    from archdsl.cli.commands.study import show

    return show(folder, json)


@study.command("best")
def study_best(folder: Folder, objective: Annotated[str | None, typer.Argument(metavar="[OBJECTIVE]", help="Of this one alone.")] = None,
               json: Json = False) -> int:
    """The best trial of each objective, with all of its knobs."""
    from archdsl.cli.commands.study import best

    return best(folder, objective, json)


@study.command("plot")
def study_plot(folder: Folder, out: Written) -> int:
    """Draw trials and front: .svg or .png; .html is the report."""
    from archdsl.cli.commands.study import plot

    return plot(folder, out)


@study.command("report")
def study_report(folder: Folder, out: Annotated[str, typer.Option("-o", "--out", metavar="FILE.html", show_default=False, help="Where to write it.")]
                 ) -> int:
    """Write one HTML page that needs no network: fronts to click, trials across knobs, which knobs matter, pictures and differences."""
    from archdsl.cli.commands.study import report

    return report(folder, out)


@study.command("export")
def study_export(folder: Folder, out: Written) -> int:
    """Write all trials: .csv, .json, or .db for Optuna and its dashboard."""
    from archdsl.cli.commands.study import export

    return export(folder, out)


@study.command("compare")
def study_compare(folders: Annotated[list[str], typer.Argument(metavar="STUDY…", help="Studies with the same objectives.", show_default=False)],
                  json: Json = False) -> int:
    """Compare studies: best values, hypervolume in a common box, how much of the others' fronts each covers."""
    from archdsl.cli.commands.study import compare

    return compare(folders, json)


@app.command()
def new(name: Annotated[str, typer.Argument(metavar="NAME", help="NAME.arch is written; a folder may stand before it.", show_default=False)]) -> int:
    """Write a small spec to start from."""
    from archdsl.cli.commands.new import new

    return new(name)
